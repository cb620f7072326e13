"""One row for every key of LEARNERS: a small configuration that uses all that the learner offers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ftrainer.builtins import LEARNERS

ROWS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "learner.supervised": {
            "learner": {"_type_": "learner.supervised", "ema_decay": 0.9},
            "metrics": [{"_type_": "metric.mae"}],
            "scheduler": {"_type_": "schedule.cosine"},
        },
    }
)


def configuration(key: str) -> dict[str, Any]:
    """A run of two epochs in float64 with dropout, clipping and accumulation."""
    layers = [{"_type_": "normalize", "field": "x"}, {"_type_": "mlp", "dims": [None, 16, 2], "dropout": 0.2}]
    return {
        "run": {"name": "contract", "precision": "fp64", "compile": "eager"},
        "data": {"_type_": "data.random_regression", "batch_size": 8, "steps_per_epoch": 4, "val_steps_per_epoch": 1,
                 "x_shape": [3], "y_shape": [2]},
        "io": {"_type_": "io.mapping", "model_kwargs": {"x": ["x"]}, "targets": {"y": ["y"]}},
        "model": {"sequential": {"layers": layers}},
        "loss": {"_type_": "loss.mse"},
        "optimizer": {"_type_": "optim.adamw", "lr": 0.01},
        "trainer": {"_type_": "trainer.default", "max_epochs": 2, "grad_accum_steps": 2, "grad_clip_norm": 1.0},
        **ROWS[key],
    }  # fmt: skip


def missing() -> set[str]:
    """Learners without a row."""
    return set(LEARNERS) - set(ROWS)
