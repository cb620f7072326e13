"""Plugins: modules with `register(registry) -> registry`, loaded only where a configuration names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from .issue import ConfigError, ConfigPath, Issue
from .registry import Registry
from .settings import Settings
from .targets import forbidden, import_module, told

GROUP = "ftrainer.plugins"


def load_plugins(
    registry: Registry, imports: Sequence[str], settings: Settings, path: ConfigPath = ("imports",)
) -> Registry:
    """Hand the registry from plugin to plugin.

    Args:
        registry: what is known already.
        imports: module names; one without a dot may be an installed entry point of the group `ftrainer.plugins`.
        settings: what is allowed; the result carries them.
        path: the config path of `imports`.

    Raises:
        ConfigError: something is not allowed or not there, or a plugin registers a key twice, or returns no registry.
    """
    registry = registry.under(settings)
    if not imports:
        return registry
    issues = import_issues(imports, settings, path)
    if issues:
        raise ConfigError(issues)
    missing: list[Issue] = []
    for index, module in enumerate(_modules(imports)):
        try:
            registry = _load(registry, import_module(module, (*path, index)), (*path, index))
        except ConfigError as error:
            missing += error.issues
    if missing:
        raise ConfigError(missing)
    return registry


def import_issues(imports: Any, settings: Settings, path: ConfigPath = ("imports",)) -> tuple[Issue, ...]:
    """What is wrong with `imports:` before anything is imported: its form, and what the settings forbid."""
    if not isinstance(imports, (list, tuple)):
        found = "a mapping" if isinstance(imports, Mapping) else repr(imports)
        return (Issue(path=path, problem="has the wrong type", found=found, expected="a list of module names"),)
    wrong = [i for i, name in enumerate(imports) if not isinstance(name, str) or not name]
    if wrong:
        problem, expected = "is no module name", "the dotted name of a module, or of an installed plugin"
        return tuple(Issue(path=(*path, i), problem=problem, found=repr(imports[i]), expected=expected) for i in wrong)
    modules = _modules(imports) if settings.allow_imports else imports
    checks = (forbidden(module, settings, "allow_imports", (*path, i)) for i, module in enumerate(modules))
    return tuple(issue for issue in checks if issue)


def _modules(imports: Sequence[str]) -> list[str]:
    installed = installed_plugins() if any("." not in name for name in imports) else {}
    return [name if "." in name else installed.get(name, name) for name in imports]


def installed_plugins() -> dict[str, str]:
    """Entry points of the group `ftrainer.plugins`: name to module. Nothing is imported."""
    return {point.name: point.value.partition(":")[0] for point in entry_points(group=GROUP)}


def _load(registry: Registry, module: ModuleType, path: ConfigPath) -> Registry:
    register = getattr(module, "register", None)
    if not callable(register):
        raise ConfigError([_no_register(module, path)])
    try:
        result: Any = register(registry)
    except ConfigError as error:
        raise ConfigError([issue.under(path) for issue in error.issues]) from error
    except (Exception, SystemExit) as error:  # foreign code may raise anything
        raise ConfigError([_failed(module, error, path)]) from error
    if not isinstance(result, Registry):
        raise ConfigError([_no_registry(module, result, path)])
    return result


def _no_register(module: ModuleType, path: ConfigPath) -> Issue:
    return Issue(
        path=path,
        problem=f"{module.__name__} is no plugin: it has no function `register`",
        hint="add `def register(registry): return registry.register('my.key', MyComponent)`",
    )


def _failed(module: ModuleType, error: Exception | SystemExit, path: ConfigPath) -> Issue:
    hint = "it takes one argument: `def register(registry): …`" if isinstance(error, TypeError) else None
    return Issue(path=path, problem=f"{module.__name__}.register failed: {told(error)}", hint=hint)


def _no_registry(module: ModuleType, result: object, path: ConfigPath) -> Issue:
    return Issue(
        path=path,
        problem=f"{module.__name__}.register returned no registry",
        found="None" if result is None else type(result).__name__,
        hint="a registry is immutable: write `return registry.register('my.key', MyComponent)`",
    )
