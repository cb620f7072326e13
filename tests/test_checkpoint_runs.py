"""Checkpoints of whole runs: how a run ends, and what of its configuration may change before it goes on."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from ftrainer import ConfigError, run_experiment
from ftrainer.builtins import builtin_registry
from ftrainer.engine import checkpoint
from ftrainer.functional.state import TrainState
from registry import component
from tests.test_experiment import config
from tests.test_step import assert_trees_equal


@component
class CrashOnce:
    """An evaluator that raises unless a file is there, and makes it."""

    flag: str

    def evaluate(self, state: TrainState) -> Mapping[str, float]:
        if Path(self.flag).exists():
            return {"steps": float(state.step)}
        Path(self.flag).touch()
        raise RuntimeError("the simulator crashed")


def run(out_dir: Path, resume: str | None = None, **sections: Any) -> TrainState:
    saving = {"_type_": "cb.model_checkpoint", "save_dir": "${run.out_dir}/checkpoints", "every_n_steps": 2}
    given = config(**{"callbacks": [saving], **sections})
    registry = builtin_registry().register("evaluator.crash_once", CrashOnce)
    state = run_experiment(given, {"run.out_dir": str(out_dir)}, resume=resume, registry=registry)
    return attrs.evolve(state, program=None)


def trainer(**fields: Any) -> dict[str, Any]:
    return {"_type_": "trainer.default", "log_every_n_steps": 1, **fields}


def rows(out_dir: Path) -> list[dict[str, Any]]:
    lines = (out_dir / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "time"} for line in lines]


def test_a_crash_in_the_last_judgements_loses_none_of_them(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"trainer": trainer(max_steps=4), "loggers": [{"_type_": "log.jsonl"}]}
    flag = tmp_path / "flag"
    crashing = {"crash": {"_type_": "evaluator.crash_once", "flag": str(flag)}}
    with pytest.raises(RuntimeError, match="the simulator crashed"):
        run(tmp_path / "crashed", evaluators=crashing, **fields)
    assert checkpoint.load_manifest(tmp_path / "crashed" / "checkpoints" / "last")["cursor"]["step"] == 2
    again = run(tmp_path / "crashed", resume="auto", evaluators=crashing, **fields)
    whole = run(tmp_path / "whole", evaluators=crashing, **fields)
    assert_trees_equal(again, whole)
    assert rows(tmp_path / "crashed") == rows(tmp_path / "whole")
    assert [row["split"] for row in rows(tmp_path / "whole")].count("eval") == 1


def test_a_run_that_patience_ended_is_finished(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stop = {"_type_": "cb.early_stopping", "monitor": "train/loss", "patience": 1, "min_delta": 1000.0}
    save = {"_type_": "cb.model_checkpoint", "save_dir": "${run.out_dir}/checkpoints", "every_n_steps": 1}
    fields = {"trainer": trainer(max_steps=9), "callbacks": [stop, save]}
    done = run(tmp_path, **fields)
    assert int(done.step) == 2
    before = rows(tmp_path)
    with caplog.at_level(logging.INFO):
        assert_trees_equal(run(tmp_path, resume="auto", **fields), done)
    assert "is finished: early stopping: train/loss has not improved" in caplog.text
    assert rows(tmp_path) == before
    longer = run(tmp_path, resume=str(tmp_path / "checkpoints" / "step-00000001"), **{**fields, "callbacks": [stop]})
    assert int(longer.step) == 2


MAY_CHANGE: dict[str, dict[str, Any]] = {
    "length": {"trainer": trainer(max_steps=9)},
    "schedule": {"scheduler": {"_type_": "schedule.cosine"}},
    "learning rate": {"optimizer": {"_type_": "optim.adamw", "lr": 0.5}},
    "loggers": {"loggers": [{"_type_": "log.csv"}]},
    "batch size": {"data": {**config()["data"], "batch_size": 4, "steps_per_epoch": 7}},
}


@pytest.mark.parametrize("change", MAY_CHANGE.values(), ids=MAY_CHANGE)
def test_what_is_no_tensor_of_the_state_may_change_before_a_run_goes_on(tmp_path: Path, change: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"optimizer": {"_type_": "optim.adamw", "lr": 0.01}, "trainer": trainer(max_steps=4)}
    run(tmp_path, **fields)
    longer = run(tmp_path, resume="auto", **{**fields, "trainer": trainer(max_steps=6), **change})
    assert int(longer.step) == change.get("trainer", {}).get("max_steps", 6)


def test_what_is_a_tensor_of_the_state_may_not(tmp_path: Path) -> None:
    run(tmp_path, trainer=trainer(max_steps=2))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    wider = {"sequential": {"layers": [{"_type_": "mlp", "dims": [None, 5, 2]}]}}
    with pytest.raises(ConfigError) as caught:
        run(tmp_path, resume="auto", model=wider, trainer=trainer(max_steps=4))
    assert "leaves of the checkpoint do not fit this program" in str(caught.value)
    assert any(issue.problem.startswith("params/model/") for issue in caught.value.issues)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
