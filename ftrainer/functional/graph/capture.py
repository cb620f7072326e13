"""The graph of a function of tensors, by the first of three ways that can record it; never with a value baked in."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, fx

from ftrainer.deps import dynamo, make_fx
from ftrainer.functional.redirect import nondeterministic_ops

from . import generators
from .numbers import as_tensors, taken
from .products import large_products

log = logging.getLogger("ftrainer.jit")

Flat = Callable[..., Sequence[Tensor]]
"""A function of tensors that returns tensors."""


class TraceError(RuntimeError):
    """A function that cannot be captured as one graph; the message names the user's line and the ways out."""


def capture(flat: Flat, tensors: Sequence[Tensor], name: str) -> fx.GraphModule:
    """The graph of a flat function, refused where a value or an unkeyed draw would be baked in.

    Code that branches on a tensor's value unless it knows that it is being captured gets a second try in which it
    is told. Otherwise it is not told, so that what is captured is what runs without capturing.
    """
    known = generators.states(flat)
    try:
        graph = make_fx.trace(flat, tensors)
    except RuntimeError as error:
        graph = capture_declared(flat, tensors, name, untraceable(error, name))
    if unkeyed := nondeterministic_ops(graph):
        raise TraceError(f"{name} draws random numbers that no key governs: {', '.join(unkeyed)}")
    if drew := generators.moved(known):
        raise TraceError(
            f"{name} draws from a generator of its own ({', '.join(drew)}), of which a trace would keep the numbers.\n"
            "  Draw with torch.rand or torch.randn, which the key governs, or set `run.compile: eager`."
        )
    return large_products(as_tensors(graph))


def capture_declared(flat: Flat, tensors: Sequence[Tensor], name: str, why: str) -> fx.GraphModule:
    """The second try: `torch.compiler.is_compiling()` says yes meanwhile."""
    try:
        with make_fx.declared():
            graph = make_fx.trace(flat, tensors)
    except RuntimeError as error:
        return capture_whole(flat, tensors, name, untraceable(error, name))
    log.info("%s was captured with torch.compiler.is_compiling() true, since otherwise %s", name, why.splitlines()[0])
    return graph


def capture_whole(flat: Flat, tensors: Sequence[Tensor], name: str, why: str) -> fx.GraphModule:
    """The third try: Dynamo captures each module that the function calls, and what it captured is traced instead."""
    with make_fx.declared(), dynamo.asked_for() as refusals:
        try:
            graph = make_fx.trace(flat, tensors)
        except RuntimeError as error:
            raise TraceError(untraceable(error, name, refusals)) from error
    log.info("%s was captured by Dynamo, module by module, since otherwise %s", name, why.splitlines()[0])
    return graph


def without_numbers(graph: fx.GraphModule, name: str) -> fx.GraphModule:
    """The graph itself; refused where it takes numbers out of tensors, which cannot be compiled.

    Raises:
        TraceError: it does.
    """
    if users := taken(graph):
        raise TraceError(
            f"{name} cannot be compiled: it takes numbers out of tensors and hands them to {', '.join(users)}, which "
            "takes no tensor for them.\n  Keep them tensors instead of calling .item(), or set `run.compile: trace`."
        )
    return graph


def untraceable(error: RuntimeError, name: str, refusals: Sequence[str] = ()) -> str:
    """Which line of the user's asked for a tensor's value, and what to do about it.

    Raises:
        RuntimeError: `error` itself, if it says something else.
    """
    if not make_fx.wants_value(error):
        raise error
    where = line_of(error)
    dynamo_too = "".join(f"  Dynamo cannot capture it either: {refusal}.\n" for refusal in dict.fromkeys(refusals))
    together = ", with replicas also `replicate.strategy: loop`" if "vmap" in dynamo_too else ""
    return (
        f"{name} cannot be traced: {where}\n  asks for the value of a tensor ({str(error).splitlines()[0]}).\n"
        f"{dynamo_too}"
        "  Write the branch with torch.where, keep numbers as tensors instead of calling .item() or NumPy, or set "
        f"`run.compile: eager`{together}."
    )


def line_of(error: BaseException) -> str:
    """The innermost line of the user's behind an error, or of torch's layer where none is the user's."""
    torches, package = Path(torch.__file__).parent, Path(__file__).parents[2]
    frames = [f for f in traceback.extract_tb(error.__traceback__)[::-1] if f.line]
    users = [f for f in frames if not is_in(f.filename, torches, package) and "optree" not in f.filename]
    layers = [f for f in frames if is_in(f.filename, torches / "nn" / "modules") and f.name != "_call_impl"]
    parts = [f for f in frames if is_in(f.filename, package / "components", package / "model" / "blocks")]
    found = [*users[:1], *layers[:1], *parts[:1]]
    return f"{found[0].filename}:{found[0].lineno}: {found[0].line}" if found else "an unknown line"


def is_in(filename: str, *folders: Path) -> bool:
    """Whether a file lies in one of these folders."""
    return any(Path(filename).is_relative_to(folder) for folder in folders)
