"""The whole of a run as one pytree, and the static tree of components that it was built from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from frozendict import frozendict
from torch import Tensor

from registry.spec import component, is_traceable, replace

from . import pytree

Tree = Any
"""A nested dict of tensors, or any other optree pytree."""


@component
class StepPolicy:
    """What surrounds every step, whatever the learner.

    Attributes:
        guard: `grads` keeps the old state unless losses and the global gradient norm are finite, `loss` reads the
            losses alone, `off` never looks.
        clip_norm: the global gradient norm above which gradients are scaled down; None never clips.
        log_norms: whether the global norms of gradients and parameters are among the metrics.
        precision: the arithmetic of the losses (`fp32`, `fp64`, …).
        transforms: augmentations of the training examples, `(example, key) -> example` (`functional.augment`).
    """

    guard: str = "grads"
    clip_norm: float | None = None
    log_norms: bool = False
    precision: str = "fp32"
    transforms: tuple[Callable[..., Any], ...] = ()


@component
class Program:
    """The components of a run. `learner` and `policy` enter the step; the rest is the loop's.

    `step_part()` is what the compiled step is cached by, so that a change of `run.*`, callbacks or loggers does not
    retrace. `data` names what the run is trained on. The program of a stack of runs (`functional.replicate`) has its
    members' own ones in `members`; `values` is what sets such a member apart, by config path, and `replicate` how they
    are run. `due` is what the host knows of the step to be made: the `every` that divide its number, or None where
    only the state's tensor knows; it makes a step that computes what is due, and nothing else.
    """

    learner: Any
    policy: StepPolicy = StepPolicy()
    due: tuple[int, ...] | None = None
    run: Any = None
    trainer: Any = None
    evaluators: Mapping[str, Any] = frozendict()
    callbacks: tuple[Any, ...] = ()
    loggers: tuple[Any, ...] = ()
    config: Mapping[str, Any] = frozendict()
    data: Any = None
    members: tuple[Program, ...] = ()
    values: Mapping[str, Any] = frozendict()
    replicate: Any = None

    def but(self, **changes: Any) -> Program:
        """The program with some of its components replaced."""
        return replace(self, **changes)

    def step_part(self) -> Program:
        """The same program without what the step never reads."""
        return Program(learner=self.learner, policy=self.policy)


@pytree.register
@attrs.frozen(kw_only=True)
class TrainState:
    """A run at one moment.

    Attributes:
        step: applied updates, 0-d int64 (schedules, bias correction, `every`).
        tick: micro-batches seen, 0-d int64 (random draws, data position).
        key: the run's randomness, from `functional.random.key`.
        params: trainable tensors by role and dotted name: `{"model": {"0.weight": …}}`.
        buffers: the modules' other tensors, likewise by role.
        opt_state: by phase name, whatever the phase's transform keeps.
        slots: what follows or steers the parameters: EMA and target networks, `epoch`, `lr_scale`, loss scale.
        hyper: swept values by config path (`{"optimizer.lr": 0-d float64}`), empty for a plain run.
        program: the components, static.
    """

    step: Tensor
    tick: Tensor
    key: Tensor
    params: Tree
    buffers: Tree
    opt_state: Tree
    slots: Tree
    hyper: dict[str, Tensor] = attrs.field(factory=dict)
    program: Any = attrs.field(default=None, metadata={"pytree_node": False})


def evolve_at(learner: Any, path: str, value: Any) -> Any:
    """`learner` with the traceable field at a config path replaced.

    `optimizer.lr` looks for a field `optimizer` of the learner, `learner.alpha` for a field of the learner itself,
    `optimizer.betas.0` for a number inside a traceable field.

    A component that is described elsewhere than in its fields has a method `sweep(parts, value)` that finds the place.

    Raises:
        KeyError: there is no such field, or it was not declared traceable.
    """
    head, *rest = path.split(".")
    return _evolve(learner, tuple(rest) if head == "learner" else (head, *rest), value, path)


def _evolve(node: Any, parts: tuple[str, ...], value: Any, path: str, traced: bool = False) -> Any:
    if not parts:  # inside a tuple or mapping; `traced` tells what the field that holds it was declared as
        if not traced or isinstance(node, bool) or not isinstance(node, (int, float)):
            raise KeyError(f"{path}: {node!r} is structural, not traceable")
        return value
    name, *rest = parts
    if isinstance(node, tuple):
        index = int(name)
        return (*node[:index], _evolve(node[index], tuple(rest), value, path, traced), *node[index + 1 :])
    if isinstance(node, Mapping):
        return frozendict({**node, name: _evolve(node[name], tuple(rest), value, path, traced)})
    fields = attrs.fields_dict(type(node)) if attrs.has(type(node)) else {}
    if name not in fields and hasattr(node, "sweep"):
        return node.sweep(parts, value)
    if name not in fields:
        raise KeyError(f"{path}: {type(node).__name__} has no field {name!r}")
    if rest:
        inner = _evolve(getattr(node, name), tuple(rest), value, path, is_traceable(fields[name]))
        return attrs.evolve(node, **{name: inner})
    if not is_traceable(fields[name]):
        raise KeyError(f"{path}: {type(node).__name__}.{name} is structural, not traceable")
    return attrs.evolve(node, **{name: value})


def with_hyper(learner: Any, hyper: Mapping[str, Tensor]) -> Any:
    """The learner as this state sees it: swept fields hold their tensors."""
    for path, value in hyper.items():
        learner = evolve_at(learner, path, value)
    return learner
