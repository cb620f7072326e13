"""`jit`: traces once, never bakes a value in, says where tracing fails."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from random import Random
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from numpy.random import rand
from torch import Tensor, nn
from torch.func import functional_call

from ftrainer.components.optim.sgd import SGD
from ftrainer.deps import inductor
from ftrainer.functional import pytree
from ftrainer.functional.graph.backends import choose_backend
from ftrainer.functional.graph.capture import TraceError
from ftrainer.functional.jit import jit
from ftrainer.functional.state import Program
from tests.test_step import assert_trees_equal, update
from tests.toys import Linear, linear_batch, linear_state


def test_eager_equals_traced_bitwise_over_many_steps() -> None:
    traced = jit(update, backend="trace")
    a = b = linear_state(Linear(tau=0.1), clip_norm=0.5)
    for index in range(30):
        a, metrics_a = update(a, linear_batch(index))
        b, metrics_b = traced(b, linear_batch(index))
        assert_trees_equal(metrics_a, metrics_b)
    assert_trees_equal(a, b)
    assert traced.traces == 1


def test_arguments_are_unchanged() -> None:
    state, batch = linear_state(), linear_batch(0)
    before = pytree.map(torch.clone, (state, batch))
    jit(update, backend="trace")(state, batch)
    assert_trees_equal((state, batch), before)


def test_donated_arguments_are_overwritten_and_handed_back() -> None:
    state, batch = linear_state(), linear_batch(0)
    expected, _ = update(state, batch)
    new, metrics = jit(update, backend="trace", donate=[0])(state, batch)
    assert new is state
    assert_trees_equal(state, expected)
    assert set(metrics) == {"loss", "grad_norm", "lr", "skipped"}


@pytest.mark.parametrize("backend", ["eager", "trace"])
def test_donation_survives_leaves_that_trade_places(backend: str) -> None:
    def swap(state: dict[str, Tensor]) -> tuple[dict[str, Tensor]]:
        return ({"a": state["b"], "b": state["a"] + 1},)

    state = {"a": torch.tensor([1.0]), "b": torch.tensor([2.0])}
    jit(swap, backend=backend, donate=[0])(state)
    assert state == {"a": torch.tensor([2.0]), "b": torch.tensor([2.0])}


def test_what_the_step_does_not_read_does_not_retrace() -> None:
    traced, state = jit(update, backend="trace"), linear_state()
    traced(state, linear_batch(0))
    other = attrs.evolve(state, program=Program(learner=Linear(), run="another"))
    traced(attrs.evolve(other, program=other.program.step_part()), linear_batch(1))
    assert traced.traces == 1


def test_a_new_shape_or_component_retraces_and_says_what_changed(caplog: pytest.LogCaptureFixture) -> None:
    traced = jit(update, backend="trace")
    with caplog.at_level(logging.INFO, "ftrainer.jit"):
        traced(linear_state(), linear_batch(0, n=8))
        traced(linear_state(), linear_batch(0, n=5))
        traced(linear_state(Linear(optimizer=SGD(lr=0.1))), linear_batch(0, n=5))
    assert traced.traces == 3
    assert "float64[8, 3] on cpu became float64[5, 3] on cpu" in caplog.text
    assert "the structure or the components changed" in caplog.text


def test_a_branch_on_a_tensors_value_is_an_error_that_names_the_line() -> None:
    def branch(x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x

    with pytest.raises(TraceError, match=r"test_jit\.py:\d+: if x\.sum\(\) > 0:[\s\S]*torch\.where[\s\S]*eager"):
        jit(branch, backend="trace")(torch.ones(2))
    assert jit(branch, backend="eager")(torch.ones(2)).sum() == 2


def test_item_is_not_baked_in() -> None:
    scaled = jit(lambda x: x * x.sum().item(), backend="trace")
    assert scaled(torch.ones(2)).tolist() == [2, 2]
    assert scaled(torch.full((2,), 3.0)).tolist() == [18, 18]
    assert scaled.traces == 1


def test_a_layer_of_torch_that_cannot_be_traced_is_named_by_its_line() -> None:
    averaging = nn.BatchNorm1d(2, momentum=None)
    applied = jit(functools.partial(functional_call, averaging), backend="trace")
    with pytest.raises(TraceError, match=r"batchnorm\.py:\d+: exponential_average_factor = "):
        applied(dict(averaging.named_buffers()), torch.randn(4, 2))


def test_an_unkeyed_draw_is_refused() -> None:
    def noisy(x: Any) -> Any:
        return x + torch.rand(2)

    with pytest.raises(TraceError, match="draws random numbers that no key governs"):
        jit(noisy, backend="trace")(torch.zeros(2))


RNG = np.random.default_rng(0)


class Held(nn.Module):
    """Draws as `draw` says, from what it holds."""

    def __init__(self, draw: Callable[[Any], float], rng: Any = None):
        super().__init__()
        self.draw, self.rng = draw, rng

    def forward(self, x: Any) -> Any:
        return x * self.draw(self.rng)


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (Held(lambda rng: rng.random(), np.random.default_rng(1)), r"numpy\.random\.PCG64"),
        (Held(lambda rng: rng.rand(), np.random.RandomState(1)), r"numpy\.random\.MT19937"),
        (Held(lambda rng: rng.random(), Random(1)), r"random\.Random"),
        (Held(lambda _: RNG.random()), r"numpy\.random\.PCG64"),
        (Held(lambda _: rand()), r"numpy\.random\.MT19937"),
        (Held(functools.partial(lambda rng, _: rng.normal(), RNG)), r"numpy\.random\.PCG64"),
    ],
)
def test_a_generator_that_code_holds_is_refused_where_it_drew(module: nn.Module, kind: str) -> None:
    with pytest.raises(TraceError, match=rf"draws from a generator of its own \({kind}\).*\n.*compile: eager"):
        jit(module, backend="trace")(torch.ones(2))


def test_a_generator_that_does_not_draw_in_the_step_is_no_matter() -> None:
    module = Held(lambda rng: 2.0, RNG)
    assert jit(module, backend="trace")(torch.ones(2)).tolist() == [2, 2]


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="backend 'fast' is none of auto, eager, trace, inductor"):
        jit(update, backend="fast")


def test_code_that_asks_whether_it_is_captured_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    def guarded(x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling() and x.sum() > 0:
            return x
        return x.where(x.sum() > 0, -x)

    with caplog.at_level(logging.INFO, "ftrainer.jit"):
        assert jit(guarded, backend="trace")(-torch.ones(2)).tolist() == [1, 1]
    assert "is_compiling() true, since otherwise" in caplog.text
    assert not torch.compiler.is_compiling()


def test_strides_are_part_of_the_signature() -> None:
    rows = jit(lambda x: x.reshape(-1) * 1, backend="trace")
    x = torch.arange(6.0).reshape(2, 3)
    assert rows(x).tolist() == [0, 1, 2, 3, 4, 5]
    assert rows(x.t().contiguous().t()).tolist() == [0, 1, 2, 3, 4, 5]
    assert rows.traces == 2


def test_a_third_shape_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    double = jit(lambda x: 2 * x, backend="trace")
    for n in (4, 3):
        double(torch.ones(n))
    assert not [r for r in caplog.records if r.levelno == logging.WARNING]
    double(torch.ones(2))
    assert "met shape number 3 of the same inputs; pad or bucket" in caplog.text


def test_auto_follows_a_rule_that_it_states() -> None:
    few = choose_backend(5_000, 300_000, "cpu")
    assert few == ("trace", "5000 steps of this size would not repay compiling")
    missing = inductor.why_not("cpu")
    for steps, n_bytes in ((50_000, 300_000), (5_000, 13_000_000)):
        expected = ("trace", missing) if missing else ("inductor", f"{steps} steps of this size repay compiling")
        assert choose_backend(steps, n_bytes, "cpu") == expected


def test_python_constants_are_part_of_the_signature() -> None:
    scale = jit(lambda x, factor: x * factor, backend="trace")
    assert scale(torch.ones(1), 2).item() == 2
    assert scale(torch.ones(1), 3).item() == 3
    assert scale.traces == 2


def test_zeros_of_both_signs_are_two_constants_and_a_nan_is_one() -> None:
    signed = jit(lambda x, sign: x.copysign(torch.tensor(sign)), backend="trace")
    assert (signed(torch.ones(1), 0.0).item(), signed(torch.ones(1), -0.0).item()) == (1, -1)
    for _ in range(2):
        signed(torch.ones(1), float("nan"))
    assert signed.traces == 3


def test_a_third_constant_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    scale = jit(lambda x, factor: x * factor, backend="trace")
    for factor in (1.0, 2.0):
        scale(torch.ones(1), factor)
    assert not [r for r in caplog.records if r.levelno == logging.WARNING]
    scale(torch.ones(1), 3.0)
    assert "met constant number 3 of the same inputs; pass numbers that change as tensors" in caplog.text


@pytest.mark.parametrize("backend", ["eager", "trace"])
def test_what_is_no_tensor_is_handed_through(backend: str) -> None:
    def described(tree: dict[str, Any]) -> dict[str, Any]:
        return {**tree, "x": tree["x"] * 2, "none": None, "rate": 0.5, "empty": {}}

    step = jit(described, backend=backend)
    for _ in range(2):
        found = step({"x": torch.ones(1), "name": "a"})
        assert found == {"x": torch.full((1,), 2.0), "none": None, "rate": 0.5, "name": "a", "empty": {}}


def test_a_leaf_that_is_neither_tensor_nor_constant_is_refused() -> None:
    with pytest.raises(TypeError, match=r"cannot be traced: argument 0/n is a set; arguments are trees of tensors"):
        jit(lambda tree: tree["x"], backend="trace")({"x": torch.ones(1), "n": {1}})


def test_a_jitted_function_is_seen_through_by_whoever_traces_or_transforms_its_caller() -> None:
    inner = jit(lambda x: (x * x).sum(), backend="inductor")
    x = torch.arange(3.0)
    assert jit(lambda x: inner(x) + 1, backend="trace")(x) == 6
    assert torch.equal(torch.func.grad(inner)(x), 2 * x)
    assert torch.equal(torch.func.vmap(inner)(x.reshape(3, 1)), x * x)
    assert inner.traces == 0


def test_donated_tensors_share_no_memory() -> None:
    x = torch.ones(2)
    with pytest.raises(ValueError, match="donated tensors 0/a and 1 share memory"):
        jit(lambda a, b: (a, b), backend="trace", donate=[0, 1])({"a": x}, x.view(1, 2))
    with pytest.raises(ValueError, match=r"counts arguments from 0; found \(-1,\)"):
        jit(lambda a: (a,), donate=[-1])


def test_threads_trace_one_after_another() -> None:
    double, wrong = jit(lambda x: (2 * x).sum(), backend="trace"), list[object]()

    def run() -> None:
        for n in range(1, 6):
            if double(torch.ones(n)) != 2 * n:
                wrong.append(n)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (wrong, double.traces) == ([], 5)
