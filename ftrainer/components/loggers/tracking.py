"""What every tracking service is told: tags of figures, hyperparameters as flat scalars, last values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.issue import dotted

from .record import Record
from .rows import Row

Scalar = bool | int | float | str | None


def tag_of(row: Row, name: str) -> str:
    """What a figure of a row is called, with its member where there are several.

    >>> tag_of({"split": "val", "member": 3}, "loss"), tag_of({"split": "train"}, "loss")
    ('val/loss/3', 'train/loss')
    """
    member = f"/{row['member']}" if "member" in row else ""
    return f"{row['split']}/{name}{member}"


def hyperparameters(config: Any, path: tuple[str | int, ...] = ()) -> dict[str, Scalar]:
    """The scalars of a configuration by dotted path.

    >>> hyperparameters({"optimizer": {"lr": 0.1}, "dims": (1, 2)})
    {'optimizer.lr': 0.1, 'dims[0]': 1, 'dims[1]': 2}
    """
    if isinstance(config, Mapping):
        items = [((*path, str(key)), value) for key, value in config.items()]
    elif isinstance(config, (list, tuple)):
        items = [((*path, at), value) for at, value in enumerate(config)]
    else:
        return {dotted(path): config}
    return {name: leaf for at, value in items for name, leaf in hyperparameters(value, at).items()}


def last_values(record: Record) -> dict[str, float]:
    """Each figure's last value by its tag."""
    return {
        "/".join([key.split, key.name, *([key.member] if key.member else [])]): values[-1]
        for key, (_, values) in record.series.items()
    }
