"""What a component is: a frozen, keyword-only attrs class whose fields are hashable data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar, dataclass_transform

import attrs
from frozendict import frozendict

from .issue import ConfigError, ConfigPath, Issue

C = TypeVar("C")

Plain = Annotated[Any, "plain"]
"""Annotation of a field that takes YAML as it stands: nothing below it is instantiated."""


def freeze(value: Any) -> Any:
    """Lists to tuples, mappings to frozen mappings, all the way down; everything else as it is.

    >>> freeze({"betas": [0.9, 0.99]})
    frozendict.frozendict({'betas': (0.9, 0.99)})
    """
    if isinstance(value, Mapping):
        return frozendict({key: freeze(item) for key, item in value.items()})
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return tuple(freeze(item) for item in value)
    return value


def thaw(value: Any) -> Any:
    """The inverse of `freeze`: plain dicts and lists, as YAML and JSON want them."""
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return [thaw(item) for item in value]
    return value


def traceable(default: Any = attrs.NOTHING, **kwargs: Any) -> Any:
    """A numeric field that may hold a 0-d tensor inside a trace, so that `replicate` can sweep it.

    Methods must do arithmetic only on such a field: no Python branch on its value.
    """
    return attrs.field(default=default, metadata={"traceable": True}, **kwargs)


def is_traceable(attribute: attrs.Attribute[Any]) -> bool:
    """Whether a component's field was declared with `traceable`."""
    return bool(attribute.metadata.get("traceable"))


def _freeze_fields(cls: type, fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    del cls
    return [f if f.converter else f.evolve(converter=freeze) for f in fields]


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(attrs.field, traceable))
def component(cls: type[C]) -> type[C]:
    """Class decorator: frozen, keyword-only attrs with value equality, lists and mappings frozen on the way in."""
    return attrs.frozen(kw_only=True, field_transformer=_freeze_fields)(cls)


def replace(spec: C, **changes: Any) -> C:
    """A component with some of its fields replaced; `attrs.evolve` for classes made by `component`."""
    return attrs.evolve(spec, **changes)  # type: ignore[misc]  # type checkers see no attrs in them


@attrs.frozen(kw_only=True)
class Deferred:
    """A spec that was checked but not called: the call that makes, for one, an `nn.Module`.

    A factory asks for it by annotating a parameter `Deferred` (or `tuple[Deferred, ...]`, `Mapping[str, Deferred]`);
    everything nested below is deferred with it, and `build()` makes all of it anew.
    """

    key: str
    factory: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: frozendict[str, Any] = attrs.field(factory=frozendict, converter=freeze)
    path: ConfigPath = attrs.field(default=(), eq=False)

    def build(self, **extra: Any) -> Any:
        """Call the factory, nested specs first."""
        kwargs = {name: build_nested(value) for name, value in self.kwargs.items()}
        args = tuple(build_nested(value) for value in self.args)
        return call_at(self.path, self.factory, args, {**kwargs, **extra})


def call_at(path: ConfigPath, factory: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Call a factory on behalf of a place in a configuration.

    Raises:
        ConfigError: the factory refused its arguments; a `ConfigError` of its own gets the path in front, a
            `ValueError`, `TypeError` or `OSError` becomes an issue at `path`.
    """
    try:
        return factory(*args, **kwargs)
    except ConfigError as error:
        raise ConfigError([issue.under(path) for issue in error.issues]) from error
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError([Issue(path=path, problem=f"{type(error).__name__}: {error}")]) from error


def build_nested(value: Any) -> Any:
    """Build every `Deferred` inside tuples and mappings."""
    if isinstance(value, Deferred):
        return value.build()
    if isinstance(value, Mapping):
        return {key: build_nested(item) for key, item in value.items()}
    if type(value) is tuple:
        return tuple(build_nested(item) for item in value)
    return value
