"""The runs that `torture` kills: small, with everything whose state could be lost."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import numpy as np
import torch
import yaml
from torch import Tensor

from ftrainer.engine import checkpoint
from registry import Registry

from .forked import Forked

STEPS = 240
PATIENCE_SECONDS = 120.0
MEMORY: Mapping[str, Any] = MappingProxyType(
    {"_type_": "data.random_regression", "batch_size": 8, "steps_per_epoch": 50, "val_steps_per_epoch": 2,
     "x_shape": [6], "y_shape": [3]}
)  # fmt: skip
LOADER: Mapping[str, Any] = MappingProxyType(
    {"_type_": "data.dataloader", "batch_size": 8, "val_fraction": 0.1, "dataset": {"_type_": "torture.noisy"}}
)
KINDS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "memory": {"data": MEMORY, "patience": STEPS},
        "workers 0": {"data": {**LOADER, "workers": 0}, "patience": STEPS},
        "workers 2": {"data": {**LOADER, "workers": 2}, "patience": STEPS},
        "stopped early": {"data": MEMORY, "patience": 30},
    }
)
"""Where a run's batches come from, and how many training losses without improvement end it."""


class Noisy(torch.utils.data.Dataset[Any]):
    """Samples that draw from torch, numpy and Python each time they are asked for, as augmentations do."""

    def __init__(self, n: int):
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        shift = random.random() + np.random.rand()
        x = torch.sin(torch.arange(6.0) * index) + 0.1 * torch.randn(6) + shift
        return {"x": x, "y": x[:3].square()}


def noisy(n: int = 440) -> Noisy:
    """The factory behind `torture.noisy`."""
    return Noisy(n)


def register(registry: Registry) -> Registry:
    """What the configurations of these runs import."""
    return registry.register("torture.noisy", noisy)


def configuration(kind: str, out_dir: Path) -> dict[str, Any]:
    """A run that uses everything whose state could be lost."""
    return {
        "schema_version": 1,
        "settings": {"allow_imports": True, "allowed_import_prefixes": ["benchmarks."]},
        "imports": ["benchmarks.torture_runs"],
        "run": {"name": "torture", "out_dir": str(out_dir), "seed": 3, "device": "cpu"},
        "model": {"sequential": {"inputs": ["x"], "layers": [
            {"_type_": "mlp", "dims": [None, 64, 64, 3], "dropout": 0.2}]}},
        "data": dict(KINDS[kind]["data"]),
        "io": {"_type_": "io.mapping", "model_kwargs": {"x": ["x"]}, "targets": {"y": ["y"]}},
        "loss": {"_type_": "loss.torch", "fn": {"_type_": "nn.MSELoss"}},
        "optimizer": {"_type_": "optim.adamw", "lr": 1e-3},
        "scheduler": {"_type_": "schedule.cosine"},
        "learner": {"_type_": "learner.supervised", "ema_decay": 0.99},
        "trainer": {"_type_": "trainer.default", "max_steps": STEPS, "grad_accum_steps": 3, "log_every_n_steps": 1,
                    "val_every_n_epochs": 1, "grad_clip_norm": 1.0},
        "callbacks": [
            {"_type_": "cb.model_checkpoint", "save_dir": str(out_dir / "checkpoints"), "every_n_steps": 7, "keep": 2,
             "save_top_k": 2, "monitor": "val/loss"},
            {"_type_": "cb.early_stopping", "monitor": "train/loss", "patience": KINDS[kind]["patience"]},
        ],
        "loggers": [{"_type_": "log.jsonl"}, {"_type_": "log.csv"}],
    }  # fmt: skip


Process = Forked | subprocess.Popen[bytes]


@attrs.frozen
class Run:
    """One directory and the command that trains in it."""

    root: Path
    kind: str

    @property
    def out_dir(self) -> Path:
        """Where the run leaves its files."""
        return self.root / "run"

    @property
    def is_saving(self) -> bool:
        """Whether a save is half done."""
        return any((self.out_dir / "checkpoints").glob(".*.*"))

    @property
    def metrics(self) -> Path:
        """The rows that it has logged."""
        return self.out_dir / "metrics.jsonl"

    def start(self, fresh: bool = False, prepare: Callable[[], None] | None = None) -> Process:
        """Begin or go on, in a process of its own: a copy of this one, or one that starts from nothing."""
        self.root.mkdir(parents=True, exist_ok=True)
        config, log = self.root / "config.yaml", self.root / "log.txt"
        config.write_text(yaml.safe_dump(configuration(self.kind, self.out_dir)))
        arguments = ["train", str(config), "--resume", "auto"]
        if not fresh:
            return Forked(arguments, log, prepare)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with log.open("ab") as words:
            return subprocess.Popen(
                [sys.executable, "-m", "ftrainer", *arguments], env=environment, stdout=words, stderr=words
            )

    def finish(self, fresh: bool = False, prepare: Callable[[], None] | None = None, expected: int = 0) -> None:
        """Train to the end.

        Raises:
            RuntimeError: the command ended with another exit code than was expected, or did not end.
        """
        process = self.start(fresh, prepare)
        try:
            code = process.wait(PATIENCE_SECONDS)
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            process.kill()
            raise RuntimeError(f"{self.root}: did not end\n{self.tail()}") from error
        if code != expected:
            raise RuntimeError(f"{self.root}: exit code {code}\n{self.tail()}")

    def rows(self) -> int:
        """How many rows are logged so far."""
        return self.metrics.read_bytes().count(b"\n") if self.metrics.exists() else 0

    def tail(self) -> str:
        """The last of what the processes said."""
        return (self.root / "log.txt").read_text()[-3000:]

    def result(self) -> dict[str, Any]:
        """All that must not depend on kills, by name."""
        last = self.out_dir / "checkpoints" / "last"
        manifest = checkpoint.verify(last)
        for memory in manifest["callbacks"]:
            memory.pop("clock", None)
        table = [line.split(",") for line in (self.out_dir / "metrics.csv").read_text().splitlines()]
        clock = table[0].index("time")
        kept = sorted(path.name for path in (self.out_dir / "checkpoints").iterdir() if not path.name.startswith("."))
        return {
            "tensors": (last / checkpoint.TENSORS).read_bytes(),
            "callbacks": manifest["callbacks"],
            "position": {key: manifest["cursor"][key] for key in ("step", "tick", "epoch")},
            "metrics.jsonl": [timeless(line) for line in self.metrics.read_text().splitlines()],
            "metrics.csv": [[cell for i, cell in enumerate(line) if i != clock] for line in table],
            "checkpoints": kept,
        }


def timeless(line: str) -> dict[str, Any]:
    """A row without its wall clock."""
    return {name: value for name, value in json.loads(line).items() if name != "time"}
