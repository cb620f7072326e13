"""From a spec that was checked but not called to the ordinary `nn.Module` that it describes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import torch
from frozendict import frozendict
from torch import Tensor, nn

from ftrainer.functional.random import fold_in
from registry.issue import ConfigError, ConfigPath, Issue
from registry.spec import Deferred, call_at

from .refusals import refuse_hooks


@attrs.frozen(kw_only=True)
class Part:
    """A module, the spec that made it, and that spec's place in the order of calls."""

    index: int
    spec: Deferred
    module: nn.Module


@attrs.frozen(kw_only=True)
class Assembled:
    """A module with the parts that its nested specs made, inner ones first; the last part is the module itself."""

    module: nn.Module
    parts: tuple[Part, ...]

    def places(self) -> dict[str, int]:
        """The place in the order of calls of the spec behind each submodule, by dotted name."""
        names = {id(module): name for name, module in self.module.named_modules()}
        return {names[id(part.module)]: part.index for part in self.parts if id(part.module) in names}


def assemble(spec: Deferred, key: Tensor | None = None) -> Assembled:
    """Build a module from its spec.

    Args:
        spec: a call that makes an `nn.Module`; specs nested in its arguments are called first.
        key: 0-d int64. Each spec draws its initial weights from a stream of its own, so that what a layer starts with
            does not depend on how many numbers the layers before it took. Callers fork torch's generator. None leaves
            the generator where it is.

    Raises:
        ConfigError: a factory refused its arguments, or the outermost made no module, or one whose parameters have
            hooks; under the spec's config path.
    """
    assembly = _Assembly(key=key)
    module = require_module(assembly.build(spec), spec)
    assembled = Assembled(module=module, parts=tuple(assembly.parts))
    places = assembled.places()
    refuse_hooks(module, lambda name: path_of(spec, places, name))
    return assembled


def require_module(value: Any, spec: Deferred) -> nn.Module:
    """`value`, if it is a module.

    Raises:
        ConfigError: it is something else.
    """
    if isinstance(value, nn.Module):
        return value
    problem = f"{spec.key!r} makes no nn.Module"
    found = type(value).__name__
    raise ConfigError([Issue(path=spec.path, problem=problem, found=found, expected="an nn.Module")])


def start_stream(key: Tensor | None, index: int) -> None:
    """Start torch's generator for the spec at a place in the order of calls."""
    if key is not None:
        torch.manual_seed(int(fold_in(key, index)))


def specs(value: Any) -> Iterator[Deferred]:
    """Every spec in a value, in the order in which `assemble` calls them."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from specs(item)
    elif type(value) is tuple:
        for item in value:
            yield from specs(item)
    elif isinstance(value, Deferred):
        yield from specs(value.args)
        yield from specs(value.kwargs)
        yield value


def rewrite(value: Any, change: Callable[[Deferred], Deferred]) -> Any:
    """`value` with `change` applied to every spec in it, inner ones first."""
    if isinstance(value, Mapping):
        return frozendict({name: rewrite(item, change) for name, item in value.items()})
    if type(value) is tuple:
        return tuple(rewrite(item, change) for item in value)
    if not isinstance(value, Deferred):
        return value
    return change(attrs.evolve(value, args=rewrite(value.args, change), kwargs=rewrite(value.kwargs, change)))


def path_of(spec: Deferred, places: Mapping[str, int], name: str) -> ConfigPath:
    """The config path of the innermost spec behind the submodule `name`."""
    paths = [nested.path for nested in specs(spec)]
    while name and name not in places:
        name = name.rpartition(".")[0]
    return paths[places[name]] if name in places else spec.path


@attrs.frozen(kw_only=True)
class _Assembly:
    """One construction: what was made so far, in order."""

    key: Tensor | None
    parts: list[Part] = attrs.field(factory=list)
    calls: list[Deferred] = attrs.field(factory=list)

    def build(self, value: Any) -> Any:
        """`value` with every spec in it called, depth first."""
        if isinstance(value, Mapping):
            return {name: self.build(item) for name, item in value.items()}
        if type(value) is tuple:
            return tuple(self.build(item) for item in value)
        return self.call(value) if isinstance(value, Deferred) else value

    def call(self, spec: Deferred) -> Any:
        args, kwargs = self.build(spec.args), self.build(spec.kwargs)
        index = len(self.calls)
        self.calls.append(spec)
        start_stream(self.key, index)
        made = _call(spec, args, kwargs)
        if isinstance(made, nn.Module):
            self.parts.append(Part(index=index, spec=spec, module=made))
        return made


def _call(spec: Deferred, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    try:
        return call_at(spec.path, spec.factory, args, kwargs)
    except (RuntimeError, AssertionError, AttributeError, KeyError, IndexError) as error:
        problem = f"{spec.key} cannot be built: {type(error).__name__}: {error}"
        raise ConfigError([Issue(path=spec.path, problem=problem)]) from error
