"""Initial weights by pattern."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from frozendict import frozendict
from torch import Tensor, nn

from ftrainer.functional.patterns import match
from registry.issue import invalid, nearest
from registry.spec import Plain, component

from .assemble import start_stream

FIRST_STREAM = 2**32
"""Where the streams of initialisers begin, past those of specs."""


@component
class Initializer:
    """One entry of `initializers:`.

    Attributes:
        match: a pattern for dotted names of parameters.
        init: a function of `torch.nn.init` without the trailing underscore, for instance `xavier_uniform`.
        args: its further arguments by name, for instance `{gain: 1.4}`.
    """

    match: str
    init: str
    args: Plain = frozendict()

    def __attrs_post_init__(self) -> None:
        known = initializers()
        if self.init not in known:
            raise invalid("unknown initialiser", "init", found=repr(self.init), nearest=nearest(self.init, known),
                          expected="one of " + ", ".join(known))  # fmt: skip


def initializers() -> dict[str, Callable[..., Any]]:
    """The functions of `torch.nn.init` that fill a tensor, by name without the underscore.

    >>> "xavier_uniform" in initializers(), "calculate_gain" in initializers()
    (True, False)
    """
    names = [name for name in dir(nn.init) if name.endswith("_") and not name.startswith("_")]
    return {name.removesuffix("_"): getattr(nn.init, name) for name in names}


def initialize(module: nn.Module, rules: tuple[Initializer, ...], key: Tensor) -> None:
    """Fill a module's parameters anew, rule by rule; the last rule that matches wins.

    Args:
        module: changed in place.
        rules: what to fill with what.
        key: 0-d int64; every rule draws from a stream of its own. Callers fork torch's generator.

    Raises:
        ConfigError: a pattern matches nothing, or a function does not suit a parameter.
    """
    parameters = dict(module.named_parameters())
    for index, rule in enumerate(rules):
        start_stream(key, FIRST_STREAM + index)
        for name in match(rule.match, parameters, "initializers", index, "match"):
            fill_one(parameters[name], name, rule, index)


def fill_one(parameter: Tensor, name: str, rule: Initializer, index: int) -> None:
    """Fill one parameter."""
    arguments: Mapping[str, Any] = rule.args
    try:
        with torch.no_grad():
            initializers()[rule.init](parameter, **arguments)
    except (ValueError, TypeError, RuntimeError) as error:
        found = f"{name} {tuple(parameter.shape)}"
        raise invalid(f"{rule.init} does not suit a parameter: {error}", "initializers", index, found=found) from error
