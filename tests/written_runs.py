"""Directories of runs, written as training writes them, without training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ftrainer.components.loggers.rows import to_line
from ftrainer.engine.rundir import HEADER

ENVIRONMENT = {"torch": "2.13.0", "python": "3.11.7", "device": "cpu", "backend": "trace"}


def write_run(
    path: Path,
    rows: Sequence[Mapping[str, Any]] = (),
    *,
    lr: float = 0.1,
    seed: int = 0,
    name: str | None = None,
    notes: Sequence[Mapping[str, Any]] = (),
    **status: Any,
) -> Path:
    """A run's directory; `status` overwrites entries of its `status.json`."""
    name = path.name if name is None else name
    config = {
        "run": {"name": name, "out_dir": str(path), "seed": seed},
        "optimizer": {"_type_": "optim.sgd", "lr": lr},
        "trainer": {"_type_": "trainer.default", "max_steps": 100},
        "callbacks": [{"_type_": "cb.model_checkpoint", "save_dir": f"{path}/checkpoints"}],
    }
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(HEADER + yaml.safe_dump(config))
    (path / "config.origin.yaml").write_text(
        f"run:\n  name: {name}  # mine.yaml:2\noptimizer:\n  lr: {lr}  # override\n"
    )
    content = {"name": name, "total_steps": 100, "environment": ENVIRONMENT, "machine": {"host": "here"}, "pid": 0,
               "started": 1.7e9, "ended": 1.7e9, "status": "finished", "reason": "finished", "step": 100,
               "seconds": 12.5, "members": []}  # fmt: skip
    (path / "status.json").write_text(json.dumps({**content, **status}))
    (path / "metrics.jsonl").write_text("".join(map(to_line, rows)))
    (path / "notes.jsonl").write_text("".join(json.dumps(note) + "\n" for note in notes))
    return path


def row(step: int, split: str = "train", **metrics: float) -> dict[str, Any]:
    """One row of metrics."""
    return {"step": step, "epoch": step // 10, "split": split, "time": step / 10, "metrics": metrics}


def falling(n: int = 10, scale: float = 1.0) -> list[dict[str, Any]]:
    """A loss that falls over n rows, and one validation."""
    return [*(row(10 * k, loss=scale / k) for k in range(1, n + 1)), row(10 * n, "val", loss=scale / n)]


def replicated(seeds: Sequence[int], lrs: Sequence[float]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of a replicated run and who its members are."""
    members = [{"run.seed": seed, "optimizer.lr": lr} for lr in lrs for seed in seeds]
    rows = [
        {**row(10 * k, split, loss=(who + 1) / k), "member": who, "values": values}
        for k in range(1, 6) for split in ("train", "val") for who, values in enumerate(members)
    ]  # fmt: skip
    return rows, members
