"""What can be said about a resolved configuration before, and what after, the registry is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs

from registry.instantiate import check
from registry.issue import ConfigError, ConfigPath, Issue, nearest
from registry.lookup import RESERVED, reserved, unknown_reserved
from registry.plugins import import_issues
from registry.registry import Registry, unknown_key
from registry.targets import forbidden

from .node import kind
from .replicate import Replicate
from .resolved import ResolvedConfig
from .sections import (
    LISTS,
    MAPPINGS,
    PREFIXES,
    REQUIRED,
    SCHEMA_VERSION,
    SECTIONS,
    SUPERVISED,
    RunSettings,
    Settings,
)


def validate_preflight(resolved: ResolvedConfig) -> None:
    """Check the structure, before any import or construction.

    Raises:
        ConfigError: unknown or missing sections, wrong kinds, registry keys of the wrong family, forbidden imports;
            all of them at once, each with its place.
    """
    issues = preflight_issues(resolved)
    if issues:
        raise resolved.located(ConfigError(issues))


def preflight_issues(resolved: ResolvedConfig) -> tuple[Issue, ...]:
    """What `validate_preflight` raises."""
    data = resolved.data
    return (
        *_top_level(data),
        *_plain(data, "settings", Settings),
        *_plain(data, "run", RunSettings),
        *_plain(data, "replicate", Replicate),
        *_imports(data),
        *(issue for name in PREFIXES for issue in _section(name, data.get(name))),
        *_model(data.get("model")),
        *_specs(data),
    )


def settings_of(data: Mapping[str, Any]) -> Settings:
    """The section `settings:`, or its defaults where it is missing or wrong."""
    from_yaml = data.get("settings")
    if not isinstance(from_yaml, Mapping) or check(Registry(), from_yaml, expected=Settings):
        return Settings()
    return Settings(**from_yaml)


def _top_level(data: Mapping[str, Any]) -> Iterator[Issue]:
    unknown = [name for name in data if name not in SECTIONS]
    near = {name: nearest(name, SECTIONS) for name in unknown}
    for name in unknown:
        issue = Issue(path=(name,), at="key", problem="unknown section", found=repr(name), nearest=near[name])
        yield issue if near[name] else attrs.evolve(issue, expected="one of " + ", ".join(SECTIONS))
    if not any("defaults" in names[:1] for names in near.values()):
        yield from _missing(data)
    version = data.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION or isinstance(version, bool):
        yield Issue(
            path=("schema_version",), problem="unknown version", found=repr(version), expected=str(SCHEMA_VERSION)
        )
    params = data.get("params")
    if params is not None and not isinstance(params, Mapping):
        yield _wrong_kind(("params",), params, "a mapping of values to refer to")


def _missing(data: Mapping[str, Any]) -> Iterator[Issue]:
    learner = data.get("learner")
    supervised = learner is None or (isinstance(learner, Mapping) and learner.get("_type_") == "learner.supervised")
    for name in (*REQUIRED, *(SUPERVISED if supervised else ())):
        if data.get(name) is None:
            yield Issue(path=(name,), at="key", problem="is required and missing")


def _plain(data: Mapping[str, Any], name: str, cls: type) -> tuple[Issue, ...]:
    """What is wrong with a section that is no spec but the fields of one class."""
    value = data.get(name)
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        expected = "a mapping of " + ", ".join(field.name for field in attrs.fields(cls))
        return (_wrong_kind((name,), value, expected),)
    return check(Registry(), value, (name,), expected=cls)


def _imports(data: Mapping[str, Any]) -> tuple[Issue, ...]:
    imports = data.get("imports")
    return () if imports is None else import_issues(imports, settings_of(data))


def _section(name: str, value: Any) -> Iterator[Issue]:
    if value is None:
        return
    if name in LISTS or name in MAPPINGS:
        yield from _group(name, value)
    else:
        yield from _one_spec(value, (name,), PREFIXES[name])


def _group(name: str, value: Any) -> Iterator[Issue]:
    if name in LISTS and isinstance(value, (list, tuple)):
        items: Sequence[tuple[str | int, Any]] = list(enumerate(value))
    elif name in MAPPINGS and isinstance(value, Mapping):
        items = list(value.items())
    else:
        expected = "a list of specs with _type_" if name in LISTS else "a mapping from names to specs with _type_"
        yield _wrong_kind((name,), value, expected)
        return
    for key, item in items:
        yield from _one_spec(item, (name, key), PREFIXES[name])


def _one_spec(value: Any, path: ConfigPath, prefixes: tuple[str, ...]) -> Iterator[Issue]:
    wanted = " or ".join(f"{prefix}*" for prefix in prefixes)
    if not isinstance(value, Mapping):
        yield _wrong_kind(path, value, f"a mapping with _type_: {wanted}")
    elif "_type_" not in value and "_target_" not in value:
        names = nearest_reserved(value)
        hint = f"{names[0]} looks like _type_" if names else None
        at: Literal["key", "value"] = "key" if names else "value"
        yield Issue(path=(*path, *names[:1]), at=at, problem="has no _type_", expected=f"_type_: {wanted}", hint=hint)
    elif isinstance(value.get("_type_"), str) and not value["_type_"].startswith(prefixes):
        found = repr(value["_type_"])
        yield Issue(
            path=(*path, "_type_"), problem="is of the wrong family for this section", found=found, expected=wanted
        )


def nearest_reserved(value: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of a mapping that look like a misspelt `_type_`."""
    return tuple(name for name in value if nearest(name, ("_type_",)))


def _model(model: Any) -> Iterator[Issue]:
    if model is None:
        return
    if not isinstance(model, Mapping):
        yield _wrong_kind(("model",), model, "a mapping with sequential, graph or _type_")
        return
    forms = [name for name in ("sequential", "graph", "_type_", "_target_") if name in model]
    if len(forms) == 1:
        return
    names = ("sequential", "graph", "_type_")
    near = [(key, nearest(key, names)) for key in model if nearest(key, names)] if not forms else []
    path = ("model", near[0][0]) if near else ("model", forms[1]) if forms else ("model",)
    found = " and ".join(forms) or (repr(near[0][0]) if near else "none of them")
    problem = "takes exactly one of sequential, graph and _type_"
    yield Issue(path=path, at="key", problem=problem, found=found, nearest=near[0][1] if near else ())


def _specs(data: Mapping[str, Any]) -> Iterator[Issue]:
    """Reserved keys, wherever they stand: `_target_` must be allowed, `_x_` must mean something."""
    settings = settings_of(data)
    for name, section in data.items():
        if name not in ("params", "settings"):
            yield from _walk(section, (name,), settings)


def _walk(value: Any, path: ConfigPath, settings: Settings) -> Iterator[Issue]:
    if isinstance(value, Mapping):
        target = value.get("_target_")
        if isinstance(target, str):
            yield from filter(None, [forbidden(target, settings, "allow_target", (*path, "_target_"))])
        for key, item in value.items():
            if reserved(key) and key not in RESERVED and settings.strict:
                yield unknown_reserved(key, path)
            yield from _walk(item, (*path, key), settings)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _walk(item, (*path, index), settings)


def _wrong_kind(path: ConfigPath, value: Any, expected: str) -> Issue:
    found = "a mapping" if isinstance(value, Mapping) else "a list" if isinstance(value, tuple) else kind(value)
    return Issue(path=path, problem="has the wrong type", found=found, expected=expected)


def validate_post_model(resolved: ResolvedConfig, registry: Registry, model_inputs: Sequence[str]) -> None:
    """Check what only the registry and the model know.

    Args:
        resolved: the configuration.
        registry: built-in keys and plugins.
        model_inputs: the names that the model takes.

    Raises:
        ConfigError: an unknown key, `io.mapping` with other names than the model's inputs, a `metric` scheduler
            without a monitor; all of them at once, each with its place.
    """
    issues = post_model_issues(resolved, registry, model_inputs)
    if issues:
        raise resolved.located(ConfigError(issues))


def post_model_issues(resolved: ResolvedConfig, registry: Registry, model_inputs: Sequence[str]) -> tuple[Issue, ...]:
    """What `validate_post_model` raises."""
    data = resolved.data
    keys = (issue for name in PREFIXES for issue in _unknown_keys(data.get(name), (name,), registry))
    return (*keys, *_io(data.get("io"), model_inputs), *_scheduler(data.get("scheduler")))


def _unknown_keys(value: Any, path: ConfigPath, registry: Registry) -> Iterator[Issue]:
    specs = [((), value)] if isinstance(value, Mapping) and "_type_" in value else _items(value)
    for key, spec in specs:
        name = spec.get("_type_") if isinstance(spec, Mapping) else None
        if isinstance(name, str) and name not in registry:
            place = (*path, *((key,) if key != () else ()), "_type_")
            yield unknown_key(registry, name, place)


def _items(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, (list, tuple)) else []


def _io(io: Any, model_inputs: Sequence[str]) -> Iterator[Issue]:
    if not isinstance(io, Mapping) or io.get("_type_") != "io.mapping":
        return
    given = io.get("model_kwargs")
    if not isinstance(given, Mapping):
        return
    expected = "exactly the model's inputs: " + ", ".join(model_inputs)
    for name in given:
        if name not in model_inputs:
            path = ("io", "model_kwargs", name)
            near = nearest(name, model_inputs)
            yield Issue(
                path=path,
                at="key",
                problem="the model has no such input",
                found=repr(name),
                expected=expected,
                nearest=near,
            )
    for name in model_inputs:
        if name not in given:
            yield Issue(path=("io", "model_kwargs", name), problem="the model's input is not fed", expected=expected)


def _scheduler(scheduler: Any) -> Iterator[Issue]:
    if isinstance(scheduler, Mapping) and scheduler.get("interval") == "metric" and not scheduler.get("monitor"):
        problem = "a scheduler with interval: metric needs the name of a metric to monitor"
        yield Issue(path=("scheduler", "monitor"), problem=problem, expected="for instance monitor: val/loss")
