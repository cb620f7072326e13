"""What `torch.nn.Module` keeps to itself: its holders of tensors, hooks of layers and tensors, recurrent lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch._ops import OpOverload
from torch.nn.parameter import is_lazy

__all__ = ["OpOverload", "finish_lazy", "forget_tensors", "has_hooks", "holders", "own_tensors"]


def holders(layer: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """The dicts in which a layer keeps its own parameters and buffers."""
    return layer._parameters, layer._buffers


def own_tensors(layer: Any) -> dict[str, Tensor]:
    """A layer's own parameters and buffers, lazy ones too."""
    return {name: tensor for held in holders(layer) for name, tensor in held.items() if tensor is not None}


def has_hooks(tensor: Any) -> bool:
    """Whether a tensor's gradient goes to somebody's function.

    >>> weight = nn.Linear(2, 2).weight
    >>> handle = weight.register_post_accumulate_grad_hook(print)
    >>> has_hooks(weight), (handle.remove(), has_hooks(weight))[1]
    (True, False)
    """
    return bool(tensor._backward_hooks or tensor._post_accumulate_grad_hooks)


def finish_lazy(layer: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Turn a lazy layer into what it becomes at its first call, its tensors' values undefined.

    A class of somebody else's that becomes nothing keeps its hooks, which end at its first call.
    """
    for name, tensor in own_tensors(layer).items():
        if is_lazy(tensor):
            tensor.materialize(shapes[name])
    if layer.cls_to_become is not None:
        layer._initialize_hook.remove()
        layer._load_hook.remove()
        del layer._initialize_hook, layer._load_hook
        layer.__class__ = layer.cls_to_become


def forget_tensors(layer: nn.RNNBase) -> None:
    """Make a recurrent layer's list of the tensors that it last ran on that of its own again."""
    layer._init_flat_weights()
