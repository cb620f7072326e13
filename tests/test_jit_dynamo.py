"""What `make_fx` cannot trace and Dynamo can capture trains; what neither can is refused; nothing is baked in."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ftrainer import build, fit, member
from ftrainer.components.losses.torch import TorchLoss
from ftrainer.deps import inductor
from ftrainer.functional import pytree
from ftrainer.functional.graph.capture import TraceError
from ftrainer.functional.jit import jit
from ftrainer.functional.random import key, split
from ftrainer.functional.redirect import redirect
from ftrainer.model import Model, from_module
from registry.spec import Deferred, component
from tests.models import REGISTRY
from tests.test_experiment import config

X = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
COMPILED = pytest.param(
    "inductor", marks=pytest.mark.skipif(inductor.why_not("cpu") is not None, reason="there is no C++ compiler")
)


class Scaled(nn.Module):
    """NumPy in every way that a model uses it: on its input, on what a layer made, for a number, with a constant."""

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.first, self.norm, self.drop, self.last = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(p), nn.Linear(4, 2)
        self.scale = np.array([1.0, 2.0, 3.0])
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.from_numpy(np.tanh(x.detach().numpy()) * self.scale).to(x.dtype) + x
        hidden = self.drop(self.norm(self.first(x)))
        self.mean = 0.9 * self.mean + 0.1 * hidden.detach().mean(0)
        share = float(np.mean(hidden.detach().numpy() ** 2))
        return self.last(torch.sigmoid(hidden * share - self.mean))


class Dropping(nn.Module):
    """Shows what it drops and draws, besides NumPy."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drop = nn.Linear(3, 3), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        shape = np.ones_like(x.detach().numpy())
        dropped = self.drop(torch.from_numpy(shape))
        noise = torch.rand_like(x) + torch.zeros_like(x).uniform_()
        share = float(np.mean(x.detach().numpy() ** 2))
        return {"prediction": self.layer(x) * share, "dropped": dropped, "noise": noise}


class Branching(nn.Module):
    """A Python branch on a value."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return self.layer(x)
        return -self.layer(x)


class Rounding(Branching):
    """The same by way of `.item()`."""

    def forward(self, x: Tensor) -> Tensor:
        steps = x.abs().sum().item()
        return self.layer(x) * len(range(int(steps)))


class Sorting(Branching):
    """The same by way of NumPy."""

    def forward(self, x: Tensor) -> Tensor:
        order = sorted(x.detach().numpy()[:, 0])
        return self.layer(x) * order[0]


def step_of(model: Model) -> Callable[..., Any]:
    """Gradient descent by one step, with draws from a key."""

    def step(params: Any, buffers: Any, x: Tensor, k: Tensor) -> Any:
        def loss(p: Any) -> Any:
            with redirect(k):
                outputs, new = model.apply(p, buffers, {"x": x}, train=True)
                prediction = outputs["prediction"] if isinstance(outputs, dict) else outputs
                return prediction.square().mean(), (new, outputs)

        grads, (value, (new, outputs)) = torch.func.grad_and_value(loss, has_aux=True)(params)
        return {name: p - 0.1 * grads[name] for name, p in params.items()}, new, value, outputs

    return step


def trained(module: nn.Module, backend: str, steps: int = 4) -> list[Any]:
    """What some steps returned."""
    model = from_module(module)
    params, buffers = model.init(key(0), {"x": X})
    run, made = jit(step_of(model), backend=backend), []
    for index in range(steps):
        params, buffers, *rest = run(params, buffers, X + index, key(index))
        made.append((params, buffers, *rest))
    assert run.traces == (0 if backend == "never" else 1)
    return made


def assert_close(ours: Any, theirs: Any) -> None:
    for a, b in zip(pytree.leaves(ours), pytree.leaves(theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_numpy_inside_a_model_trains_as_it_does_eagerly(caplog: pytest.LogCaptureFixture) -> None:
    module = Scaled(p=0.5).double()
    with caplog.at_level(logging.INFO, "ftrainer.jit"):
        ours = trained(module, "trace")
    assert [r.message.partition(":")[0] for r in caplog.records if "captured" in r.message] == [
        "step_of.<locals>.step was captured by Dynamo, module by module, since otherwise step_of.<locals>.step cannot "
        "be traced"
    ]
    assert "test_jit_dynamo.py" in caplog.text
    theirs = trained(module, "eager")
    assert_close(ours, theirs)
    _, first, *_ = ours[0]
    assert (first["mean"] != 0).any()
    assert (first["norm.running_mean"] != 0).any()
    assert ours[-1][1]["norm.num_batches_tracked"] == 4


def test_the_eager_step_is_a_hand_written_loop() -> None:
    module = Scaled().double()
    ours = trained(module, "eager")
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for index in range(4):
        optimizer.zero_grad()
        module(X + index).square().mean().backward()
        optimizer.step()
    params, buffers, *_ = ours[-1]
    assert_close({name: p.detach() for name, p in module.named_parameters()}, params)
    assert_close(dict(module.named_buffers()), buffers)


@pytest.mark.parametrize("backend", ["trace", COMPILED])
def test_draws_of_a_captured_model_are_bitwise_those_of_the_eager_step(backend: str) -> None:
    module = Dropping().double()
    ours_all, theirs_all = trained(module, backend), trained(module, "eager")
    assert_close(ours_all, theirs_all)
    for (*_, ours), (*_, theirs) in zip(ours_all, theirs_all, strict=True):
        assert torch.equal(ours["dropped"], theirs["dropped"])
        assert torch.equal(ours["noise"], theirs["noise"])
        assert 0 < (ours["dropped"] == 0).sum() < 24


@pytest.mark.parametrize("cls", [Branching, Rounding, Sorting])
def test_what_neither_can_capture_is_refused_with_the_line_and_the_ways_out(cls: type[nn.Module]) -> None:
    told = r"test_jit_dynamo\.py:\d+: .*[\s\S]*asks for the value[\s\S]*Dynamo cannot capture it either: [\s\S]*"
    with pytest.raises(TraceError, match=told + r"torch\.where[\s\S]*run\.compile: eager"):
        trained(cls().double(), "trace")
    trained(cls().double(), "eager")


def test_numpy_in_a_loss_is_refused_with_its_line() -> None:
    def step(x: Tensor) -> Tensor:
        return x * float(np.median(x.numpy()))

    with pytest.raises(TraceError, match=r"test_jit_dynamo\.py:\d+: return x \* float[\s\S]*NumPy[\s\S]*eager"):
        jit(step, backend="trace")(torch.ones(3))
    assert jit(step, backend="eager")(torch.full((3,), 2.0)).tolist() == [4, 4, 4]


def test_other_errors_of_a_step_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="broadcast") as caught:
        jit(lambda x: x + torch.ones(4), backend="trace")(torch.ones(3))
    assert not isinstance(caught.value, TraceError)


def test_what_a_captured_model_may_not_return_is_said() -> None:
    class Arrays(Branching):
        def forward(self, x: Tensor) -> Any:
            return {"prediction": self.layer(x), "array": x.detach().numpy()}

    with pytest.raises(TraceError, match="Dynamo cannot capture it either"):
        trained(Arrays().double(), "trace")


def test_members_of_a_vmap_are_captured_too() -> None:
    class Tanh(Branching):
        def forward(self, x: Tensor) -> Tensor:
            return self.layer(torch.from_numpy(np.tanh(x.detach().numpy())))

    model = from_module(Tanh().double())
    params, buffers = model.init(key(0), {"x": X})
    stacked = {name: torch.stack([p, 2 * p]) for name, p in params.items()}
    step = step_of(model)
    together = jit(torch.func.vmap(step, in_dims=(0, None, None, 0)), backend="trace")
    both = together(stacked, buffers, X, split(key(0), 2))
    for index in range(2):
        alone = step({name: p[index] for name, p in stacked.items()}, buffers, X, split(key(0), 2)[index])
        assert_close([leaf[index] for leaf in pytree.leaves(both)], alone)


def test_a_number_out_of_a_tensor_is_refused_under_vmap() -> None:
    model = from_module(Scaled().double())
    params, buffers = model.init(key(0), {"x": X})
    stacked = {name: torch.stack([p, 2 * p]) for name, p in params.items()}
    together = jit(torch.func.vmap(step_of(model), in_dims=(0, None, None, 0)), backend="trace")
    with pytest.raises(TraceError, match=r"test_jit_dynamo\.py:\d+: "):
        together(stacked, buffers, X, split(key(0), 2))


def test_torch_compile_of_others_finds_torch_as_it_was() -> None:
    trained(Dropping().double(), "trace", steps=1)
    torch.compiler.reset()
    noisy = torch.compile(lambda x: nn.functional.dropout(x, 0.5) + torch.rand(3), backend="eager", fullgraph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        ours = noisy(torch.ones(3))
        torch.manual_seed(0)
    assert torch.equal(ours, nn.functional.dropout(torch.ones(3), 0.5) + torch.rand(3))


def numpy_model() -> nn.Module:
    return Scaled(p=0.1)


PARTS = {
    "model": {"_type_": "model.torch", "factory": {"_type_": "mine.scaled"}},
    "optimizer": {"_type_": "optim.sgd", "lr": 0.1},
}


def ran(**changes: Any) -> Any:
    """A run of the model, from a configuration."""
    overrides = {name: changes.pop(name) for name in list(changes) if "." in name}
    registry = REGISTRY.register("mine.scaled", numpy_model)
    return fit(*build(config(**PARTS, **changes), {"run.precision": "fp64", **overrides}, registry=registry))


def test_a_run_whose_members_no_vmap_can_move_moves_them_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        stacked = ran(replicate={"seeds": 2})
    assert "replicate.strategy: loop, since members cannot be moved by one call: " in caplog.text
    assert "update was captured by Dynamo" in caplog.text
    eager = ran(**{"run.compile": "eager", "run.seed": stacked.program.members[1].run.seed})
    assert_close(member(stacked, 1).params, eager.params)
    assert_close(member(stacked, 1).buffers, eager.buffers)
    with pytest.raises(TraceError, match=r"\.item\(\)[\s\S]*eager`, with replicas also `replicate\.strategy: loop"):
        ran(replicate={"seeds": 2, "strategy": "vmap"})


class Ranked(nn.Module):
    """A loss of its own class that asks NumPy."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        weights = torch.from_numpy(np.abs(target.detach().numpy()))
        return (weights * (prediction - target).square()).mean()


def test_numpy_in_a_loss_that_is_a_module_is_captured() -> None:
    loss = TorchLoss(fn=Deferred(key="mine.ranked", factory=Ranked))
    step = torch.func.grad_and_value(lambda x: loss(x, {"y": X}))

    def keyed(x: Tensor) -> Any:
        with redirect(key(0)):
            return step(x)

    assert_close(jit(keyed, backend="trace")(2 * X), keyed(2 * X))


@component
class Clipped:
    """A loss with NumPy inside."""

    def __call__(self, outputs: Tensor, targets: Any, mask: Tensor | None = None) -> Tensor:
        return (outputs - targets["y"]).square().mean() * float(np.max(outputs.detach().numpy()))


def test_numpy_in_a_runs_loss_is_refused_with_its_line() -> None:
    registry = REGISTRY.register("loss.clipped", Clipped)
    parts = config(loss={"_type_": "loss.clipped"})
    with pytest.raises(TraceError, match=r"test_jit_dynamo\.py:\d+: return \(outputs"):
        fit(*build(parts, registry=registry))
    fit(*build(parts, {"run.compile": "eager"}, registry=registry))
