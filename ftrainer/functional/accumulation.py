"""One optimizer step over several micro-batches: sums weighted by example count, so that each weighs what it should."""

from __future__ import annotations

from typing import Any, NamedTuple

import attrs
import torch
from torch import Tensor

from . import pytree
from .state import TrainState, Tree


class Gradients(NamedTuple):
    """One phase's outcome before anything moves."""

    grads: Tree
    loss: Tensor
    metrics: dict[str, Tensor]
    buffers: dict[str, Any]
    count: Tensor  # type: ignore[assignment]  # hides tuple.count, which nobody needs here


def empty(state: TrainState, out: Gradients) -> Tree:
    """The accumulator of a phase that gives gradients and metrics like these."""
    return {
        "grads": pytree.map(torch.zeros_like, out.grads),
        "metrics": pytree.map(torch.zeros_like, out.metrics),
        "count": torch.zeros_like(state.slots["lr_scale"]),
        "buffers": pytree.map(torch.clone, state.buffers),
    }


def working(state: TrainState) -> TrainState:
    """The state as the running micro-batches left it: buffers move within an accumulated step, or fall with it."""
    accum = state.slots.get("accum")
    return state if accum is None else attrs.evolve(state, buffers=accum["buffers"])


def add(accum: Tree, out: Gradients) -> Tree:
    """The accumulator with one more micro-batch in it."""
    grads = pytree.map(lambda a, g: a + g * out.count.to(g.dtype), accum["grads"], out.grads)
    metrics = pytree.map(lambda a, m: a + m * out.count.to(m.dtype), accum["metrics"], out.metrics)
    return {**accum, "grads": grads, "metrics": metrics, "count": accum["count"] + out.count}


def total(state: TrainState, out: Gradients) -> Gradients:
    """The mean over all examples since the last update; `out` itself where nothing accumulates."""
    if "accum" not in state.slots:
        return out
    accum = add(state.slots["accum"], out)
    grads, metrics = pytree.map(lambda s: s / accum["count"].to(s.dtype), (accum["grads"], accum["metrics"]))
    return out._replace(grads=grads, metrics=metrics, loss=metrics["loss"], count=accum["count"])


def cleared(state: TrainState) -> TrainState:
    """The state with an empty accumulator, if it has one."""
    if "accum" not in state.slots:
        return state
    accum = state.slots["accum"]
    zeros = pytree.map(torch.zeros_like, {name: accum[name] for name in ("grads", "metrics", "count")})
    return attrs.evolve(state, slots={**state.slots, "accum": {**zeros, "buffers": state.buffers}})
