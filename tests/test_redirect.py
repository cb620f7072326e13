"""Draws of unmodified torch code come from a key, mean what torch means by them, and leave torch as it was."""

from __future__ import annotations

import math
import random as python_random
import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn, rand
from torch.func import grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from ftrainer.deps import dynamo
from ftrainer.deps import make_fx as make_fx_api
from ftrainer.functional.graph import opaque
from ftrainer.functional.jit import jit
from ftrainer.functional.random import key, split
from ftrainer.functional.redirect import DrawError, nondeterministic_ops, redirect

X = torch.linspace(-2, 2, 2 * 6 * 8).reshape(2, 6, 8)
IMAGES = torch.linspace(-2, 2, 2 * 6 * 16).reshape(2, 6, 4, 4)
P = torch.linspace(0.1, 0.9, 48).reshape(6, 8)
Q = torch.sin(torch.arange(2 * 4 * 6 * 8.0)).reshape(2, 4, 6, 8)


def layer(module: nn.Module) -> Callable[[], Tensor]:
    for parameter in module.parameters():
        nn.init.constant_(parameter, 0.1) if parameter.dim() == 1 else nn.init.eye_(parameter)
    return lambda: module(X)


DRAWS: dict[str, Callable[[], Tensor]] = {
    "F.dropout": lambda: F.dropout(X, 0.3),
    "F.dropout1d": lambda: F.dropout1d(X, 0.3),
    "F.dropout2d": lambda: F.dropout2d(IMAGES, 0.3),
    "F.dropout3d": lambda: F.dropout3d(IMAGES[..., None], 0.3),
    "F.alpha_dropout": lambda: F.alpha_dropout(X, 0.3, training=True),
    "F.feature_alpha_dropout": lambda: F.feature_alpha_dropout(IMAGES, 0.3, training=True),
    "F.scaled_dot_product_attention": lambda: F.scaled_dot_product_attention(Q, Q, Q, dropout_p=0.3),
    "F.rrelu": lambda: F.rrelu(X, training=True),
    "F.gumbel_softmax": lambda: F.gumbel_softmax(X),
    "F.multi_head_attention_forward": layer(nn.TransformerEncoderLayer(8, 2, 8, dropout=0.3, batch_first=True)),
    "nn.Dropout": layer(nn.Sequential(nn.Dropout(0.3), nn.Dropout1d(0.2), nn.AlphaDropout(0.1))),
    "torch.dropout": lambda: torch.dropout(X, 0.3, True),
    "torch.feature_dropout": lambda: torch.feature_dropout(IMAGES, 0.3, True),
    "torch.alpha_dropout": lambda: torch.alpha_dropout(X, 0.3, True),
    "torch.native_dropout": lambda: torch.native_dropout(X, 0.3, True)[0],
    "torch.rand": lambda: torch.rand(6, 8),
    "torch.randn": lambda: torch.randn((6, 8)),
    "torch.rand_like": lambda: torch.rand_like(X),
    "torch.randn_like": lambda: torch.randn_like(X, dtype=torch.float64),
    "torch.randint": lambda: torch.randint(1000, (8,)),
    "torch.randint_like": lambda: torch.randint_like(X, -1000, 1000),
    "torch.randperm": lambda: torch.randperm(50),
    "torch.bernoulli": lambda: torch.bernoulli(P),
    "torch.normal": lambda: torch.normal(X, 0.1),
    "torch.multinomial": lambda: torch.multinomial(P, 5),
    "Tensor.multinomial": lambda: P.multinomial(9, replacement=True),
    "Tensor.bernoulli": lambda: P.bernoulli(),
}
IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "Tensor.uniform_": lambda x: x.uniform_(-1, 3),
    "Tensor.normal_": lambda x: x.normal_(2, 3),
    "Tensor.exponential_": lambda x: x.exponential_(0.5),
    "Tensor.bernoulli_": lambda x: x.bernoulli_(0.3),
    "Tensor.cauchy_": lambda x: x.cauchy_(1, 2),
    "Tensor.log_normal_": lambda x: x.log_normal_(0.5, 0.25),
    "Tensor.geometric_": lambda x: x.geometric_(0.3),
    "Tensor.random_": lambda x: x.random_(5, 50),
}
EVERY = DRAWS | {name: lambda fill=fill: fill(torch.zeros(6, 8)) for name, fill in IN_PLACE.items()}


@pytest.fixture(params=EVERY)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def under(root: Tensor, draw: Callable[[], Tensor]) -> Tensor:
    with redirect(root):
        return draw()


def test_a_draw_is_a_function_of_the_key_and_leaves_torch_generator_alone(name: str) -> None:
    before = torch.get_rng_state()
    first, again, other = (under(key(seed), EVERY[name]) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_two_draws_of_one_block_differ(name: str) -> None:
    with redirect(key(0)):
        assert not torch.equal(EVERY[name](), EVERY[name]())


def test_trace_holds_no_draw_and_replays_eager_values(name: str) -> None:
    traced = make_fx(lambda root: under(root, EVERY[name]), tracing_mode="fake", _allow_non_fake_inputs=True)(key(0))
    assert nondeterministic_ops(traced) == []
    torch.testing.assert_close(traced(key(5)), under(key(5), EVERY[name]))


def test_without_a_key_a_draw_is_an_error(name: str) -> None:
    with redirect(None), pytest.raises(DrawError, match=r"draws random numbers where none may be drawn; in evaluation"):
        EVERY[name]()


def test_torch_keeps_shape_and_dtype(name: str) -> None:
    ours, torchs = under(key(0), EVERY[name]), EVERY[name]()
    assert (ours.shape, ours.dtype, ours.device) == (torchs.shape, torchs.dtype, torchs.device)


@pytest.mark.parametrize("name", DRAWS)
def test_member_of_a_vmap_equals_solo(name: str) -> None:
    keys = split(key(3), 3)
    members = vmap(lambda root: under(root, DRAWS[name]))(keys)
    for member, root in zip(members, keys, strict=True):
        assert torch.equal(member, under(root, DRAWS[name]))


def test_the_error_names_the_function() -> None:
    for wanted, draw in (("F.dropout ", lambda: F.dropout(X)), ("torch.rand ", lambda: torch.rand(2))):
        with redirect(None), pytest.raises(DrawError, match=wanted):
            draw()
    with redirect(None), pytest.raises(DrawError, match=r"Tensor\.uniform_ "):
        torch.zeros(2).uniform_()


# What dropping means.


def test_survivors_equal_torch_and_their_share_is_right() -> None:
    x = torch.randn(200, 500, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        dropped, theirs = under(key(0), lambda d=dtype: F.dropout(x.to(d), 0.3)), F.dropout(x.to(dtype), 0.3)
        assert dropped.dtype == dtype
        both = (dropped != 0) & (theirs != 0)
        assert torch.equal(dropped[both], theirs[both])
        assert abs((dropped == 0).double().mean().item() - 0.3) < 5 * (0.21 / x.numel()) ** 0.5


@pytest.mark.parametrize("name", ["dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout"])
def test_edges_of_p_and_training(name: str) -> None:
    x = {"dropout2d": IMAGES, "dropout3d": IMAGES[..., None]}.get(name, X)
    with redirect(key(0)):
        drop = getattr(F, name)
        assert torch.equal(drop(x, 0.0, True), x)
        assert torch.equal(drop(x, 0.5, False), x)
        assert torch.equal(drop(x, 1.0, True), x * 0)
        assert drop(x[:0], 0.5, True).shape == x[:0].shape
        for p in (-0.1, 1.1):
            with pytest.raises(ValueError, match="dropout probability has to be between 0 and 1"):
                drop(x, p, True)
    with redirect(None):
        assert torch.equal(nn.Sequential(nn.Dropout(0.5), nn.AlphaDropout(0.5)).eval()(x), x)


@pytest.mark.parametrize("name", ["dropout", "dropout1d", "alpha_dropout", "rrelu"])
def test_in_place_writes_where_torch_writes(name: str) -> None:
    x, expected = X.clone(), under(key(0), lambda: getattr(F, name)(X, training=True))
    assert under(key(0), lambda: getattr(F, name)(x, training=True, inplace=True)) is x
    assert torch.equal(x, expected)


def test_channels_are_dropped_whole() -> None:
    for name, x in (("dropout1d", X), ("dropout2d", IMAGES), ("dropout3d", IMAGES[..., None])):
        ones = torch.ones_like(x).repeat(50, *(1 for _ in x.shape[1:]))
        dropped = under(key(0), lambda n=name, o=ones: getattr(F, n)(o, 0.5)).flatten(2)
        assert torch.equal(dropped, dropped[..., :1].expand_as(dropped))
        assert 0.4 < (dropped[..., 0] == 0).double().mean() < 0.6


def test_dropout1d_takes_an_unbatched_input() -> None:
    dropped = under(key(0), lambda: F.dropout1d(torch.ones(400, 3), 0.5))
    assert dropped.unique().tolist() == [0.0, 2.0]
    assert torch.equal(dropped, dropped[:, :1].expand(400, 3))


def test_alpha_dropout_gives_torch_values() -> None:
    ones = torch.ones(10_000, dtype=torch.float64)
    ours = under(key(0), lambda: F.alpha_dropout(ones, 0.3, training=True))
    theirs = F.alpha_dropout(ones, 0.3, training=True)
    torch.testing.assert_close(ours.unique(), theirs.unique())
    assert abs(ours.mean() - theirs.mean()) < 0.05


def test_gradient_flows_through_survivors_alone() -> None:
    def loss(x: Tensor) -> Tensor:
        with redirect(key(0)):
            return F.dropout(x, 0.5).sum()

    assert torch.equal(grad(loss)(X), under(key(0), lambda: F.dropout(torch.ones_like(X), 0.5)))


@pytest.mark.parametrize("mask", ["none", "bool", "float", "causal"])
def test_attention_drops_weights_of_torch_attention(mask: str) -> None:
    """The mean over 400 draws is torch's result without dropout."""
    options: dict[str, object] = {
        "none": {},
        "bool": {"attn_mask": torch.eye(6, dtype=torch.bool) | (torch.arange(6) < 3)},
        "float": {"attn_mask": torch.linspace(-1, 1, 36).reshape(6, 6)},
        "causal": {"is_causal": True},
    }[mask]
    attend = lambda p: F.scaled_dot_product_attention(Q, Q, Q, dropout_p=p, scale=0.7, **options)  # noqa: E731
    mean = vmap(lambda root: under(root, lambda: attend(0.2)))(split(key(0), 400)).mean(0)
    torch.testing.assert_close(mean, attend(0.0), rtol=0, atol=0.1)
    assert torch.equal(under(None, lambda: attend(0.0)), attend(0.0))


@pytest.mark.parametrize("masked", [False, -torch.inf])
def test_attention_of_a_row_that_sees_nothing_is_zero_as_torchs(masked: Any) -> None:
    mask = torch.full((6, 6), True if masked is False else 0.0).tril()
    mask[2] = masked

    def attended(x: Tensor) -> Tensor:
        return under(key(0), lambda: F.scaled_dot_product_attention(x, x, x, attn_mask=mask, dropout_p=0.2))

    assert (attended(Q)[..., 2, :] == 0).all()
    assert grad(lambda x: attended(x).sum())(Q).isfinite().all()
    with pytest.raises(ValueError, match="scaled_dot_product_attention takes attn_mask or is_causal, not both"):
        under(key(0), lambda: F.scaled_dot_product_attention(Q, Q, Q, mask, 0.2, True))


def test_grouped_attention() -> None:
    kv = Q[:, :2]
    ours = under(key(0), lambda: F.scaled_dot_product_attention(Q, kv, kv, dropout_p=1e-9, enable_gqa=True))
    torch.testing.assert_close(ours, F.scaled_dot_product_attention(Q, kv, kv, enable_gqa=True))


def test_hard_gumbel_softmax_is_one_hot_with_a_gradient() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0]).expand(4000, 3)
    hard = under(key(0), lambda: F.gumbel_softmax(logits, hard=True))
    torch.testing.assert_close(hard.mean(0), logits[0].softmax(-1), rtol=0, atol=0.03)
    pull = grad(lambda x: under(key(0), lambda: F.gumbel_softmax(x, hard=True)[:, 0].sum()))(logits)
    assert pull.abs().sum() > 0


def test_native_dropout_returns_the_mask() -> None:
    with redirect(key(0)):
        dropped, mask = torch.native_dropout(torch.ones(1000), 0.5, True)
    assert torch.equal(dropped, mask * 2.0)
    with redirect(None):
        assert torch.equal(torch.native_dropout(X, 0.5, False)[0], X)


# What sampling means.


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_draws_have_torch_distribution(name: str) -> None:
    """Kolmogorov and Smirnov on two samples of 40,000; 2.8 is a chance of 3e-7, fewer where values tie."""
    n = 40_000
    theirs = IN_PLACE[name](torch.zeros(n, dtype=torch.float64)).sort().values
    ours = under(key(1), lambda: IN_PLACE[name](torch.zeros(n, dtype=torch.float64))).sort().values
    points = torch.cat([ours, theirs])
    distance = (
        (torch.searchsorted(ours, points, right=True) - torch.searchsorted(theirs, points, right=True)).abs().max()
    )
    assert distance / n * (n / 2) ** 0.5 < 2.8


def test_in_place_draws_keep_the_tensor() -> None:
    for fill in IN_PLACE.values():
        x = torch.zeros(3)
        with redirect(key(0)):
            assert fill(x) is x


def test_random_spans_what_the_dtype_counts() -> None:
    with redirect(key(0)):
        assert torch.zeros(1000, dtype=torch.uint8).random_().max() > 250
        assert torch.zeros(1000, dtype=torch.bool).random_().double().mean() > 0.4
        assert torch.zeros(1000).random_().max() > 2**23
        assert torch.zeros(1000, dtype=torch.int64).random_().max() > 2**61
        assert torch.zeros(1000).random_(7).max() == 6


def test_factories_take_every_form_of_their_arguments() -> None:
    with redirect(key(0)):
        assert torch.rand(2, 3).shape == torch.rand((2, 3)).shape == torch.rand(size=(2, 3)).shape == (2, 3)
        assert torch.rand(torch.Size([4])).shape == (4,)
        assert torch.rand(()).shape == torch.randn([]).shape == ()
        assert torch.rand(2, dtype=torch.float64, requires_grad=True).requires_grad
        assert torch.randn(2, dtype=torch.complex64).is_complex()
        assert torch.randint(3, (2,)).shape == torch.randint(0, 3, (2,)).shape == torch.randint(3, size=(2,)).shape
        assert torch.randint(low=5, high=6, size=(2,)).tolist() == [5, 5]
        assert torch.randint_like(X, 1).sum() == 0
        assert torch.normal(5.0, 0.0, (2,)).tolist() == [5.0, 5.0]
        assert torch.normal(torch.tensor([1.0, 2.0]), torch.zeros(2)).tolist() == [1.0, 2.0]
        assert torch.normal(3.0, torch.zeros(2)).tolist() == [3.0, 3.0]
        assert torch.zeros(2).uniform_(to=0.0).tolist() == [0.0, 0.0]
        out = torch.empty(3)
        assert torch.rand(3, out=out) is out
        assert torch.randperm(5, dtype=torch.int32).sort().values.tolist() == [0, 1, 2, 3, 4]
        assert torch.bernoulli(X, 1.0).unique().tolist() == [1.0]


def test_complex_normal_has_unit_variance() -> None:
    drawn = under(key(0), lambda: torch.randn(20_000, dtype=torch.complex128))
    assert abs(drawn.abs().square().mean() - 1) < 0.05


def test_random_weights_come_from_the_key() -> None:
    a, b = (under(key(0), lambda: nn.Linear(3, 4).weight) for _ in range(2))
    assert torch.equal(a, b)


def test_multinomial_follows_its_weights() -> None:
    weights = torch.tensor([0.0, 1.0, 3.0])
    drawn = under(key(0), lambda: weights.multinomial(8000, replacement=True)).bincount(minlength=3)
    assert drawn[0] == 0
    assert abs(drawn[2] / 8000 - 0.75) < 0.03
    assert under(key(0), lambda: weights.expand(500, 3).multinomial(2)).sort().values.unique(dim=0).tolist() == [[1, 2]]


# What cannot be redirected.


FLOATS, INTEGERS = torch.ones(3), torch.ones(3, dtype=torch.int64)
REFUSED: dict[str, Callable[[], Any]] = {
    "torch.normal expects std >= 0, but found std=-1": lambda: torch.normal(0.0, -1.0, (3,)),
    "torch.normal expects std >= 0, but found std=-2": lambda: torch.normal(FLOATS, -2.0),
    "torch.normal expects std >= 0, but found std=nan": lambda: torch.normal(FLOATS, std=math.nan),
    "Tensor.normal_ expects std >= 0, but found std=-1": lambda: FLOATS.clone().normal_(0, -1),
    "Tensor.normal_ expects a floating-point tensor, but found torch.int64": lambda: INTEGERS.clone().normal_(),
    "Tensor.uniform_ expects from <= to, but found from=2, to=1": lambda: FLOATS.clone().uniform_(2, 1),
    "Tensor.log_normal_ expects std > 0, but found std=0": lambda: FLOATS.clone().log_normal_(1, 0),
    "Tensor.exponential_ expects lambd > 0, but found lambd=0": lambda: FLOATS.clone().exponential_(0),
    "Tensor.geometric_ expects p in (0, 1), but found p=1": lambda: FLOATS.clone().geometric_(1),
    "Tensor.cauchy_ expects sigma > 0, but found sigma=-1": lambda: FLOATS.clone().cauchy_(0, -1),
    "Tensor.bernoulli_ expects p in [0, 1], but found p=2": lambda: FLOATS.clone().bernoulli_(2.0),
    "Tensor.bernoulli expects p in [0, 1], but found p=-0.5": lambda: FLOATS.bernoulli(-0.5),
    "torch.bernoulli expects p in [0, 1], but found p=nan": lambda: torch.bernoulli(FLOATS, math.nan),
    "torch.multinomial expects num_samples > 0, but found num_samples=0": lambda: torch.multinomial(FLOATS, 0),
    "torch.multinomial expects at most 3 samples without replacement": lambda: torch.multinomial(FLOATS, 4),
    "torch.multinomial expects weights of 1 or 2 dimensions": lambda: torch.multinomial(torch.ones(2, 2, 2), 1),
    "Tensor.multinomial expects a floating-point tensor": lambda: INTEGERS.multinomial(1),
}


@pytest.mark.parametrize("message", REFUSED)
def test_numbers_that_torch_refuses_are_refused(message: str) -> None:
    with pytest.raises((RuntimeError, NotImplementedError)):
        REFUSED[message]()
    with redirect(key(0)), pytest.raises(RuntimeError, match=re.escape(message)):
        REFUSED[message]()


def test_what_only_a_tensors_value_would_tell_is_as_documented() -> None:
    weights = torch.tensor([-1.0, 0.0, 2.0])
    with redirect(key(0)):
        assert torch.equal(torch.bernoulli(torch.tensor([-1.0, 2.0])), torch.tensor([0.0, 1.0]))
        assert torch.multinomial(weights, 3).tolist() == [2, 1, 0]
        assert set(torch.multinomial(weights, 50, replacement=True).tolist()) == {2}
        assert torch.multinomial(torch.zeros(3), 1).shape == (1,)
        spread = torch.normal(torch.zeros(4000), torch.full((4000,), -2.0)).std()
    assert abs(float(spread) - 2) < 0.2


@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU, nn.RNN, lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k)])
def test_dropout_inside_a_fused_rnn_is_refused(make: Callable[..., nn.Module]) -> None:
    module = make(4, 4, num_layers=2, dropout=0.5)
    inputs = (torch.ones(3, 1, 4), nn.utils.rnn.pack_padded_sequence(torch.ones(3, 1, 4), torch.tensor([3])))
    wanted = (
        r"nn\.(LSTM|GRU|RNN)\(num_layers=2, dropout=0\.5\) drops units inside one kernel.*stack nn\.\w+ of one layer"
    )
    for x in inputs:
        with redirect(key(0)), pytest.raises(DrawError, match=wanted):
            module.train()(x)
        free = make(4, 4, num_layers=2).train()
        with redirect(None):
            module.eval()(x)
            free(x)


def test_draws_without_a_keyed_form_are_refused() -> None:
    rates = torch.ones(3)
    draws = {
        "poisson": lambda: torch.poisson(rates),
        "binomial": lambda: torch.binomial(rates, rates),
        "_standard_gamma": lambda: torch.distributions.Gamma(rates, rates).sample(),
        "_sample_dirichlet": lambda: torch.distributions.Dirichlet(rates).sample(),
    }
    for name, draw in draws.items():
        with redirect(key(0)), pytest.raises(DrawError, match=rf"torch\.{name} cannot draw from a key; build the draw"):
            draw()


def test_a_generator_is_refused() -> None:
    with redirect(key(0)), pytest.raises(DrawError, match=r"torch\.rand\(generator=…\) keeps hidden state"):
        torch.rand(2, generator=torch.Generator())


def test_what_evades_is_found_in_the_graph() -> None:
    def noisy(root: Tensor) -> Tensor:
        with redirect(root):
            return rand(2) + root

    (found,) = nondeterministic_ops(make_fx(noisy, tracing_mode="fake")(key(0)))
    assert "rand" in found


def test_the_found_line_is_the_users() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x + rand(2))

    (found,) = nondeterministic_ops(make_fx(Noisy(), record_stack_traces=True)(torch.ones(2)))
    assert re.search(r"aten\.rand.*test_redirect\.py.*F\.relu\(x \+ rand\(2\)\)", found)


def test_fused_attention_without_dropout_is_no_draw() -> None:
    traced = make_fx(lambda q: F.scaled_dot_product_attention(q, q, q), tracing_mode="fake")(Q)
    assert nondeterministic_ops(traced) == []


# Leaving torch as it was.


def watched() -> list[object]:
    names = ("uniform_", "normal_", "bernoulli")
    return [torch.rand, torch.normal, F.dropout, F.scaled_dot_product_attention, *(getattr(Tensor, n) for n in names)]


def test_torch_is_as_before_even_after_an_error() -> None:
    before, own = watched(), set(vars(Tensor))

    def fail() -> None:
        with redirect(key(0)), redirect(None):
            assert torch.rand is not before[0]
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert all(a is b for a, b in zip(watched(), before, strict=True))
    assert set(vars(Tensor)) == own


def test_blocks_nest() -> None:
    with redirect(key(0)):
        first = torch.rand(3)
        with redirect(key(1)):
            inner = torch.rand(3)
        second = torch.rand(3)
    assert torch.equal(inner, under(key(1), lambda: torch.rand(3)))
    assert torch.equal(torch.stack([first, second]), under(key(0), lambda: torch.stack([torch.rand(3), torch.rand(3)])))


def test_other_threads_draw_as_ever() -> None:
    inside, done, seen = threading.Event(), threading.Event(), []

    def other() -> None:
        inside.wait()
        generator = torch.Generator().manual_seed(7)
        seen.append(torch.rand(3, generator=generator))
        with redirect(key(9)):
            seen.append(torch.rand(3))
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with redirect(key(0)):
        first = torch.rand(3)
        inside.set()
        done.wait()
        assert not torch.equal(torch.rand(3), first)
    thread.join()
    assert torch.equal(seen[0], torch.rand(3, generator=torch.Generator().manual_seed(7)))
    assert torch.equal(seen[1], under(key(9), lambda: torch.rand(3)))


def test_code_that_is_told_of_its_capture_draws_from_the_key() -> None:
    with make_fx_api.declared():
        assert torch.compiler.is_compiling()
        drawn = under(key(0), lambda: torch.rand(3))
    assert torch.equal(drawn, under(key(0), lambda: torch.rand(3)))


@pytest.mark.parametrize(
    ("named", "draw"),
    [
        ("numpy.random.normal", lambda: np.random.normal(size=3)),
        ("numpy.random.choice", lambda: np.random.choice([1, 2])),
        ("numpy.random.beta", lambda: np.random.beta(0.2, 0.2)),
        ("random.random", lambda: python_random.random()),
        ("random.betavariate", lambda: python_random.betavariate(0.2, 0.2)),
        ("random.shuffle", lambda: python_random.shuffle([1, 2])),
    ],
)
def test_draws_of_numpy_and_python_are_refused_and_not_baked_in(named: str, draw: Callable[[], Any]) -> None:
    with pytest.raises(DrawError, match=f"{re.escape(named)} cannot draw from a key; build the draw from torch.rand"):
        under(key(0), draw)
    with pytest.raises(DrawError, match=f"{re.escape(named)} cannot draw from a key"):
        jit(lambda root: under(root, lambda: torch.ones(1) * float(np.sum(draw()))), backend="trace")(key(0))
    draw()


def test_values_are_there_for_numpy_inside_a_gradient() -> None:
    def loss(x: Tensor) -> Tensor:
        with redirect(key(0)):
            assert (2 * x).detach().numpy().tolist() == [2.0, 4.0]
            assert (2 * x).numpy(force=True).tolist() == [2.0, 4.0]
            with pytest.raises(RuntimeError, match=r"Can't call numpy\(\) on Tensor that requires grad"):
                x.numpy()
        return (x * float(np.sum(x.detach().tolist()))).sum()

    assert grad(loss)(torch.tensor([1.0, 2.0])).tolist() == [3.0, 3.0]
    assert "numpy" not in vars(Tensor)


class Drawing(nn.Module):
    """A module that draws in every way that Dynamo captures; `Tensor.random_` it refuses."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: x * draw() for name, draw in EVERY.items() if name != "Tensor.random_"}


def test_what_dynamo_captures_draws_from_the_key_of_its_caller() -> None:
    kept: dict[Any, opaque.Graph] = {}
    module, one = Drawing(), torch.ones((), dtype=torch.int64)
    with dynamo.asked_for() as refusals:
        for seed in (4, 5):
            with redirect(key(seed)):
                ours = opaque.call(module, {}, (one,), {}, kept)
            with redirect(key(seed)):
                theirs = module(one)
            assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    assert not refusals
    assert len(kept) == 1


def test_distributions_are_captured_and_draw_from_the_key() -> None:
    def drawn(root: Tensor, mean: Tensor) -> Tensor:
        return under(root, lambda: torch.distributions.Normal(mean, mean.exp()).rsample())

    mean, checked = torch.linspace(-1, 1, 5), torch.distributions.Distribution._validate_args
    assert torch.equal(jit(drawn, backend="trace")(key(0), mean), drawn(key(0), mean))
    assert torch.distributions.Distribution._validate_args == checked
