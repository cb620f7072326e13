"""Dynamic loss scaling for half precision, as a slot of the state.

After Micikevicius et al., 2018, "Mixed Precision Training". The loss is multiplied before it is differentiated and the
gradients divided afterwards, so that small ones do not vanish in float16. A step that overflows halves the factor;
`GROWTH_EVERY` good ones in a row double it. The figures are those of `torch.amp.GradScaler`.
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from . import pytree
from .state import TrainState, Tree

SLOT = "loss_scale"
INITIAL, MINIMUM, GROWTH_EVERY = 65536.0, 1.0, 2000


def with_loss_scale(state: TrainState) -> TrainState:
    """A state whose losses are scaled."""
    scale = torch.full_like(state.slots["lr_scale"], INITIAL, dtype=torch.float32)
    return attrs.evolve(state, slots={**state.slots, SLOT: {"scale": scale, "good": torch.zeros_like(state.step)}})


def up(state: TrainState, loss: Tensor) -> Tensor:
    """The loss to differentiate; the loss itself where nothing is scaled."""
    return loss * state.slots[SLOT]["scale"] if SLOT in state.slots else loss


def down(state: TrainState, grads: Tree) -> Tree:
    """The gradients of the loss itself."""
    if SLOT not in state.slots:
        return grads
    inverse = 1 / state.slots[SLOT]["scale"]
    return pytree.map(lambda g: g * inverse.to(g.dtype), grads)


def adapt(state: TrainState, ok: Tensor) -> tuple[TrainState, Tensor]:
    """Move the scale after a step that was `ok` or overflowed, and say whether the step counts as bad.

    An overflow is how the scale finds its height; it counts as bad only where the scale cannot go lower.
    """
    if SLOT not in state.slots:
        return state, ~ok
    scale, good = state.slots[SLOT]["scale"], state.slots[SLOT]["good"] + 1
    grows = good >= GROWTH_EVERY
    raised, lowered = torch.where(grows, scale * 2, scale), (scale / 2).clamp(min=MINIMUM)
    slot = {"scale": torch.where(ok, raised, lowered), "good": torch.where(ok & ~grows, good, 0)}
    return attrs.evolve(state, slots={**state.slots, SLOT: slot}), ~ok & (scale <= MINIMUM)
