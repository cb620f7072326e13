"""How `ftrainer train` ends, as a shell sees it: exit codes, one line of why, and what is saved."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
import yaml
from click.testing import CliRunner, Result

from ftrainer import build, fit
from ftrainer.engine import checkpoint
from ftrainer.engine.reactions import CallbackError
from ftrainer.engine.writer import BackgroundWriter
from ftrainer.experiment import plan, train
from ftrainer.functional.events import Save, StepEnd
from ftrainer.run import main
from registry import Registry, component
from tests.saved_states import with_params
from tests.test_experiment import config
from tests.test_step import assert_trees_equal

DATA = {"_type_": "data.random_regression", "batch_size": 8, "steps_per_epoch": 3, "val_steps_per_epoch": 1,
        "x_shape": [3], "y_shape": [2]}  # fmt: skip
DIVERGING = {"_type_": "optim.sgd", "lr": 1e30}


@component
class FullDisk:
    """A callback that keeps a file where checkpoints go until a step, as if there were no room for any."""

    place: str
    until: int

    def init(self) -> None:
        """Nothing to remember."""

    def on_event(self, memory: None, event: Any) -> tuple[None, tuple[Any, ...]]:
        there = Path(self.place)
        if isinstance(event, StepEnd) and event.step == 1:
            there.touch()
        if isinstance(event, StepEnd) and event.step == self.until:
            there.unlink()
        return memory, ()


@component
class Faulty:
    """A callback that fails at a step, or is as impatient as a user who presses Ctrl-C twice."""

    at: int
    presses: int = 0

    def __attrs_post_init__(self) -> None:
        if self.at == 0:
            signal.raise_signal(signal.SIGINT)

    def init(self) -> int:
        """Steps that it heard of."""
        return 0

    def on_event(self, memory: int, event: Any) -> tuple[int, tuple[Any, ...]]:
        if not isinstance(event, StepEnd):
            return memory, ()
        for _ in range(self.presses if event.step == self.at else 0):
            signal.raise_signal(signal.SIGINT)
        if event.step == self.at and not self.presses:
            raise RuntimeError("out of coffee")
        return memory + 1, ()


def register(registry: Registry) -> Registry:
    """This module is a plugin, too."""
    return registry.register("cb.full_disk", FullDisk).register("cb.faulty", Faulty)


def given(out_dir: Path, steps: int = 4, **sections: Any) -> dict[str, Any]:
    settings = {"allow_imports": True, "allowed_import_prefixes": ["tests"]}
    run = {"name": "test", "compile": "eager", "out_dir": str(out_dir)}
    trainer = {"_type_": "trainer.default", "max_steps": steps, "log_every_n_steps": 1, "max_bad_steps": 2}
    return config(**{"settings": settings, "imports": [__name__], "run": run, "trainer": trainer, **sections})


def command_line(config: dict[str, Any], *arguments: str, on: str = "train") -> Result:
    path = Path(config["run"]["out_dir"]).with_suffix(".yaml")
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return CliRunner().invoke(main, [on, str(path), *arguments])


def status(out_dir: Path) -> str:
    return str(json.loads((out_dir / "status.json").read_text())["status"])


def test_a_run_of_which_every_step_is_bad_has_failed_and_stays_so(tmp_path: Path) -> None:
    spoilt = given(tmp_path / "run", steps=3, optimizer=DIVERGING)
    done = command_line(spoilt, "trainer.log_every_n_steps=5")
    assert (done.exit_code, status(tmp_path / "run")) == (1, "failed")
    why = "test failed: 2 steps in a row were not finite, the last at step 3\n"
    assert why in done.stderr
    again = command_line(spoilt, "--resume", "auto")
    assert again.exit_code == 1
    assert f"is finished: all of its 3 steps are done\n{why}" in again.stderr


@pytest.mark.parametrize(("rates", "expected"), [([1e30, 1e31], "failed"), ([0.01, 1e30], "finished")])
def test_a_stack_has_failed_where_no_member_is_left(tmp_path: Path, rates: list[float], expected: str) -> None:
    section = {"over": {"optimizer.lr": rates}, "strategy": "vmap"}
    ending = train(plan(given(tmp_path / "run", optimizer=DIVERGING, replicate=section)))
    assert (ending.status, status(tmp_path / "run")) == (expected, expected)
    assert (ending.reason == "every member had 2 steps in a row that were not finite") == (expected == "failed")


def short_of_room(out_dir: Path, until: int) -> dict[str, Any]:
    place = str(out_dir / "checkpoints")
    saving = {"_type_": "cb.model_checkpoint", "save_dir": place, "every_n_steps": 1}
    return given(out_dir, callbacks=[{"_type_": "cb.full_disk", "place": place, "until": until}, saving])


def test_a_run_whose_end_is_not_saved_has_failed(tmp_path: Path) -> None:
    done = command_line(short_of_room(tmp_path / "run", until=9))
    assert (done.exit_code, status(tmp_path / "run")) == (1, "failed")
    assert "saving last at step 1 failed: " in done.stderr
    assert "test failed: its end is not saved: " in done.stderr


def test_a_run_that_could_be_saved_in_the_end_has_not_failed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ending = train(plan(short_of_room(tmp_path / "run", until=3)))
    assert "saving last at step 1 failed: " in caplog.text
    assert (ending.status, ending.reason) == ("finished", "finished")
    assert checkpoint.verify(tmp_path / "run" / "checkpoints" / "last")["step"] == 4


def faulty(out_dir: Path, at: int, saves: bool = True, **sections: Any) -> dict[str, Any]:
    saving = {"_type_": "cb.model_checkpoint", "save_dir": str(out_dir / "checkpoints"), "every_n_steps": 3}
    callbacks = [{"_type_": "cb.faulty", "at": at}, *([saving] if saves else [])]
    return given(out_dir, 7, callbacks=callbacks, data=DATA, loggers=[{"_type_": "log.jsonl"}], **sections)


def rows(out_dir: Path) -> list[tuple[int, str]]:
    return [
        (row["step"], row["split"]) for row in map(json.loads, (out_dir / "metrics.jsonl").read_text().splitlines())
    ]


@pytest.mark.parametrize("saves", [True, False])
@pytest.mark.parametrize("at", [3, 7])
def test_a_callbacks_failure_loses_nothing_of_its_step(
    tmp_path: Path, at: int, saves: bool, caplog: pytest.LogCaptureFixture
) -> None:
    whole = train(plan(faulty(tmp_path / "whole", 99)))
    with pytest.raises(CallbackError, match=rf"callbacks\[0\] \(Faulty\) failed on StepEnd at step {at}: out of coff"):
        train(plan(faulty(tmp_path / "run", at, saves)))
    assert f"at a callback's failure and is saved at step {at}: once that is repaired, `--resume auto`" in caplog.text
    assert status(tmp_path / "run") == "failed"
    found = {path.name: checkpoint.verify(path)["step"] for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert found == {"last": at} | {f"step-{step:08d}": step for step in range(3, at + 1, 3) if saves}
    again = train(plan(faulty(tmp_path / "run", 99, saves)), "auto")
    assert_trees_equal(*(attrs.evolve(end.state, program=None) for end in (again, whole)))
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")


def test_a_failure_reaches_python_too_after_what_others_save(tmp_path: Path) -> None:
    state, data = build(faulty(tmp_path / "run", 3))
    with pytest.raises(CallbackError, match="out of coffee"):
        fit(state, data)
    assert int(fit(*build(faulty(tmp_path / "run", 99)), resume="auto").step) == 7


def test_a_second_interruption_ends_the_run_at_once_with_one_line(tmp_path: Path) -> None:
    done = command_line(given(tmp_path / "run", callbacks=[{"_type_": "cb.faulty", "at": 2, "presses": 2}]))
    assert done.exit_code == 130
    assert done.stderr.splitlines()[-1].startswith("stopped at once by a second SIGINT; ")
    assert "Abort" not in done.output
    assert status(tmp_path / "run") == "stopped"


@pytest.fixture
def in_foreground() -> Iterator[None]:
    """Python hears SIGINT as at a terminal; what a shell starts in the background is told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("in_foreground")
def test_an_interruption_before_training_is_told_in_one_line(tmp_path: Path) -> None:
    done = command_line(given(tmp_path / "run", callbacks=[{"_type_": "cb.faulty", "at": 0, "presses": 1}]), on="check")
    assert (done.exit_code, done.output) == (130, "stopped by SIGINT\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("in_foreground")
def test_a_save_under_way_is_whole_though_the_run_is_interrupted(tmp_path: Path) -> None:
    def save() -> None:
        with BackgroundWriter() as writer:
            state = with_params({"model": torch.zeros(4_000_000)})
            writer.save([Save(directory=str(tmp_path), name="last")], state, {})
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        save()
    assert checkpoint.verify(tmp_path / "last")
