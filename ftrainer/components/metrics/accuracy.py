"""The share of examples that are classified right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from ftrainer.components.fields import count, number
from ftrainer.components.losses.masking import Path, pair
from registry.spec import component


@component
class Accuracy:
    """The share of targets among the best scores, or on the right side of a threshold.

    Scores (B, C, …) go with class indices (B, …); scores of the targets' own shape are of two classes.

    Attributes:
        top_k: how many of the best scores may hold the target.
        threshold: of two classes, the second begins here (0 for logits, 0.5 for probabilities).
        name: what it is logged as.
        pred_path: from the model's output to the scores; empty is the whole output.
        target_path: from the targets to the target; null is the only one.

    >>> Accuracy().compute(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), {"label": torch.tensor([1, 1])})
    {'accuracy': tensor(0.5000)}
    """

    top_k: int = attrs.field(default=1, validator=count())
    threshold: float = attrs.field(default=0.0, validator=number())
    name: str = "accuracy"
    pred_path: Path = ()
    target_path: Path | None = None

    def compute(self, outputs: Any, targets: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """The figure over a whole split, by name."""
        scores, target = pair(outputs, targets, self.pred_path, self.target_path)
        if scores.shape == target.shape:
            right = (scores > self.threshold) == target.to(torch.bool)
        else:
            best = torch.topk(scores, min(self.top_k, scores.shape[1]), dim=1).indices
            right = (best == target.unsqueeze(1)).any(1)
        return {self.name: right.to(torch.float32).mean()}
