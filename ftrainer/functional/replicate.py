"""Many runs as one: states stacked along a leading axis of members, and a step that moves all of them at once.

A stack is a `TrainState` whose every leaf is (M, …). What sets its members apart besides their leaves, the numbers in
traceable fields, is in `hyper`; `slots["active"]` (M,) bool says who still moves. `program.members` holds the members'
own programs, so that a member is taken out as the plain state that it would be alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import attrs
import torch
from torch import Tensor
from torch.func import vmap

from registry.spec import is_traceable

from . import pytree
from .state import TrainState
from .step import choose

ACTIVE = "active"
PARTS = ("model", "io", "loss", "optimizer", "scheduler", "metrics")
"""Fields of a learner that a configuration writes at its top level."""

Step = Callable[[TrainState, Any], Any]
"""`update(state, batch)` and its kin."""


class StackError(ValueError):
    """States that differ by more than a stack can hold."""


class Difference(NamedTuple):
    """A place where components differ: its path from the outermost, what stands there, whether it may be swept."""

    path: tuple[str, ...]
    values: tuple[Any, ...]
    traceable: bool


@pytree.register
@attrs.frozen
class Own:
    """A batch of each member's own: every tensor is (M, B, …). A batch that is not wrapped so is every member's."""

    batch: Any


Where = int | slice
"""A place on the axis of members: one of them, or several side by side."""


def share(batch: Any, where: Where) -> Any:
    """Some members' batches out of those of all; a common batch as it is."""
    if not isinstance(batch, Own):
        return batch
    own = pytree.map(lambda leaf: leaf[where] if isinstance(leaf, Tensor) else leaf, batch.batch)
    return own if isinstance(where, int) else Own(own)


def stack(states: Sequence[TrainState]) -> TrainState:
    """One state out of several plain ones.

    Args:
        states: at least one; of programs that differ in traceable numbers of the learner and outside the step.

    Raises:
        StackError: there are none, one is a stack, or they differ in something else; the message names it.
    """
    if not states:
        raise StackError("a stack needs at least one state")
    programs = tuple(state.program for state in states)
    if any(program.members or state.hyper for program, state in zip(programs, states, strict=True)):
        raise StackError("a stack cannot be stacked again: take its members out first")
    hyper = swept([program.learner for program in programs], states[0].step.device)
    _same_leaves(states, sorted(hyper))
    leaves = [torch.stack(each) for each in zip(*map(pytree.leaves, states), strict=True)]
    stacked = pytree.unflatten(pytree.structure(states[0]), leaves)
    active = torch.ones(len(states), dtype=torch.bool, device=states[0].step.device)
    return attrs.evolve(
        stacked,
        slots={**stacked.slots, ACTIVE: active},
        hyper=hyper,
        program=attrs.evolve(programs[0], members=programs),
    )


def member(states: TrainState, index: int) -> TrainState:
    """One member of a stack as a plain state, with its own copy of the tensors.

    Raises:
        IndexError: there is no such member.
    """
    programs = states.program.members
    if not 0 <= index < len(programs):
        raise IndexError(f"there is no member {index}; the state holds {len(programs)}, counted from 0")
    slots = {name: slot for name, slot in states.slots.items() if name != ACTIVE}
    plain = attrs.evolve(states, slots=slots, hyper={}, program=programs[index])
    return pytree.map(lambda leaf: leaf[index].clone(), plain)


def unstack(states: TrainState) -> list[TrainState]:
    """Every member as a plain state."""
    return [member(states, index) for index in range(len(states.program.members))]


def swept(learners: Sequence[Any], device: torch.device | None = None) -> dict[str, Tensor]:
    """The numbers in which learners differ, (M,) float64 by path.

    Raises:
        StackError: they differ in something that is no traceable number.
    """
    found = list(differences(learners))
    structural = [f"{named(d.path)} ({', '.join(map(repr, distinct(d.values)))})" for d in found if not d.traceable]
    if structural:
        raise StackError(f"members may differ in traceable numbers only; these differ in {', '.join(structural)}")
    return {named(d.path): torch.tensor(d.values, dtype=torch.float64, device=device) for d in found}


def differences(nodes: Sequence[Any], path: tuple[str, ...] = (), traceable: bool = False) -> Iterator[Difference]:
    """Where trees of components differ, outermost first. A field left out of equality is left out here."""
    first = nodes[0]
    if all(node is first or node == first for node in nodes):
        return
    children = _children(nodes)
    if children is None:
        numeric = all(isinstance(node, (int, float)) and not isinstance(node, bool) for node in nodes)
        yield Difference(path, tuple(nodes), traceable and numeric)
        return
    for name, field_traceable, values in children:
        yield from differences(values, (*path, name), traceable if field_traceable is None else field_traceable)


def _children(nodes: Sequence[Any]) -> list[tuple[str, bool | None, list[Any]]] | None:
    """Name, traceability (None: as the field that it is in) and values of what lies below; None for leaves.

    A component whose traceable numbers lie deeper than its fields has methods `numbers()`, by the names that its
    `sweep` takes, and `without_numbers()`.
    """
    first = nodes[0]
    if any(type(node) is not type(first) for node in nodes):
        return None
    if hasattr(first, "numbers") and all(node.numbers().keys() == first.numbers().keys() for node in nodes):
        numbers = [(name, True, [node.numbers()[name] for node in nodes]) for name in first.numbers()]
        return [*_fields([node.without_numbers() for node in nodes]), *numbers]
    if attrs.has(type(first)):
        return _fields(nodes)
    if isinstance(first, Mapping) and all(node.keys() == first.keys() for node in nodes):
        return [(str(key), None, [node[key] for node in nodes]) for key in first]
    if type(first) is tuple and all(len(node) == len(first) for node in nodes):
        return [(str(index), None, [node[index] for node in nodes]) for index in range(len(first))]
    return None


def _fields(nodes: Sequence[Any]) -> list[tuple[str, bool | None, list[Any]]]:
    """The children of attrs nodes of one class."""
    fields = [field for field in attrs.fields(type(nodes[0])) if field.eq]
    return [(f.name, is_traceable(f), [getattr(node, f.name) for node in nodes]) for f in fields]


def named(path: tuple[str, ...]) -> str:
    """A path from the learner as configurations write it; `evolve_at` reads it.

    >>> named(("optimizer", "lr")), named(("ema_decay",))
    ('optimizer.lr', 'learner.ema_decay')
    """
    return ".".join(path if path[0] in PARTS else ("learner", *path))


def distinct(values: Sequence[Any]) -> list[Any]:
    """The different values, in the order in which they first appear.

    >>> distinct([0.1, 0.2, 0.1])
    [0.1, 0.2]
    """
    found: list[Any] = []
    for value in values:
        found += [] if value in found else [value]
    return found


def _same_leaves(states: Sequence[TrainState], paths: Sequence[str]) -> None:
    """Raise where states of programs that may be stacked hold other tensors all the same."""
    described = [_describe(state) for state in states]
    for index, other in enumerate(described):
        differing = sorted(
            path for path in other.keys() | described[0].keys() if other.get(path) != described[0].get(path)
        )
        if differing:
            because = f": {' or '.join(paths)} decides which tensors there are" if paths else ""
            raise StackError(f"members 0 and {index} differ in {', '.join(differing[:4])}{because}")


def _describe(state: TrainState) -> dict[str, Any]:
    leaves = zip(pytree.paths(state), pytree.leaves(state), strict=True)
    return {path: (tuple(leaf.shape), leaf.dtype, leaf.device) for path, leaf in leaves}


# The step of a stack.


@functools.cache
def resting(update: Step) -> Step:
    """`update`, but a member that is no longer active stays as it is."""

    @functools.wraps(update)
    def run(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Tensor]]:
        new, metrics = update(state, batch)
        return choose(state.slots[ACTIVE], new, state), metrics

    return run


@functools.cache
def together(fn: Step) -> Step:
    """`fn(state, batch)` for all members of a stack at once; its results have a leading axis of members.

    Compile the result: a `vmap` around a compiled function is not supported by torch.

    Args:
        fn: a pure function of one member's state and batch. What is no tensor in its results must not depend on the
            member.
    """

    @functools.wraps(fn)
    def run(states: TrainState, batch: Any) -> Any:
        own = isinstance(batch, Own)
        leaves, treedef = pytree.flatten((states, batch.batch if own else batch))
        n_state = len(pytree.leaves(states))
        dims = [0 if isinstance(x, Tensor) and (own or i < n_state) else None for i, x in enumerate(leaves)]
        return _mapped(lambda *xs: fn(*pytree.unflatten(treedef, xs)), leaves, dims)

    return run


def _mapped(fn: Callable[..., Any], leaves: Sequence[Any], dims: Sequence[int | None]) -> Any:
    """`vmap` over flat arguments to a pytree of results.

    An argument that comes back untouched comes back as the very tensor that went in, which donation relies on; a
    result that is no tensor is handed on.
    """
    kept: list[Any] = []
    structure: list[pytree.TreeDef] = []

    def flat(*xs: Any) -> tuple[Tensor, ...]:
        out, treedef = pytree.flatten(fn(*xs))
        places = {id(x): index for index, x in enumerate(xs) if isinstance(x, Tensor) and dims[index] is not None}
        structure[:] = [treedef]
        kept[:] = [_Same(places[id(x)]) if id(x) in places else None if isinstance(x, Tensor) else x for x in out]
        return tuple(x for x, keep in zip(out, kept, strict=True) if keep is None)

    computed = iter(vmap(flat, in_dims=tuple(dims))(*leaves))
    out = [leaves[k.place] if isinstance(k, _Same) else next(computed) if k is None else k for k in kept]
    return pytree.unflatten(structure[0], out)


class _Same(NamedTuple):
    """Stands for an argument among results."""

    place: int
