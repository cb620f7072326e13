"""The code of a model without its weights: an `nn.Module` that runs with tensors from outside."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import attrs
import torch
from torch import Tensor, nn

from ftrainer.deps.module_internals import forget_tensors
from ftrainer.functional.graph import opaque
from registry.issue import invalid, nearest
from registry.spec import Deferred

from .assemble import Assembled, assemble
from .blocks.normalize import statistics_of
from .lazy import is_lazy, settle
from .tensors import aliases, hollow, named_tensors

T = TypeVar("T")
Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Names and shapes of a model's tensors."""


@attrs.frozen(kw_only=True, eq=False)
class Skeleton:
    """A module and how to run it.

    Attributes:
        module: in training or in evaluation mode for good.
        held: every name of every tensor.
        constant: names of what the module never writes to: its parameters, and the statistics of `normalize` blocks.
        aliases: the further names of tied tensors, each with the name that carries them.
        places: by dotted name, which spec made a submodule (see `assemble.path_of`).
        by_name: whether the module's `forward` takes the inputs by their names.
        recurrent: layers that keep a list of the tensors they last ran on.
        graphs: what Dynamo captured of the module, where `make_fx` could not trace it.
    """

    module: nn.Module
    held: frozenset[str]
    constant: frozenset[str]
    aliases: Mapping[str, str]
    places: Mapping[str, int]
    by_name: bool
    recurrent: tuple[nn.RNNBase, ...] = ()
    graphs: dict[Any, opaque.Graph] = attrs.field(factory=dict, repr=False)

    def call(
        self,
        params: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        names: tuple[str, ...],
        inputs: Mapping[str, Any],
        swept: Mapping[str, Tensor] | None = None,
    ) -> tuple[Any, dict[str, Tensor]]:
        """Run the module on tensors from outside; returns its output, mappings as dicts, and the buffers it left.

        Other buffers are copied first: modules write to them in place, inside `torch.func.grad` too.

        Args:
            params, buffers: by dotted name.
            names: the model's inputs.
            inputs: by name.
            swept: attributes of layers by dotted name, replaced for the time of the call.

        Raises:
            ValueError: the names are not the module's.
        """
        own = {name: t if name in self.constant else t.clone() for name, t in buffers.items()}
        tensors = {**params, **own}
        for alias, carrier in self.aliases.items():
            tensors[alias] = tensors[carrier]
        if tensors.keys() != self.held:
            differ = sorted(self.held.symmetric_difference(tensors))
            raise ValueError(f"parameters and buffers are not those of this model: {', '.join(differ)}")
        args, kwargs = arguments(self.by_name, names, inputs)
        tensors.update(swept or {})
        outputs = opaque.call(self.module, tensors, args, kwargs, self.graphs)
        for layer in self.recurrent:
            forget_tensors(layer)
        return opaque.plain(outputs), {name: tensors[name] for name in buffers}

    def call_own(self, names: tuple[str, ...], inputs: Mapping[str, Any]) -> Any:
        """Run the module on the tensors that it holds itself."""
        args, kwargs = arguments(self.by_name, names, inputs)
        return self.module(*args, **kwargs)


def arguments(
    by_name: bool, names: tuple[str, ...], inputs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a module.

    Raises:
        ConfigError: an input is missing.
    """
    for name in names:
        if name not in inputs:
            found = ", ".join(inputs) or "no inputs"
            raise invalid(f"misses its input {name!r}", found=found, nearest=nearest(name, inputs))
    values = {name: inputs[name] for name in names}
    return ((), values) if by_name else (tuple(values.values()), {})


def waits(spec: Deferred) -> bool:
    """Whether a spec leaves shapes open."""
    return is_lazy(hollow_module(spec).module)


def remembered(make: Callable[..., T]) -> Callable[..., T]:
    """Call a function of a spec once for each value of its arguments.

    A spec around a module that exists already equals no other: its results would be kept, with the module, and never
    be asked for again.
    """
    cached = functools.lru_cache(maxsize=512)(make)

    @functools.wraps(make)
    def call(spec: Deferred, *args: Any) -> T:
        return make(spec, *args) if getattr(spec.factory, "unique", False) else cached(spec, *args)

    return call


@remembered
def skeleton(spec: Deferred, names: tuple[str, ...], train: bool, shapes: Shapes = ()) -> Skeleton:
    """The code that a spec describes, made once for each spec and mode.

    Args:
        spec: a call that makes an `nn.Module`.
        names: the model's inputs.
        train: the mode for the module to be in.
        shapes: of the model's parameters and buffers, where the spec leaves shapes open.
    """

    def make() -> Assembled:
        assembled = assemble(spec) if shapes else copy.deepcopy(hollow_module(spec))
        settle(assembled.module, dict(shapes))
        hollow(assembled.module)
        assembled.module.train(train)
        return assembled

    return describe(aside(make), names)


@remembered
def hollow_module(spec: Deferred) -> Assembled:
    """The module that a spec describes, holding no memory; never run, never changed.

    Raises:
        ConfigError: as `assemble`.
    """
    assembled = fresh(spec)
    hollow(assembled.module)
    return assembled


def fresh(spec: Deferred) -> Assembled:
    """A newly built module whose weights mean nothing.

    Raises:
        ConfigError: as `assemble`.
    """
    return aside(lambda: assemble(spec))


def aside(make: Callable[[], T]) -> T:
    """Call a function away from whatever torch is in the middle of, its generator restored afterwards.

    A model may be asked for its code for the first time inside a trace, a transform or a `redirect`. All of these
    belong to the thread that they were entered in, so a thread of its own makes ordinary tensors.
    """
    with torch.random.fork_rng(devices=[]), ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(make).result()


def describe(assembled: Assembled, names: tuple[str, ...]) -> Skeleton:
    """How to run an assembled module on named inputs."""
    module = assembled.module
    return Skeleton(
        module=module,
        held=frozenset(name for name, _ in named_tensors(module)),
        constant=frozenset({n for n, _ in module.named_parameters(remove_duplicate=False)} | statistics_of(module)),
        aliases=aliases(module),
        places=assembled.places(),
        by_name=takes(module, names),
        recurrent=tuple(layer for layer in module.modules() if isinstance(layer, nn.RNNBase)),
    )


def takes(module: nn.Module, names: tuple[str, ...]) -> bool:
    """Whether `forward` has a parameter for each name; otherwise inputs go by position."""
    parameters = inspect.signature(module.forward).parameters
    catching = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY)
    return all(name in parameters and parameters[name].kind not in catching for name in names)
