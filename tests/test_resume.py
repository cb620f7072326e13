"""A run that was stopped and resumed ends bitwise as the run that was never stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from ftrainer import ConfigError, run_experiment
from ftrainer.engine.checkpoint import load_manifest
from tests.test_experiment import config
from tests.test_step import assert_trees_equal


def after(n: int) -> Callable[[], str | None]:
    """An interruption at the n-th step."""
    left = iter(range(n - 1))
    return lambda: None if next(left, None) is not None else "stopped by the test"


def run(out_dir: Path, **options: Any) -> Any:
    state = run_experiment(
        config(
            model={"sequential": {"layers": [{"_type_": "mlp", "dims": [None, 16, 2], "dropout": 0.2},
                                             {"_type_": "nn.BatchNorm1d", "num_features": 2}]}},
            learner={"_type_": "learner.supervised", "ema_decay": 0.9},
            scheduler={"_type_": "schedule.cosine"},
            trainer={"_type_": "trainer.default", "max_epochs": 4, "grad_accum_steps": 2, "log_every_n_steps": 1,
                     "grad_clip_norm": 1.0},
            callbacks=[{"_type_": "cb.model_checkpoint", "save_dir": "${run.out_dir}/checkpoints", "every_n_steps": 2,
                        "save_top_k": 1, "monitor": "val/loss"}],
        ),
        {"run.out_dir": str(out_dir)},
        **options,
    )  # fmt: skip
    return attrs.evolve(state, program=None)  # it names the directory


def rows(out_dir: Path) -> list[dict[str, Any]]:
    lines = (out_dir / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "time"} for line in lines]


@pytest.mark.parametrize("stops", [[1], [3], [5, 2], [4, 1, 1, 2]], ids=str)
def test_resumed_runs_end_bitwise_equal(stops: list[int], tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    part = run(tmp_path / "parts", interrupted=after(stops[0]))
    for n in stops[1:]:
        part = run(tmp_path / "parts", interrupted=after(n), resume="auto")
    assert int(part.step) == sum(stops)
    part = run(tmp_path / "parts", resume="auto")
    assert_trees_equal(part, whole)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    memories = [load_manifest(tmp_path / name / "checkpoints" / "last")["callbacks"] for name in ("whole", "parts")]
    assert memories[0][0]["best"] == memories[1][0]["best"]


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    done = run(tmp_path / "run")
    before = rows(tmp_path / "run")
    assert_trees_equal(run(tmp_path / "run", resume="auto"), done)
    assert rows(tmp_path / "run") == before


def test_resuming_without_a_checkpoint_starts_afresh(tmp_path: Path) -> None:
    assert int(run(tmp_path / "run", resume="auto").step) == 12


def test_a_path_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^no checkpoint there; found .*nothing"):
        run(tmp_path / "run", resume=str(tmp_path / "nothing"))
    (tmp_path / "last").mkdir()
    overrides = {"run.out_dir": str(tmp_path / "run"), "run.resume_from": str(tmp_path / "lst")}
    with pytest.raises(ConfigError, match=r"run\.resume_from: no checkpoint there; .*did you mean '.*last'"):
        run_experiment(config(), overrides)
    assert not (tmp_path / "run").exists()


def test_an_older_checkpoint_can_be_named(tmp_path: Path) -> None:
    whole = run(tmp_path / "run")
    again = run(tmp_path / "run", resume=str(tmp_path / "run" / "checkpoints" / "step-00000008"))
    assert_trees_equal(again, whole)
