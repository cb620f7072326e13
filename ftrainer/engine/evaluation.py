"""Judging a state on a whole split: means weighted by examples, metrics over everything at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ftrainer.components.base import Batch, Metric
from ftrainer.functional import pytree
from ftrainer.model.bridge import under


def evaluate_split(
    judge: Callable[[Batch], dict[str, Any]], batches: Iterable[Batch], metrics: Sequence[Metric] = ()
) -> dict[str, float]:
    """Run `judge` over a split.

    Args:
        judge: a learner's `evaluate` at some state: 0-d means with their example `count`, and under `examples` the
            `(outputs, targets, mask)` that `metrics` see concatenated.
        batches: the split.
        metrics: figures over the whole split, not means of figures over batches.

    Returns:
        Plain numbers by name; empty for an empty split.
    """
    return summarise([judge(batch) for batch in batches], metrics)


def summarise(results: Sequence[dict[str, Any]], metrics: Sequence[Metric] = ()) -> dict[str, float]:
    """The figures of a split from what a learner's `evaluate` gave for each of its batches.

    Raises:
        ConfigError: a metric refuses what the model gives, or what it is compared with.
    """
    if not results:
        return {}
    counts = torch.stack([torch.as_tensor(r["count"], dtype=torch.float64) for r in results]).cpu()
    figures = {name: mean(results, name, counts) for name in results[0] if name not in ("count", "examples")}
    if metrics:
        outputs, targets = collected([r["examples"] for r in results])
        for index, metric in enumerate(metrics):
            with under(("metrics", index)):
                figures |= {name: float(value) for name, value in metric.compute(outputs, targets).items()}
    return figures


def mean(results: Sequence[dict[str, Any]], name: str, counts: Tensor) -> float:
    """The mean over examples of a figure that each batch gives as its own mean."""
    values = torch.stack([r[name].to(torch.float64) for r in results]).cpu()
    return float((values * counts).sum() / counts.sum())


def collected(examples: Sequence[tuple[Any, Any, Tensor | None]]) -> tuple[Any, Any]:
    """Outputs and targets of all batches, padding left out, joined along the batch dimension."""

    def join(part: int) -> Any:
        kept = [e[part] if e[2] is None else pytree.map(lambda x, m=e[2]: x[m], e[part]) for e in examples]
        return pytree.map(lambda *xs: torch.cat(xs), kept[0], *kept[1:])

    return join(0), join(1)
