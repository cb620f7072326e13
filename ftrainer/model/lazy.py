"""Modules whose shapes are known only after they have seen an example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from ftrainer.deps.module_internals import finish_lazy, own_tensors

from .assemble import Assembled, Part, start_stream

RESETTABLE = ("torch.nn.modules.", "ftrainer.model.blocks.")
"""Where the classes live that draw their weights in `reset_parameters` and in the order of their layers."""


def lazy_layers(module: nn.Module) -> set[nn.Module]:
    """The submodules that wait for an example."""
    return {layer for layer in module.modules() if isinstance(layer, LazyModuleMixin)}


def is_lazy(module: nn.Module) -> bool:
    """Whether any submodule waits for an example."""
    return bool(lazy_layers(module))


def redraw(assembled: Assembled, waited: set[nn.Module], key: Tensor) -> None:
    """Draw the weights of a materialised module anew, as the same spec with explicit shapes would have drawn them.

    A spec that left a shape open starts over from its own stream, now that every shape is known. This is done for
    torch's layers and our blocks; a module of somebody else's keeps what it drew when it saw the example.

    Args:
        assembled: the module, materialised.
        waited: the submodules that were lazy.
        key: as it was given to `assemble`.
    """
    for part in assembled.parts:
        own = own_layers(part, assembled.parts)
        if waited.intersection(own) and comes_from(part.spec.factory, RESETTABLE):
            start_stream(key, part.index)
            for layer in own:
                reset = getattr(layer, "reset_parameters", None)
                if reset is not None:
                    reset()


def comes_from(factory: Any, modules: tuple[str, ...]) -> bool:
    """Whether a factory is written in one of these modules, given by prefix."""
    return getattr(factory, "__module__", "").startswith(modules)


def own_layers(part: Part, parts: tuple[Part, ...]) -> list[nn.Module]:
    """The submodules that a part made itself, without those of specs nested in it."""
    layers = list(part.module.modules())
    inner = [other.module for other in parts if other.index < part.index and other.module in layers]
    nested = {layer for module in inner for layer in module.modules()}
    return [layer for layer in layers if layer not in nested]


def settle(module: nn.Module, tensors: Mapping[str, Tensor | tuple[int, ...]]) -> None:
    """Give lazy submodules the shapes that tensors have; the values of theirs stay undefined.

    Args:
        module: changed in place.
        tensors: tensors, or their shapes, by dotted name.
    """
    for prefix, layer in list(module.named_modules()):
        if isinstance(layer, LazyModuleMixin):
            shapes = {own: _shape(tensors[f"{prefix}.{own}".lstrip(".")]) for own in own_tensors(layer)}
            for attribute, size in _sizes(layer, shapes).items():
                setattr(layer, attribute, size)
            finish_lazy(layer, shapes)


def _shape(tensor: Tensor | tuple[int, ...]) -> tuple[int, ...]:
    return tuple(tensor.shape) if isinstance(tensor, Tensor) else tensor


def _sizes(layer: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The attributes that torch's lazy layers infer from an input, read off their tensors instead."""
    weight = shapes.get("weight", shapes.get("running_mean"))
    if weight is None:
        return {}
    if hasattr(layer, "num_features"):
        return {"num_features": weight[0]}
    if hasattr(layer, "in_channels"):
        return {"in_channels": weight[0] if layer.transposed else weight[1] * layer.groups}
    return {"in_features": weight[1]} if hasattr(layer, "in_features") else {}
