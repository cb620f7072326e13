"""A member is its solo run, with every optimizer, schedule, loss and block; learners are told apart in their own files.

Two members differ in seed, batches and every number that their component lets a sweep change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from ftrainer.components.io import IOMapping
from ftrainer.components.learners.supervised import Supervised
from ftrainer.components.optim.chain import Chain
from ftrainer.components.optim.sgd import SGD
from ftrainer.engine.stepper import update
from ftrainer.functional import pytree, random
from ftrainer.functional.jit import jit
from ftrainer.functional.replicate import Own, member, stack, together
from ftrainer.functional.state import Program, TrainState
from ftrainer.model import Model
from registry import component
from tests.contracts import test_modules
from tests.contracts import transforms as table
from tests.contracts.test_transforms import numbers, with_numbers
from tests.models import scalar, sequential
from tests.test_replicate import alone, assert_trees_close

STEPS, STEPS_PER_EPOCH = 5, 2
INPUTS, ROWS = 3, 6
DESCENT = SGD(lr=0.01)
NO_DESCENT = ("optim.add_decayed_weights", "optim.clip_by_global_norm", "optim.clip_by_value", "optim.ema")
"""Parts of an optimizer that make gradients of gradients: alone they climb."""
NOTHING_TO_TRAIN = ("dropouts", "pools")


@component
class Squares:
    """A loss of any outputs."""

    def __call__(self, outputs: Any, targets: Mapping[str, Any], mask: Tensor | None = None) -> Tensor:
        del targets, mask
        return scalar(outputs)


@pytest.mark.parametrize("key", table.OPTIMIZER_ROWS)
def test_with_every_optimizer(key: str) -> None:
    whole = [table.optimizer(key), other(table.optimizer(key))]
    optimizers = [Chain(transforms=(each, DESCENT)) for each in whole] if key in NO_DESCENT else whole
    loss, model = table.loss("loss.mse"), perceptron(3, bias=key not in table.MATRICES_ONLY)
    check([learner(model=model, loss=loss, optimizer=each) for each in optimizers], regression("loss.mse"))


@pytest.mark.parametrize("key", table.SCHEDULE_ROWS)
def test_with_every_schedule(key: str) -> None:
    loss, model = table.loss("loss.mse"), perceptron(3)
    schedules = [table.schedule(key), other(table.schedule(key))]
    descent = SGD(lr=0.01, momentum=0.9)  # some schedules move the momentum too
    learners = [learner(model=model, loss=loss, scheduler=each, optimizer=descent) for each in schedules]
    check(learners, regression("loss.mse"))


@pytest.mark.parametrize("key", table.LOSS_ROWS)
def test_with_every_loss(key: str) -> None:
    model = perceptron(table.loss_inputs(key)[0].shape[1])
    losses = [table.loss(key), other(table.loss(key))]
    check([learner(model=model, loss=each) for each in losses], regression(key))


@pytest.mark.parametrize("name", [name for name in test_modules.ROWS if name not in NOTHING_TO_TRAIN])
def test_with_every_block(name: str) -> None:
    make, shapes = test_modules.ROWS[name]
    paths = {input_name: (input_name,) for input_name in shapes}
    io = IOMapping(input_paths=paths, target_paths={})

    def batch(key: Tensor) -> dict[str, Tensor]:
        keys = random.split(key, len(shapes))
        return {n: random.normal(k, shape, torch.float64) for k, (n, shape) in zip(keys, shapes.items(), strict=True)}

    check([learner(model=make(), loss=Squares(), optimizer=SGD(lr=lr), io=io) for lr in (1e-3, 2e-3)], batch)


def check(learners: Sequence[Supervised], batch: Callable[[Tensor], dict[str, Tensor]]) -> None:
    """Members of a stack end as they do alone: parameters, buffers, moments, slots and counters."""
    solo = [begin(each, random.key(seed), batch(random.key(9))) for seed, each in enumerate(learners)]
    states, step, steps = stack(solo), jit(update, backend="eager"), jit(together(update), backend="eager")
    for index in range(STEPS):
        batches = [batch(random.fold_in(random.key(seed), index)) for seed in range(len(solo))]
        solo = [step(in_epoch(state, index), own)[0] for state, own in zip(solo, batches, strict=True)]
        own = Own({name: torch.stack([each[name] for each in batches]) for name in batches[0]})
        states, _ = steps(in_epoch(states, index), own)
    for place, state in enumerate(solo):
        assert int(state.step) == STEPS
        assert_trees_close(alone(member(states, place)), alone(state), 1e-9)


def begin(learner: Supervised, key: Tensor, batch: Mapping[str, Tensor]) -> TrainState:
    """Step zero in float64."""
    example = {name: x.float() if x.is_floating_point() else x for name, x in batch.items()}
    statistics = {name: {"mean": x.mean(0), "std": x.std(0)} for name, x in example.items() if x.is_floating_point()}
    state = attrs.evolve(learner.init(key, example, statistics), program=Program(learner=learner))
    return pytree.map(lambda x: x.double() if x.is_floating_point() else x, state)  # type: ignore[no-any-return]


def in_epoch(state: TrainState, index: int) -> TrainState:
    """The state as the loop hands it over: the epoch is the loop's to write."""
    epoch = torch.full_like(state.slots["epoch"], index // STEPS_PER_EPOCH)
    return attrs.evolve(state, slots={**state.slots, "epoch": epoch})


def learner(**parts: Any) -> Supervised:
    """A supervised learner from `x` to `y`."""
    io = IOMapping(input_paths={"x": ("x",)}, target_paths={"y": ("y",)})
    return Supervised(**{"io": io, "optimizer": DESCENT, "ema_decay": 0.9} | parts)


def perceptron(n_out: int, bias: bool = True) -> Model:
    """No parameter's true gradient is zero, which sign-taking rules would blow up."""
    widths = [(INPUTS, 8), (8, n_out)]
    linear, last = (test_modules.spec("nn.Linear", in_features=a, out_features=b, bias=bias) for a, b in widths)
    return sequential(linear, test_modules.spec("nn.Tanh"), test_modules.spec("nn.Dropout", p=0.2), last)


def regression(key: str) -> Callable[[Tensor], dict[str, Tensor]]:
    """Batches with targets for a loss."""

    def batch(draw: Tensor) -> dict[str, Tensor]:
        target = table.loss_inputs(key, ROWS)[1]["y"]
        noise = random.normal(draw, (ROWS, INPUTS), torch.float64)
        return {"x": noise, "y": target + noise[:, :1] if target.is_floating_point() else target}

    return batch


def other(part: Any) -> Any:
    """The same component with all its traceable numbers halved."""
    return with_numbers(part, {path: 0.5 * value for path, value in numbers(part).items()})
