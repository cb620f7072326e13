"""The code of a model without its weights: an `nn.Module` whose tensors are on the meta device."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from ftrainer.deps.transforms import outside_transforms
from registry.issue import invalid, nearest
from registry.spec import Deferred

from .assemble import Assembled, assemble
from .lazy import is_lazy, settle

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Names and shapes of a model's tensors, hashable."""


@attrs.frozen(kw_only=True, eq=False)
class Skeleton:
    """A module to run with tensors from outside.

    Attributes:
        module: in training or in evaluation mode for good; its own tensors hold no values.
        parameters: dotted names of what the module calls parameters, the first name of each tied group.
        aliases: the further names of tied tensors, each with the name that carries them.
        places: by dotted name, which spec made a submodule (see `assemble.path_of`).
        by_name: whether the module's `forward` takes the inputs by their names.
    """

    module: nn.Module
    parameters: frozenset[str]
    aliases: tuple[tuple[str, str], ...]
    places: Mapping[str, int]
    by_name: bool

    def tensors(self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the module runs on: buffers that it may write to are copied first, tied names share a tensor."""
        own = {name: t if name in self.parameters else t.clone() for name, t in buffers.items()}
        return {**params, **own}

    def call(self, tensors: dict[str, Tensor], names: tuple[str, ...], inputs: Mapping[str, Any]) -> Any:
        """Run the module on named inputs; `tensors` afterwards holds the new buffers."""
        for alias, name in self.aliases:
            tensors[alias] = tensors[name]
        args, kwargs = arguments(self.by_name, names, inputs)
        return torch.func.functional_call(self.module, tensors, args, kwargs, tie_weights=False, strict=True)


def arguments(
    by_name: bool, names: tuple[str, ...], inputs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a call.

    Raises:
        ConfigError: an input is missing.
    """
    for name in names:
        if name not in inputs:
            raise invalid("the model's input is missing", "inputs", found=", ".join(inputs) or "no inputs", expected=name,
                          nearest=nearest(name, inputs))  # fmt: skip
    return ((), {name: inputs[name] for name in names}) if by_name else (tuple(inputs[name] for name in names), {})


def skeleton(spec: Deferred, names: tuple[str, ...], train: bool, tensors: Mapping[str, Tensor]) -> Skeleton:
    """The code that a spec describes; made once for each spec and mode.

    Args:
        spec: a call that makes an `nn.Module`.
        names: the model's inputs.
        train: the mode for the module to be in.
        tensors: the model's parameters and buffers; where the spec leaves shapes open, they say which.
    """
    shapes: Shapes = ()
    if _waits(spec):
        shapes = tuple((name, tuple(tensor.shape)) for name, tensor in tensors.items())
    return _skeleton(spec, names, train, shapes)


@functools.lru_cache(maxsize=256)
def _waits(spec: Deferred) -> bool:
    return is_lazy(fresh(spec).module)


@functools.lru_cache(maxsize=256)
def _skeleton(spec: Deferred, names: tuple[str, ...], train: bool, shapes: Shapes) -> Skeleton:
    with outside_transforms():
        assembled = fresh(spec)
        settle(assembled.module, {name: torch.empty(shape, device="meta") for name, shape in shapes})
        module, places = assembled.module.train(train), assembled.places()
        canonical = aliases(module)
        hollow(module)
    return Skeleton(
        module=module,
        parameters=frozenset(name for name, _ in module.named_parameters()),
        aliases=canonical,
        places=places,
        by_name=takes(module, names),
    )


def fresh(spec: Deferred) -> Assembled:
    """A newly built module, whose weights nobody will read."""
    with outside_transforms(), torch.random.fork_rng(devices=[]):
        return assemble(spec)


def takes(module: nn.Module, names: tuple[str, ...]) -> bool:
    """Whether `forward` has a parameter for each name; otherwise inputs go by position."""
    parameters = inspect.signature(module.forward).parameters
    return all(name in parameters and parameters[name].kind is not inspect.Parameter.VAR_KEYWORD for name in names)


def aliases(module: nn.Module) -> tuple[tuple[str, str], ...]:
    """Names of tied tensors besides the first, each with the first."""
    first: dict[int, str] = {}
    tied = []
    for name, tensor in named_tensors(module):
        carrier = first.setdefault(id(tensor), name)
        if carrier != name:
            tied.append((name, carrier))
    return tuple(tied)


def named_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Every parameter and buffer under every name that it has."""
    return [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]


def hollow(module: nn.Module) -> None:
    """Put every tensor of a module on the meta device, tied ones still tied."""
    memo: dict[int, Tensor] = {}
    for layer in module.modules():
        for held in (layer._parameters, layer._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    held[name] = memo.setdefault(id(tensor), _on_meta(tensor))


def _on_meta(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def fill(module: nn.Module, tensors: Mapping[str, Tensor], frozen: frozenset[str] = frozenset()) -> None:
    """Replace a module's tensors by copies, tied ones staying tied; `frozen` ones want no gradient."""
    memo: dict[str, Tensor] = {}
    carriers = dict(aliases(module))
    parameters = {name: p.requires_grad for name, p in module.named_parameters(remove_duplicate=False)}
    for name, _ in named_tensors(module):
        carrier = carriers.get(name, name)
        if carrier not in memo:
            copied = tensors[carrier].detach().clone()
            wants = parameters.get(carrier, False) and carrier not in frozen
            memo[carrier] = nn.Parameter(copied, requires_grad=wants) if carrier in parameters else copied
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, memo[carrier])


def duplicate(module: nn.Module) -> nn.Module:
    """A deep copy.

    Raises:
        TypeError: the module holds a tensor that it computed, which cannot be copied; names the class.
    """
    try:
        return copy.deepcopy(module)
    except RuntimeError as error:
        raise TypeError(f"{type(module).__name__} cannot be copied: {error}") from error
