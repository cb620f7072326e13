"""Models that several test modules build."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ftrainer.builtins import builtin_registry
from ftrainer.functional import pytree
from ftrainer.model import Model, build_model
from registry import Registry

REGISTRY = builtin_registry()


def sequential(*layers: Mapping[str, Any], registry: Registry = REGISTRY, **beside: Any) -> Model:
    """A sequential model of these layers."""
    return build_model(registry, {"sequential": {"layers": list(layers)}, **beside})


def graph(section: Mapping[str, Any], registry: Registry = REGISTRY) -> Model:
    """A graph model."""
    return build_model(registry, {"graph": dict(section)})


def typed(factory: Callable[..., nn.Module], **arguments: Any) -> Model:
    """A model from a factory of one's own, under the key `mine`."""
    registry = REGISTRY.register("mine", factory)
    return build_model(registry, {"_type_": "model.torch", "factory": {"_type_": "mine", **arguments}})


def scalar(outputs: Any) -> Tensor:
    """A loss of any outputs: half of the sum of squares of all floating leaves."""
    leaves = [leaf for leaf in pytree.leaves(outputs) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    return torch.stack([leaf.square().sum() for leaf in leaves]).sum() / 2


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Copies of every tensor of a module under every name."""
    both = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    return {name: tensor.detach().clone() for name, tensor in both}
