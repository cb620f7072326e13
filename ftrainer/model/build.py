"""The configuration's section `model:`, in any of its forms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import attrs
from frozendict import frozendict
from torch import nn

from ftrainer.deps import model_constructor
from registry import ConfigError, ConfigPath, Deferred, Issue, Plain, Registry, component, freeze, instantiate, invalid
from registry.lookup import find_call
from registry.signatures import unknown_name

from .arguments import node_issues
from .bridge import Model
from .graph import Graph, Plan, Ref, Step
from .initializers import Initializer
from .nodes import GraphSection, Report
from .plan import read_outputs, read_plan
from .skeleton import hollow_module
from .weights import InitFrom

FIELDS = MappingProxyType({
    "sequential": ("inputs", "layers", "outputs", "return"),
    "graph": ("inputs", "modules", "nodes", "order", "steps", "outputs", "return"),
})  # fmt: skip
FORMS = ("sequential", "graph", "_type_", "_target_")


@component
class Extras:
    """What may stand beside any form."""

    initializers: tuple[Initializer, ...] = ()
    init_from: InitFrom | None = None
    freeze: tuple[str, ...] = ()


@component
class SequentialSection:
    """`sequential:` as it is written, apart from `return`."""

    layers: tuple[Deferred, ...]
    inputs: tuple[str, ...] = ("x",)
    outputs: Plain = None


EXTRAS = ("initializers", "init_from", "freeze")


def build_model(registry: Registry, section: Any, path: ConfigPath = ("model",)) -> Any:
    """The model that a configuration describes. Its modules were built once, to see that they can be.

    Args:
        registry: the keys that the section may name.
        section: `{sequential: …}`, `{graph: …}` or a spec with `_type_`; beside it `initializers`, `init_from` and
            `freeze` (see `Model`).
        path: the section's place in the configuration.

    Returns:
        A `Model`, or whatever component the spec names.

    Raises:
        ConfigError: with everything that is wrong with the section.
    """
    if not isinstance(section, Mapping):
        raise ConfigError([Issue(path=path, problem="is no model", found=repr(section), expected=_expected())])
    forms = [form for form in FORMS if form in section]
    if len(forms) != 1:
        found = " and ".join(forms) or ", ".join(map(str, section)) or "nothing"
        raise ConfigError(
            [Issue(path=path, problem="does not say what kind of model", found=found, expected=_expected())]
        )
    extras = {name: section[name] for name in EXTRAS if name in section}
    rest = {name: value for name, value in section.items() if name not in EXTRAS}
    model, read = all_of(
        lambda: _form(registry, forms[0], rest, path), lambda: instantiate(registry, extras, path, expected=Extras)
    )
    if isinstance(model, Model):
        return _complete(model, read, path).check()
    if extras:
        found = type(model).__name__
        raise ConfigError([Issue(path=path, problem=f"{', '.join(extras)} need a model of torch modules", found=found)])
    return model


def _complete(model: Any, extras: Any, path: ConfigPath) -> Model:
    """The model with what stands beside its form."""
    factory = attrs.evolve(model.factory, path=model.factory.path or path)
    return attrs.evolve(model, factory=factory, path=path, **attrs.asdict(extras, recurse=False))


def all_of(*calls: Callable[[], Any]) -> tuple[Any, ...]:
    """The results of all calls, or one error with the issues of all.

    Raises:
        ConfigError: any of the calls raised one.
    """
    results: list[Any] = []
    issues: list[Issue] = []
    for call in calls:
        try:
            results.append(call())
        except ConfigError as error:
            issues += error.issues
    if issues:
        raise ConfigError(issues)
    return tuple(results)


def torch_model(factory: Deferred, inputs: tuple[str, ...] = ("x",)) -> Model:
    """A model from any factory that returns an `nn.Module` (`model.torch`).

    Args:
        factory: a spec; what it names is called at `init`.
        inputs: names of the model's inputs. They go to `forward` by name where it has parameters of these names,
            else by position.
    """
    return Model(factory=factory, inputs=inputs)


def constructor_model(config_path: str, inputs: tuple[str, ...] | None = None) -> Model:
    """A model that the package `model_constructor` builds from its own YAML file (`model.constructor`).

    Args:
        config_path: the file, relative to where you start.
        inputs: names of the model's inputs; None takes those that the file declares.

    Raises:
        ConfigError: the package is not installed, there is no such file, or the package refuses it.
    """
    digest = model_constructor.digest_of(config_path)
    kwargs = {"config_path": config_path, "digest": digest}
    spec = Deferred(key="model.constructor", factory=model_constructor.build, kwargs=kwargs)
    declared: Any = hollow_module(spec).module.inputs if inputs is None else inputs
    return Model(factory=spec, inputs=tuple(declared))


def _expected() -> str:
    return "exactly one of " + ", ".join(FORMS[:3])


def _form(registry: Registry, form: str, section: Mapping[str, Any], path: ConfigPath) -> Any:
    if form in ("_type_", "_target_"):
        return _typed(registry, section, path)
    _refuse([unknown_name(name, (form, *EXTRAS), (*path, name)) for name in section if name != form])
    if not isinstance(section[form], Mapping):
        found = "a list" if isinstance(section[form], (list, tuple)) else repr(section[form])
        raise invalid("has the wrong type", *path, form, found=found, expected="a mapping")
    returns = section[form].get("return")
    valid = FIELDS[form]
    rest = {name: value for name, value in section[form].items() if name in valid and name != "return"}
    read = {"sequential": _sequential, "graph": _graph}[form]
    unknown = [unknown_name(name, valid, (*path, form, name)) for name in section[form] if name not in valid]
    return all_of(lambda: read(registry, rest, returns, (*path, form)), lambda: _refuse(unknown))[0]


def _refuse(issues: Sequence[Issue]) -> None:
    if issues:
        raise ConfigError(issues)


def _typed(registry: Registry, section: Mapping[str, Any], path: ConfigPath) -> Any:
    """A spec: of a model, or of a module that is the model."""
    call, _ = find_call(registry, section, path)
    factory = call.factory if call else None
    if isinstance(factory, type) and issubclass(factory, nn.Module):
        return Model(factory=instantiate(registry, section, path, expected=Deferred))
    return instantiate(registry, section, path)


def _sequential(registry: Registry, raw: Mapping[str, Any], returns: Any, path: ConfigPath) -> Model:
    section = instantiate(registry, raw, path, expected=SequentialSection)
    if len(section.inputs) != 1:
        raise invalid(
            "takes exactly one input; a graph takes several", *path, "inputs", found=", ".join(section.inputs)
        )
    if not section.layers:
        raise invalid("has no layers", *path, "layers")
    kwargs: dict[str, Any] = {"layers": section.layers}
    if section.outputs is not None or returns is not None:
        kwargs["plan"] = _chain(section, returns, path)
    return Model(factory=Deferred(key="sequential", factory=stack, kwargs=kwargs, path=path), inputs=section.inputs)


def _chain(section: SequentialSection, returns: Any, path: ConfigPath) -> Plan:
    """The plan of a sequential model that names its outputs: the input, or `h0`, `h1`, … after the layers."""
    report, n = Report(), len(section.layers)
    names = (*section.inputs, *(f"h{i}" for i in range(n)))
    outputs, form = read_outputs(section.outputs or freeze([names[-1]]), returns, names, path, report)
    if report.issues:
        raise ConfigError(report.issues)
    steps = tuple(Step(str(i), None, (Ref(names[i]),), frozendict(), names[i + 1]) for i in range(n))
    paths = tuple((*path, "layers", i) for i in range(n))
    return Plan(inputs=section.inputs, steps=steps, outputs=outputs, returns=form, paths=paths)


def _graph(registry: Registry, raw: Mapping[str, Any], returns: Any, path: ConfigPath) -> Model:
    modules = raw.get("modules") or {}
    if not isinstance(modules, Mapping):
        found = "a list" if isinstance(modules, (list, tuple)) else repr(modules)
        raise invalid("has the wrong type", *path, "modules", found=found, expected="a mapping of specs")
    rest = {name: value for name, value in raw.items() if name != "modules"}
    ops = {key.removeprefix("op."): registry.entry(key).factory for key in registry.keys("op.")}
    kwargs = dict(
        zip(
            ("modules", "plan"),
            all_of(
                lambda: instantiate(registry, modules, (*path, "modules"), expected=Mapping[str, Deferred]),
                lambda: read_plan(
                    instantiate(registry, rest, path, expected=GraphSection), returns, modules, ops, path
                ),
            ),
            strict=True,
        )
    )
    spec = Deferred(key="graph", factory=graph, kwargs=kwargs, path=path)
    _refuse(tuple(forward_issues(spec)))
    return Model(factory=spec, inputs=kwargs["plan"].inputs)


def forward_issues(spec: Deferred) -> Iterator[Issue]:
    """What the modules of a graph would refuse in their nodes' arguments."""
    plan, modules = spec.kwargs["plan"], dict(hollow_module(spec).module.named_children())
    for path, step in zip(plan.paths, plan.steps, strict=True):
        if step.module is not None:
            yield from node_issues(step, path, modules[step.module].forward)


def stack(layers: Sequence[Any], plan: Plan | None = None) -> nn.Module:
    """Layers one after the other, as an ordinary `nn.Sequential` unless a plan says what else to return.

    Tensors are named `0.weight`, `2.bias`, … in either case.
    """
    for index, layer in enumerate(layers):
        _require_module(layer, "layers", index)
    return nn.Sequential(*layers) if plan is None else Graph({str(i): layer for i, layer in enumerate(layers)}, plan)


def graph(modules: Mapping[str, Any], plan: Plan) -> Graph:
    """The module that runs a plan."""
    for name, module in modules.items():
        _require_module(module, "modules", name)
    return Graph(modules, plan)


def _require_module(value: Any, *place: str | int) -> None:
    if not isinstance(value, nn.Module):
        raise invalid("makes no nn.Module", *place, found=type(value).__name__, expected="an nn.Module")
