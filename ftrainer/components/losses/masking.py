"""Parts of outputs and targets by path, and means over the rows that count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from registry.issue import invalid, nearest

Path = tuple[str | int, ...]


def pick(tree: Any, path: str | Path, field: str) -> Any:
    """What lies at the end of a path of keys and indices (plain text is one key).

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
    rows = losses.reshape(losses.shape[0], -1).mean(1)
    return torch.where(mask, rows, 0.0).sum() / mask.sum()
