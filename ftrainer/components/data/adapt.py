"""What users hand to `fit`, as Data: a Data, a torch `DataLoader`, or a list of batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

from ftrainer.components.base import Batch, Data
from ftrainer.functional import pytree

from .seeding import borrowed, seed_all
from .statistics import statistics

CURE = "`data.dataloader` owns its order and resumes exactly"


def as_data(source: Any, val: Any = None) -> Data:
    """What `fit` takes, as Data.

    Args:
        source: a Data (returned as it is), a torch `DataLoader` with a length, or a list of batches; a batch is a
            pytree of tensors or numpy arrays.
        val: likewise a `DataLoader` or list, to validate on; None for no validation.

    Raises:
        TypeError: it is none of these, has no length, or a batch holds something else than tensors.
        ValueError: there is not a single batch.

    >>> data = as_data([{"x": torch.zeros(2, 3)}])
    >>> data.n_batches("train"), data.n_batches("val"), data.exact_resume is None
    (1, 0, True)
    """
    if all(hasattr(source, name) for name in ("batches", "n_batches", "statistics")):
        if val is not None:
            raise TypeError(f"a {type(source).__name__} brings its own validation split; found another one beside it")
        return source
    train, held_out = _Split.of(source), _Split.of([] if val is None else val)
    if not train.n:
        raise ValueError("there is not a single batch to train on")
    return Adapted(splits={"train": train, "val": held_out}, exact_resume=train.reason)


@attrs.frozen(kw_only=True, eq=False)
class _Split:
    n: int
    batches: Iterable[Batch]
    reason: str | None
    is_ready: bool = False

    @classmethod
    def of(cls, source: Any) -> _Split:
        if isinstance(source, DataLoader):
            return cls(n=_length(source), batches=source, reason=why_not_exact(source))
        if isinstance(source, Sequence) and not isinstance(source, (str, bytes)):
            return cls(n=len(source), batches=[to_tensors(batch) for batch in source], reason=None, is_ready=True)
        kinds = "a Data, a torch DataLoader or a list of batches"
        raise TypeError(f"cannot read batches from a {type(source).__name__}; expected {kinds}")


@attrs.frozen(kw_only=True, eq=False)
class Adapted:
    """Data over somebody else's batches. To start in the middle of an epoch it reads past what came before."""

    splits: Mapping[str, _Split]
    exact_resume: str | None

    def n_batches(self, split: str) -> int:
        """Batches in one epoch of `train` or `val`."""
        return self.splits[split].n

    def batches(self, split: str, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The split's batches from index `start` on; what an epoch means is the source's own affair."""
        del epoch
        batches = itertools.islice(self.splits[split].batches, start, None)
        return batches if self.splits[split].is_ready else map(to_tensors, batches)

    def statistics(self) -> dict[str, dict[str, Tensor]]:
        """Per floating field, `mean` and `std` (population) over one pass through the training split, float64."""
        return statistics(self.batches("train", 0))


def to_tensors(batch: Any) -> Batch:
    """A batch with its numpy arrays as tensors.

    Raises:
        TypeError: a leaf is neither; the message names it.

    >>> to_tensors({"x": np.zeros(2)})
    {'x': tensor([0., 0.], dtype=torch.float64)}
    """
    leaves = pytree.leaves(batch)
    if all(isinstance(leaf, Tensor) for leaf in leaves):
        return batch
    return pytree.map_with_path(_to_tensor, batch)


def _to_tensor(path: str, leaf: Any) -> Tensor:
    if not isinstance(leaf, (Tensor, np.ndarray)):
        where = f" at {path.replace('/', '.')!r}" if path else ""
        raise TypeError(f"a batch holds a {type(leaf).__name__}{where}; expected tensors or numpy arrays")
    return torch.as_tensor(leaf)


def _length(loader: DataLoader[Any]) -> int:
    try:
        return len(loader)
    except TypeError as error:
        raise TypeError(
            f"the DataLoader has no length, since its {type(loader.dataset).__name__} has none; "
            "give the data set a `__len__`, so that an epoch has an end"
        ) from error


def why_not_exact(loader: DataLoader[Any]) -> str | None:
    """Why a run on this loader cannot be resumed exactly; None where its order is fixed and its samples deterministic.

    Determinism is judged by the first sample, drawn twice under different seeds.
    """
    if isinstance(loader.dataset, IterableDataset):
        return f"the DataLoader streams from {type(loader.dataset).__name__}, whose place cannot be saved; {CURE}"
    batch_sampler = loader.batch_sampler
    sampler = loader.sampler if batch_sampler is None else getattr(batch_sampler, "sampler", batch_sampler)
    if type(sampler) is not SequentialSampler or type(batch_sampler) not in (BatchSampler, type(None)):
        return (
            f"the DataLoader's order comes from its own {type(sampler).__name__}, whose state cannot be saved; {CURE}"
        )
    if not _repeats(lambda: loader.dataset[0]):
        return f"samples of {type(loader.dataset).__name__} draw from global random generators; {CURE}"
    return None


def _repeats(draw: Callable[[], Any]) -> bool:
    with borrowed():
        seed_all(1)
        first = pytree.leaves(draw())
        seed_all(2)
        return all(_same(a, b) for a, b in zip(first, pytree.leaves(draw()), strict=True))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, (Tensor, np.ndarray)):
        return bool(np.array_equal(np.asarray(a), np.asarray(b), equal_nan=np.asarray(a).dtype.kind in "fc"))
    return bool(a == b)
