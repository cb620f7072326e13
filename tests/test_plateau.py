"""A learning rate that falls when a figure stops getting better: in a run as in torch, and through a resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

from ftrainer import ConfigError, build, fit, iterate, run_experiment
from ftrainer.components.callbacks.observer import observers
from ftrainer.components.schedules.plateau import Plateau
from ftrainer.functional.events import Validated
from tests.test_experiment import config
from tests.test_resume import after, rows
from tests.test_step import assert_trees_equal

FALLING = {"type": "sched_cls.ReduceLROnPlateau", "kwargs": {"patience": 0, "factor": 0.5, "threshold": 0.5}}


def falling(**changes: Any) -> dict[str, Any]:
    """A run whose learning rate falls several times."""
    scheduler = {"_type_": "sched_factory.torch", **FALLING, "interval": "metric", "monitor": "val/loss"}
    trainer = {"_type_": "trainer.default", "max_epochs": 8, "log_every_n_steps": 1}
    return config(**{"scheduler": scheduler, "trainer": trainer, **changes})


def run(out_dir: Path, resume: str | None = None, **options: Any) -> Any:
    state = run_experiment(falling(), {"run.out_dir": str(out_dir)}, resume=resume, **options)
    return attrs.evolve(state, program=None)


def test_the_learning_rate_is_what_torchs_scheduler_makes_of_the_same_losses(tmp_path: Path) -> None:
    run(tmp_path)
    told = rows(tmp_path)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.01)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **FALLING["kwargs"])  # type: ignore[arg-type]
    rates = []
    for row in told:
        if row["split"] == "train":
            assert row["metrics"]["lr"] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
            rates.append(row["metrics"]["lr"])
        else:
            scheduler.step(row["metrics"]["loss"])
    assert len(set(rates)) > 2


@pytest.mark.parametrize("stop", [7, 20])
def test_its_memory_and_scale_go_through_a_resume(tmp_path: Path, stop: int) -> None:
    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", interrupted=after(stop))
    assert_trees_equal(run(tmp_path / "parts", resume="auto"), whole)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    assert whole.slots["lr_scale"] < 1


def test_each_member_of_a_stack_has_its_own() -> None:
    states, data = build(falling(replicate={"seeds": [0, 1], "strategy": "vmap"}))
    scales = fit(states, data).slots["lr_scale"]
    for seed in (0, 1):
        assert scales[seed] == fit(*build(falling(), {"run.seed": seed})).slots["lr_scale"]


def test_a_figure_that_nobody_logs_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"scheduler\.monitor: no such figure is logged; found 'val/los'.*val/loss"):
        build(falling(), {"scheduler.monitor": "val/los"})
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(falling() | {"run": {"name": "x", "out_dir": str(tmp_path / "run")}}))
    with pytest.raises(ConfigError) as caught:
        run_experiment(path, {"scheduler.monitor": "val/los"})
    assert caught.value.issues[0].where is not None
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "overrides", "message"),
    [
        ({}, {"data.val_steps_per_epoch": 0}, r"scheduler\.monitor: 'val/loss' will never be reported: the validation"),
        ({}, {"scheduler.monitor": "eval/return"}, r"scheduler\.monitor: 'eval/return' will .*there are no evaluators"),
        (
            {"scheduler": None, "callbacks": [{"_type_": "cb.early_stopping", "monitor": "eval/return"}]},
            {},
            r"callbacks\[0\]\.monitor: 'eval/return' will never be reported",
        ),
    ],
)
def test_what_will_never_be_reported_is_refused(changes: dict[str, Any], overrides: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(falling(**changes), overrides)


def test_one_schedule_may_watch() -> None:
    two = {"a": Plateau(monitor="loss"), "b": (Plateau(monitor="mae"),)}
    with pytest.raises(ConfigError, match=r"scheduler: several schedules watch a figure.*found loss, mae"):
        observers(two)
    assert observers({"a": Plateau(), "b": Plateau()}) == observers(Plateau())


def test_training_figures_may_be_watched() -> None:
    state, data = build(falling(), {"scheduler.monitor": "train/loss", "data.val_steps_per_epoch": 0})
    events = list(iterate(state, data))
    assert not any(isinstance(event, Validated) for event in events)
    assert events[-1].state.slots["lr_scale"] < 1
