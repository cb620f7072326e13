"""A state threaded through jitted functions, flat between steps so that nothing is rebuilt on the way."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import attrs
import torch
from torch import Tensor

from ftrainer.functional import pytree, step
from ftrainer.functional.jit import Compiled, Jitted, abstract_signature, aval, jit
from ftrainer.functional.state import TrainState
from ftrainer.functional.step import intervals


def update(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Tensor]]:
    """The program's step."""
    return state.program.learner.update(state, batch)


def accumulate(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Tensor]]:
    """The program's step without its update."""
    return step.accumulate(state.program.learner, state, batch)


def evaluate(state: TrainState, batch: Any) -> dict[str, Any]:
    """The program's judgement of one batch."""
    return state.program.learner.evaluate(state, batch)


class Stepper:
    """Owns the leaves of a state and moves them.

    Args:
        state: where to begin. Its tensors are overwritten as training goes on, so `state` always is the present one.
        backend: as for `jit`.
        functions: what is run where `update`, `accumulate` or `evaluate` is asked for, if it is not that itself.
    """

    def __init__(self, state: TrainState, backend: str, functions: Mapping[Any, Any] = MappingProxyType({})):
        self.state = state
        self._slim = attrs.evolve(state, program=state.program.step_part())
        self._intervals = intervals(state.program.learner) if host_knows(state) else ()
        self._leaves = pytree.leaves(self._slim)
        self._places = dict(zip(pytree.paths(self._slim), self._leaves, strict=True))
        self._functions, self._backend = functions, backend
        self._jitted: dict[Any, Jitted] = {}
        self._bound: dict[Any, Bound] = {}
        self._last: dict[Any, Bound] = {}

    @property
    def traces(self) -> int:
        """How often a new signature was traced."""
        return sum(jitted.traces for jitted in self._jitted.values())

    def __call__(self, fn: Callable[..., Any], batch: Any) -> Any:
        """Run `update`, `accumulate` or `evaluate` on a batch; the first two move the state and return metrics."""
        due = self._due() if fn is update else None
        bound = self._last.get((fn, due))
        tensors = None if bound is None else bound.tensors(batch)
        if bound is None or tensors is None:
            bound, tensors = self._bind(fn, due, batch)
        with torch.no_grad():
            out = bound.run(*self._leaves, *tensors)
        return bound.result(out, fn is evaluate)

    def _bind(self, fn: Callable[..., Any], due: tuple[int, ...] | None, batch: Any) -> tuple[Bound, list[Tensor]]:
        tensors, signature = abstract_signature((batch,))
        bound = self._bound.get((fn, due, signature))
        if bound is None:
            slim = attrs.evolve(self._slim, program=self._slim.program.but(due=due))
            bound = self._bound[fn, due, signature] = Bound(self._function(fn, due).lookup(slim, batch)[1], batch)
        self._last[fn, due] = bound
        return bound, tensors

    def _function(self, fn: Callable[..., Any], due: tuple[int, ...] | None) -> Jitted:
        chosen = self._functions.get(fn, fn)
        how = (judging(self._backend), ()) if fn is evaluate else (self._backend, (0,))
        return self._jitted.setdefault((fn, due), jitted(chosen, *how, due))

    def _due(self) -> tuple[int, ...] | None:
        """Those of the learner's intervals that the next step ends; None where there are none or only tensors know."""
        if not self._intervals:
            return None
        number = int(self._slim.step) + 1
        return tuple(every for every in self._intervals if number % every == 0)

    @property
    def device(self) -> torch.device:
        """Where the state lives."""
        return self.state.step.device

    def cursor(self) -> dict[str, Any]:
        """What a resumed run needs to know to move on alike, as JSON data."""
        return {}

    def rest(self, member: int) -> None:
        """A plain run has no members to put to rest."""
        raise IndexError(f"a plain run has no member {member}")

    def set(self, path: str, value: float, member: int | None = None) -> None:
        """Overwrite one 0-d leaf, named as a checkpoint names it (`slots/epoch`); a plain run has no members."""
        del member
        self._places[path].fill_(value)


def host_knows(state: TrainState) -> bool:
    """Whether the number of applied steps can be read without waiting for a device, and is the same for all."""
    return state.step.dim() == 0 and state.step.device.type == "cpu"


class Bound:
    """A compiled function with what it takes and what its results are called.

    Args:
        compiled: for one signature.
        batch: of this signature.
    """

    def __init__(self, compiled: Compiled, batch: Any):
        self.compiled, self.run = compiled, compiled.run
        is_flat = type(batch) is dict and all(type(k) is str and type(x) is Tensor for k, x in batch.items())
        self._takes = [(name, aval(batch[name])) for name in sorted(batch)] if is_flat else None
        self._names: tuple[str, ...] | None = None

    def tensors(self, batch: Any) -> list[Tensor] | None:
        """The leaves of a batch that has the bound one's signature; None where it takes a longer look to tell."""
        if type(batch) is not dict or self._takes is None or len(batch) != len(self._takes):
            return None
        found = []
        for name, expected in self._takes:
            leaf = batch.get(name)
            if type(leaf) is not Tensor or aval(leaf) != expected:
                return None
            found.append(leaf)
        return found

    def result(self, leaves: Sequence[Tensor], whole: bool) -> Any:
        """What the function returned; of `(metrics,)`, a flat dict, only that dict, without rebuilding the tree."""
        if whole:
            return pytree.unflatten(self.compiled.outputs, leaves)
        if self._names is None:
            (metrics,) = pytree.unflatten(self.compiled.outputs, range(len(leaves)))
            self._names = tuple(sorted(metrics, key=metrics.__getitem__))
        return dict(zip(self._names, leaves, strict=True))


def judging(backend: str) -> str:
    """The backend for validation, which runs too seldom to repay compiling."""
    return "trace" if backend in ("inductor", "cuda_graphs") else backend


@functools.cache
def jitted(fn: Callable[..., Any], backend: str, donate: tuple[int, ...], due: tuple[int, ...] | None = None) -> Jitted:
    """One jitted function per process and what is due, so that a second build of the same program finds its traces."""
    del due
    return jit(fn, backend=backend, donate=donate)
