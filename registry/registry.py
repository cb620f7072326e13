"""The immutable table from keys to pure factories."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import FunctionType
from typing import Any, Literal, get_args

import attrs
from frozendict import frozendict

from .issue import ConfigError, ConfigPath, Issue, invalid, nearest
from .providers import provider_hint
from .settings import Settings
from .signatures import Signature, signature_of

CheckMode = Literal["strict", "best_effort", "runtime_only"]


@attrs.frozen(kw_only=True)
class Entry:
    """One registered factory.

    Attributes:
        key: what `_type_:` names.
        factory: the class or function that the key stands for.
        check: `strict` reads the signature at registration and checks every argument before the call, `best_effort`
            does so where there is a signature to read, `runtime_only` leaves everything to the call.
    """

    key: str
    factory: Callable[..., Any]
    check: CheckMode = "strict"

    @cached_property
    def signature(self) -> Signature | None:
        """What the factory takes, read when it is first asked for; None where nothing is checked before the call."""
        return None if self.check == "runtime_only" else signature_of(self.factory)

    @property
    def origin(self) -> str:
        """Where the factory is written, as `module.name (file:line)`."""
        return origin_of(self.factory)


@attrs.frozen
class Registry:
    """Keys and their factories. `register` returns a new registry; the old one is still valid.

    >>> registry = Registry().register("number.half", lambda: 0.5)
    >>> registry.keys("number."), "number.half" in registry
    (('number.half',), True)

    Attributes:
        entries: by key.
        settings: what a configuration may do beyond naming keys (`_target_`, imports).
        literals: by class, the factory that makes an instance from plain numbers. Where a parameter of a deferred call
            is annotated with the class, YAML may give the numbers.
    """

    entries: frozendict[str, Entry] = attrs.field(factory=frozendict)
    settings: Settings = attrs.field(factory=Settings)
    literals: frozendict[type, Callable[..., Any]] = attrs.field(factory=frozendict)

    def register(
        self, key: str, factory: Callable[..., Any], *, replace: bool = False, check: CheckMode = "strict"
    ) -> Registry:
        """A registry that also knows `key`.

        Args:
            key: dotted name, for instance `loss.huber`.
            factory: a component class, or a pure function that returns a component.
            replace: allow `key` to be known already.
            check: see `Entry`.

        Raises:
            ConfigError: the key is no name or is taken, or the factory cannot be called or (`strict`) not be read.
        """
        entry = _entry(key, factory, check)
        if key in self.entries and not replace:
            raise _duplicate(self.entries[key], entry)
        return attrs.evolve(self, entries=frozendict({**self.entries, key: entry}))

    def register_all(self, factories: Mapping[str, Callable[..., Any]], *, check: CheckMode = "strict") -> Registry:
        """`register` for many keys at once.

        Raises:
            ConfigError: as `register`.
        """
        registry = self
        for key, factory in factories.items():
            registry = registry.register(key, factory, check=check)
        return registry

    def reading(self, cls: type, factory: Callable[..., Any]) -> Registry:
        """The same keys, and a way to write instances of a class as numbers (see `literals`)."""
        return attrs.evolve(self, literals=frozendict({**self.literals, cls: factory}))

    def under(self, settings: Settings) -> Registry:
        """The same keys under other settings."""
        return attrs.evolve(self, settings=settings)

    def entry(self, key: str, path: ConfigPath = ()) -> Entry:
        """The entry of a key.

        Raises:
            ConfigError: the key is unknown; the error names the nearest ones.
        """
        if key not in self.entries:
            raise ConfigError([unknown_key(self, key, path)])
        return self.entries[key]

    def keys(self, prefix: str = "") -> tuple[str, ...]:
        """All keys that begin with `prefix`, sorted."""
        return tuple(sorted(key for key in self.entries if key.startswith(prefix)))

    def __contains__(self, key: object) -> bool:
        return key in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.entries)


def unknown_key(registry: Registry, key: str, path: ConfigPath) -> Issue:
    """The issue for a `_type_` that nobody registered; the hint names the import that would."""
    names = nearest(key, registry.keys())
    expected = None if names else _family(registry, key)
    hint = provider_hint(key, registry.settings)
    return Issue(
        path=path, problem="unknown registry key", found=repr(key), nearest=names, expected=expected, hint=hint
    )


def _family(registry: Registry, key: str) -> str:
    family = registry.keys(key.split(".")[0] + ".")
    if not family:
        return "a registered key (`ftrainer components` lists them)"
    return "one of " + ", ".join(family[:8]) + (", …" if len(family) > 8 else "")


def origin_of(factory: Callable[..., Any]) -> str:
    """Where a factory is written, as `module.name (file:line)`; without the place for what C code defines.

    >>> origin_of(origin_of).split(":")[0].endswith("registry.py")
    True
    """
    inner = inspect.unwrap(getattr(factory, "func", factory))
    name = f"{getattr(inner, '__module__', '?')}.{getattr(inner, '__qualname__', type(inner).__name__)}"
    try:
        file, line = inspect.getsourcefile(inner), inspect.getsourcelines(inner)[1]
    except (TypeError, OSError):
        return name
    return f"{name} ({_relative(file)}:{line})"


def _relative(file: str | None) -> str:
    path, here = Path(file or "?"), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _entry(key: str, factory: Callable[..., Any], check: CheckMode) -> Entry:
    if not isinstance(key, str) or not key or key.startswith(("_", "$")):
        raise invalid("a registry key is a non-empty name that does not begin with _ or $", found=repr(key))
    if not callable(factory):
        raise invalid(f"the factory of {key!r} cannot be called", found=repr(factory))
    if check not in get_args(CheckMode):
        raise invalid(f"unknown check for {key!r}", found=repr(check), expected=", ".join(get_args(CheckMode)))
    entry = Entry(key=key, factory=factory, check=check)
    if check == "strict" and not _is_python(factory) and entry.signature is None:
        hint = "register it with check='best_effort' or check='runtime_only'"
        raise invalid(f"the factory of {key!r} has no signature that can be read", hint=hint)
    return entry


def _is_python(factory: Callable[..., Any]) -> bool:
    """Whether a factory is written in Python, so that its signature can be read whenever it is needed."""
    return isinstance(getattr(factory, "__init__", None) if isinstance(factory, type) else factory, FunctionType)


def _duplicate(old: Entry, new: Entry) -> ConfigError:
    return invalid(
        f"the key {old.key!r} is registered twice: by {old.origin} and by {new.origin}",
        hint="choose another key, or pass replace=True to mean it",
    )
