"""Modules whose shapes are known only after they have seen an example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from .assemble import Assembled, Part, start_stream


def is_lazy(module: nn.Module) -> bool:
    """Whether any submodule still waits for an example."""
    return any(isinstance(part, LazyModuleMixin) for part in module.modules())


def redraw(assembled: Assembled, waiting: set[nn.Module], key: Tensor) -> None:
    """Draw anew what waited for shapes, as the same spec with explicit shapes would have drawn it.

    torch's own layers draw in `reset_parameters`, in the order of their construction. So a part that is made of such
    layers alone starts over from its own stream, now that every shape is known.

    Args:
        assembled: the materialised module.
        waiting: the submodules that were lazy.
        key: as it was given to `assemble`.
    """
    for part in assembled.parts:
        own = _own_layers(part, assembled.parts)
        if waiting.intersection(own) and all(type(layer).__module__.startswith(_RESETTABLE) for layer in own):
            start_stream(key, part.index)
            for layer in own:
                if hasattr(layer, "reset_parameters"):
                    layer.reset_parameters()


_RESETTABLE = ("torch.nn.modules.", "ftrainer.model.blocks.")


def _own_layers(part: Part, parts: tuple[Part, ...]) -> list[nn.Module]:
    """The submodules that a part made itself, without those of specs nested in it."""
    nested = {
        layer
        for other in parts
        if other.index < part.index and other.module in set(part.module.modules())
        for layer in other.module.modules()
    }
    return [layer for layer in part.module.modules() if layer not in nested]


def settle(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give lazy submodules the shapes of tensors by dotted name; their values stay undefined."""
    for prefix, layer in list(module.named_modules()):
        if isinstance(layer, LazyModuleMixin):
            own = {name: tensors[f"{prefix}.{name}" if prefix else name] for name in _tensor_names(layer)}
            _settle_one(layer, own)


def _tensor_names(layer: nn.Module) -> list[str]:
    held = {**layer._parameters, **layer._buffers}
    return [name for name, tensor in held.items() if tensor is not None]


def _settle_one(layer: Any, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        held = getattr(layer, name)
        if torch.nn.parameter.is_lazy(held):
            held.materialize(tensor.shape)
    for attribute, size in _sizes(layer, {name: tuple(tensor.shape) for name, tensor in tensors.items()}).items():
        setattr(layer, attribute, size)
    if layer.cls_to_become is not None:
        layer._initialize_hook.remove()
        layer._load_hook.remove()
        del layer._initialize_hook, layer._load_hook
        layer.__class__ = layer.cls_to_become


def _sizes(layer: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The attributes that torch's lazy layers infer from an input, read off their tensors instead."""
    if hasattr(layer, "num_features"):
        shape = shapes.get("weight") or shapes.get("running_mean")
        return {"num_features": shape[0]} if shape else {}
    if "weight" not in shapes:
        return {}
    if hasattr(layer, "in_features"):
        return {"in_features": shapes["weight"][1]}
    if hasattr(layer, "in_channels"):
        return {"in_channels": shapes["weight"][0] if layer.transposed else shapes["weight"][1] * layer.groups}
    return {}


def waiting(module: nn.Module) -> set[nn.Module]:
    """The submodules that still wait for an example."""
    return {layer for layer in module.modules() if isinstance(layer, LazyModuleMixin)}
