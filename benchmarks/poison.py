"""Batches with numbers that are not finite, and a run that is to end as if it had never met them."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from ftrainer import build, fit
from ftrainer.engine.stepper import Stepper, update
from ftrainer.functional import pytree
from ftrainer.functional.state import TrainState

from .torture_runs import MEMORY, configuration

BATCHES, POISONED = 150, 50
NUMBERS = (float("nan"), float("inf"), float("-inf"))


def poisoned(seed: int) -> dict[str, Any]:
    """Train on batches of which a third is poisoned, and compare with a run that leaves these out."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        state, clean = program(Path(temporary)), batches()
        chosen = sorted(draw.sample(range(BATCHES), POISONED))
        ended = fit(state, [spoilt(batch, draw) if n in chosen else batch for n, batch in enumerate(clean)])
        skipped = skipping(state, clean, chosen)
    same = all(map(torch.equal, pytree.leaves(moved(ended)), pytree.leaves(moved(skipped))))
    return {"poisoned batches": len(chosen), "of": BATCHES, "steps applied": int(ended.step),
            "bitwise equal to the run that skipped them": same}  # fmt: skip


def program(root: Path) -> TrainState:
    """Step zero of the runs that are killed, but without accumulation, and patient."""
    config = configuration("memory", root) | {
        "trainer": {"_type_": "trainer.default", "max_epochs": 1, "grad_clip_norm": 1.0, "max_bad_steps": BATCHES},
        "callbacks": [],
        "loggers": [],
    }
    return build(config)[0]


def batches() -> list[dict[str, Tensor]]:
    """Clean ones, the same at each call."""
    generator = torch.Generator().manual_seed(0)
    size = MEMORY["batch_size"]
    return [
        {"x": torch.randn(size, 6, generator=generator), "y": torch.randn(size, 3, generator=generator)}
        for _ in range(BATCHES)
    ]


def spoilt(batch: dict[str, Tensor], draw: random.Random) -> dict[str, Tensor]:
    """The batch with one number, or all of one field, that is not finite."""
    name, copy = draw.choice(sorted(batch)), {key: value.clone() for key, value in batch.items()}
    rows = slice(None) if draw.random() < 0.5 else draw.randrange(len(copy[name]))
    copy[name][rows, 0] = draw.choice(NUMBERS)
    return copy


def skipping(state: TrainState, clean: list[dict[str, Tensor]], chosen: list[int]) -> TrainState:
    """The same steps by hand, where those of the chosen batches are never made."""
    stepper = Stepper(pytree.map(torch.clone, state), state.program.run.compile)
    for number, batch in enumerate(clean):
        if number in chosen:
            stepper.set("tick", number + 1)
        else:
            stepper(update, batch)
    return stepper.state


def moved(state: TrainState) -> TrainState:
    """What steps move: the loop's own mark of the epoch is left out."""
    return attrs.evolve(state, slots={name: slot for name, slot in state.slots.items() if name != "epoch"})
