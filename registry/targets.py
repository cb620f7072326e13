"""Importing by name, which the settings must allow first."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

from .issue import ConfigError, ConfigPath, Issue, nearest
from .providers import modules_near
from .settings import Settings


def forbidden(module: str, settings: Settings, switch: str, path: ConfigPath) -> Issue | None:
    """Why the settings keep a module from being imported; `switch` is the setting that must be true."""
    if not getattr(settings, switch):
        hint = f"set settings.{switch}: true if you trust this file"
        return Issue(path=path, problem=f"needs settings.{switch}: true", found=repr(module), hint=hint)
    if not settings.permits(module):
        allowed = ", ".join(settings.allowed_import_prefixes) or "nothing: settings.allowed_import_prefixes is empty"
        wider = ", ".join([*settings.allowed_import_prefixes, module.split(".")[0]])
        return Issue(
            path=path,
            problem="lies outside settings.allowed_import_prefixes",
            found=repr(module),
            expected=f"under {allowed}",
            hint=f"if you trust it, set settings.allowed_import_prefixes: [{wider}]",
        )
    return None


def import_module(name: str, path: ConfigPath) -> ModuleType:
    """A module by its dotted name.

    Raises:
        ConfigError: there is no such module, it cannot be read as Python, or its own code fails.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError([Issue(path=path, problem="is no module name", found=repr(name))])
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        own = name == missing or name.startswith(missing + ".")
        problem = f"no module named {missing!r}" if own else f"importing {name!r} failed: no module named {missing!r}"
        issue = Issue(path=path, problem=problem, found=repr(name), nearest=modules_near(name) if own else ())
        raise ConfigError([issue]) from error
    except (ImportError, SyntaxError) as error:
        raise ConfigError([Issue(path=path, problem=f"importing {name!r} failed: {error}")]) from error
    except (Exception, SystemExit) as error:  # foreign code may raise anything
        raise ConfigError([Issue(path=path, problem=f"importing {name!r} failed: {told(error)}")]) from error


def told(error: Exception | SystemExit) -> str:
    """What foreign code raised, and where.

    >>> try:
    ...     int("x")
    ... except ValueError as error:
    ...     print(told(error).partition(" (")[0])
    ValueError: invalid literal for int() with base 10: 'x'
    """
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"


def import_target(name: str, settings: Settings, path: ConfigPath) -> Callable[..., Any]:
    """What `_target_: package.module.Name` calls.

    Raises:
        ConfigError: the settings do not allow it, or there is no such thing, or it cannot be called.
    """
    module_name, _, attribute = name.rpartition(".")
    issue = forbidden(module_name or name, settings, "allow_target", path)
    if issue:
        raise ConfigError([issue])
    module = import_module(module_name, path)
    target = getattr(module, attribute, None)
    if target is None:
        names = nearest(attribute, [n for n in vars(module) if not n.startswith("_")])
        near = tuple(f"{module_name}.{n}" for n in names)
        raise ConfigError(
            [Issue(path=path, problem=f"{module_name} has no {attribute!r}", found=repr(name), nearest=near)]
        )
    if not callable(target):
        raise ConfigError([Issue(path=path, problem="cannot be called", found=f"a {type(target).__name__}")])
    return target
