"""A graph of modules and ops as an ordinary `nn.Module`: what runs, as data, and the module that runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import attrs
from torch import nn

from registry.issue import ConfigPath
from registry.spec import component

Outs = str | tuple[str, ...] | Mapping[str, str]
"""Where a result goes: to one name, element by element to several, or item by item."""


class Ref(NamedTuple):
    """`$name` in a node's arguments."""

    name: str


class Step(NamedTuple):
    """One call: of a module by name, or of an op.

    Attributes:
        module: the module's name; None where `op` is called.
        op: the function; None where a module is called.
        args, kwargs: values, with `Ref` for what earlier steps made.
        out: where the result goes.
    """

    module: str | None
    op: Callable[..., Any] | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    out: Outs


@component
class Plan:
    """What a graph does, checked and in order.

    Attributes:
        inputs: names of the model's inputs.
        steps: the calls.
        outputs: what is returned, by the name it has there (positions, as text, where outputs are a list).
        returns: `single`, `tuple` or `dict`.
        paths: the config path of each step; no part of the plan's identity.
    """

    inputs: tuple[str, ...]
    steps: tuple[Step, ...]
    outputs: Mapping[str, str]
    returns: str
    paths: tuple[ConfigPath, ...] = attrs.field(default=(), eq=False)


class Graph(nn.Module):
    """Runs a plan; its modules are submodules under their own names.

    Args:
        modules: by name.
        plan: what to call, in order.
    """

    def __init__(self, modules: Mapping[str, nn.Module], plan: Plan) -> None:
        super().__init__()
        self._plan = plan
        # In dicts of Python's own: Dynamo, which captures what `make_fx` cannot trace, knows no frozen ones.
        self._steps = tuple(Step(*map(thawed, step)) for step in plan.steps)
        self._outputs = dict(plan.outputs)
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Take the inputs in the order of `plan.inputs`, or by name.

        Raises:
            TypeError: they are not the plan's inputs.
        """
        values = dict(zip(self._plan.inputs, args, strict=False)) | kwargs
        if len(args) + len(kwargs) != len(self._plan.inputs) or any(name not in values for name in self._plan.inputs):
            raise TypeError(f"takes the inputs {', '.join(self._plan.inputs)}; found {len(args)} and {list(kwargs)}")
        for step in self._steps:
            call: Any = step.op if step.module is None else self._modules[step.module]
            result = call(*resolve(step.args, values), **resolve(step.kwargs, values))
            store(step.out, result, values)
        found = {name: values[source] for name, source in self._outputs.items()}
        if self._plan.returns == "dict":
            return found
        return next(iter(found.values())) if self._plan.returns == "single" else tuple(found.values())


def thawed(value: Any) -> Any:
    """`value` with a dict for every mapping in it."""
    if isinstance(value, Mapping):
        return {name: thawed(item) for name, item in value.items()}
    return tuple(map(thawed, value)) if type(value) is tuple else value


def resolve(value: Any, values: Mapping[str, Any]) -> Any:
    """`value` with every reference in it replaced."""
    if isinstance(value, Ref):
        return values[value.name]
    if isinstance(value, Mapping):
        return {name: resolve(item, values) for name, item in value.items()}
    return tuple(resolve(item, values) for item in value) if isinstance(value, tuple) else value


def store(out: Outs, result: Any, values: dict[str, Any]) -> None:
    """Give a result its name or names.

    Raises:
        ValueError: there are not as many results as names.
    """
    if isinstance(out, str):
        values[out] = result
    elif isinstance(out, Mapping):
        values.update({name: result[key] for key, name in out.items()})
    else:
        values.update(zip(out, result, strict=True))
