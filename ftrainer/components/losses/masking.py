"""Parts of outputs and targets by path, and means over the rows that count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from registry.issue import invalid, nearest

Path = str | tuple[str | int, ...]
"""Keys and indices from the outside in; plain text is one key, and nothing is the whole."""


def pick(tree: Any, path: Path, field: str) -> Any:
    """What lies at the end of a path.

    Raises:
        ConfigError: it leads nowhere; `field` is who asked.

    >>> pick({"heads": [10, 20]}, ("heads", 1), "pred_path")
    20
    """
    for part in (path,) if isinstance(path, str) else path:
        try:
            tree = tree[part]
        except (KeyError, IndexError, TypeError) as error:
            keys = [str(key) for key in tree] if isinstance(tree, Mapping) else []
            found = ", ".join(map(repr, keys)) or f"a {type(tree).__name__}"
            raise invalid(f"no {part!r} here", field, found=found, nearest=nearest(str(part), keys)) from error
    return tree


def pair(outputs: Any, targets: Any, pred_path: Path, target_path: Path | None) -> tuple[Tensor, Tensor]:
    """Prediction and target; without a `target_path` the only target there is.

    Raises:
        ConfigError: a path leads nowhere, or there is no path and not one target.

    >>> pair({"action": torch.ones(2)}, {"y": torch.zeros(2)}, "action", None)
    (tensor([1., 1.]), tensor([0., 0.]))
    """
    if target_path is not None:
        return pick(outputs, pred_path, "pred_path"), pick(targets, target_path, "target_path")
    if len(targets) != 1:
        found = ", ".join(map(repr, targets)) or "no targets"
        raise invalid("which target?", "target_path", found=found, hint="name one: `target_path: [<name>]`")
    return pick(outputs, pred_path, "pred_path"), next(iter(targets.values()))


def alike(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both again, of one shape: (B,) against (B, 1) would quietly compare everything with everything.

    Raises:
        ConfigError: the shapes differ.
    """
    if prediction.shape != target.shape:
        found = f"prediction {tuple(prediction.shape)}, target {tuple(target.shape)}"
        raise invalid("shapes differ", "pred_path", found=found, hint="reshape one of them in the model or the data")
    return prediction, target


def rows(mask: Tensor, like: Tensor) -> Tensor:
    """(B,) as (B, 1, …), to go with a tensor of more dimensions."""
    return mask.reshape(-1, *[1] * (like.dim() - 1))


def masked_mean(losses: Tensor, mask: Tensor | None) -> Tensor:
    """The mean over all elements of the rows that count, 0-d.

    Args:
        losses: (B, …), one value per element.
        mask: (B,) bool; None counts every row.

    >>> masked_mean(torch.tensor([[1.0, 3.0], [100.0, 100.0]]), torch.tensor([True, False]))
    tensor(2.)
    """
    if mask is None:
        return losses.mean()
    by_row = losses.reshape(losses.shape[0], -1).mean(1)
    return torch.where(mask, by_row, 0.0).sum() / mask.sum()
