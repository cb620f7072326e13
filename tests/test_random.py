"""Keys and draws: exact properties, and the same bits on every backend. `test_random_statistics` looks at chance."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import vmap
from torch.fx.experimental.proxy_tensor import make_fx

from ftrainer.functional import random
from ftrainer.functional.jit import jit

EXACT: dict[str, Callable[[Tensor, int], Tensor]] = {
    "bits": lambda key, n: random.bits(key, (n,)),
    "uniform32": lambda key, n: random.uniform(key, (n,)),
    "uniform64": lambda key, n: random.uniform(key, (n,), torch.float64),
    "uniform_bf16": lambda key, n: random.uniform(key, (n,), torch.bfloat16),
    "bernoulli": lambda key, n: random.bernoulli(key, 0.3, (n,)),
    "bernoulli_tensor": lambda key, n: random.bernoulli(key, torch.tensor(0.3), (n,)),
    "randint": lambda key, n: random.randint(key, (n,), -5, 1000),
    "randint_wide": lambda key, n: random.randint(key, (n,), -(2**62), 2**62 + 5),
    "permutation": lambda key, n: random.permutation(key, n),
    "fold_in": lambda key, n: random.fold_in(key, torch.arange(n)),
    "split": lambda key, n: random.split(key, n),
    "constant_key": lambda key, n: random.bits(random.key(7), (n,)) ^ key,
    "constant_fold": lambda key, n: random.fold_in(random.key(3), torch.arange(n)) ^ key,
}
CLOSE: dict[str, Callable[[Tensor, int], Tensor]] = {
    "normal32": lambda key, n: random.normal(key, (n,)),
    "normal64": lambda key, n: random.normal(key, (n,), torch.float64),
    "exponential": lambda key, n: random.exponential(key, (n,)),
}
ALONE = ("bits", "randint_wide", "constant_fold", *CLOSE)
"""Draws of a single number are looked at too: compiled code has no vectors for them."""
integers = st.integers(-(2**63), 2**63 - 1)


def draw_all(key: Tensor) -> dict[str, Tensor]:
    draws = {f"{name}/37": draw(key, 37) for name, draw in (EXACT | CLOSE).items()}
    return draws | {f"{name}/1": (EXACT | CLOSE)[name](key, 1) for name in ALONE}


def draw_some(key: Tensor) -> dict[str, Tensor]:
    return {f"{name}/{n}": (EXACT | CLOSE)[name](key, n) for name in ALONE for n in (1, 37)}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        if name.partition("/")[0] in EXACT:
            assert torch.equal(found[name], value), name
        else:
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5, msg=name)


def member(drawn: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    return {name: value[index] for name, value in drawn.items()}


def test_member_of_a_vmap_equals_solo_bitwise() -> None:
    keys = random.split(random.key(0), 3)
    drawn = vmap(draw_all)(keys)
    for index, key in enumerate(keys):
        solo = draw_all(key)
        assert all(torch.equal(drawn[name][index], value) for name, value in solo.items())


def test_trace_gives_the_same_bits() -> None:
    key, other = random.split(random.key(1))
    traced = make_fx(draw_all, tracing_mode="fake")(key)
    for at in (key, other):
        assert all(torch.equal(a, b) for a, b in zip(traced(at).values(), draw_all(at).values(), strict=True))


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_inductor_gives_the_same_bits_and_members_their_solo_normals() -> None:
    keys = random.split(random.key(2), 3)
    compiled = jit(lambda key, keys: (draw_some(key), vmap(draw_all)(keys)), backend="inductor")
    solo, members = compiled(keys[1].clone(), keys)
    assert_same(solo, draw_some(keys[1]))
    for index, key in enumerate(keys):
        assert_same(member(members, index), draw_all(key))
    for name, value in solo.items():
        assert torch.equal(members[name][1], value), name


def test_draws_stay_inside_a_fake_mode() -> None:
    traced = make_fx(lambda seed: random.normal(random.key(seed), (2,)), tracing_mode="fake")(torch.tensor(3))
    assert torch.equal(traced(torch.tensor(4)), random.normal(random.key(4), (2,)))


@given(seed=integers, data=integers)
def test_numbers_and_tensors_make_the_same_keys(seed: int, data: int) -> None:
    root = random.key(seed)
    assert root.dtype == torch.int64
    assert root.shape == ()
    assert torch.equal(root, random.key(torch.tensor(seed)))
    assert torch.equal(random.fold_in(root, data), random.fold_in(root, torch.tensor(data)))


@given(seed=integers, first=integers, second=integers)
def test_folding_is_one_to_one_and_ordered(seed: int, first: int, second: int) -> None:
    root = random.key(seed)
    a, b = random.fold_in(root, first), random.fold_in(root, second)
    assert bool(a == b) == (first == second)
    assert bool(random.fold_in(a, second) == random.fold_in(b, first)) == (first == second)


def test_no_key_is_degenerate() -> None:
    raw = torch.tensor([0, 1, -1, 2, 2**62, -(2**63)])
    for drawn in vmap(lambda key: random.uniform(key, (4096,), torch.float64))(raw):
        assert abs(drawn.mean().item() - 0.5) < 5 / math.sqrt(12 * 4096)


def test_split_differs_from_fold_in() -> None:
    root = random.key(0)
    folded = random.fold_in(root, torch.arange(64))
    assert torch.cat([folded, random.split(root, 64), root[None]]).unique().numel() == 129


@pytest.mark.parametrize(
    ("dtype", "n_bits"), [(torch.float64, 53), (torch.float32, 24), (torch.float16, 11), (torch.bfloat16, 8)]
)
def test_uniform_is_a_multiple_of_its_last_bit_and_below_one(dtype: torch.dtype, n_bits: int) -> None:
    drawn = random.uniform(random.key(5), (100_000,), dtype)
    assert drawn.dtype == dtype
    scaled = drawn.double() * 2.0**n_bits
    assert torch.equal(scaled, scaled.round())
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert scaled.long().bitwise_and(1).any()


def test_shapes_and_empty_draws() -> None:
    root = random.key(0)
    for shape in ((), (0,), (2, 0, 3), (2, 3), torch.Size([4])):
        for draw in (random.uniform, random.normal, random.exponential, random.bits):
            assert draw(root, shape).shape == torch.Size(shape)
        assert random.bernoulli(root, 0.5, shape).shape == torch.Size(shape)
    assert random.permutation(root, 0).shape == (0,)


def test_lone_normal_is_the_first_of_two() -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert torch.equal(random.normal(random.key(9), (), dtype), random.normal(random.key(9), (2,), dtype)[0])


def test_bernoulli_takes_a_probability_per_element() -> None:
    p = torch.tensor([0.0, 1.0, 0.5])
    drawn = random.bernoulli(random.key(0), p, (1000, 3))
    assert not drawn[:, 0].any()
    assert drawn[:, 1].all()
    assert 400 < drawn[:, 2].sum() < 600


def test_bernoulli_by_number_equals_by_tensor() -> None:
    by_number = random.bernoulli(random.key(0), 0.3, (1000,))
    assert torch.equal(by_number, random.bernoulli(random.key(0), torch.tensor(0.3, dtype=torch.float64), (1000,)))


@given(low=st.integers(-(2**62), 2**62), span=st.integers(1, 2**62))
def test_randint_is_exactly_the_high_product(low: int, span: int) -> None:
    words = [word % 2**64 for word in random.bits(random.key(3), (8,)).tolist()]
    assert random.randint(random.key(3), (8,), low, low + span).tolist() == [
        low + (word * span >> 64) for word in words
    ]


def test_randint_refuses_an_empty_range() -> None:
    with pytest.raises(ValueError, match="randint needs low < high; found low=3, high=3"):
        random.randint(random.key(0), (2,), 3, 3)


def test_permutation_holds_every_index_once() -> None:
    for n in (1, 2, 100):
        assert torch.equal(random.permutation(random.key(n), n).sort().values, torch.arange(n))


def test_exponential_is_above_zero() -> None:
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        assert random.exponential(random.key(0), (100_000,), dtype).min() > 0
