"""A module's tensors by dotted name: ties between them, and swapping all of them for others."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ftrainer.deps.module_internals import holders


def named_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Every parameter and buffer under every name that it has."""
    return [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]


def aliases(module: nn.Module) -> dict[str, str]:
    """The names of tied tensors besides the first, each with the first, which carries the tensor.

    >>> tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> tied[1].weight = tied[0].weight
    >>> aliases(tied)
    {'1.weight': '0.weight'}
    """
    first: dict[int, str] = {}
    pairs = [(name, first.setdefault(id(tensor), name)) for name, tensor in named_tensors(module)]
    return {name: carrier for name, carrier in pairs if name != carrier}


def hollow(module: nn.Module) -> None:
    """Put every tensor of a module on the meta device, where it takes no memory; tied ones stay tied."""
    memo: dict[int, Tensor] = {}
    for layer in module.modules():
        for held in holders(layer):
            for name, tensor in held.items():
                if tensor is not None and not is_lazy(tensor):
                    held[name] = memo.setdefault(id(tensor), _on_meta(tensor))


def _on_meta(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def require_all(module: nn.Module, names: Collection[str]) -> None:
    """See that these are the names of all of a module's tensors, of tied ones the first, and that there is no other.

    Raises:
        ValueError: one is missing, a normaliser's statistics say, or one too many.
    """
    tied = aliases(module)
    held = {name for name, _ in named_tensors(module) if name not in tied}
    if held != set(names):
        differ = ", ".join(sorted(held.symmetric_difference(names)))
        raise ValueError(f"parameters and buffers are not those of this model: {differ}")


def fill(module: nn.Module, tensors: Mapping[str, Tensor], frozen: Collection[str] = ()) -> None:
    """Replace a module's tensors by copies of others, whatever their shapes; tied ones stay tied.

    Args:
        module: changed in place.
        tensors: by dotted name; of a tied group only the first name is read. Names that are missing stay.
        frozen: parameters that shall want no gradient.
    """
    carriers, old = aliases(module), dict(named_tensors(module))
    new = {name: _like(old[name], tensor, name in frozen) for name, tensor in tensors.items() if name in old}
    for name in old:
        if carriers.get(name, name) in new:
            owner, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(owner), leaf, new[carriers.get(name, name)])


def _like(old: Tensor, new: Tensor, frozen: bool) -> Tensor:
    copied = new.detach().clone()
    return (
        nn.Parameter(copied, requires_grad=old.requires_grad and not frozen)
        if isinstance(old, nn.Parameter)
        else copied
    )


def split(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Copies of a module's tensors as training sees them: what it may move, and everything else.

    A tied tensor appears once, under its first name. Parameters that want no gradient are among the rest, so that no
    optimizer ever sees them.
    """
    parameters = dict(module.named_parameters())
    moving = {name: p.detach().clone() for name, p in parameters.items() if p.requires_grad}
    frozen = {name: p.detach().clone() for name, p in parameters.items() if not p.requires_grad}
    return moving, frozen | {name: b.detach().clone() for name, b in module.named_buffers()}
