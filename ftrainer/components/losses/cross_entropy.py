"""The cross entropy of class scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ftrainer.components.fields import at_least, between
from registry.issue import invalid
from registry.spec import component, traceable

from .masking import Path, pair, rows


@component
class CrossEntropy:
    """The mean of `-log softmax(scores)[target]`, as `nn.CrossEntropyLoss`.

    Scores are (B, C, …); targets are int64 class indices (B, …), or probabilities of the scores' shape.

    Attributes:
        label_smoothing: share of each target that is spread over all classes.
        weight: one number for each class; the mean over class indices is then weighted. Empty weighs none.
        pred_path: from the model's output to the scores; empty is the whole output.
        target_path: from the targets to the target; null is the only one.

    >>> CrossEntropy()(torch.tensor([[0.0, 0.0]]), {"label": torch.tensor([1])})
    tensor(0.6931)
    """

    label_smoothing: float = traceable(0.0, validator=between(0, 1))
    weight: tuple[float, ...] = traceable((), validator=at_least(0))
    pred_path: Path = ()
    target_path: Path | None = None

    def __call__(self, outputs: Any, targets: Mapping[str, Any], mask: Tensor | None = None) -> Tensor:
        """The loss of a batch, 0-d; rows where `mask` (B,) is False count for nothing.

        Raises:
            ConfigError: the target is neither indices nor probabilities for these scores.
        """
        scores, target = suited(*pair(outputs, targets, self.pred_path, self.target_path))
        weight = self._weight(scores)
        log_p = torch.log_softmax(scores, 1) * weight
        # Torch's mean: over elements for probabilities, over the targets' weights for indices.
        if target.is_floating_point():
            picked, share = (target * log_p).sum(1), torch.ones_like(log_p[:, 0])
        else:
            picked, share = at(log_p, target), at(weight.expand_as(log_p), target)
        losses = -(1 - self.label_smoothing) * picked - self.label_smoothing * log_p.mean(1)
        keep = torch.ones_like(losses, dtype=torch.bool) if mask is None else rows(mask, losses)
        return torch.where(keep, losses, 0.0).sum().to(scores.dtype) / torch.where(keep, share, 0.0).sum()

    def _weight(self, scores: Tensor) -> Tensor:
        classes = scores.shape[1]
        if not self.weight:
            return torch.ones_like(scores[:1, :, ...])
        if len(self.weight) != classes:
            expected = f"{classes}, one for each class"
            raise invalid("wrong number of weights", "weight", found=str(len(self.weight)), expected=expected)
        column = torch.stack([torch.as_tensor(w, dtype=scores.dtype, device=scores.device) for w in self.weight])
        return column.reshape(1, -1, *[1] * (scores.dim() - 2))


def suited(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both again, indices as int64.

    Raises:
        ConfigError: the target's shape goes with neither indices nor probabilities.
    """
    probabilities = target.is_floating_point()
    expected = scores.shape if probabilities else (scores.shape[0], *scores.shape[2:])
    if scores.dim() > 1 and target.shape == expected:
        return scores, target if probabilities else target.long()
    kind = str(target.dtype).removeprefix("torch.")
    raise invalid(
        "the target goes with neither class indices nor probabilities",
        "target_path",
        found=f"scores {tuple(scores.shape)}, target {kind} {tuple(target.shape)}",
        expected="integers of shape (B, …) or probabilities of the scores' shape (B, C, …)",
        hint="floats are probabilities: give class indices an integer dtype in the data" if probabilities else None,
    )


def at(table: Tensor, index: Tensor) -> Tensor:
    """The entries of (B, C, …) at class indices (B, …)."""
    return torch.gather(table, 1, index.unsqueeze(1)).squeeze(1)
