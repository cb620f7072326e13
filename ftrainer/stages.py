"""From a resolved configuration to its components: the stages between, each of which finds what is wrong in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, TypeVar

import attrs

from ftrainer.builtins import builtin_registry
from ftrainer.components.base import DataSpec, Metric, Model
from ftrainer.config import (
    Group,
    Replicate,
    ResolvedConfig,
    RunSettings,
    Settings,
    resolve_again,
    validate_preflight,
)
from ftrainer.config.sections import PREFIXES
from ftrainer.functional.graph.capture import TraceError
from ftrainer.functional.state import Program, StepPolicy
from ftrainer.model.bridge import blamed
from ftrainer.model.build import build_model
from ftrainer.replication import member_programs
from registry import ConfigError, Issue, Registry, check, instantiate, load_plugins

T = TypeVar("T")
LEARNER_PARTS = ("model", "io", "loss", "optimizer", "scheduler", "metrics")
"""Top-level keys whose components the learner receives, where it has a field of that name."""
LOOP_PARTS = ("evaluators", "callbacks", "loggers")


@attrs.frozen(kw_only=True)
class Experiment:
    """Every component of a configuration, built; nothing is loaded, drawn or written yet."""

    resolved: ResolvedConfig
    program: Program
    groups: tuple[Group, ...] = ()

    @property
    def data(self) -> DataSpec:
        """What the run trains on."""
        return self.program.data


@contextmanager
def located(resolved: ResolvedConfig, *section: str) -> Iterator[None]:
    """Give every configuration error raised inside its file, line and column; its paths begin at the section.

    A layer that cannot be traced is such an error too.
    """
    try:
        yield
    except ConfigError as error:
        raise resolved.located(ConfigError(issue.under(section) for issue in error.issues)) from error.__cause__
    except TraceError as error:
        told = blamed(error)
        if told is None:
            raise
        raise resolved.located(told) from error


def build_registry(resolved: ResolvedConfig, registry: Registry | None = None) -> Registry:
    """The given registry, or the built-in one, with the plugins that `imports:` names."""
    settings = section(resolved, "settings", Settings)
    known = builtin_registry() if registry is None else registry
    return load_plugins(known, resolved.data.get("imports") or (), settings, ("imports",))


def validate_specs(resolved: ResolvedConfig, registry: Registry) -> None:
    """Check every section's specs against the registry and its factories' signatures, before any is called.

    Raises:
        ConfigError: all that is wrong, at once.
    """
    issues = [i for name, inject in SECTIONS.items() for i in check(registry, part(resolved, name), (name,), inject)]
    issues += unused_parts(resolved, registry)
    if issues:
        raise ConfigError(issues)


def unused_parts(resolved: ResolvedConfig, registry: Registry) -> Iterator[Issue]:
    """An issue for each section that the learner would be handed and has no field for."""
    learner = part(resolved, "learner")
    key = learner.get("_type_") if isinstance(learner, Mapping) else None
    signature = registry.entry(key).signature if isinstance(key, str) and key in registry else None
    if signature is None or signature.extra is not None or not str(key).startswith(PREFIXES["learner"]):
        return
    for name in LEARNER_PARTS:
        if part(resolved, name) and name not in signature.named():
            yield Issue(path=(name,), at="key", problem=f"{key} makes no use of it", hint=f"say `{name}: null`")


def instantiate_value(resolved: ResolvedConfig, registry: Registry, model: Model) -> Experiment:
    """Every section's component; the learner receives those that it is made of."""

    def made(name: str, inject: Mapping[str, Any] = MappingProxyType({})) -> Any:
        return instantiate(registry, part(resolved, name), (name,), inject)

    parts = {"model": model, **{name: made(name) for name in LEARNER_PARTS if name != "model"}}
    require_names(parts["metrics"])
    run, trainer, data = section(resolved, "run", RunSettings), made("trainer"), made("data")
    program = Program(
        learner=made("learner", {name: value for name, value in parts.items() if value is not None}),
        policy=StepPolicy(
            guard=trainer.guard,
            clip_norm=trainer.grad_clip_norm,
            log_norms=trainer.log_norms,
            precision=run.precision,
            transforms=getattr(data, "transforms", ()),
        ),
        run=run,
        trainer=trainer,
        config=resolved.public,
        data=data,
        **{name: made(name) for name in LOOP_PARTS},
    )
    return Experiment(resolved=resolved, program=program)


def require_names(metrics: Sequence[Metric]) -> None:
    """See that no two metrics are logged under one name, where the later one would stand for both.

    Raises:
        ConfigError: two are; with both places.
    """
    first: dict[Any, int] = {}
    names = [getattr(metric, "name", index) for index, metric in enumerate(metrics)]
    issues = [
        Issue(
            path=("metrics", index),
            problem=f"would overwrite metrics[{first[name]}], which is logged under the same name",
            found=repr(name),
            hint="leave one out or, where `name` is free, choose another",
        )
        for index, name in enumerate(names)
        if first.setdefault(name, index) != index
    ]
    if issues:
        raise ConfigError(issues)


def replicated(experiment: Experiment, registry: Registry) -> Experiment:
    """The experiment with what the section `replicate:` makes of it: one member for each seed and row of values."""
    resolved, program = experiment.resolved, experiment.program
    if resolved.data.get("replicate") is None:
        return experiment
    settings = section(resolved, "replicate", Replicate)

    def make(values: Mapping[str, Any]) -> Program:
        changed = resolve_again(resolved, values)
        validate_preflight(changed)
        same_model = changed.data["model"] == resolved.data["model"]
        model = program.learner.model if same_model else build_model(registry, changed.data["model"])
        return instantiate_value(changed, registry, model).program

    groups = settings.split(program.run.seed)
    members = [member_programs(group, settings, make) for group in groups]
    stack = program.but(replicate=settings, members=members[0] if len(groups) == 1 else ())
    return attrs.evolve(experiment, program=stack, groups=groups if len(groups) > 1 else ())


SECTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"data": (), "io": (), "loss": (), "optimizer": (), "scheduler": (), "metrics": (), "learner": LEARNER_PARTS,
     "trainer": (), "evaluators": (), "callbacks": (), "loggers": ()}
)  # fmt: skip
"""The sections that hold specs, each with the names that its component is handed besides."""

DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {"learner": {"_type_": "learner.supervised"}, "metrics": (), "evaluators": {}, "callbacks": (), "loggers": ()}
)


def section(resolved: ResolvedConfig, name: str, cls: type[T]) -> T:
    """A section that is no component of the run but settings of one."""
    return instantiate(Registry(), resolved.data.get(name) or {}, (name,), expected=cls)


def part(resolved: ResolvedConfig, name: str) -> Any:
    """A section as written, or what stands for it where it is left out."""
    value = resolved.data.get(name)
    return DEFAULTS.get(name) if value is None else value
