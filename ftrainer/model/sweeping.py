"""The numbers of a model in which members of one stack of runs may differ: the dropout of our blocks."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from registry.issue import ConfigPath, nearest
from registry.spec import Deferred

from .assemble import rewrite, specs
from .blocks.dropout import Dropout
from .lazy import comes_from, own_layers
from .skeleton import hollow_module

BLOCKS = ("ftrainer.model.blocks.",)
FIELD = "dropout"
SOME = 0.5
"""What stands for any dropout where only the rest is compared."""


def dropouts(spec: Deferred, root: ConfigPath) -> dict[str, float]:
    """The dropout of each block that drops anything, by config path below `root`."""
    return {place(nested, root): share(nested) for nested in specs(spec) if share(nested) > 0}


def place(spec: Deferred, root: ConfigPath) -> str:
    """Where a block's dropout is written, as `sequential.layers.1.dropout`."""
    return ".".join(map(str, (*spec.path[len(root) :], FIELD)))


def share(spec: Deferred) -> float:
    """A block's dropout; 0 for what is no block of ours or has none."""
    if not comes_from(spec.factory, BLOCKS):
        return 0.0
    parameter = inspect.signature(spec.factory).parameters.get(FIELD)
    return 0.0 if parameter is None else spec.kwargs.get(FIELD, parameter.default)


def known(spec: Deferred, root: ConfigPath, name: str) -> str:
    """`name`, if it is the place of a dropout.

    Raises:
        KeyError: it is none.
    """
    valid = dropouts(spec, root)
    if name not in valid:
        hint = f"; did you mean {' or '.join(nearest(name, valid))}?" if nearest(name, valid) else ""
        raise KeyError(f"{name}: of a model only the dropout of a block can be swept, where it is not 0{hint}")
    return name


def without(spec: Deferred) -> Deferred:
    """The spec with every dropout put to one value."""

    def change(nested: Deferred) -> Deferred:
        return attrs.evolve(nested, kwargs={**nested.kwargs, FIELD: SOME}) if share(nested) > 0 else nested

    return rewrite(spec, change)


def replaced(spec: Deferred, root: ConfigPath, swept: Mapping[str, float | Tensor]) -> dict[str, Tensor]:
    """For each dropout layer that is swept, the dotted name of the attribute to replace, and its value."""
    indices = {place(nested, root): index for index, nested in enumerate(specs(spec)) if share(nested) > 0}
    return {
        f"{layer}.swept": value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
        for name, value in swept.items()
        for layer in layers_of(spec, indices[name])
    }


def layers_of(spec: Deferred, index: int) -> list[str]:
    """Dotted names of the dropout layers that the block at a place in the order of calls made."""
    assembled: Any = hollow_module(spec)
    (part,) = (part for part in assembled.parts if part.index == index)
    own = set(own_layers(part, assembled.parts))
    return [n for n, layer in assembled.module.named_modules() if isinstance(layer, Dropout) and layer in own]
