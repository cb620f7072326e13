"""Two runs side by side: tensors bit by bit, rows of metrics, what the callbacks remember."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from ftrainer.engine import checkpoint
from ftrainer.engine.tensors import Leaf, read_tensors

CLOCKS = ("time", "elapsed", "clock")
"""Numbers that tell the time, and so differ from run to run."""


@attrs.frozen(kw_only=True)
class Saved:
    """What a checkpoint holds, by pytree path, and its manifest."""

    tensors: Mapping[str, Tensor]
    manifest: Mapping[str, Any]

    @classmethod
    def at(cls, path: Path) -> Saved:
        """Read a checkpoint.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        manifest = checkpoint.verify(path)
        leaves = [Leaf(leaf["path"], leaf["dtype"], tuple(leaf["shape"])) for leaf in manifest["leaves"]]
        return cls(tensors=read_tensors((path / checkpoint.TENSORS).read_bytes(), leaves), manifest=manifest)


def differing_leaves(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Iterator[str]:
    """A sentence on each leaf that is not the same to the bit, in the order of the state.

    >>> next(differing_leaves({"step": torch.tensor(1)}, {"step": torch.tensor(3)}))
    'step: 1 element of 1 differs, by 2 at most'
    """
    for path in dict.fromkeys([*a, *b]):
        if path not in a or path not in b:
            yield f"{path}: is there only once"
        elif a[path].dtype != b[path].dtype or a[path].shape != b[path].shape:
            yield f"{path}: {a[path].dtype} {tuple(a[path].shape)} and {b[path].dtype} {tuple(b[path].shape)}"
        elif bits(a[path]) != bits(b[path]):
            yield f"{path}: {distance(a[path], b[path])}"


def bits(leaf: Tensor) -> bytes:
    """A tensor's bytes: two that hold the same nan are the same."""
    return leaf.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def distance(a: Tensor, b: Tensor) -> str:
    """How many elements differ, and by how much."""
    wide = torch.complex128 if a.is_complex() else torch.float64
    differs = ~((a == b) | ((a != a) & (b != b)))
    n = max(1, int(differs.sum()))
    by = (a.to(wide) - b.to(wide)).abs()[differs]
    most = f", by {float(by.max()):.3g} at most" if by.numel() else ""
    return f"{n} element{'s' if n > 1 else ''} of {a.numel()} differ{'' if n > 1 else 's'}{most}"


def differing_rows(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A sentence on each row of metrics that is not the same but for the clock."""
    for index, (mine, other) in enumerate(zip_longest(a, b)):
        if mine is None or other is None:
            yield f"row {index}: is there only once: {mine or other}"
        elif timeless(mine) != timeless(other):
            names = [name for name in dict.fromkeys([*mine, *other]) if mine.get(name) != other.get(name)]
            told = "; ".join(f"{name} {mine.get(name)} and {other.get(name)}" for name in names if name not in CLOCKS)
            yield f"row {index} (step {mine.get('step')}): {told}"


def differing_memories(a: Saved, b: Saved) -> Iterator[str]:
    """A sentence where callbacks remember different things, or the runs stand at different places."""
    for name, what in (("callbacks", "callbacks remember"), ("cursor", "the runs stand at")):
        ours, theirs = timeless(a.manifest[name]), timeless(b.manifest[name])
        if ours != theirs:
            yield f"{what} {ours} and {theirs}"


def timeless(value: Any) -> Any:
    """JSON data without its clocks.

    >>> timeless([{"best": 0.5, "clock": 12.3}])
    [{'best': 0.5}]
    """
    if isinstance(value, list):
        return [timeless(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    clocks = {name for name in CLOCKS if isinstance(value.get(name), (int, float))}
    return {name: timeless(item) for name, item in value.items() if name not in clocks}


def rows(path: Path) -> list[dict[str, Any]]:
    """A run's rows of metrics."""
    return [json.loads(line) for line in path.read_text().splitlines()]
