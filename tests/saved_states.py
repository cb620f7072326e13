"""States that the checkpoint's tests save, and the damage that they do to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from ftrainer.engine import checkpoint
from ftrainer.functional import pytree
from ftrainer.functional.state import Program, TrainState
from registry import component


@component
class Learner:
    """Stands for a program; nothing here trains."""

    width: int = 4


def small_state(step: int = 0, width: int = 4, learner: Any = None) -> TrainState:
    """A state whose every tensor tells its step."""
    weight = torch.arange(width * 3, dtype=torch.float32).reshape(width, 3) + step
    return TrainState(
        step=torch.tensor(step),
        tick=torch.tensor(2 * step),
        key=torch.tensor(7),
        params={"model": {"0.weight": weight}},
        buffers={"model": {}},
        opt_state={"model": {"mu": weight / 2, "count": torch.tensor(step)}},
        slots={"epoch": torch.tensor(0)},
        program=Program(learner=learner or Learner()),
    )


def with_params(params: Any) -> TrainState:
    """A state that holds these parameters."""
    return attrs.evolve(small_state(), params=params)


def save(directory: Path, name: str = "last", step: int = 0, **manifest: Any) -> Path:
    """A small checkpoint on disk."""
    return checkpoint.write(directory, name, small_state(step), {"cursor": {"step": step}, **manifest})


def assert_same(a: Any, b: Any) -> None:
    """Equal to the bit: structure, dtypes, shapes, values; a NaN equals itself."""
    assert pytree.structure(a) == pytree.structure(b)
    for path, x, y in zip(pytree.paths(a), pytree.leaves(a), pytree.leaves(b), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape), path
        assert bytes_of(x).equal(bytes_of(y)), path


def bytes_of(tensor: Tensor) -> Tensor:
    """A tensor's memory, as numbers from 0 to 255."""
    return tensor.resolve_conj().contiguous().reshape(-1).view(torch.uint8)


def flip(file: Path, bit: int) -> None:
    """Turn one bit of a file over."""
    raw = bytearray(file.read_bytes())
    raw[bit // 8] ^= 1 << bit % 8
    file.write_bytes(raw)
