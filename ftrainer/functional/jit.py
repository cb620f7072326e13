"""Trace a pure function of pytrees once, then call the flat graph with nothing in the way."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import attrs
import torch
from torch import Tensor, fx

from ftrainer.deps import cuda_graphs, dynamo, inductor, make_fx

from . import pytree
from .hoist import hoist
from .numbers import as_tensors, taken
from .passes import for_replay
from .products import large_products, thin_products
from .recording import Recorded, on_host
from .redirect import nondeterministic_ops
from .residence import at_home

log = logging.getLogger("ftrainer.jit")

Flat = Callable[..., Sequence[Tensor]]
"""A function of tensors that returns tensors."""


COMPILING = 10.0
"""Seconds that compiling a step takes, the first time on a machine."""

SAVED_PER_STEP, SAVED_PER_BYTE = {"cpu": 0.5e-3, "cuda": 10e-3}, {"cpu": 1.5e-9, "cuda": 0.0}
"""Seconds that a compiled step saves against a replayed one: for its operations, and for each byte of the state, which
a replayed update reads and writes a dozen times. Measured for AdamW at widths 64 and 1024."""


def choose_backend(planned_steps: int, n_bytes: int, device_type: str) -> tuple[str, str]:
    """What `auto` stands for, and why: `inductor` where that repays itself and a compiler is present, else `trace`.

    Args:
        planned_steps: how often the step will run.
        n_bytes: size of the state.
        device_type: `cpu` or `cuda`.
    """
    saved = planned_steps * (SAVED_PER_STEP[device_type] + n_bytes * SAVED_PER_BYTE[device_type])
    if saved < COMPILING:
        return "trace", f"{planned_steps} steps of this size would not repay compiling"
    if reason := inductor.why_not(device_type):
        return "trace", reason
    return "inductor", f"{planned_steps} steps of this size repay compiling"


MANY_SHAPES = 2
"""Shapes of the same inputs that nobody is warned about: a whole batch and a last one."""


class TraceError(RuntimeError):
    """A function that cannot be captured as one graph; the message names the user's line and the ways out."""


@attrs.frozen(kw_only=True)
class Compiled:
    """One traced signature: `run` takes every tensor leaf of the arguments and returns the outputs' leaves.

    Attributes:
        run: the flat function.
    """

    run: Flat
    _outputs: list[pytree.TreeDef]

    @property
    def outputs(self) -> pytree.TreeDef:
        """The structure that puts the returned leaves back; known once the function has run or been traced."""
        return self._outputs[0]


@attrs.define
class Jitted:
    """A pure function with its compiled signatures; `traces` counts them."""

    fn: Callable[..., Any]
    backend: str
    donate: tuple[int, ...]
    traces: int = 0
    _cache: dict[Any, Compiled] = attrs.field(factory=dict, repr=False)

    def __call__(self, *args: Any) -> Any:
        tensors, compiled = self.lookup(*args)
        with torch.no_grad():
            out = compiled.run(*tensors)
        result = pytree.unflatten(compiled.outputs, out)
        return (*(args[place] for place in self.donate), *result) if self.donate else result

    def lookup(self, *args: Any) -> tuple[list[Tensor], Compiled]:
        """The arguments' tensors and the compiled function that takes them, traced now if it is new."""
        tensors, signature = abstract_signature(args)
        compiled = self._cache.get(signature)
        if compiled is None:
            compiled = self._cache[signature] = self._compile(args, signature)
            self.traces += 1
        return tensors, compiled

    def _compile(self, args: tuple[Any, ...], signature: Any) -> Compiled:
        if self._cache:
            change = difference(next(reversed(self._cache)), signature)
            same_program = any(old[0] == signature[0] for old in self._cache)
            note = {"kind": "retrace"} if same_program else {}  # another run of this process has a right to its trace
            log.info("retrace of %s: %s", name_of(self.fn), change, extra={"note": note})
            if sum(is_reshaped(old, signature) for old in self._cache) >= MANY_SHAPES:
                cure = "pad or bucket the batches (`last: pad`)"
                log.warning("%s met shape number %d of the same inputs; %s", name_of(self.fn), 1 + MANY_SHAPES, cure)
        return compile_signature(self.fn, self.backend, self.donate, args)


def jit(fn: Callable[..., Any], *, backend: str = "auto", donate: Sequence[int] = ()) -> Jitted:
    """Trace `fn` once for each structure, shape, dtype and device of its arguments, and replay the graph from then on.

    Args:
        fn: a pure function of pytrees. Leaves that are no tensors are constants of the trace.
        backend: `eager` calls `fn` itself, `trace` replays the captured graph, `inductor` compiles it whole,
            `cuda_graphs` also records what the compiled function launches on a GPU and plays it from there; `auto`
            compiles where a compiler is present, without CUDA graphs, which nobody has measured yet.
        donate: positions of arguments to overwrite. `fn` returns a tuple whose first items are what becomes of them, in
            this order and of the same structure; those arguments' tensors are written to and they are handed back.

    Raises:
        TraceError: `fn` depends on a tensor's value in a way that neither `make_fx` nor Dynamo, which is tried on the
            modules that it calls, can record; or it draws numbers that no key governs.

    >>> import torch
    >>> double = jit(lambda tree: {name: 2 * leaf for name, leaf in tree.items()}, backend="trace")
    >>> double({"x": torch.tensor([1.0, 2.0])})
    {'x': tensor([2., 4.])}
    >>> double.traces
    1
    """
    if backend == "auto":
        missing = inductor.why_not("cuda" if torch.cuda.is_available() else "cpu")
        backend, reason = ("trace", missing) if missing else ("inductor", "a compiler is present")
        log.info("%s runs on the backend %s: %s", name_of(fn), backend, reason)
    if backend not in LOWERINGS:
        raise ValueError(f"backend {backend!r} is none of auto, {', '.join(LOWERINGS)}")
    return Jitted(fn, backend, tuple(donate))


def abstract_signature(args: tuple[Any, ...]) -> tuple[list[Tensor], Any]:
    """Tensor leaves, and the hashable rest: structure, constants, and each tensor's (shape, strides, dtype, device)."""
    leaves, treedef = pytree.flatten(args)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    avals = tuple(aval(x) if isinstance(x, Tensor) else ("constant", type(x), x) for x in leaves)
    return tensors, (treedef, avals)


def aval(x: Tensor) -> tuple[Any, ...]:
    """What a trace depends on of a tensor: (shape, strides, dtype, device)."""
    return x.shape, x.stride(), x.dtype, x.device


def compile_signature(fn: Callable[..., Any], backend: str, donate: tuple[int, ...], args: tuple[Any, ...]) -> Compiled:
    """Capture `fn` at these arguments and hand the graph to the backend."""
    leaves, treedef = pytree.flatten(args)
    outputs: list[pytree.TreeDef] = []

    def flat(*tensors: Tensor) -> list[Tensor]:
        inputs = pytree.unflatten(treedef, fill(leaves, tensors))
        out = fn(*inputs)
        if donate:
            new, out = out[: len(donate)], out[len(donate) :]
            overwrite(pytree.leaves([inputs[place] for place in donate]), pytree.leaves(new))
        out_leaves, structure = pytree.flatten(out)
        outputs[:] = [structure]
        return out_leaves

    return Compiled(run=LOWERINGS[backend](flat, inputs_of(args, donate), name_of(fn)), outputs=outputs)


class Inputs(NamedTuple):
    """The tensors that a function is captured with, their paths in its arguments, and which of them it overwrites."""

    tensors: Sequence[Tensor]
    paths: Sequence[str]
    donated: frozenset[int]


def inputs_of(args: tuple[Any, ...], donate: Sequence[int]) -> Inputs:
    """The tensor leaves of arguments, in order."""
    found = [
        (leaf, f"{place}/{path}", place in donate)
        for place, arg in enumerate(args)
        for path, leaf in zip(pytree.paths(arg), pytree.leaves(arg), strict=True)
        if isinstance(leaf, Tensor)
    ]
    tensors, paths, donated = zip(*found, strict=True) if found else ((), (), ())
    return Inputs(tensors, paths, frozenset(place for place, is_donated in enumerate(donated) if is_donated))


def fill(leaves: Sequence[Any], tensors: Sequence[Tensor]) -> list[Any]:
    """`leaves` with its tensors replaced in order."""
    rest = iter(tensors)
    return [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in leaves]


def overwrite(old: Sequence[Tensor], new: Sequence[Tensor]) -> None:
    """Copy every new leaf over the old one at its place; one that is another's old value is copied aside first."""
    places = {id(leaf): index for index, leaf in enumerate(old)}
    aside = [
        leaf.clone() if isinstance(leaf, Tensor) and places.get(id(leaf), index) != index else leaf
        for index, leaf in enumerate(new)
    ]
    for target, leaf in zip(old, aside, strict=True):
        if isinstance(leaf, Tensor) and leaf is not target:
            target.copy_(leaf)


def capture(flat: Flat, tensors: Sequence[Tensor], name: str) -> fx.GraphModule:
    """The graph of a flat function, refused where a value or an unkeyed draw would be baked in.

    Code that branches on a tensor's value unless it knows that it is being captured gets a second try in which it
    is told. Otherwise it is not told, so that what is captured is what runs without capturing.
    """
    try:
        graph = make_fx.trace(flat, tensors)
    except RuntimeError as error:
        graph = capture_declared(flat, tensors, name, untraceable(error, name))
    if unkeyed := nondeterministic_ops(graph):
        raise TraceError(f"{name} draws random numbers that no key governs: {', '.join(unkeyed)}")
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


def lower(flat: Flat, inputs: Inputs, name: str) -> Flat:
    """The captured graph as machine code."""
    graph = hoist(thin_products(at_home(without_numbers(capture(flat, inputs.tensors, name), name))))
    return inductor.compile_graph(graph, inputs.tensors)


def record(flat: Flat, inputs: Inputs, name: str) -> Flat:
    """The same, played from CUDA graphs where every input lies on the GPU."""
    run = lower(flat, inputs, name)
    if not inputs.tensors or on_host(inputs.tensors, inputs.paths, name):
        return run
    return Recorded(run, inputs.tensors, inputs.donated, cuda_graphs.recorder(inputs.tensors[0].device), name)


LOWERINGS: Mapping[str, Callable[[Flat, Inputs, str], Flat]] = MappingProxyType(
    {
        "eager": lambda flat, inputs, name: flat,
        "trace": lambda flat, inputs, name: for_replay(at_home(capture(flat, inputs.tensors, name))),
        "inductor": lower,
        "cuda_graphs": record,
    }
)


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
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not is_internal(f.filename)]
    where = f"{frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else "an unknown line"
    dynamo_too = "".join(f"  Dynamo cannot capture it either: {refusal}.\n" for refusal in dict.fromkeys(refusals))
    together = ", with replicas also `replicate.strategy: loop`" if "vmap" in dynamo_too else ""
    return (
        f"{name} cannot be traced: {where}\n  asks for the value of a tensor ({str(error).splitlines()[0]}).\n"
        f"{dynamo_too}"
        "  Write the branch with torch.where, keep numbers as tensors instead of calling .item() or NumPy, or set "
        f"`run.compile: eager`{together}."
    )


def is_internal(filename: str) -> bool:
    """Whether a frame belongs to torch or to this package's mechanism rather than to the user."""
    internal = (Path(torch.__file__).parent, Path(__file__).parent, Path(make_fx.__file__).parent)
    return any(Path(filename).is_relative_to(folder) for folder in internal) or "optree" in filename


def difference(old: Any, new: Any) -> str:
    """What changed between two signatures, for the log."""
    if old[0] != new[0]:
        return "the structure or the components changed"
    return "; ".join(f"{describe(a)} became {describe(b)}" for a, b in zip(old[1], new[1], strict=True) if a != b)


def is_reshaped(old: Any, new: Any) -> bool:
    """Whether two signatures differ in shapes alone."""
    return old[0] == new[0] and [a[2:] for a in old[1]] == [a[2:] for a in new[1]]


def describe(leaf: Any) -> str:
    """One leaf's (shape, dtype, device) as text."""
    if leaf[0] == "constant":
        return f"constant {leaf[2]!r}"
    shape, _, dtype, device = leaf
    return f"{str(dtype).removeprefix('torch.')}{list(shape)} on {device}"


def name_of(fn: Callable[..., Any]) -> str:
    """A function's name for messages."""
    return getattr(fn, "__qualname__", repr(fn))
