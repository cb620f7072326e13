"""Every built-in key, one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ftrainer.components.callbacks.early_stopping import EarlyStopping
from ftrainer.components.callbacks.model_checkpoint import ModelCheckpoint
from ftrainer.components.data.arrays import Arrays
from ftrainer.components.data.csv import CSV
from ftrainer.components.data.dataloader import Loader
from ftrainer.components.data.hdf5_episodes import HDF5Episodes
from ftrainer.components.data.parquet import Parquet
from ftrainer.components.data.random_regression import RandomRegression
from ftrainer.components.io import mapping
from ftrainer.components.learners.supervised import Supervised
from ftrainer.components.loggers.csv import CsvLogger
from ftrainer.components.loggers.curves import Curves
from ftrainer.components.loggers.jsonl import JsonLines
from ftrainer.components.loggers.progress import ProgressBar
from ftrainer.components.loggers.stdout import Stdout
from ftrainer.components.loggers.summary import Summary
from ftrainer.components.loggers.tensorboard import TensorBoard
from ftrainer.components.losses.torch import TorchLoss
from ftrainer.components.optim.adam import Adam
from ftrainer.components.optim.adamw import AdamW
from ftrainer.components.optim.chain import Chain
from ftrainer.components.optim.clip_by_global_norm import ClipByGlobalNorm
from ftrainer.components.optim.clip_by_value import ClipByValue
from ftrainer.components.optim.scheduled import Scheduled
from ftrainer.components.optim.sgd import SGD
from ftrainer.components.optim.torch import torch_optimizer
from ftrainer.components.schedules.constant import Constant
from ftrainer.components.schedules.cosine import Cosine
from ftrainer.components.schedules.plateau import Plateau
from ftrainer.components.schedules.step import Step
from ftrainer.components.schedules.torch import torch_schedule
from ftrainer.components.trainer import DefaultTrainer
from ftrainer.model.blocks.mlp import MLP
from ftrainer.model.blocks.normalize import Normalize
from ftrainer.model.build import torch_model
from ftrainer.model.ops import OPS
from ftrainer.model.torch_modules import torch_modules
from registry import Registry

# Keys are grouped by the configuration section that they serve.
DATA: dict[str, Callable[..., Any]] = {
    "data.arrays": Arrays,
    "data.csv": CSV,
    "data.dataloader": Loader,
    "data.hdf5_episodes": HDF5Episodes,
    "data.parquet": Parquet,
    "data.random_regression": RandomRegression,
}

IO: dict[str, Callable[..., Any]] = {"io.mapping": mapping}

MODELS: dict[str, Callable[..., Any]] = {
    "model.torch": torch_model,
    "mlp": MLP,
    "normalize": Normalize,
    **torch_modules(),
}

LOSSES: dict[str, Callable[..., Any]] = {
    "loss.torch": TorchLoss,
}

OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "optim.adam": Adam,
    "optim.adamw": AdamW,
    "optim.chain": Chain,
    "optim.clip_by_global_norm": ClipByGlobalNorm,
    "optim.clip_by_value": ClipByValue,
    "optim.scheduled": Scheduled,
    "optim.sgd": SGD,
    "optim_factory.torch": torch_optimizer,
}

SCHEDULES: dict[str, Callable[..., Any]] = {
    "schedule.constant": Constant,
    "schedule.cosine": Cosine,
    "schedule.plateau": Plateau,
    "schedule.step": Step,
    "sched_factory.torch": torch_schedule,
}

LEARNERS: dict[str, Callable[..., Any]] = {"learner.supervised": Supervised}

TRAINERS: dict[str, Callable[..., Any]] = {"trainer.default": DefaultTrainer}

METRICS: dict[str, Callable[..., Any]] = {}

EVALUATORS: dict[str, Callable[..., Any]] = {}

CALLBACKS: dict[str, Callable[..., Any]] = {
    "cb.early_stopping": EarlyStopping,
    "cb.model_checkpoint": ModelCheckpoint,
}

LOGGERS: dict[str, Callable[..., Any]] = {
    "log.csv": CsvLogger,
    "log.curves": Curves,
    "log.jsonl": JsonLines,
    "log.progress": ProgressBar,
    "log.stdout": Stdout,
    "log.summary": Summary,
    "log.tensorboard": TensorBoard,
}


def builtin_registry() -> Registry:
    """A registry of everything that ships with ftrainer.

    >>> "trainer.default" in builtin_registry()
    True
    """
    registry = Registry()
    for section in (DATA, IO, MODELS, LOSSES, OPTIMIZERS, SCHEDULES, LEARNERS, TRAINERS, METRICS, EVALUATORS, CALLBACKS, LOGGERS):
        registry = registry.register_all(section)
    return registry.register_all(OPS, check="best_effort")
