"""Sweeps: groups and chunks as runs of their own, their results as one run's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from ftrainer import ConfigError, build, fit
from ftrainer.engine import checkpoint
from ftrainer.engine.extraction import take_out
from ftrainer.run import main
from ftrainer.sweep import Task, on_worker, sweep
from tests.test_replicate import alone, assert_trees_close, small

SECTION = {"seeds": 2, "over": {"params.width": [4, 8], "optimizer.lr": [0.01, 0.1]}, "groups": ["params.width"],
           "strategy": "vmap"}  # fmt: skip


def config(tmp_path: Path, **section: Any) -> dict[str, Any]:
    """A run whose width is a parameter, replicated in two groups."""
    model = {"sequential": {"layers": [{"_type_": "mlp", "dims": [3, "${params.width}", 2]}]}}
    base = small(model=model, params={"width": 4}, replicate=SECTION | section)
    save = {"_type_": "cb.model_checkpoint", "save_dir": "${run.out_dir}/checkpoints", "every_n_steps": 4}
    where = {"name": "swept", "out_dir": str(tmp_path / "sweep"), "precision": "fp64", "compile": "eager"}
    return base | {"run": where, "callbacks": [save]}


def rows(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "sweep" / "metrics.jsonl").read_text().splitlines()]


def test_groups_are_trained_one_after_another_and_told_as_one(tmp_path: Path) -> None:
    narrow, wide = sweep(config(tmp_path))
    assert (narrow.name, wide.name) == ("width=4_0-3", "width=8_0-3")
    values = {row["member"]: row["values"] for row in rows(tmp_path)}
    assert sorted(values) == list(range(8))
    assert values[5] == {"run.seed": 1, "optimizer.lr": 0.01, "params.width": 8}
    found = json.loads((tmp_path / "sweep" / "members.json").read_text())
    assert {each["value"] for each in found["effects"] if each["path"] == "params.width"} == {4, 8}
    taken = take_out(wide / "checkpoints" / "last", 3, tmp_path / "one")
    plain = {name: value for name, value in config(tmp_path).items() if name not in ("replicate", "callbacks")}
    solo = fit(*build(plain, {"params.width": 8, "run.seed": 1, "optimizer.lr": 0.1}))
    assert_trees_close(alone(checkpoint.read(taken, solo)[0]), alone(solo), 1e-11)


def test_chunks_are_runs_of_their_own(tmp_path: Path) -> None:
    shares = sweep(config(tmp_path, groups=[], over={"optimizer.lr": [0.01, 0.1]}, chunk=3))
    assert [share.name for share in shares] == ["0-2", "3-3"]
    values = {row["member"]: row["values"] for row in rows(tmp_path)}
    assert [values[who]["run.seed"] for who in range(4)] == [0, 1, 0, 1]
    assert [values[who]["optimizer.lr"] for who in range(4)] == [0.01, 0.01, 0.1, 0.1]


def test_a_sweep_that_was_stopped_goes_on(tmp_path: Path) -> None:
    whole = sweep(config(tmp_path / "whole"))
    asked = iter(range(10**6))
    sweep(config(tmp_path), interrupted=lambda: "enough" if next(asked) > 13 else None)
    parts = sweep(config(tmp_path), resume="auto")
    for one, other in zip(whole, parts, strict=True):
        digests = [
            checkpoint.load_manifest(share / "checkpoints" / "last")["tensors"]["sha256"] for share in (one, other)
        ]
        assert digests[0] == digests[1]
    expected = [row["metrics"] for row in rows(tmp_path / "whole")]
    assert [row["metrics"] for row in rows(tmp_path)] == expected


def test_two_sweeps_do_not_share_a_directory(tmp_path: Path) -> None:
    sweep(config(tmp_path, over={}, groups=[]))
    with pytest.raises(ConfigError, match="an earlier run lies here"):
        sweep(config(tmp_path, over={}, groups=[]))
    sweep(config(tmp_path, over={}, groups=[]), overwrite=True)


def test_a_worker_goes_on_from_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ray runs, and runs again when a worker dies, without Ray."""
    monkeypatch.chdir(tmp_path)
    source = config(tmp_path, over={}, groups=[])
    task = Task(name="all", source=source, overrides=["trainer.max_steps=4"], resume=None, directory=str(tmp_path))
    on_worker(task)
    assert checkpoint.load_manifest(tmp_path / "sweep" / "checkpoints" / "last")["step"] == 4
    on_worker(Task(name="all", source=source, overrides=[], resume=None, directory=str(tmp_path)))
    assert checkpoint.load_manifest(tmp_path / "sweep" / "checkpoints" / "last")["step"] == 10
    assert json.loads((tmp_path / "sweep" / "status.json").read_text())["attempts"] == 2


def test_train_takes_groups_too(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(config(tmp_path)))
    done = CliRunner().invoke(main, ["train", str(file), "trainer.max_steps=2"])
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "sweep" / "shares").iterdir())) == 2


def test_what_is_no_sweep(tmp_path: Path) -> None:
    plain = {name: value for name, value in config(tmp_path).items() if name != "replicate"}
    with pytest.raises(ConfigError, match="replicate: nothing is replicated"):
        sweep(plain)
    with pytest.raises(ConfigError, match="a sweep goes on with all of its shares; found elsewhere; expected auto"):
        sweep(config(tmp_path), resume="elsewhere")
    with pytest.raises(ValueError, match="engine 'cloud' is none of local, ray"):
        sweep(config(tmp_path), engine="cloud")
