"""Every built-in key, one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ftrainer.components.data.random_regression import RandomRegression
from ftrainer.components.io import mapping
from ftrainer.components.learners.supervised import Supervised
from ftrainer.components.trainer import DefaultTrainer
from registry import Registry

# Keys are grouped by the configuration section that they serve.
DATA: dict[str, Callable[..., Any]] = {
    "data.random_regression": RandomRegression,
}

IO: dict[str, Callable[..., Any]] = {"io.mapping": mapping}

MODELS: dict[str, Callable[..., Any]] = {}

LOSSES: dict[str, Callable[..., Any]] = {}

OPTIMIZERS: dict[str, Callable[..., Any]] = {}

SCHEDULES: dict[str, Callable[..., Any]] = {}

LEARNERS: dict[str, Callable[..., Any]] = {"learner.supervised": Supervised}

TRAINERS: dict[str, Callable[..., Any]] = {"trainer.default": DefaultTrainer}

METRICS: dict[str, Callable[..., Any]] = {}

EVALUATORS: dict[str, Callable[..., Any]] = {}

CALLBACKS: dict[str, Callable[..., Any]] = {}

LOGGERS: dict[str, Callable[..., Any]] = {}


def builtin_registry() -> Registry:
    """A registry of everything that ships with ftrainer.

    >>> "trainer.default" in builtin_registry()
    True
    """
    registry = Registry()
    for section in (DATA, IO, MODELS, LOSSES, OPTIMIZERS, SCHEDULES, LEARNERS, TRAINERS, METRICS, EVALUATORS, CALLBACKS, LOGGERS):
        registry = registry.register_all(section)
    return registry
