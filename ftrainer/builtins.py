"""Every built-in key, one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ftrainer.components.data.random_regression import RandomRegression
from ftrainer.components.io import mapping
from ftrainer.components.learners.supervised import Supervised
from ftrainer.components.optim.adam import Adam
from ftrainer.components.optim.adamw import AdamW
from ftrainer.components.optim.chain import Chain
from ftrainer.components.optim.clip_by_global_norm import ClipByGlobalNorm
from ftrainer.components.optim.clip_by_value import ClipByValue
from ftrainer.components.optim.scheduled import Scheduled
from ftrainer.components.optim.sgd import SGD
from ftrainer.components.schedules.constant import Constant
from ftrainer.components.schedules.cosine import Cosine
from ftrainer.components.schedules.step import Step
from ftrainer.components.trainer import DefaultTrainer
from ftrainer.model.blocks.mlp import MLP
from ftrainer.model.blocks.normalize import Normalize
from ftrainer.model.build import torch_model
from ftrainer.model.torch_modules import torch_modules
from registry import Registry

# Keys are grouped by the configuration section that they serve.
DATA: dict[str, Callable[..., Any]] = {
    "data.random_regression": RandomRegression,
}

IO: dict[str, Callable[..., Any]] = {"io.mapping": mapping}

MODELS: dict[str, Callable[..., Any]] = {
    "model.torch": torch_model,
    "mlp": MLP,
    "normalize": Normalize,
    **torch_modules(),
}

LOSSES: dict[str, Callable[..., Any]] = {}

OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "optim.adam": Adam,
    "optim.adamw": AdamW,
    "optim.chain": Chain,
    "optim.clip_by_global_norm": ClipByGlobalNorm,
    "optim.clip_by_value": ClipByValue,
    "optim.scheduled": Scheduled,
    "optim.sgd": SGD,
}

SCHEDULES: dict[str, Callable[..., Any]] = {
    "schedule.constant": Constant,
    "schedule.cosine": Cosine,
    "schedule.step": Step,
}

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
