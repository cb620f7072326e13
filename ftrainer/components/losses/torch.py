"""Any loss of `torch.nn`, padding left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ftrainer.functional.graph import opaque
from ftrainer.model.numbers import typed
from ftrainer.model.tensors import named_tensors
from registry.issue import invalid
from registry.spec import Deferred, component

from .masking import Path, alike, masked_mean, pair, rows

ELEMENTWISE = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)
"""Losses that would broadcast prediction and target against each other, with a warning at most."""


@component
class TorchLoss:
    """A loss that takes `(prediction, target)`, made by a spec such as `{_type_: nn.MSELoss}`.

    Attributes:
        fn: the call that makes the loss; it is made anew for each trace, so no state lives in it.
        pred_path: keys and indices from the model's output to the prediction; empty is the whole output.
        target_path: the same from the targets; null is the only target.

    Class weights are lists of numbers: `{_type_: nn.CrossEntropyLoss, weight: [0.1, 0.9]}`.

    >>> loss = TorchLoss(fn=Deferred(key="nn.MSELoss", factory=nn.MSELoss))
    >>> loss(torch.tensor([1.0, 9.0]), {"y": torch.tensor([0.0, 0.0])}, mask=torch.tensor([True, False]))
    tensor(1.)
    """

    fn: Deferred
    pred_path: Path = ()
    target_path: Path | None = None

    def __call__(self, outputs: Any, targets: Mapping[str, Any], mask: Tensor | None = None) -> Tensor:
        """The loss of a batch, 0-d.

        Args:
            outputs: what the model gave.
            targets: by name.
            mask: (B,) bool, False on padded rows, which count for nothing; a full mask gives torch's own value.

        Raises:
            ConfigError: a path leads nowhere, several targets and no `target_path`, shapes that would be broadcast, or
                a mask for a loss that cannot leave rows out.
        """
        prediction, target = pair(outputs, targets, self.pred_path, self.target_path)
        fn = typed(self.fn, prediction.dtype).build()
        if isinstance(fn, nn.Module):  # class weights go where the prediction is
            fn.to(prediction.device, prediction.dtype)
        if isinstance(fn, ELEMENTWISE):
            prediction, target = alike(prediction, target)
        return _called(fn, prediction, target) if mask is None else _masked(fn, prediction, target, mask)


def _called(fn: Any, prediction: Tensor, target: Tensor) -> Tensor:
    """The loss as it is, or where `make_fx` cannot trace it as Dynamo captured it."""
    if not isinstance(fn, nn.Module):
        return fn(prediction, target)
    return opaque.call(fn, dict(named_tensors(fn)), (prediction, target), {}, {})


def _masked(fn: Any, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    reduction = getattr(fn, "reduction", None)
    if reduction not in ("mean", "sum", "batchmean"):
        name = type(fn).__name__
        hint = "give it a `reduction`, or let the data drop the last partial batch"
        raise invalid(f"{name} cannot leave padded rows out", "fn", found=f"reduction {reduction!r}", hint=hint)
    if hasattr(fn, "ignore_index") and not target.is_floating_point():
        # Class weights make torch's mean a weighted one: let torch leave the rows out.
        return _called(fn, prediction, torch.where(rows(mask, target), target, fn.ignore_index))
    fn.reduction = "none"
    losses = _called(fn, prediction, target)
    if reduction == "mean":
        return masked_mean(losses, mask)
    total = torch.where(rows(mask, losses), losses, 0.0).sum()
    return total if reduction == "sum" else total / mask.sum()
