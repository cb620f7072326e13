"""The process-wide generators that data sets draw from, set for a moment and put back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Seed torch's CPU generator, numpy's and Python's from one integer (its low 32 bits, as numpy wants)."""
    word = seed % 2**32
    torch.default_generator.manual_seed(word)
    np.random.seed(word)
    random.seed(word)


@contextmanager
def borrowed() -> Iterator[None]:
    """Whatever is drawn or seeded inside, the three generators are afterwards as they were.

    >>> before = torch.get_rng_state()
    >>> with borrowed():
    ...     seed_all(0)
    >>> torch.equal(before, torch.get_rng_state())
    True
    """
    saved = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(saved[0])
        np.random.set_state(saved[1])
        random.setstate(saved[2])
