"""The learning rates of a transform, as they stand at a step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from registry.spec import is_traceable

from .phases import Context


def learning_rates(transform: Any, ctx: Context) -> dict[str, Tensor]:
    """Every learning rate that a transform is about to use, 0-d float64.

    Args:
        transform: with parts and groups of parameters at any depth; one with a method `at(ctx)` answers it with the
            transform that a schedule makes of it now.
        ctx: of the step.

    Returns:
        `lr` where there is one; `lr/0`, `lr/1`, … where parts or groups have their own, outermost first.
    """
    values = [_number(value, ctx) for value in _found(transform, ctx)]
    return {"lr": values[0]} if len(values) == 1 else {f"lr/{index}": value for index, value in enumerate(values)}


def _found(node: Any, ctx: Context) -> Iterator[Any]:
    if hasattr(node, "at"):
        yield from _found(node.at(ctx), ctx._replace(lr_scale=torch.ones_like(ctx.lr_scale)))
    elif isinstance(node, tuple):
        yield from (value for item in node for value in _found(item, ctx))
    elif isinstance(node, Mapping):
        yield from (value for item in node.values() for value in _found(item, ctx))
    elif attrs.has(type(node)) and hasattr(node, "update"):
        fields = attrs.fields_dict(type(node))
        if "lr" in fields and is_traceable(fields["lr"]) and node.lr is not None:
            yield node.lr
            yield from (group["lr"] for group in getattr(node, "groups", ()) if "lr" in group)
        yield from (value for name in fields if name != "groups" for value in _found(getattr(node, name), ctx))


def _number(value: Any, ctx: Context) -> Tensor:
    return value.to(ctx.lr_scale.dtype) if isinstance(value, Tensor) else torch.full_like(ctx.lr_scale, value)
