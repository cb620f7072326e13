"""Every schedule against torch's own, step by step, and what the loop hands to `plateau`."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftrainer.builtins import SCHEDULES
from ftrainer.components.optim.adagrad import Adagrad
from ftrainer.components.optim.adamw import AdamW
from ftrainer.components.optim.chain import Chain
from ftrainer.components.optim.muon import Muon
from ftrainer.components.optim.partition import Partition
from ftrainer.components.optim.scheduled import Scheduled
from ftrainer.components.optim.sgd import SGD
from ftrainer.components.schedules.base import Factor, planned
from ftrainer.components.schedules.constant import Constant
from ftrainer.components.schedules.cosine import Cosine
from ftrainer.components.schedules.inverse_sqrt import InverseSqrt
from ftrainer.components.schedules.linear import Linear
from ftrainer.components.schedules.one_cycle import OneCycle
from ftrainer.components.schedules.piecewise import Piecewise
from ftrainer.components.schedules.plateau import Plateau
from ftrainer.components.schedules.step import Step
from ftrainer.components.schedules.torch import torch_schedule
from ftrainer.components.schedules.warmup import Warmup
from ftrainer.engine.position import Clock
from ftrainer.engine.start import planned as planned_component
from registry import ConfigError

from .contracts.transforms import context

STEPS = 60
LR = 3e-4


def torch_optimizer(**rest: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))], lr=LR, **rest)


def torch_values(name: str, kwargs: dict[str, Any], steps: int = STEPS) -> list[tuple[float, float]]:
    """Learning rate and first beta before each of torch's steps."""
    optimizer = torch_optimizer()
    scheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **kwargs)
    values = []
    for step in range(steps):
        values.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"][0]))
        optimizer.step()
        if step < steps - 1:
            scheduler.step()
    return values


NATIVE: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("constant", {"value": 0.5}, "ConstantLR", {"factor": 0.5, "total_iters": 10**6}),
    ("cosine", {}, "CosineAnnealingLR", {"T_max": STEPS}),
    ("cosine", {"steps": STEPS, "final": 0.1}, "CosineAnnealingLR", {"T_max": STEPS, "eta_min": 0.1 * LR}),
    ("exponential", {"gamma": 0.9}, "ExponentialLR", {"gamma": 0.9}),
    (
        "linear",
        {"steps": 20, "start": 0.25, "final": 0.75},
        "LinearLR",
        {"start_factor": 0.25, "end_factor": 0.75, "total_iters": 20},
    ),
    ("multistep", {"milestones": [30, 5, 5]}, "MultiStepLR", {"milestones": [5, 5, 30]}),
    ("one_cycle", {}, "OneCycleLR", {"max_lr": LR, "total_steps": STEPS}),
    (
        "one_cycle",
        {"anneal": "linear", "pct_start": 0.0, "div_factor": 10.0, "final_div_factor": 5.0},
        "OneCycleLR",
        {
            "max_lr": LR,
            "total_steps": STEPS,
            "anneal_strategy": "linear",
            "pct_start": 0.0,
            "div_factor": 10.0,
            "final_div_factor": 5.0,
        },
    ),
    ("polynomial", {"steps": 40, "power": 2.0}, "PolynomialLR", {"total_iters": 40, "power": 2.0}),
    ("step", {"step_size": 7, "gamma": 0.3}, "StepLR", {"step_size": 7, "gamma": 0.3}),
]


@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize(("key", "kwargs", "name", "torch_kwargs"), NATIVE)
def test_a_native_schedule_equals_torchs(
    key: str, kwargs: dict[str, Any], name: str, torch_kwargs: dict[str, Any], interval: str
) -> None:
    interval_kwargs = {} if key == "constant" else {"interval": interval}
    schedule = SCHEDULES[f"schedule.{key}"](**kwargs, **interval_kwargs)
    schedule = schedule.resolve(STEPS, 1) if interval == "step" else schedule.resolve(3 * STEPS, 3)
    for t, (lr, _) in enumerate(torch_values(name, torch_kwargs)):
        at = context(t, 0) if interval == "step" else context(3 * t + 1, t)
        assert float(schedule.adjust(AdamW(lr=LR), at).lr) == pytest.approx(lr, rel=1e-12, abs=1e-19)


BRIDGED: list[tuple[str, dict[str, Any]]] = [
    ("ConstantLR", {}),
    ("CosineAnnealingLR", {"T_max": 40, "eta_min": 1e-5}),
    ("CosineAnnealingWarmRestarts", {"T_0": 13, "T_mult": 2}),
    ("CyclicLR", {"base_lr": 1e-4, "max_lr": 1e-2, "step_size_up": 9}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("LinearLR", {}),
    ("MultiStepLR", {"milestones": [5, 30]}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": STEPS, "three_phase": True}),
    ("PolynomialLR", {"total_iters": 50, "power": 2}),
    ("StepLR", {"step_size": 7}),
]


@pytest.mark.parametrize(("name", "kwargs"), BRIDGED)
def test_a_torch_scheduler_becomes_its_own_table(name: str, kwargs: dict[str, Any]) -> None:
    schedule = torch_schedule(type=f"sched_cls.{name}", kwargs=kwargs, interval="step").resolve(STEPS, None)
    for t, (lr, beta) in enumerate(torch_values(name, kwargs)):
        adjusted = schedule.adjust(AdamW(lr=LR), context(t))
        assert float(adjusted.lr) == pytest.approx(lr, rel=1e-12)
        assert float(adjusted.betas[0]) == beta
        assert adjusted.betas[1] == 0.999


def test_every_scheduler_of_torch_is_translated_or_refused_with_a_reason() -> None:
    lr_scheduler = torch.optim.lr_scheduler
    refused = {"LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler"}
    names = {
        n for n, c in vars(lr_scheduler).items() if isinstance(c, type) and n.endswith(("LR", "Restarts", "Scheduler"))
    }
    names -= {"LRScheduler", "_LRScheduler"}
    assert names == {name for name, _ in BRIDGED} | refused
    for name in refused:
        with pytest.raises(ConfigError, match=f"type: {name} cannot come from a configuration"):
            torch_schedule(type=f"sched_cls.{name}")


def test_a_torch_scheduler_steps_on_every_nth_epoch_and_keeps_its_last_value() -> None:
    schedule = torch_schedule(type="sched_cls.StepLR", kwargs={"step_size": 1}, frequency=2).resolve(100, 10)
    rates = [float(schedule.adjust(SGD(lr=1.0), context(10 * e, e)).lr) for e in (0, 1, 2, 3, 8, 9, 50)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 1e-4, 1e-4, 1e-4])


def test_a_moving_momentum_reaches_sgd_and_muon() -> None:
    schedule = torch_schedule(type="sched_cls.OneCycleLR", kwargs={"max_lr": 1.0, "total_steps": 10}, interval="step")
    for spec in (SGD(momentum=0.5), Muon(momentum=0.5)):
        assert float(schedule.resolve(10, None).adjust(spec, context(0)).momentum) == 0.95


def test_warmup_climbs_to_the_inner_schedule_which_takes_the_rest() -> None:
    schedule = Warmup(steps=4, inner=Cosine(), start=0.5).resolve(12, None)
    factors = [float(schedule.factor(context(t))) for t in range(13)]
    assert factors[:5] == [0.5, 0.625, 0.75, 0.875, 1.0]
    assert factors[8] == pytest.approx(0.5)
    assert factors[12] == pytest.approx(0.0)


def test_warmup_in_epochs_leaves_the_count_of_steps_alone() -> None:
    schedule = Warmup(steps=2, inner=Step(step_size=10, gamma=0.5, interval="step"), interval="epoch")
    assert float(schedule.factor(context(10, 1))) == 0.25
    assert Warmup(steps=2, inner=Cosine(), interval="epoch").resolve(100, 10).inner.steps == 80


def test_inverse_sqrt_behind_a_warmup_is_that_of_the_transformer_paper() -> None:
    schedule = Warmup(steps=10, inner=InverseSqrt(timescale=10))
    for t in (1, 5, 10, 11, 1000):
        assert float(schedule.factor(context(t))) == pytest.approx(min(t / 10, (10 / t) ** 0.5))


def test_pieces_count_from_their_own_beginning_and_fill_the_run() -> None:
    schedule = Piecewise(schedules=[Constant(), Linear(), Cosine()], boundaries=[2, 6]).resolve(10, None)
    assert [s.steps for s in schedule.schedules[1:]] == [4, 4]
    factors = [float(schedule.factor(context(t))) for t in range(10)]
    assert factors[:6] == [1, 1, 1, 0.75, 0.5, 0.25]
    assert factors[6] == 1.0
    by_epoch = Piecewise(schedules=[Constant(), Linear(interval="epoch")], boundaries=[2], interval="epoch")
    assert by_epoch.resolve(50, 10).schedules[1].steps == 3


@given(st.lists(st.floats(-2, 2) | st.just(float("nan")), max_size=60), st.data())
def test_plateau_equals_torchs(metrics: list[float], data: st.DataObject) -> None:
    rule = {
        "mode": data.draw(st.sampled_from(["min", "max"])),
        "threshold_mode": data.draw(st.sampled_from(["rel", "abs"])),
        "patience": data.draw(st.integers(0, 3)),
        "cooldown": data.draw(st.integers(0, 3)),
        "threshold": data.draw(st.sampled_from([0.0, 1e-4, 0.1])),
        "min_lr": data.draw(st.sampled_from([0.0, LR / 20])),
    }
    optimizer = torch_optimizer()
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **rule, eps=0.0)
    mine = Plateau(monitor="loss", **rule)
    state, scale = mine.init(), 1.0
    for metric in metrics:
        theirs.step(metric)
        state, scale = mine.observe(json.loads(json.dumps(state)), metric)
        lr = float(mine.adjust(AdamW(lr=LR), context(0, lr_scale=scale)).lr)
        assert lr == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)


def test_plateau_never_raises_a_rate_that_began_below_its_floor() -> None:
    assert float(Plateau(min_lr=1.0).adjust(SGD(lr=0.1), context(0, lr_scale=0.1)).lr) == pytest.approx(0.1)


def test_plateau_may_look_at_every_nth_validation_only() -> None:
    plateau = torch_schedule(
        type="sched_cls.ReduceLROnPlateau", kwargs={"patience": 0}, interval="metric", monitor="loss", frequency=2
    )
    state, scales = plateau.init(), []
    for _ in range(6):
        state, scale = plateau.observe(state, 1.0)
        scales.append(scale)
    assert scales == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01])


@given(st.integers(1, 10**6), st.integers(1, 10**4))
def test_a_planned_run_counts_a_started_epoch_whole(total: int, per_epoch: int) -> None:
    epochs = planned("epoch", total, per_epoch)
    assert (epochs - 1) * per_epoch < total <= epochs * per_epoch


def test_a_schedule_of_unknown_length_says_what_to_give() -> None:
    for schedule in (Cosine(), Linear(), OneCycle(), SCHEDULES["schedule.polynomial"]()):
        with pytest.raises(ConfigError, match=r"steps: the run's length is not known .*give `steps`"):
            schedule.resolve(None, None)
        with pytest.raises(ConfigError, match=r"steps: the run's length is not known .*call `resolve"):
            schedule.factor(context(0))
    unresolved = torch_schedule(type="sched_cls.StepLR", kwargs={"step_size": 1})
    with pytest.raises(ConfigError, match=r"entries: the run's length is not known"):
        unresolved.adjust(SGD(), context(0))
    with pytest.raises(ConfigError, match=r"steps: the run's length is not known"):
        Warmup(steps=5, inner=Cosine()).resolve(None, None)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("schedule.step", {"step_size": 0}, r"step_size: out of range; found 0; expected a whole number from 1 up"),
    (
        "schedule.step",
        {"step_size": 1, "interval": "batch"},
        r"interval: unknown choice; found 'batch'; expected step or epoch",
    ),
    ("schedule.cosine", {"final": -0.1}, r"final: out of range; found -0.1"),
    ("schedule.multistep", {"milestones": [1.5]}, r"milestones: out of range; found 1.5"),
    ("schedule.one_cycle", {"pct_start": 1.5}, r"pct_start: out of range; found 1.5; expected a number in \[0, 1\]"),
    (
        "schedule.piecewise",
        {"schedules": (Constant(),), "boundaries": [1]},
        r"boundaries: wrong number.*found 1; expected 0",
    ),
    (
        "schedule.piecewise",
        {"schedules": (Constant(),) * 3, "boundaries": [5, 5]},
        r"boundaries: must grow; found \(5, 5\)",
    ),
    ("schedule.plateau", {"factor": 1.0}, r"factor: would not lower the learning rate; found 1.0; expected below 1"),
    ("schedule.plateau", {"mode": "best"}, r"mode: unknown choice; found 'best'; expected min or max"),
    (
        "sched_factory.torch",
        {"type": "sched_cls.StepLr"},
        r"type: unknown scheduler; .*did you mean 'sched_cls.StepLR'",
    ),
    ("sched_factory.torch", {"type": "sched_cls.StepLR"}, r"kwargs.step_size: is required and missing"),
    (
        "sched_factory.torch",
        {"type": "sched_cls.StepLR", "kwargs": {"step_sz": 1}},
        r"kwargs.step_sz: not an argument of StepLR; did you mean 'step_size'",
    ),
    (
        "sched_factory.torch",
        {"type": "sched_cls.StepLR", "kwargs": {"step_size": 1}, "interval": "metric"},
        r"interval: the wrong interval for StepLR",
    ),
    (
        "sched_factory.torch",
        {"type": "sched_cls.StepLR", "kwargs": {"step_size": 1}, "monitor": "loss"},
        r"monitor: StepLR watches no metric",
    ),
    (
        "sched_factory.torch",
        {"type": "sched_cls.StepLR", "kwargs": {"step_size": 1}, "frequency": 0},
        r"frequency: out of range",
    ),
    (
        "sched_factory.torch",
        {"type": "sched_cls.ReduceLROnPlateau"},
        r"interval: the wrong interval for ReduceLROnPlateau; found 'epoch'; expected metric",
    ),
    (
        "sched_factory.torch",
        {"type": "sched_cls.ReduceLROnPlateau", "interval": "metric"},
        r"monitor: ReduceLROnPlateau watches a metric",
    ),
    (
        "sched_factory.torch",
        {"type": "sched_cls.ReduceLROnPlateau", "interval": "metric", "monitor": "loss", "kwargs": {"factor": 2.0}},
        r"kwargs.factor: would not lower",
    ),
    (
        "sched_factory.torch",
        {"type": "sched_cls.ReduceLROnPlateau", "interval": "metric", "monitor": "loss", "kwargs": {"eps": 0.1}},
        r"kwargs.eps: has no equivalent here",
    ),
    *(
        (
            "sched_factory.torch",
            {"type": f"sched_cls.{name}", "kwargs": {**kwargs, argument: 0}},
            rf"kwargs\.{argument}: {name} divides by it; found 0; expected above 0",
        )
        for name, argument, kwargs in (
            ("StepLR", "step_size", {}),
            ("CosineAnnealingLR", "T_max", {}),
            ("CyclicLR", "step_size_up", {"base_lr": 0.1, "max_lr": 0.2, "cycle_momentum": False}),
            ("OneCycleLR", "div_factor", {"max_lr": 0.1, "total_steps": 10}),
            ("OneCycleLR", "final_div_factor", {"max_lr": 0.1, "total_steps": 10}),
        )
    ),
]


@pytest.mark.parametrize(("key", "kwargs", "message"), WRONG)
def test_a_wrong_schedule_is_named(key: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SCHEDULES[key](**kwargs)


def test_a_torch_schedule_that_ends_before_the_run_is_an_error() -> None:
    schedule = torch_schedule(type="sched_cls.OneCycleLR", kwargs={"max_lr": 1.0, "total_steps": 5}, interval="step")
    with pytest.raises(
        ConfigError, match=r"kwargs: OneCycleLR ends before the run does: .*found 6 steps of the schedule, 20"
    ):
        schedule.resolve(20, None)


def test_a_moving_momentum_without_one_to_move_is_an_error() -> None:
    schedule = torch_schedule(type="sched_cls.OneCycleLR", kwargs={"max_lr": 1.0, "total_steps": 5}, interval="step")
    with pytest.raises(ConfigError, match=r"kwargs: moves a momentum or beta that the optimizer does not have"):
        schedule.resolve(5, None).adjust(Adagrad(), context(0))


def test_a_schedule_of_ones_own_has_to_say_its_factor() -> None:
    with pytest.raises(NotImplementedError):
        Factor().factor(context(0))


def test_a_run_tells_its_length_to_schedules_at_any_depth_and_each_tells_its_own() -> None:
    inner = Scheduled(transform=SGD(), schedule=Warmup(steps=10, inner=Cosine()))
    parts = Partition(parts=[{"match": "*", "transform": Chain(transforms=[SGD(), inner])}])
    resolved = planned_component(parts, 100, Clock(10))
    assert resolved.parts[0]["transform"].transforms[1].schedule.inner.steps == 90
    plain = Chain(transforms=[SGD()])
    assert planned_component(plain, 100, Clock(10)) is plain
