"""Activations by name or by spec, a fresh instance for every place."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial

from torch import nn
from torch.nn.modules import activation

from registry.issue import invalid, nearest

Activation = str | nn.Module
"""`relu`, `gelu`, `tanh` … (a class of torch's activations, case and underscores aside), or a spec of any module."""


ALONG = (nn.Softmax, nn.LogSoftmax, nn.Softmin)
"""Torch's activations over a dimension; by name they go along the last."""


def activations() -> dict[str, Callable[[], nn.Module]]:
    """Torch's activations that need no argument and keep the shape, by lower-case name.

    >>> activations()["leakyrelu"]()
    LeakyReLU(negative_slope=0.01)
    """
    classes = {getattr(activation, name) for name in activation.__all__} - {nn.GLU, nn.Softmax2d}
    plain = {cls.__name__.lower(): cls for cls in classes if not _required(cls)}
    along = {cls.__name__.lower(): partial(cls, dim=-1) for cls in ALONG}
    return {**plain, **along, "identity": nn.Identity, "swish": nn.SiLU}


def _required(cls: Callable[..., object]) -> list[str]:
    catching = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(cls).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind not in catching]


def make_activation(chosen: Activation, *field: str) -> nn.Module:
    """A new instance of an activation.

    Args:
        chosen: its name, or a module to copy.
        field: the block's argument, for the error.

    Raises:
        ConfigError: the name is unknown.

    >>> make_activation("leaky_relu")
    LeakyReLU(negative_slope=0.01)
    """
    if isinstance(chosen, nn.Module):
        return copy.deepcopy(chosen)
    known = activations()
    name = chosen.lower().replace("_", "")
    if name not in known:
        raise invalid("unknown activation", *field, found=repr(chosen), nearest=nearest(name, known),
                      expected="one of " + ", ".join(sorted(known)))  # fmt: skip
    return known[name]()
