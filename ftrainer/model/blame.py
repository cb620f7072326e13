"""Which layer an error came from: its place in the configuration, what came in, and what it expects."""

from __future__ import annotations

import linecache
from collections.abc import Iterator, Mapping
from types import FrameType, MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor, nn

from ftrainer.deps.make_fx import wants_value
from ftrainer.deps.module_internals import OpOverload
from registry.issue import ConfigError, ConfigPath, Issue
from registry.spec import Deferred

from .assemble import path_of
from .graph import Graph, Step, resolve
from .refusals import refusal
from .skeleton import Skeleton

FAILURES = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError)
"""What the code of a module may raise when its input does not suit it."""


UNTRACED = "write the branch with torch.where and keep numbers as tensors, or set `run.compile: eager`"


HALF_FIT = "data keep the dtype of their file: store inputs as float32, or train float64 with `run.precision: fp64`"


class Culprit(NamedTuple):
    """What was running: a layer or a node, its place, its arguments and the shape it takes."""

    label: str
    path: ConfigPath
    inputs: tuple[Any, ...]
    expected: str | None


def blame(error: BaseException, spec: Deferred) -> ConfigError:
    """An error that names the layer in which another one arose, under the layer's config path.

    Args:
        error: what came out of a model's `init` or `apply`, or of a trace of either.
        spec: the model's factory, which knows the config paths.
    """
    for origin in chain(error):
        culprit = innermost(origin, spec)
        if culprit is not None:
            return ConfigError([complaint(origin, culprit)])
    return ConfigError([Issue(path=spec.path, problem=f"the model fails: {first_line(error)}")])


def complaint(error: BaseException, culprit: Culprit) -> Issue:
    """What a layer could not do, with what came in and what it expects."""
    problem, hint = refusal(error, culprit.label)
    if problem is None and wants_value(error):
        problem, hint = f"{culprit.label} cannot be traced: {untraced(error)} asks for the value of a tensor", UNTRACED
    elif problem is None:
        problem, hint = f"{culprit.label} fails: {first_line(error)}", HALF_FIT if "same dtype" in str(error) else hint
    found = ", ".join(map(describe, culprit.inputs)) or "no arguments"
    return Issue(path=culprit.path, problem=problem, found=found, expected=culprit.expected, hint=hint)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__


def frames(error: BaseException) -> Iterator[FrameType]:
    """The frames that an error passed, outermost first."""
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def innermost(error: BaseException, spec: Deferred) -> Culprit | None:
    """The innermost layer, or node of a graph, that was being called."""
    culprit: Culprit | None = None
    names: dict[int, str] = {}
    places: Mapping[str, int] = {}
    for frame in frames(error):
        owner, local = frame.f_locals.get("self"), frame.f_locals
        if isinstance(owner, Skeleton):
            names, places = {id(layer): name for name, layer in owner.module.named_modules()}, owner.places
        elif frame.f_code.co_name == "_call_impl" and isinstance(owner, nn.Module) and id(owner) in names:
            kind, name = type(owner).__name__, names[id(owner)]
            label = f"layer {name!r} ({kind})" if name else kind
            inputs = (*local.get("args", ()), *local.get("kwargs", {}).values())
            culprit = Culprit(label, path_of(spec, places, name), inputs, expectation(owner))
        elif frame.f_code is Graph.forward.__code__ and "step" in local:
            culprit = node_of(local["step"], local["values"], spec)
    return culprit


def node_of(step: Step, values: Mapping[str, Any], spec: Deferred) -> Culprit:
    """The graph's node that a step came from."""
    plan = spec.kwargs["plan"]
    path = next((path for path, other in zip(plan.paths, plan.steps, strict=True) if other == step), spec.path)
    inputs = (resolve(value, values) for value in (*step.args, *step.kwargs.values()))
    return Culprit(f"the node that makes {step.out!r}", path, tuple(inputs), None)


def untraced(error: BaseException) -> str:
    """What a trace could not record: the operator if it is known, else the line of the layer that called it."""
    calls = [call for frame in frames(error) if isinstance(call := frame.f_locals.get("func"), OpOverload)]
    if calls:
        return str(calls[-1])
    lines = [frame for frame in frames(error) if frame.f_code.co_name == "forward"]
    return f"`{linecache.getline(lines[-1].f_code.co_filename, lines[-1].f_lineno).strip()}`"


def first_line(error: BaseException) -> str:
    """What an error says, without torch's advice."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def describe(value: Any) -> str:
    """A tensor's dtype and shape, a container's contents, or the type of anything else.

    >>> import torch
    >>> describe((torch.zeros(2, 3), None))
    '[float32 (2, 3), NoneType]'
    """
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(describe, value))}]"
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


EXPECTED: Mapping[str, str] = MappingProxyType({
    "in_features": "(…, {})",
    "in_channels": "(batch, {}, …)",
    "num_features": "(batch, {}, …)",
    "num_channels": "(batch, {}, …)",
    "normalized_shape": "(…, *{})",
    "input_size": "(batch, time, {})",
    "embed_dim": "(batch, time, {})",
    "d_model": "(batch, time, {})",
})  # fmt: skip
"""By the attribute in which a layer keeps its width: the shape that it takes."""


def expectation(layer: nn.Module) -> str | None:
    """The shape that a layer takes, where it says so."""
    return next(
        (f"shape {text.format(getattr(layer, name))}" for name, text in EXPECTED.items() if hasattr(layer, name)), None
    )
