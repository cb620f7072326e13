"""One trial run of a model before training: does the example fit, can `torch.func` differentiate it, is it pure?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from registry.issue import ConfigError, Issue
from registry.spec import Deferred

from .assemble import path_of
from .skeleton import Skeleton

IGNORED = (
    "training",
    "_flat_weights",
    "_flat_weight_refs",
    "_initialize_hook",
    "_load_hook",
    "_forward_hooks_with_kwargs",
)
"""Attributes that torch itself sets while a module runs, and that hold no state."""
HELD = ("_parameters", "_buffers", "_modules", "_plan")


def refuse_mutation(code: Skeleton, spec: Deferred, run: Callable[[], Any]) -> None:
    """Run a module and look whether it changed itself outside its buffers.

    Args:
        code: the module that `run` runs.
        spec: what made it.
        run: the trial.

    Raises:
        ConfigError: an attribute of a layer changed; the error names layer, class and attribute.
    """
    before = {name: attributes(layer) for name, layer in code.module.named_modules()}
    run()
    issues = [
        mutation(spec, code, name, layer, attribute)
        for name, layer in code.module.named_modules()
        for attribute in changed(before[name], attributes(layer))
    ]
    if issues:
        raise ConfigError(issues)


def mutation(spec: Deferred, code: Skeleton, name: str, layer: nn.Module, attribute: str) -> Issue:
    """The issue for an attribute that a layer changed."""
    return Issue(
        path=path_of(spec, code.places, name),
        problem=f"layer {name!r} ({type(layer).__name__}) changes its attribute {attribute!r} while it runs",
        hint="a pure step would lose the change: keep the state in a buffer (`register_buffer`), or return it",
    )


def attributes(layer: nn.Module) -> dict[str, Any]:
    """What a layer holds besides tensors, submodules and hooks; containers are copied one level deep."""
    return {
        name: (value, contents(value))
        for name, value in vars(layer).items()
        if name not in IGNORED and name not in HELD and not name.endswith("_hooks")
    }


def contents(value: Any) -> Any:
    """What would differ after a change in place."""
    if isinstance(value, Tensor):
        return value._version
    if isinstance(value, Mapping):
        return tuple(value.items())
    return tuple(value) if isinstance(value, (list, set, tuple)) else None


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The attributes that are not what they were."""
    return [name for name in {**before, **after} if not same(before.get(name), after.get(name))]


def same(old: Any, new: Any) -> bool:
    """Whether two snapshots of an attribute are alike: one object or equal plain values, with the same contents."""
    if old is new:
        return True
    if isinstance(old, tuple) and isinstance(new, tuple):
        return len(old) == len(new) and all(same(a, b) for a, b in zip(old, new, strict=True))
    return isinstance(old, (int, float, str, bool)) and type(old) is type(new) and old == new


def differentiate(apply: Callable[[dict[str, Tensor]], Any], params: dict[str, Tensor]) -> None:
    """Run `apply` as `torch.func.grad` would, forward only."""

    def forward(moved: dict[str, Tensor]) -> Tensor:
        apply(moved)
        return torch.zeros(())

    torch.func.vjp(forward, params)
