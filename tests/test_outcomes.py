"""How `ftrainer train` ends, as a shell sees it: exit codes, one line of why, and what is saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from ftrainer.engine import checkpoint
from ftrainer.experiment import plan, train
from ftrainer.functional.events import StepEnd
from ftrainer.run import main
from registry import Registry, component
from tests.test_experiment import config

DIVERGING = {"_type_": "optim.sgd", "lr": 1e30}


@component
class FullDisk:
    """A callback that puts a file where checkpoints go between two steps, as if there were no room for any."""

    place: str
    first: int
    last: int

    def init(self) -> None:
        """Nothing to remember."""

    def on_event(self, memory: None, event: Any) -> tuple[None, tuple[Any, ...]]:
        there = Path(self.place)
        if isinstance(event, StepEnd) and event.step == self.first:
            there.rename(there.with_name("aside")) if there.exists() else None
            there.touch()
        if isinstance(event, StepEnd) and event.step == self.last:
            there.unlink()
        return memory, ()


def register(registry: Registry) -> Registry:
    """This module is a plugin, too."""
    return registry.register("cb.full_disk", FullDisk)


def given(out_dir: Path, steps: int = 4, **sections: Any) -> dict[str, Any]:
    settings = {"allow_imports": True, "allowed_import_prefixes": ["tests"]}
    run = {"name": "test", "compile": "eager", "out_dir": str(out_dir)}
    trainer = {"_type_": "trainer.default", "max_steps": steps, "log_every_n_steps": 1, "max_bad_steps": 2}
    return config(**{"settings": settings, "imports": [__name__], "run": run, "trainer": trainer, **sections})


def command_line(config: dict[str, Any], *arguments: str) -> Result:
    path = Path(config["run"]["out_dir"]).with_suffix(".yaml")
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return CliRunner().invoke(main, ["train", str(path), *arguments])


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


def short_of_room(out_dir: Path, last: int) -> dict[str, Any]:
    place = str(out_dir / "checkpoints")
    saving = {"_type_": "cb.model_checkpoint", "save_dir": place, "every_n_steps": 1}
    return given(out_dir, callbacks=[{"_type_": "cb.full_disk", "place": place, "first": 2, "last": last}, saving])


def test_a_run_whose_end_is_not_saved_has_failed(tmp_path: Path) -> None:
    done = command_line(short_of_room(tmp_path / "run", last=9))
    assert (done.exit_code, status(tmp_path / "run")) == (1, "failed")
    assert "saving last at step 2 failed: " in done.stderr
    assert "test failed: its end is not saved: " in done.stderr


def test_a_run_that_could_be_saved_in_the_end_has_not_failed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ending = train(plan(short_of_room(tmp_path / "run", last=3)))
    assert "saving last at step 2 failed: " in caplog.text
    assert (ending.status, ending.reason) == ("finished", "finished")
    assert checkpoint.verify(tmp_path / "run" / "checkpoints" / "last")["step"] == 4
