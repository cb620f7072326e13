"""What a learner is made of: phases (each a loss and the roles that its transform moves) and tracks that follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypedDict

import attrs
from torch import Tensor

from .state import TrainState, Tree


class Context(NamedTuple):
    """What a transform or schedule may know besides the gradients; every entry a 0-d tensor.

    Attributes:
        step: applied updates of the run, int64.
        epoch: epochs finished, int64.
        count: applied updates of this phase before this one, int64 (bias correction).
        lr_scale: factor set by the loop (plateau), float64.
    """

    step: Tensor
    epoch: Tensor
    count: Tensor  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    lr_scale: Tensor


class Transform(Protocol):
    """One part of an optimizer, as a pair of pure functions over nested dicts of tensors."""

    def init(self, params: Tree) -> Tree:
        """The state for these parameters: a pytree of tensors."""
        ...

    def update(self, grads: Tree, opt_state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        """Updates to add to `params`, and the new state, same structure, shapes and dtypes."""
        ...


class Aux(TypedDict, total=False):
    """What a loss says besides its value.

    metrics: 0-d tensors to log. buffers: new buffers by role. count: examples behind the mean (default: the batch's).
    """

    metrics: dict[str, Tensor]
    buffers: dict[str, Any]
    count: Tensor


LossFn = Callable[[Tree, TrainState, Any, Tensor], tuple[Tensor, Aux]]
"""`(params, state, batch, key) -> (0-d loss, aux)`: `params` holds every role, `state` what earlier phases left."""


@attrs.frozen(kw_only=True)
class Phase:
    """A loss and the parameter roles it moves.

    Attributes:
        name: the phase's name in `opt_state` and in the metrics.
        wrt: the roles that the loss is differentiated by and the transform updates.
        loss: see `LossFn`.
        transform: turns gradients into updates.
        every: the phase moves its roles on every k-th step only; on others it need not be computed, nor give figures.
    """

    name: str
    wrt: tuple[str, ...]
    loss: LossFn
    transform: Transform
    every: int = 1

    def select(self, params: Tree) -> Tree:
        """The roles that this phase moves."""
        return {role: params[role] for role in self.wrt}

    def eval_params(self, state: TrainState) -> Tree:
        """The moved roles as evaluation wants them: a schedule-free transform keeps a better point than the last."""
        params = self.select(state.params)
        better = getattr(self.transform, "eval_params", None)
        return params if better is None else better(state.opt_state[self.name], params)


@attrs.frozen(kw_only=True)
class Track:
    """A slot that follows a role: `slot <- slot + tau * (params[source] - slot)` (Polyak target, EMA)."""

    slot: str
    source: str
    tau: float | Tensor
    every: int = 1


class Composed(Protocol):
    """A learner that is made of phases and tracks."""

    def phases(self) -> tuple[Phase, ...]: ...

    def tracks(self) -> tuple[Track, ...]: ...
