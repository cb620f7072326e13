"""What a plugin author meets: the kinds of component, the parts of a step, events and actions, random keys."""

from ftrainer.components.base import (
    IO,
    Batch,
    Callback,
    Data,
    DataSpec,
    Evaluator,
    Learner,
    Logger,
    LogSink,
    Loss,
    Metric,
    Model,
    RunInfo,
    Schedule,
)
from ftrainer.components.data.adapt import as_data
from ftrainer.components.data.hdf5_episodes import EpisodesSpec
from ftrainer.components.data.memory import Examples, MemoryData, MemorySpec, in_memory
from ftrainer.components.fields import above, at_least, between, count, fraction
from ftrainer.components.losses.trial import try_metrics, try_phases
from ftrainer.components.optim.scheduled import scheduled
from ftrainer.components.trainer import DefaultTrainer
from ftrainer.functional import pytree, random, step
from ftrainer.functional.events import (
    EpochEnd,
    Event,
    Log,
    Logged,
    Save,
    Saved,
    Scale,
    StepEnd,
    Stop,
    Stopping,
    Validate,
    Validated,
)
from ftrainer.functional.phases import Aux, Context, Phase, Track, Transform
from ftrainer.functional.redirect import redirect
from ftrainer.functional.state import Program, StepPolicy, TrainState, Tree, with_hyper
from ftrainer.model.blocks.gaussian_head import log_prob
from ftrainer.model.blocks.mlp import MLP
from ftrainer.model.blocks.normalize import Normalize
from ftrainer.model.build import torch_model
from registry import Deferred, Plain, Registry, component, invalid, traceable

__all__ = [
    "IO",
    "MLP",
    "Aux",
    "Batch",
    "Callback",
    "Context",
    "Data",
    "DataSpec",
    "DefaultTrainer",
    "Deferred",
    "EpisodesSpec",
    "EpochEnd",
    "Evaluator",
    "Event",
    "Examples",
    "Learner",
    "Log",
    "LogSink",
    "Logged",
    "Logger",
    "Loss",
    "MemoryData",
    "MemorySpec",
    "Metric",
    "Model",
    "Normalize",
    "Phase",
    "Plain",
    "Program",
    "Registry",
    "RunInfo",
    "Save",
    "Saved",
    "Scale",
    "Schedule",
    "StepEnd",
    "StepPolicy",
    "Stop",
    "Stopping",
    "Track",
    "TrainState",
    "Transform",
    "Tree",
    "Validate",
    "Validated",
    "above",
    "as_data",
    "at_least",
    "between",
    "component",
    "count",
    "fraction",
    "in_memory",
    "invalid",
    "log_prob",
    "pytree",
    "random",
    "redirect",
    "scheduled",
    "step",
    "torch_model",
    "traceable",
    "try_metrics",
    "try_phases",
    "with_hyper",
]
