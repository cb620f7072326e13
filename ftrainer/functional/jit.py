"""Trace a pure function of pytrees once, then call the flat graph with nothing in the way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from ftrainer.deps import functorch, inductor

from . import pytree
from .graph.backends import LOWERINGS, Inputs
from .graph.capture import Flat
from .graph.donation import doubled, hand_over

log = logging.getLogger("ftrainer.jit")

_tracing = threading.RLock()
"""Torch's tracers are the process's: one thread at a time."""
MANY = 2
"""Shapes or constants of the same inputs that nobody is warned about: a whole batch and a last one."""


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
        if functorch.is_tracing():
            return self.fn(*args)  # whoever traces or transforms the caller sees through this
        tensors, compiled = self.lookup(*args)
        with torch.no_grad():
            out = compiled.run(*tensors)
        result = pytree.unflatten(compiled.outputs, out)
        return (*(args[place] for place in self.donate), *result) if self.donate else result

    def lookup(self, *args: Any) -> tuple[list[Tensor], Compiled]:
        """The arguments' tensors and the compiled function that takes them, traced now if it is new."""
        tensors, signature = abstract_signature(args)
        try:
            compiled = self._cache.get(signature)
        except TypeError as error:
            raise TypeError(f"{name_of(self.fn)} cannot be traced: {unhashable(args)}") from error
        if compiled is None:
            with _tracing:
                compiled = self._cache.get(signature)  # another thread may have been quicker
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
            for differ, what, cure in (
                (is_reshaped, "shape", "pad or bucket the batches (`last: pad`)"),
                (is_another_constant, "constant", "pass numbers that change as tensors"),
            ):
                if sum(differ(old, signature) for old in self._cache) >= MANY:
                    log.warning("%s met %s number %d of the same inputs; %s", name_of(self.fn), what, 1 + MANY, cure)
        return compile_signature(self.fn, self.backend, self.donate, args)


def jit(fn: Callable[..., Any], *, backend: str = "auto", donate: Sequence[int] = ()) -> Jitted:
    """Trace `fn` once for each structure, shape, dtype and device of its arguments, and replay the graph from then on.

    Args:
        fn: a pure function of pytrees. Leaves that are no tensors are constants of the trace.
        backend: `eager` calls `fn` itself, `trace` replays the captured graph, `inductor` compiles it whole,
            `cuda_graphs` also records what the compiled function launches on a GPU and plays it from there; `auto`
            compiles where a compiler is present, without CUDA graphs, which nobody has measured yet.
        donate: positions of arguments to overwrite. `fn` returns a tuple whose first items are what becomes of them, in
            this order and of the same structure, shapes and dtypes; those arguments' tensors are written to, and they
            are handed back. What `fn` returns besides shares no memory with them.

    Raises:
        ValueError: what becomes of a donated argument is unlike it.
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
    if any(place < 0 for place in donate):
        raise ValueError(f"`donate` counts arguments from 0; found {tuple(donate)}")
    return Jitted(fn, backend, tuple(donate))


def abstract_signature(args: tuple[Any, ...]) -> tuple[list[Tensor], Any]:
    """Tensor leaves, and the hashable rest: structure, constants, and each tensor's (shape, strides, dtype, device)."""
    leaves, treedef = pytree.flatten(args)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    avals = tuple(aval(x) if isinstance(x, Tensor) else ("constant", type(x), identity(x)) for x in leaves)
    return tensors, (treedef, avals)


def aval(x: Tensor) -> tuple[Any, ...]:
    """What a trace depends on of a tensor: (shape, strides, dtype, device, whether its memory holds something else)."""
    return x.shape, x.stride(), x.dtype, x.device, x.is_conj() or x.is_neg()


def identity(constant: Any) -> Any:
    """What tells a constant from others: zeros of both signs are equal, and no NaN is."""
    return repr(constant) if isinstance(constant, (float, complex)) else constant


def unhashable(args: tuple[Any, ...]) -> str:
    """Which leaf is no constant, and what to do about it."""
    for path, leaf in zip(pytree.paths(args), pytree.leaves(args), strict=True):
        try:
            hash(leaf)
        except TypeError:
            hint = "arguments are trees of tensors (`torch.from_numpy`) and of constants that can be hashed"
            return f"argument {path} is a {type(leaf).__name__}; {hint}"
    return "a component among its arguments cannot be hashed"


def compile_signature(fn: Callable[..., Any], backend: str, donate: tuple[int, ...], args: tuple[Any, ...]) -> Compiled:
    """Capture `fn` at these arguments and hand the graph to the backend."""
    leaves, treedef = pytree.flatten(args)
    check_apart(args, donate)
    outputs: list[pytree.TreeDef] = []
    template: list[Any] = []

    def flat(*tensors: Tensor) -> list[Any]:
        inputs = pytree.unflatten(treedef, fill(leaves, tensors))
        out = fn(*inputs)
        out_leaves, structure = pytree.flatten(out[len(donate) :] if donate else out)
        if donate:
            out_leaves = hand_over([inputs[place] for place in donate], list(out[: len(donate)]), out_leaves)
        outputs[:], template[:] = [structure], [HOLE if isinstance(x, COMPUTED) else x for x in out_leaves]
        return [leaf for leaf in out_leaves if isinstance(leaf, COMPUTED)]

    run = LOWERINGS[backend](flat, inputs_of(args, donate), name_of(fn))
    if outputs and all(leaf is HOLE for leaf in template):
        return Compiled(run=run, outputs=outputs)
    return Compiled(run=lambda *tensors: filled(run(*tensors), template), outputs=outputs)


COMPUTED = (Tensor, torch.SymInt, torch.SymFloat, torch.SymBool)
"""What a graph returns; all else that a function returns is a constant of the trace."""
HOLE = object()
"""Where something computed goes among constants."""


def filled(found: Sequence[Any], template: Sequence[Any]) -> list[Any]:
    """The leaves that a function returns: what was computed, and constants in between."""
    rest = iter(found)
    return [next(rest) if leaf is HOLE else leaf for leaf in template]


def check_apart(args: tuple[Any, ...], donate: Sequence[int]) -> None:
    """Refuse donated tensors of which writing to one would change another.

    Raises:
        ValueError: two share memory.
    """
    given = [args[place] for place in donate]
    names = [f"{place}/{path}".rstrip("/") for place in donate for path in pytree.paths(args[place])]
    for first, second in doubled(pytree.leaves(given)):
        raise ValueError(f"donated tensors {names[first]} and {names[second]} share memory; clone one of them")


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


def difference(old: Any, new: Any) -> str:
    """What changed between two signatures, for the log."""
    if old[0] != new[0]:
        return "the structure or the components changed"
    return "; ".join(f"{describe(a)} became {describe(b)}" for a, b in zip(old[1], new[1], strict=True) if a != b)


def is_reshaped(old: Any, new: Any) -> bool:
    """Whether two signatures differ in shapes alone."""
    return old[0] == new[0] and [a[2:] for a in old[1]] == [a[2:] for a in new[1]]


def is_another_constant(old: Any, new: Any) -> bool:
    """Whether two signatures differ in constants alone."""
    pairs = [(a, b) for a, b in zip(old[1], new[1], strict=False) if a != b]
    return old[0] == new[0] and all(a[0] == b[0] == "constant" for a, b in pairs)


def describe(leaf: Any) -> str:
    """One leaf's (shape, dtype, device) as text."""
    if leaf[0] == "constant":
        return f"constant {leaf[2] if issubclass(leaf[1], (float, complex)) else repr(leaf[2])}"
    shape, _, dtype, device, _ = leaf
    return f"{str(dtype).removeprefix('torch.')}{list(shape)} on {device}"


def name_of(fn: Callable[..., Any]) -> str:
    """A function's name for messages."""
    return getattr(fn, "__qualname__", repr(fn))
