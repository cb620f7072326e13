"""Every built-in key, one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ftrainer.components.callbacks.early_stopping import EarlyStopping
from ftrainer.components.callbacks.model_checkpoint import ModelCheckpoint
from ftrainer.components.data.arrays import Arrays
from ftrainer.components.data.csv import CSV
from ftrainer.components.data.dataloader import Loader
from ftrainer.components.data.hdf5_episodes import HDF5Episodes
from ftrainer.components.data.parquet import Parquet
from ftrainer.components.data.random_regression import RandomRegression
from ftrainer.components.data.transforms import GaussianNoise, RandomFlip, RandomShift
from ftrainer.components.io import mapping
from ftrainer.components.learners.supervised import Supervised
from ftrainer.components.loggers.csv import CsvLogger
from ftrainer.components.loggers.curves import Curves
from ftrainer.components.loggers.jsonl import JsonLines
from ftrainer.components.loggers.members import Members
from ftrainer.components.loggers.mlflow import MLflow
from ftrainer.components.loggers.progress import ProgressBar
from ftrainer.components.loggers.stdout import Stdout
from ftrainer.components.loggers.summary import Summary
from ftrainer.components.loggers.tensorboard import TensorBoard
from ftrainer.components.loggers.wandb import WandB
from ftrainer.components.losses.cross_entropy import CrossEntropy
from ftrainer.components.losses.gaussian_nll import GaussianNLL
from ftrainer.components.losses.huber import Huber
from ftrainer.components.losses.l1 import L1
from ftrainer.components.losses.mse import MSE
from ftrainer.components.losses.torch import TorchLoss
from ftrainer.components.losses.weighted_sum import WeightedSum
from ftrainer.components.metrics.accuracy import Accuracy
from ftrainer.components.metrics.mae import MAE
from ftrainer.components.metrics.mse import MSE as MeanSquaredError
from ftrainer.components.metrics.r2 import R2
from ftrainer.components.metrics.torchmetrics import TorchMetric
from ftrainer.components.optim.adadelta import Adadelta
from ftrainer.components.optim.adafactor import Adafactor
from ftrainer.components.optim.adagrad import Adagrad
from ftrainer.components.optim.adam import Adam
from ftrainer.components.optim.adamax import Adamax
from ftrainer.components.optim.adamw import AdamW
from ftrainer.components.optim.add_decayed_weights import AddDecayedWeights
from ftrainer.components.optim.chain import Chain
from ftrainer.components.optim.clip_by_global_norm import ClipByGlobalNorm
from ftrainer.components.optim.clip_by_value import ClipByValue
from ftrainer.components.optim.ema import EMA
from ftrainer.components.optim.lion import Lion
from ftrainer.components.optim.mask import Mask
from ftrainer.components.optim.muon import Muon
from ftrainer.components.optim.nadam import NAdam
from ftrainer.components.optim.partition import Partition
from ftrainer.components.optim.radam import RAdam
from ftrainer.components.optim.rmsprop import RMSprop
from ftrainer.components.optim.schedule_free_adamw import ScheduleFreeAdamW
from ftrainer.components.optim.scheduled import Scheduled
from ftrainer.components.optim.sgd import SGD
from ftrainer.components.optim.torch import torch_optimizer
from ftrainer.components.schedules.constant import Constant
from ftrainer.components.schedules.cosine import Cosine
from ftrainer.components.schedules.exponential import Exponential
from ftrainer.components.schedules.inverse_sqrt import InverseSqrt
from ftrainer.components.schedules.linear import Linear
from ftrainer.components.schedules.multistep import MultiStep
from ftrainer.components.schedules.one_cycle import OneCycle
from ftrainer.components.schedules.piecewise import Piecewise
from ftrainer.components.schedules.plateau import Plateau
from ftrainer.components.schedules.polynomial import Polynomial
from ftrainer.components.schedules.step import Step
from ftrainer.components.schedules.torch import torch_schedule
from ftrainer.components.schedules.warmup import Warmup
from ftrainer.components.trainer import DefaultTrainer
from ftrainer.model.blocks.conv_bn_act import ConvBnAct
from ftrainer.model.blocks.gaussian_head import GaussianHead
from ftrainer.model.blocks.mlp import MLP
from ftrainer.model.blocks.normalize import Normalize
from ftrainer.model.blocks.positional_encoding import PositionalEncoding
from ftrainer.model.blocks.residual import Residual
from ftrainer.model.blocks.residual_mlp import ResidualMLP
from ftrainer.model.blocks.time_embedding import TimeEmbedding
from ftrainer.model.blocks.transformer_decoder import TransformerDecoder
from ftrainer.model.blocks.transformer_encoder import TransformerEncoder
from ftrainer.model.build import constructor_model, torch_model
from ftrainer.model.numbers import numbers
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
    "transform.gaussian_noise": GaussianNoise,
    "transform.random_flip": RandomFlip,
    "transform.random_shift": RandomShift,
}

IO: dict[str, Callable[..., Any]] = {"io.mapping": mapping}

MODELS: dict[str, Callable[..., Any]] = {
    "model.constructor": constructor_model,
    "model.torch": torch_model,
    "conv_bn_act": ConvBnAct,
    "gaussian_head": GaussianHead,
    "mlp": MLP,
    "normalize": Normalize,
    "positional_encoding": PositionalEncoding,
    "residual": Residual,
    "residual_mlp": ResidualMLP,
    "time_embedding": TimeEmbedding,
    "transformer_decoder": TransformerDecoder,
    "transformer_encoder": TransformerEncoder,
    **torch_modules(),
}

LOSSES: dict[str, Callable[..., Any]] = {
    "loss.cross_entropy": CrossEntropy,
    "loss.gaussian_nll": GaussianNLL,
    "loss.huber": Huber,
    "loss.l1": L1,
    "loss.mse": MSE,
    "loss.torch": TorchLoss,
    "loss.weighted_sum": WeightedSum,
}

OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "optim.adadelta": Adadelta,
    "optim.adafactor": Adafactor,
    "optim.adagrad": Adagrad,
    "optim.adam": Adam,
    "optim.adamax": Adamax,
    "optim.adamw": AdamW,
    "optim.add_decayed_weights": AddDecayedWeights,
    "optim.chain": Chain,
    "optim.clip_by_global_norm": ClipByGlobalNorm,
    "optim.clip_by_value": ClipByValue,
    "optim.ema": EMA,
    "optim.lion": Lion,
    "optim.mask": Mask,
    "optim.muon": Muon,
    "optim.nadam": NAdam,
    "optim.partition": Partition,
    "optim.radam": RAdam,
    "optim.rmsprop": RMSprop,
    "optim.schedule_free_adamw": ScheduleFreeAdamW,
    "optim.scheduled": Scheduled,
    "optim.sgd": SGD,
    "optim_factory.torch": torch_optimizer,
}

SCHEDULES: dict[str, Callable[..., Any]] = {
    "schedule.constant": Constant,
    "schedule.cosine": Cosine,
    "schedule.exponential": Exponential,
    "schedule.inverse_sqrt": InverseSqrt,
    "schedule.linear": Linear,
    "schedule.multistep": MultiStep,
    "schedule.one_cycle": OneCycle,
    "schedule.piecewise": Piecewise,
    "schedule.plateau": Plateau,
    "schedule.polynomial": Polynomial,
    "schedule.step": Step,
    "schedule.warmup": Warmup,
    "sched_factory.torch": torch_schedule,
}

LEARNERS: dict[str, Callable[..., Any]] = {"learner.supervised": Supervised}

TRAINERS: dict[str, Callable[..., Any]] = {"trainer.default": DefaultTrainer}

METRICS: dict[str, Callable[..., Any]] = {
    "metric.accuracy": Accuracy,
    "metric.mae": MAE,
    "metric.mse": MeanSquaredError,
    "metric.r2": R2,
    "metric.torchmetrics": TorchMetric,
}

EVALUATORS: dict[str, Callable[..., Any]] = {}

CALLBACKS: dict[str, Callable[..., Any]] = {
    "cb.early_stopping": EarlyStopping,
    "cb.model_checkpoint": ModelCheckpoint,
}

LOGGERS: dict[str, Callable[..., Any]] = {
    "log.csv": CsvLogger,
    "log.curves": Curves,
    "log.jsonl": JsonLines,
    "log.members": Members,
    "log.mlflow": MLflow,
    "log.progress": ProgressBar,
    "log.stdout": Stdout,
    "log.summary": Summary,
    "log.tensorboard": TensorBoard,
    "log.wandb": WandB,
}


def builtin_registry() -> Registry:
    """A registry of everything that ships with ftrainer.

    >>> "trainer.default" in builtin_registry()
    True
    """
    registry = Registry().reading(Tensor, numbers)
    for section in (
        DATA,
        IO,
        MODELS,
        LOSSES,
        OPTIMIZERS,
        SCHEDULES,
        LEARNERS,
        TRAINERS,
        METRICS,
        EVALUATORS,
        CALLBACKS,
        LOGGERS,
    ):
        registry = registry.register_all(section)
    return registry.register_all(OPS, check="best_effort")
