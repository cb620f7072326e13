"""One row for every key of OPTIMIZERS, SCHEDULES and LOSSES: the smallest component that shows what it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from ftrainer.builtins import LOSSES, OPTIMIZERS, SCHEDULES
from ftrainer.components.optim.adamw import AdamW
from ftrainer.components.optim.muon import Muon
from ftrainer.components.optim.sgd import SGD
from ftrainer.components.schedules.constant import Constant
from ftrainer.components.schedules.cosine import Cosine
from ftrainer.functional.phases import Context
from registry.spec import Deferred

Tree = dict[str, Any]
TOTAL_STEPS, STEPS_PER_EPOCH = 20, 4

OPTIMIZER_ROWS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "optim.adadelta": {"weight_decay": 0.1},
        "optim.adafactor": {"weight_decay": 0.1, "d": 2.0},
        "optim.adagrad": {"lr_decay": 0.1},
        "optim.adam": {"weight_decay": 0.1, "amsgrad": True},
        "optim.adamax": {"weight_decay": 0.1},
        "optim.adamw": {"groups": [{"match": "*.bias", "weight_decay": 0, "lr": 0.1}]},
        "optim.add_decayed_weights": {"weight_decay": 0.1},
        "optim.chain": {"transforms": (SGD(lr=0.1, momentum=0.9), AdamW())},
        "optim.clip_by_global_norm": {"max_norm": 0.1},
        "optim.clip_by_value": {"limit": 0.1},
        "optim.ema": {},
        "optim.lion": {"weight_decay": 0.1},
        "optim.mask": {"transform": AdamW(), "match": "*.weight"},
        "optim.muon": {"dtype": "float64"},
        "optim.nadam": {"weight_decay": 0.1, "decoupled_weight_decay": True},
        "optim.partition": {
            "parts": (
                {"match": "*.weight", "transform": Muon(dtype="float64")},
                {"match": "*", "transform": AdamW()},
            )
        },
        "optim.radam": {"weight_decay": 0.1},
        "optim.rmsprop": {"momentum": 0.9, "centered": True},
        "optim.schedule_free_adamw": {"weight_decay": 0.1},
        "optim.scheduled": {"transform": SGD(lr=0.1), "schedule": Cosine(steps=10)},
        "optim.sgd": {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.1},
        "optim_factory.torch": {"type": "optim_cls.AdamW", "kwargs": {"lr": 0.01}},
    }
)

SCHEDULE_ROWS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "schedule.constant": {"value": 0.5},
        "schedule.cosine": {"final": 0.1},
        "schedule.exponential": {"gamma": 0.9},
        "schedule.inverse_sqrt": {"timescale": 4},
        "schedule.linear": {"start": 0.1, "final": 0.9},
        "schedule.multistep": {"milestones": [2, 5]},
        "schedule.one_cycle": {},
        "schedule.piecewise": {"schedules": (Constant(), Cosine()), "boundaries": [3]},
        "schedule.plateau": {"min_lr": 1e-4},
        "schedule.polynomial": {"power": 2.0},
        "schedule.step": {"step_size": 3},
        "schedule.warmup": {"steps": 3, "inner": Cosine()},
        "sched_factory.torch": {
            "type": "sched_cls.OneCycleLR",
            "kwargs": {"max_lr": 0.1, "total_steps": TOTAL_STEPS},
            "interval": "step",
        },
    }
)

LOSS_ROWS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "loss.cross_entropy": {"label_smoothing": 0.1, "weight": [1.0, 2.0, 0.5]},
        "loss.gaussian_nll": {},
        "loss.huber": {"delta": 0.5},
        "loss.l1": {},
        "loss.mse": {},
        "loss.torch": {"fn": Deferred(key="nn.SmoothL1Loss", factory=nn.SmoothL1Loss)},
        "loss.weighted_sum": {"losses": (LOSSES["loss.mse"](), LOSSES["loss.l1"]()), "weights": [1.0, 0.5]},
    }
)

MATRICES_ONLY = ("optim.muon",)


def optimizer(key: str) -> Any:
    """The transform of a row."""
    return OPTIMIZERS[key](**OPTIMIZER_ROWS[key])


def schedule(key: str) -> Any:
    """The schedule of a row, told how long the run is."""
    made = SCHEDULES[key](**SCHEDULE_ROWS[key])
    return made.resolve(TOTAL_STEPS, STEPS_PER_EPOCH) if hasattr(made, "resolve") else made


def loss(key: str) -> Any:
    """The loss of a row."""
    return LOSSES[key](**LOSS_ROWS[key])


def params_for(key: str, dtype: torch.dtype = torch.float64) -> Tree:
    """Parameters of every rank that the transform takes."""
    shapes = {"0.weight": (4, 3), "1.weight": (2, 4)}
    if key not in MATRICES_ONLY:
        shapes |= {"0.bias": (4,), "scale": ()}
    generator = torch.Generator().manual_seed(0)
    return {
        "model": {
            name: torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for name, s in shapes.items()
        }
    }


def grads_for(params: Tree, step: int = 0) -> Tree:
    """Gradients that depend on parameters and step, none of them zero."""
    return {role: {name: torch.sin(3 * p + step) + 0.3 * p for name, p in by.items()} for role, by in params.items()}


def context(step: int | Tensor, epoch: int | Tensor = 0, lr_scale: float = 1.0) -> Context:
    """Where a run is; every update so far was applied."""
    at = torch.as_tensor(step)
    return Context(
        step=at, epoch=torch.as_tensor(epoch), count=at, lr_scale=torch.tensor(lr_scale, dtype=torch.float64)
    )


def loss_inputs(key: str, rows: int = 6) -> tuple[Tensor, dict[str, Tensor]]:
    """Outputs and targets that a loss takes, float64."""
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(rows, 4 if key == "loss.gaussian_nll" else 3, generator=generator, dtype=torch.float64)
    if key == "loss.cross_entropy":
        return outputs, {"y": torch.arange(rows) % 3}
    width = outputs.shape[1] // 2 if key == "loss.gaussian_nll" else outputs.shape[1]
    return outputs, {"y": torch.randn(rows, width, generator=generator, dtype=torch.float64)}


def tables() -> list[tuple[Mapping[str, Callable[..., Any]], Mapping[str, Any]]]:
    """Every section with its rows."""
    return [(OPTIMIZERS, OPTIMIZER_ROWS), (SCHEDULES, SCHEDULE_ROWS), (LOSSES, LOSS_ROWS)]
