"""Batches for the members of a stack: each in its own order, or one order for all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from ftrainer.components.base import Batch, Data
from ftrainer.components.data.adapt import Adapted
from ftrainer.components.data.memory import MemoryData
from ftrainer.functional import pytree
from ftrainer.functional.replicate import Own
from registry.issue import invalid
from registry.spec import replace


def with_seed(data: Data, seed: int) -> Data:
    """The same contents in the order of another seed. What a user handed over keeps its own order.

    Raises:
        ConfigError: the data does not say how it is ordered.
    """
    if isinstance(data, Adapted):
        return data
    cls: Any = type(data)
    if attrs.has(cls) and "seed" in attrs.fields_dict(cls):
        return replace(data, seed=seed)
    raise invalid(
        f"{type(data).__name__} has no field `seed` to be ordered by", "replicate", "data_order", found="own",
        expected="shared", hint="or make it an attrs class with a field `seed`",
    )  # fmt: skip


class SharedOrder:
    """Every member sees the batches of the first one's order."""

    def __init__(self, data: Data, seeds: Sequence[int]):
        self._data = data if isinstance(data, Adapted) else with_seed(data, seeds[0])
        self.exact_resume = data.exact_resume

    def n_batches(self, split: str) -> int:
        """As for one run."""
        return self._data.n_batches(split)

    def batches(self, split: str, epoch: int, start: int = 0) -> Iterator[Batch]:
        """As for one run."""
        return self._data.batches(split, epoch, start)

    def statistics(self) -> Mapping[str, Mapping[str, Tensor]]:
        """As for one run."""
        return self._data.statistics()


class OwnOrder:
    """Every member sees the batches that it would see alone, side by side."""

    def __init__(self, data: Data, seeds: Sequence[int]):
        self._each = [with_seed(data, seed) for seed in seeds]
        self.exact_resume = data.exact_resume

    def n_batches(self, split: str) -> int:
        """As for one run."""
        return self._each[0].n_batches(split)

    def batches(self, split: str, epoch: int, start: int = 0) -> Iterator[Batch]:
        """`Own` batches; plain ones where all members see the same."""
        first = self._each[0]
        if isinstance(first, Adapted) or (isinstance(first, MemoryData) and split != "train"):
            return first.batches(split, epoch, start)
        if all(isinstance(data, MemoryData) for data in self._each):
            return gathered(self._each, epoch, start)  # type: ignore[arg-type]
        return (Own(side_by_side(each)) for each in zip(*self._iterators(split, epoch, start), strict=True))

    def statistics(self) -> Mapping[str, Mapping[str, Tensor]]:
        """The first member's."""
        return self._each[0].statistics()

    def _iterators(self, split: str, epoch: int, start: int) -> list[Iterator[Batch]]:
        return [iter(data.batches(split, epoch, start)) for data in self._each]


def gathered(members: Sequence[MemoryData], epoch: int, start: int) -> Iterator[Own]:
    """The training batches of in-memory data, gathered for all members at once out of the one copy that there is."""
    first, n = members[0], members[0].n_batches("train")
    rows, size = torch.stack([data.indices(epoch) for data in members]), members[0].batch_size
    position = torch.arange(n * size, device=rows.device)
    real = position < rows.shape[1]
    if first.last == "pad":
        rows = rows[:, position % rows.shape[1]]
    for index in range(start, n):
        here = slice(index * size, (index + 1) * size)
        chosen = rows[:, here]
        flat = first.gather(chosen.reshape(-1))
        batch = {name: field.unflatten(0, chosen.shape) for name, field in flat.items()}
        if first.last == "pad":
            mask = real[here].to(first.device or real.device)
            batch["sample_mask"] = mask.expand(len(members), -1).contiguous()
        yield Own(batch)


def side_by_side(batches: Sequence[Any]) -> Any:
    """Batches of one structure with a leading axis of members; what is no tensor is the first one's."""

    def join(*leaves: Any) -> Any:
        return torch.stack(leaves) if isinstance(leaves[0], Tensor) else leaves[0]

    return pytree.map(join, *batches)


def data_of_members(data: Data, seeds: Sequence[int], order: str) -> Data:
    """Data for a stack whose members have these seeds; `order` is `own` or `shared`."""
    return OwnOrder(data, seeds) if order == "own" else SharedOrder(data, seeds)
