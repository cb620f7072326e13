"""Trace a pure function of pytrees once, then call the flat graph with nothing in the way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from ftrainer.deps import inductor

from . import pytree
from .backends import LOWERINGS, Inputs
from .capture import Flat
from .donation import hand_over

log = logging.getLogger("ftrainer.jit")

MANY_SHAPES = 2
"""Shapes of the same inputs that nobody is warned about: a whole batch and a last one."""


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
        out_leaves, structure = pytree.flatten(out[len(donate) :] if donate else out)
        if donate:
            out_leaves = hand_over([inputs[place] for place in donate], list(out[: len(donate)]), out_leaves)
        outputs[:] = [structure]
        return out_leaves

    return Compiled(run=LOWERINGS[backend](flat, inputs_of(args, donate), name_of(fn)), outputs=outputs)


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


def describe(leaf: Any) -> str:
    """One leaf's (shape, dtype, device) as text."""
    if leaf[0] == "constant":
        return f"constant {leaf[2]!r}"
    shape, _, dtype, device = leaf
    return f"{str(dtype).removeprefix('torch.')}{list(shape)} on {device}"


def name_of(fn: Callable[..., Any]) -> str:
    """A function's name for messages."""
    return getattr(fn, "__qualname__", repr(fn))
