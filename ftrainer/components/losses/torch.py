"""Any loss of `torch.nn`, padding left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from registry.issue import invalid
from registry.spec import Deferred, component

from .masking import masked_mean, pick

Path = tuple[str | int, ...]


@component
class TorchLoss:
    """A loss that takes `(prediction, target)`, made by a spec such as `{_type_: nn.MSELoss}`.

    Attributes:
        fn: the call that makes the loss; it is made anew for each trace, so no state lives in it. Lists for `weight`
            and `pos_weight` become tensors.
        pred_path: keys and indices from the model's output to the prediction; empty is the whole output.
        target_path: the same from the targets; null is the only target.

    >>> from torch import nn
    >>> loss = TorchLoss(fn=Deferred(key="nn.MSELoss", factory=nn.MSELoss))
    >>> loss(torch.tensor([1.0, 9.0]), {"y": torch.tensor([0.0, 0.0])}, mask=torch.tensor([True, False]))
    tensor(1.)
    """

    fn: Deferred
    pred_path: str | Path = ()
    target_path: str | Path | None = None

    def __call__(self, outputs: Any, targets: Mapping[str, Any], mask: Tensor | None = None) -> Tensor:
        """The loss of a batch, 0-d.

        Args:
            outputs: what the model gave.
            targets: by name.
            mask: (B,) bool, False on padded rows, which count for nothing; a full mask gives torch's own value.

        Raises:
            ConfigError: a path leads nowhere, several targets and no `target_path`, or a mask for a loss that
                cannot leave rows out.
        """
        prediction = pick(outputs, self.pred_path, "pred_path")
        target = pick(only(targets) if self.target_path is None else targets, self.target_path or (), "target_path")
        fn = with_tensors(self.fn, prediction.device).build()
        return fn(prediction, target) if mask is None else _masked(fn, prediction, target, mask)


def only(targets: Mapping[str, Any]) -> Any:
    """The one target there is.

    Raises:
        ConfigError: there are several, or none.
    """
    if len(targets) != 1:
        found = ", ".join(map(repr, targets)) or "no targets"
        raise invalid("which target?", "target_path", found=found, hint="name one: `target_path: [<name>]`")
    return next(iter(targets.values()))


def with_tensors(fn: Deferred, device: torch.device) -> Deferred:
    """The same call with class weights, which YAML writes as lists, as tensors."""
    weights = {k: v for k, v in fn.kwargs.items() if k in ("weight", "pos_weight") and isinstance(v, tuple)}
    if not weights:
        return fn
    made = {name: torch.tensor(value, device=device) for name, value in weights.items()}
    return attrs.evolve(fn, kwargs={**fn.kwargs, **made})


def _masked(fn: Any, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    reduction = getattr(fn, "reduction", None)
    if reduction not in ("mean", "sum", "batchmean"):
        name = type(fn).__name__
        hint = "give it a `reduction`, or let the data drop the last partial batch"
        raise invalid(f"{name} cannot leave padded rows out", "fn", found=f"reduction {reduction!r}", hint=hint)
    if hasattr(fn, "ignore_index") and not target.is_floating_point():
        # Class weights make torch's mean a weighted one: let torch leave the rows out.
        return fn(prediction, torch.where(_rows(mask, target), target, fn.ignore_index))
    fn.reduction = "none"
    losses = fn(prediction, target)
    if reduction == "mean":
        return masked_mean(losses, mask)
    total = torch.where(_rows(mask, losses), losses, 0.0).sum()
    return total if reduction == "sum" else total / mask.sum()


def _rows(mask: Tensor, like: Tensor) -> Tensor:
    return mask.reshape(-1, *[1] * (like.dim() - 1))
