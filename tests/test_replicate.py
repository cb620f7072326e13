"""Stacks of runs: a member is the run that it would be alone, whatever happens to the others."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from ftrainer import build, builtin_registry, fit, member, replicate, stack, unstack
from ftrainer.api import in_memory
from ftrainer.components.optim.adamw import AdamW
from ftrainer.components.optim.sgd import SGD
from ftrainer.functional import phases, pytree, random
from ftrainer.functional.jit import jit
from ftrainer.functional.replicate import Own, StackError, resting, together
from ftrainer.functional.state import TrainState
from registry import ConfigError, component
from tests.test_step import assert_trees_equal
from tests.toys import Linear, linear_batch, linear_state

Tree = Any


def rich(**changes: Any) -> dict[str, Any]:
    """A run with everything that a step can have: dropout, batch statistics, accumulation, clipping, EMA, schedules."""
    normed = [{"_type_": "nn.Linear", "in_features": 3, "out_features": 8, "bias": False},
              {"_type_": "nn.BatchNorm1d", "num_features": 8}]  # fmt: skip
    return {
        "run": {"name": "rich", "precision": "fp64", "compile": "trace"},
        "data": {"_type_": "data.random_regression", "batch_size": 8, "steps_per_epoch": 7, "val_steps_per_epoch": 2,
                 "x_shape": [3], "y_shape": [2]},
        "io": {"_type_": "io.mapping", "model_kwargs": {"x": ["x"]}, "targets": {"y": ["y"]}},
        "model": {"sequential": {"layers": [*normed, {"_type_": "mlp", "dims": [8, 8, 2], "dropout": 0.2}]}},
        "loss": {"_type_": "loss.torch", "fn": {"_type_": "nn.MSELoss"}},
        "optimizer": {"_type_": "optim.adamw", "lr": 0.01},
        "scheduler": {"_type_": "schedule.warmup", "steps": 5, "inner": {"_type_": "schedule.cosine"}},
        "learner": {"_type_": "learner.supervised", "ema_decay": 0.9},
        "trainer": {"_type_": "trainer.default", "max_steps": 200, "grad_accum_steps": 2, "grad_clip_norm": 1.0},
    } | changes  # fmt: skip


def small(**changes: Any) -> dict[str, Any]:
    """A run of ten steps."""
    plain = {
        "model": {"sequential": {"layers": [{"_type_": "mlp", "dims": [3, 8, 2], "dropout": 0.2}]}},
        "scheduler": None,
        "learner": {"_type_": "learner.supervised"},
        "trainer": {"_type_": "trainer.default", "max_steps": 10, "max_bad_steps": 2, "log_every_n_steps": 2},
    }
    return rich(**plain | changes)


def assert_trees_close(actual: Tree, expected: Tree, tolerance: float) -> None:
    assert pytree.paths(actual) == pytree.paths(expected)
    for path, a, e in zip(pytree.paths(actual), pytree.leaves(actual), pytree.leaves(expected), strict=True):
        torch.testing.assert_close(a, e, rtol=tolerance, atol=tolerance, msg=lambda text, path=path: f"{path}: {text}")


def alone(state: TrainState) -> TrainState:
    """A state without the program, to be compared by its tensors."""
    return attrs.evolve(state, program=None)


def test_members_end_as_they_would_alone() -> None:
    chosen = {"run.seed": 3, "optimizer.lr": 0.003, "learner.ema_decay": 0.8}
    over = {"optimizer.lr": [0.01, 0.003], "learner.ema_decay": [0.9, 0.8]}
    states, data = build(rich(replicate={"seeds": [3], "over": over, "combine": "zip", "strategy": "vmap"}))
    one, solo = member(fit(states, data), 1), fit(*build(rich(), chosen))
    assert one.program.values == chosen
    assert one.program.learner == solo.program.learner
    assert_trees_close(alone(one), alone(solo), 1e-9)
    assert int(one.step) == 200


def test_initial_states_are_the_solo_ones_bit_by_bit() -> None:
    states, _ = build(rich(replicate={"seeds": 3}))
    for seed, one in enumerate(unstack(states)):
        assert_trees_equal(alone(one), alone(build(rich(), {"run.seed": seed})[0]))


DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": lambda w: F.dropout(torch.ones(50), 0.3),
    "rand": lambda w: torch.rand(50),
    "randn": lambda w: torch.randn(50),
    "randint": lambda w: torch.randint(0, 1000, (50,)),
    "randperm": lambda w: torch.randperm(50),
    "bernoulli": lambda w: torch.bernoulli(torch.full((50,), 0.4)),
    "multinomial": lambda w: torch.multinomial(torch.ones(50), 10),
    "exponential_": lambda w: torch.empty_like(w).exponential_(),
}


def drawing(draw: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """A loss whose metrics are a draw."""

    def loss(params: Any, state: TrainState, batch: Any, key: Tensor) -> tuple[Tensor, phases.Aux]:
        del state, batch, key
        return params["model"]["w"].sum(), {"metrics": {"draw": draw(params["model"]["w"]).to(torch.float64)}}

    return loss


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("backend", ["eager", "trace"])
def test_members_draw_what_they_would_draw_alone(name: str, backend: str) -> None:
    @component
    class Drawing(Linear):
        def phases(self) -> tuple[phases.Phase, ...]:
            return (attrs.evolve(Linear.phases(self)[0], loss=drawing(DRAWS[name])),)

    solo = [attrs.evolve(linear_state(Drawing()), key=random.key(seed)) for seed in range(3)]
    _, metrics = jit(together(update), backend=backend)(stack(solo), linear_batch(0))
    draws = [jit(update, backend=backend)(state, linear_batch(0))[1]["draw"] for state in solo]
    assert torch.equal(metrics["draw"], torch.stack(draws))
    assert not torch.equal(draws[0], draws[1])


def update(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Tensor]]:
    return state.program.learner.update(state, batch)


def test_a_member_with_its_own_batch_and_one_with_everybodys() -> None:
    solo = [attrs.evolve(linear_state(), key=random.key(seed)) for seed in range(3)]
    batches = [linear_batch(index) for index in range(3)]
    own = Own(pytree.map(lambda *x: torch.stack(x), *batches))
    moved, _ = together(update)(stack(solo), own)
    for index in range(3):
        assert_trees_close(member(moved, index).params, update(solo[index], batches[index])[0].params, 1e-14)
    shared, _ = together(update)(stack(solo), batches[1])
    assert_trees_close(member(shared, 2).params, update(solo[2], batches[1])[0].params, 1e-14)


def test_what_is_stacked_comes_out_again() -> None:
    solo = [attrs.evolve(linear_state(Linear(optimizer=AdamW(lr=lr))), key=random.key(1)) for lr in (0.1, 0.2)]
    states = stack(solo)
    assert {path: value.tolist() for path, value in states.hyper.items()} == {"optimizer.lr": [0.1, 0.2]}
    for one, other in zip(unstack(states), solo, strict=True):
        assert one.program == other.program
        assert_trees_equal(one, other)


def test_a_member_keeps_its_tensors_when_the_stack_moves_on() -> None:
    states = stack([linear_state(), linear_state()])
    one = member(states, 0)
    before = pytree.map(torch.clone, one)
    pytree.map(lambda leaf: leaf.fill_(0), states)
    assert_trees_equal(one, before)


@pytest.mark.parametrize("strategy", ["vmap", "loop"])
def test_a_member_that_diverges_leaves_the_others_as_they_are(strategy: str) -> None:
    """Bit by bit, against a run in which it does not diverge."""
    runs = {}
    for lr in (1e200, 0.01):
        over = {"optimizer.lr": [0.01, lr, 0.003]}
        optimizer = {"_type_": "optim.sgd", "lr": 0.01}
        states, data = build(small(replicate={"over": over, "strategy": strategy}, optimizer=optimizer))
        runs[lr] = fit(states, data)
    diverged, calm = runs[1e200], runs[0.01]
    assert diverged.slots["active"].tolist() == [True, False, True]
    assert calm.slots["active"].tolist() == [True, True, True]
    for index in (0, 2):
        assert_trees_equal(alone(member(diverged, index)), alone(member(calm, index)))
    assert all(bool(leaf.isfinite().all()) for leaf in pytree.leaves(member(diverged, 1)))


def test_a_finished_member_stops_changing() -> None:
    states, data = build(small(replicate={"seeds": 2, "strategy": "vmap"}))
    states.slots["active"][1] = False
    trained = fit(states, data)
    assert_trees_equal(alone(member(trained, 1)), alone(member(states, 1)))
    assert_trees_close(alone(member(trained, 0)), alone(fit(*build(small()))), 1e-12)


def test_one_step_of_a_resting_member_is_no_step() -> None:
    states = stack([linear_state(), linear_state()])
    states.slots["active"][0] = False
    moved, _ = together(resting(update))(states, linear_batch(0))
    assert_trees_equal(alone(member(moved, 0)), alone(member(states, 0)))
    assert int(member(moved, 1).step) == 1


@pytest.mark.parametrize("settings", [{"strategy": "loop"}, {"strategy": "vmap", "chunk": 2}])
def test_one_after_another_and_in_chunks_is_all_at_once(settings: dict[str, Any]) -> None:
    every: dict[str, Any] = {"seeds": 3, "strategy": "vmap", "chunk": 3}
    expected, other = (fit(*build(small(replicate=every | more))) for more in ({}, settings))
    assert_trees_close(alone(other), alone(expected), 1e-11)


def test_every_members_own_order_and_one_for_all() -> None:
    x = torch.arange(12.0)[:, None].expand(-1, 3)
    data = in_memory({"x": x, "y": x[:, :2]}, batch_size=5, last="pad", val_fraction=0.25)
    state, _ = build(small())
    own, shared = (
        replicate(state, data, seeds=[4, 7], data_order=order, strategy="vmap") for order in ("own", "shared")
    )
    trained = fit(own, data)
    for index, seed in enumerate((4, 7)):
        expected = solo(seed, attrs.evolve(data, seed=seed))
        assert_trees_close(alone(member(trained, index)), alone(expected), 1e-11)
    trained = fit(shared, data)
    for index, seed in enumerate((4, 7)):
        assert_trees_close(alone(member(trained, index)), alone(solo(seed, attrs.evolve(data, seed=4))), 1e-11)


def solo(seed: int, data: Any) -> TrainState:
    """A plain run of `small` on data that is at hand."""
    plain = replicate(build(small())[0], data, seeds=[seed])
    return fit(member(plain, 0), data)


def test_samples_of_a_data_set_are_each_members_own() -> None:
    """A torch data set that draws augmentations: its samples depend on the member's seed, in validation too."""
    section = {"_type_": "data.dataloader", "batch_size": 4, "val_fraction": 0.25, "dataset": {"_type_": "data.noisy"}}
    registry = noisy_registry()
    states, data = build(small(data=section, replicate={"seeds": 2, "strategy": "vmap"}), registry=registry)
    trained = fit(states, data)
    for seed in range(2):
        expected = fit(*build(small(data=section), {"run.seed": seed}, registry=registry))
        assert_trees_close(alone(member(trained, seed)), alone(expected), 1e-11)


class Noisy(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        x = torch.full((3,), float(index)) + torch.randn(3)
        return {"x": x, "y": x[:2]}


@functools.cache
def noisy_registry() -> Any:
    return builtin_registry().register("data.noisy", Noisy)


def test_batches_that_the_user_orders_are_everybodys() -> None:
    batches = [{"x": torch.randn(4, 3), "y": torch.randn(4, 2)} for _ in range(3)]
    state = build(small())[0]
    trained = fit(replicate(state, batches, seeds=2, strategy="vmap"), batches)
    plain = replicate(state, batches, seeds=[1])
    assert_trees_close(alone(member(trained, 1)), alone(fit(member(plain, 0), batches)), 1e-12)
    loader = DataLoader([{"x": torch.ones(3), "y": torch.ones(2)}] * 8, batch_size=4)  # type: ignore[arg-type]
    assert int(fit(replicate(state, loader, seeds=2, strategy="vmap"), loader).step[1]) == 10


class Unordered:
    """Data of a plugin that does not say what orders it."""

    exact_resume = None

    def n_batches(self, split: str) -> int:
        return int(split == "train")

    def batches(self, split: str, epoch: int, start: int = 0) -> Iterator[Any]:
        del split, epoch, start
        yield {"x": torch.ones(4, 3), "y": torch.ones(4, 2)}

    def statistics(self) -> Any:
        return {}


def test_data_that_cannot_be_reordered_wants_a_shared_order() -> None:
    state = build(small())[0]
    with pytest.raises(ConfigError, match=r"data_order: Unordered has no field `seed`.*expected shared"):
        replicate(state, Unordered(), seeds=2)


def test_replicate_in_python_addresses_fields_of_components() -> None:
    state, data = build(small(optimizer={"type": "optim_cls.AdamW", "_type_": "optim_factory.torch"}))
    states = replicate(state, seeds=[5, 6], over={"optimizer.betas[0]": [0.9, 0.8]})
    assert states.hyper["optimizer.betas.0"].tolist() == [0.9, 0.9, 0.8, 0.8]
    assert [each.program.values["run.seed"] for each in unstack(states)] == [5, 6, 5, 6]
    assert replicate(state, data, seeds=2).program.members[1].run.seed == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"over": {"optimizer.rate": [1, 2]}}, r"over.optimizer.rate: optimizer.rate: AdamW has no field 'rate'"),
        ({"over": {"optimizer.amsgrad": [True, False]}}, r"structural, not traceable \(write `groups: \[optimizer.am"),
        ({"over": {"optimizer.lr": [-1.0, 2]}}, r"over.optimizer.lr.lr: out of range"),
        (
            {"over": {"optimizer.lr": [1.0]}, "groups": ("optimizer.lr",)},
            "groups: one state cannot hold several groups",
        ),
    ],
)
def test_what_cannot_be_swept_in_python(settings: dict[str, Any], message: str) -> None:
    state, _ = build(small())
    with pytest.raises(ConfigError, match=message):
        replicate(state, **settings)


def test_a_stack_is_not_replicated_again() -> None:
    states, _ = build(small(replicate={"seeds": 2}))
    with pytest.raises(ConfigError, match="is a stack of runs already; found 2 members"):
        replicate(states, seeds=2)


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ([], "a stack needs at least one state"),
        ([linear_state(), linear_state(Linear(every=2))], r"these differ in learner.every \(1, 2\)"),
        ([linear_state(), linear_state(dtype=torch.float32)], "members 0 and 1 differ in opt_state/model/mu/model/b"),
        (
            [linear_state(Linear(optimizer=SGD(lr=0.1, momentum=m))) for m in (0.0, 0.9)],
            "differ in opt_state/model/momentum/.*optimizer.momentum decides which tensors there are",
        ),
        ([stack([linear_state()])], "a stack cannot be stacked again"),
    ],
)
def test_what_cannot_be_stacked(states: list[TrainState], message: str) -> None:
    with pytest.raises(StackError, match=message):
        stack(states)


def test_there_is_no_member_beyond_the_last() -> None:
    with pytest.raises(IndexError, match="there is no member 1; the state holds 1, counted from 0"):
        member(stack([linear_state()]), 1)
