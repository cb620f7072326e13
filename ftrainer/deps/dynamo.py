"""Dynamo's full-graph capture: `torch.compile` with a backend that keeps the graph instead of compiling it.

Importing Dynamo takes a second and more, so only what captures with it does.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

_refusals: ContextVar[list[str] | None] = ContextVar("refusals", default=None)
FAILURES = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError)
"""What Dynamo, or a module's code under it, may raise. Its own errors are RuntimeErrors."""
CONFIG = {
    "disable": False,
    "suppress_errors": False,
    "specialize_float": True,
    "capture_scalar_outputs": True,
    "capture_dynamic_output_shape_ops": True,
    "allow_rnn": True,
}
"""Numbers of a module are constants; those that it takes from tensors are calls of `item` in the graph."""


class Refused(RuntimeError):
    """Dynamo cannot capture a function whole; the message is its reason, with the line if that is known."""


class Captured(NamedTuple):
    """A function's torch-level graph.

    Attributes:
        graph: called with as many arguments as `inputs` has entries.
        inputs: for each argument its place among the example tensors, or the constant tensor that it is.
        outputs: stand-ins for what the graph returns.
        result: what the function returned, made of examples, constants and the stand-ins, told by identity.
    """

    graph: fx.GraphModule
    inputs: tuple[int | Tensor, ...]
    outputs: tuple[Tensor, ...]
    result: Any


@contextmanager
def asked_for() -> Iterator[list[str]]:
    """Within, by this thread, modules are captured by Dynamo before they are traced; gives the list of its refusals."""
    refusals: list[str] = []
    token = _refusals.set(refusals)
    try:
        yield refusals
    finally:
        _refusals.reset(token)


def refusals() -> list[str] | None:
    """Where to write down what Dynamo refuses; None where nobody asked for it."""
    return _refusals.get()


def capture(
    fn: Callable[..., Any], args: tuple[Any, ...], examples: Sequence[Tensor], opaque: Sequence[Callable[..., Any]]
) -> Captured:
    """Capture `fn(*args)` whole; no operation is run, and no value of a tensor is read.

    Args:
        fn: a function of containers of tensors.
        args: containers of the examples.
        examples: plain tensors; to be called in a thread that is in no transform and no mode.
        opaque: functions that the graph shall call as they are.

    Raises:
        Refused: the graph would depend on a tensor's value, or Dynamo does not know something that the code does.
    """
    import torch._dynamo as dynamo  # noqa: PLC0415

    for function in opaque:
        dynamo.allow_in_graph(function)
    calls: list[tuple[fx.GraphModule, tuple[Tensor, ...], tuple[Tensor, ...]]] = []

    def keep(graph: fx.GraphModule, _: Any) -> Callable[..., tuple[Tensor, ...]]:
        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            returned: Any = graph.graph.output_node().args[0]
            outputs = tuple(torch.empty((), device="meta") for _ in returned)
            calls.append((graph, inputs, outputs))
            return outputs

        return run

    with warnings.catch_warnings(), dynamo.config.patch(CONFIG):
        warnings.simplefilter("ignore")
        try:
            result = torch.compile(unseen(fn), backend=keep, fullgraph=True, dynamic=False)(*args)
        except FAILURES as error:
            raise Refused(reason(error)) from error
        finally:
            # Looked up by name while drawing functions were wrapped: whoever compiles next shall find torch's own.
            dynamo.trace_rules.clear_lru_cache()
    if len(calls) != 1:
        raise Refused("it found nothing to capture")
    (graph, inputs, outputs) = calls[0]
    places = {id(example): place for place, example in enumerate(examples)}
    return Captured(graph, tuple(places.get(id(x), x) for x in inputs), outputs, result)


def unseen(fn: Any) -> types.FunctionType:
    """The function with a code object of its own, by which Dynamo remembers what it compiled."""
    copy = types.FunctionType(fn.__code__.replace(), fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__)
    copy.__kwdefaults__ = fn.__kwdefaults__
    return copy


def aside(make: Callable[[], Any]) -> Any:
    """Call a function in a thread of its own, where none of the transforms and modes are that torch is in here."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(make).result()


def reason(error: Exception) -> str:
    """The first line of what Dynamo says, and the last line of code that it looked at."""
    frames = list(getattr(error, "real_stack", None) or ())
    where = f" ({frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line})" if frames else ""
    return f"{(str(error).splitlines() or [type(error).__name__])[0].rstrip('.')}{where}"
