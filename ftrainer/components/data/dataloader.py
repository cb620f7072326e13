"""Any torch map-style `Dataset`, loaded by torch's workers, in an order and under seeds that are ours."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import attrs
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ftrainer.components.base import Batch
from ftrainer.components.fields import count, fraction, one_of
from ftrainer.functional import pytree, random
from ftrainer.functional.augment import Augmentation
from registry.issue import invalid
from registry.spec import Deferred, component

from .adapt import to_tensors
from .memory import Last
from .order import SAMPLES, epoch_order, split_rows
from .seeding import borrowed, seed_all
from .statistics import statistics

MODES = {"train": 0, "val": 1}


class Split(NamedTuple):
    """A data set and the rows of it that a split uses, (n,) int64."""

    dataset: Any
    rows: Tensor


@attrs.frozen(kw_only=True, eq=False)
class LoaderData:
    """Open data over map-style data sets.

    Torch's, numpy's and Python's global generators are seeded before each sample from (seed, epoch, place in the
    epoch), and put back afterwards, so a sample is the same in any worker. Validation draws as in epoch 0 always. What
    a data set draws from a generator of its own is beyond reach.
    """

    splits: dict[str, Split]
    spec: Loader
    seed: int
    device: torch.device
    exact_resume: str | None = attrs.field(default=None, init=False)

    def n_batches(self, split: str) -> int:
        """Batches in one epoch of `train` or `val`."""
        whole, rest = divmod(len(self.splits[split].rows), self.spec.batch_size)
        return whole + (rest > 0 and not (split == "train" and self.spec.last == "drop"))

    def batches(self, split: str, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The epoch's batches from index `start` on; those before it are never loaded."""
        plan = self._plan(split, epoch, start)
        for batch, (rows, _) in zip(self._loader(split, plan), plan, strict=True):
            batch = to_tensors(batch)
            if self.spec.last == "pad":
                batch |= {"sample_mask": torch.arange(self.spec.batch_size) < len(rows)}
            yield pytree.map(self._place, batch)

    def statistics(self) -> dict[str, dict[str, Tensor]]:
        """Per floating field, `mean` and `std` (population) over one pass through the training split, float64."""
        return statistics(self.batches("train", 0))

    def _plan(self, split: str, epoch: int, start: int) -> list[tuple[Tensor, Tensor]]:
        """Rows and seeds of every batch still to come."""
        train, rows = split == "train", self.splits[split].rows
        key = random.fold_in(random.fold_in(random.key(self.seed), SAMPLES), MODES[split])
        seeds = random.bits(random.fold_in(key, epoch if train else 0), (len(rows),))
        if train:
            rows = rows[epoch_order(len(rows), seed=self.seed, epoch=epoch, shuffle=self.spec.shuffle)]
        size, n = self.spec.batch_size, self.n_batches(split)
        if start >= n:
            return []
        here = slice(start * size, n * size)
        return list(zip(rows[here].split(size), seeds[here].split(size), strict=True))

    def _loader(self, split: str, plan: list[tuple[Tensor, Tensor]]) -> DataLoader[Any]:
        spec = self.spec
        return DataLoader(
            Seeded(self.splits[split].dataset, spec.fields),
            batch_sampler=Plan(plan, spec.batch_size if spec.last == "pad" else 1),
            num_workers=spec.workers,
            prefetch_factor=(spec.prefetch or 2) if spec.workers else None,
            pin_memory=self._pins,
            generator=torch.Generator(),
            worker_init_fn=leave_with_parent,
        )

    @property
    def _pins(self) -> bool:
        return self.spec.pin_memory and self.device.type == "cuda"

    def _place(self, leaf: Tensor) -> Tensor:
        return leaf.to(self.device, non_blocking=self._pins)


def leave_with_parent(worker: int) -> None:
    """Let a worker end when its parent does: torch's own watch misses a parent that is killed while workers start."""
    del worker
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=leave_after, args=(parent,), daemon=True).start()


def leave_after(process: BaseProcess) -> None:
    """Wait for a process, and end this one."""
    process.join()
    os._exit(1)


class Plan:
    """A batch sampler over a plan: lists of (row, seed), filled up to `least` by going round again."""

    def __init__(self, plan: list[tuple[Tensor, Tensor]], least: int):
        self.plan, self.least = plan, least

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for rows, seeds in self.plan:
            pairs = list(zip(rows.tolist(), seeds.tolist(), strict=True))
            yield [pairs[i % len(pairs)] for i in range(max(self.least, len(pairs)))]


class Seeded(Dataset[Any]):
    """A data set whose items are asked for by (row, seed); its samples' parts get names where there are some."""

    def __init__(self, dataset: Any, fields: tuple[str, ...] | None):
        self.dataset, self.fields = dataset, fields

    def __getitems__(self, places: list[tuple[int, int]]) -> list[Any]:
        """The samples of one batch. Torch's loader asks for them together, so generators are put back once."""
        with borrowed():
            return [self._item(row, seed) for row, seed in places]

    def _item(self, row: int, seed: int) -> Any:
        seed_all(seed)
        sample = self.dataset[row]
        return sample if self.fields is None else dict(zip(self.fields, sample, strict=True))


@component
class Loader:
    """A map-style data set by a registered factory (`data.dataloader`).

    Attributes:
        dataset: builds the data set, under generators seeded from `seed`.
        batch_size: samples in a batch.
        val_dataset: builds the one to validate on; instead of `val_fraction`.
        val_fraction: of the samples that validate.
        fields: names for the parts of samples that are tuples, `[x, y]`.
        workers: processes that load; 0 loads in this one.
        prefetch: batches that a worker loads ahead, 2 where there are workers.
        pin_memory: load into page-locked memory and copy to the GPU meanwhile. Without a GPU there is nothing to pin.
        last: `keep`, `drop` or `pad` the last partial batch; padded batches have a `sample_mask`.
        shuffle: False trains in the data set's own order.
        seed: decides contents and split. The order, and what samples draw, is the run's.
        transforms: augmentations `(example, key) -> example`, run on the training examples inside the step.
    """

    dataset: Deferred
    batch_size: int = attrs.field(validator=count(1))
    val_dataset: Deferred | None = None
    val_fraction: float = attrs.field(default=0.0, validator=fraction())
    fields: tuple[str, ...] | None = None
    workers: int = attrs.field(default=0, validator=count(0))
    prefetch: int | None = attrs.field(default=None, validator=attrs.validators.optional(count(1)))
    pin_memory: bool = True
    last: Last = attrs.field(default="keep", validator=one_of("keep", "drop", "pad"))
    shuffle: bool = True
    seed: int = 0
    transforms: tuple[Augmentation, ...] = ()

    def __attrs_post_init__(self) -> None:
        if self.prefetch is not None and not self.workers:
            raise invalid("without workers nothing is loaded ahead", "prefetch", found=str(self.prefetch))
        if self.val_dataset is not None and self.val_fraction:
            raise invalid("there is a `val_dataset` to validate on", "val_fraction", found=str(self.val_fraction))

    def open(self, *, seed: int, device: Any) -> LoaderData:
        """Build the data sets, split them, and look at one sample.

        Raises:
            ConfigError: what was built is no map-style data set, nothing is left to train on, or the sample has other
                parts than `fields` has names.
        """
        dataset = self._build("dataset", self.dataset)
        try:
            train, val = split_rows(len(dataset), fraction=self.val_fraction, seed=self.seed)
        except ValueError as error:
            raise invalid(str(error), "val_fraction", found=str(self.val_fraction)) from error
        if len(train) < (self.batch_size if self.last == "drop" else 1):
            raise invalid("no batch to train on", "dataset", found=f"{len(train)} samples for the training split")
        with borrowed():
            self._check_sample(dataset[int(train[0])])
        held_out = Split(dataset, val)
        if self.val_dataset is not None:
            other = self._build("val_dataset", self.val_dataset)
            held_out = Split(other, torch.arange(len(other)))
        splits = {"train": Split(dataset, train), "val": held_out}
        return LoaderData(splits=splits, spec=self, seed=seed, device=torch.device(device))

    def _build(self, field: str, factory: Deferred) -> Any:
        with borrowed():
            seed_all(self.seed)
            dataset = factory.build()
        methods = all(hasattr(dataset, name) for name in ("__len__", "__getitem__"))
        if isinstance(dataset, IterableDataset) or not methods:
            found = f"{factory.key} made a {type(dataset).__name__}"
            raise invalid(
                "not a map-style data set", field, found=found, expected="one with `__len__` and `__getitem__`"
            )
        return dataset

    def _check_sample(self, sample: Any) -> None:
        n_parts = len(sample) if isinstance(sample, (tuple, list)) else None
        if self.fields is not None and n_parts != len(self.fields):
            found = f"a {type(sample).__name__}" + ("" if n_parts is None else f" of {n_parts} parts")
            raise invalid(
                "these names do not fit a sample", "fields", found=found, expected=f"{len(self.fields)} parts"
            )
        if self.last == "pad" and self.fields is None and not isinstance(sample, dict):
            hint = "name the parts of a sample under `fields`"
            raise invalid("padding needs batches with names", "last", found="'pad'", hint=hint)
