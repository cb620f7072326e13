"""Data that fits into memory: tensors on the device, batches gathered there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import attrs
import torch
from torch import Tensor

from ftrainer.components.fields import count, fraction, one_of
from ftrainer.functional.augment import Augmentation
from registry.issue import invalid, nearest
from registry.spec import component

from .order import epoch_order, split_rows
from .statistics import statistics

Last = Literal["keep", "drop", "pad"]
CHUNK = 65536  # rows that a pass over the data holds in float64 at a time


@attrs.frozen(kw_only=True, eq=False)
class MemoryData:
    """Open data over a dict of tensors.

    Attributes:
        fields: `{name: (N, …)}`, examples along the leading dimension, all on one device.
        train: rows of the training split, (n,) int64.
        val: rows of the validation split, (m,) int64, visited in this order.
        batch_size: examples in a batch.
        seed: decides the order of the training split.
        last: what becomes of a split's last, partial batch. `drop` drops it from training alone, `pad` fills it with
            repeated examples and gives every batch a `sample_mask` (B,) bool.
        shuffle: False visits the training split in its own order.
        weights: (n,) non-negative, draws the training split with replacement, in proportion.
        device: where batches go; None leaves them where the fields are.
    """

    fields: Mapping[str, Tensor]
    train: Tensor
    val: Tensor
    batch_size: int
    seed: int = 0
    last: Last = "keep"
    shuffle: bool = True
    weights: Tensor | None = None
    device: torch.device | str | None = None
    exact_resume: str | None = attrs.field(default=None, init=False)

    def indices(self, epoch: int) -> Tensor:
        """Rows of `fields` in the order in which an epoch trains on them, (n,) int64 on the fields' device."""
        order = epoch_order(len(self.train), seed=self.seed, epoch=epoch, shuffle=self.shuffle, weights=self.weights)
        return self.train[order.to(self.train.device)]

    def n_batches(self, split: str) -> int:
        """Batches in one epoch of `train` or `val`."""
        whole, rest = divmod(len(self._rows(split)), self.batch_size)
        return whole + (rest > 0 and not (split == "train" and self.last == "drop"))

    def batches(self, split: str, epoch: int, start: int = 0) -> Iterator[dict[str, Tensor]]:
        """The epoch's batches from index `start` on."""
        rows = self.indices(epoch) if split == "train" else self._rows(split)
        n = self.n_batches(split)
        if self.last == "pad" and n:
            yield from self._padded(rows, start, n)
        elif start < n:
            for chunk in rows[start * self.batch_size : n * self.batch_size].split(self.batch_size):
                yield self.gather(chunk)

    def gather(self, rows: Tensor) -> dict[str, Tensor]:
        """The batch of these rows, copied out of `fields` on their own device."""
        batch = {name: field.index_select(0, rows) for name, field in self.fields.items()}
        if self.device is None:
            return batch
        return {name: field.to(self.device, non_blocking=True) for name, field in batch.items()}

    def statistics(self) -> dict[str, dict[str, Tensor]]:
        """Per floating field, `mean` and `std` (population) of the training split over its examples, float64."""
        return statistics(self.gather(rows) for rows in self.train.split(CHUNK))

    def _rows(self, split: str) -> Tensor:
        if split not in ("train", "val"):
            raise KeyError(f"no split {split!r}; there are 'train' and 'val'")
        return self.train if split == "train" else self.val

    def _padded(self, rows: Tensor, start: int, n: int) -> Iterator[dict[str, Tensor]]:
        position = torch.arange(n * self.batch_size, device=rows.device)
        rows, real = rows[position % len(rows)], position < len(rows)
        for index in range(start, n):
            here = slice(index * self.batch_size, (index + 1) * self.batch_size)
            yield self.gather(rows[here]) | {"sample_mask": real[here].to(self.device or real.device)}


class Examples(NamedTuple):
    """What a source loads: fields along the leading dimension, and the groups (episodes) that a split keeps whole."""

    fields: Mapping[str, Tensor]
    groups: Tensor | None = None


@component
class MemorySpec:
    """What every in-memory source has in common; a source adds its own fields and `load`.

    Attributes:
        batch_size: examples in a batch.
        val_fraction: of the examples (of the episodes, where there are any) that validate.
        last: `keep`, `drop` or `pad` the last partial batch (see `MemoryData`).
        shuffle: False trains in the order of the file.
        weights: name of a field whose values weigh how often an example is drawn, with replacement.
        split_by: name of a field whose equal values stay on one side of the split. Recorded episodes always do.
        seed: decides the contents: what is generated, and which examples validate. The order is the run's.
        transforms: augmentations `(example, key) -> example`, run on the training examples inside the step.
    """

    batch_size: int = attrs.field(validator=count(1))
    val_fraction: float = attrs.field(default=0.0, validator=fraction())
    last: Last = attrs.field(default="keep", validator=one_of("keep", "drop", "pad"))
    shuffle: bool = True
    weights: str | None = None
    split_by: str | None = None
    seed: int = 0
    transforms: tuple[Augmentation, ...] = ()

    def load(self) -> Examples:
        """The contents, on the CPU."""
        raise NotImplementedError(f"{type(self).__name__} says nothing of what it loads")

    def open(self, *, seed: int, device: Any) -> MemoryData:
        """Load the contents to `device`.

        Raises:
            ConfigError: the contents do not fit the spec.
        """
        return self.arrange(self.load(), seed=seed, device=device)

    def arrange(self, examples: Examples, *, seed: int, device: Any, resident: bool = True) -> MemoryData:
        """Split loaded examples and put them on the device; with `resident=False` batch by batch."""
        fields = {name: field.to(device) if resident else field for name, field in examples.fields.items()}
        check_fields(fields, self)
        train, val = self._split(examples)
        where = next(iter(fields.values())).device
        return MemoryData(
            fields=fields,
            train=train.to(where),
            val=val.to(where),
            batch_size=self.batch_size,
            seed=seed,
            last=self.last,
            shuffle=self.shuffle,
            weights=None if self.weights is None else example_weights(examples.fields, self.weights, train),
            device=None if resident else device,
        )

    def _split(self, examples: Examples) -> tuple[Tensor, Tensor]:
        groups = examples.groups if self.split_by is None else whole_groups(examples.fields, self.split_by)
        n = len(next(iter(examples.fields.values())))
        try:
            train, val = split_rows(n, fraction=self.val_fraction, seed=self.seed, groups=groups)
        except ValueError as error:
            raise invalid(str(error), "val_fraction", found=str(self.val_fraction)) from error
        if self.last == "drop" and len(train) < self.batch_size:
            raise invalid(
                "larger than the training split, which `last: drop` then drops whole",
                "batch_size",
                found=str(self.batch_size),
                expected=f"at most {len(train)}",
            )
        return train, val


def check_fields(fields: Mapping[str, Tensor], spec: MemorySpec) -> None:
    """Every field has the same number of examples, at least one.

    Raises:
        ConfigError: they differ, there are none, or a field is called `sample_mask` where padding makes its own.
    """
    sizes = {name: len(field) for name, field in fields.items()}
    if len(set(sizes.values())) != 1 or not all(sizes.values()):
        found = ", ".join(f"{name}: {size}" for name, size in sizes.items()) or "no fields"
        raise invalid("fields must have the same number of examples, at least one", found=found)
    if spec.last == "pad" and "sample_mask" in fields:
        raise invalid("the data has a field `sample_mask`, which padding would overwrite", "last", found="'pad'")


def whole_groups(fields: Mapping[str, Tensor], name: str) -> Tensor:
    """The values by which a split keeps examples together, (N,).

    Raises:
        ConfigError: no such field, or not one value per example.
    """
    _check_exists(fields, name, "split_by")
    if fields[name].ndim != 1:
        raise invalid("not one value per example", "split_by", found=f"{name} of shape {tuple(fields[name].shape)}")
    return fields[name]


def in_memory(
    fields: Mapping[str, Tensor], *, run_seed: int = 0, device: torch.device | str = "cpu", **options: Any
) -> MemoryData:
    """Data over tensors that are at hand, for `fit`.

    Args:
        fields: `{name: (N, …)}`.
        run_seed: decides the order.
        device: where the fields go.
        options: `batch_size`, `val_fraction`, `last` and the other fields of `MemorySpec`.

    >>> data = in_memory({"x": torch.zeros(10, 3)}, batch_size=4, last="drop")
    >>> data.n_batches("train")
    2
    """
    return MemorySpec(**options).arrange(Examples(fields), seed=run_seed, device=device)


def example_weights(fields: Mapping[str, Tensor], name: str, rows: Tensor) -> Tensor:
    """The weights of these rows, (n,) float64.

    Raises:
        ConfigError: no such field, or not one finite non-negative number per example with a positive sum.
    """
    _check_exists(fields, name, "weights")
    weights = fields[name][rows].to(torch.float64)
    if weights.ndim != 1 or not (weights.isfinite() & (weights >= 0)).all() or not weights.sum() > 0:
        raise invalid(
            "not usable as weights",
            "weights",
            found=f"{name} of shape {tuple(fields[name].shape)}",
            expected="one finite non-negative number per example, not all zero",
        )
    return weights


def _check_exists(fields: Mapping[str, Tensor], name: str, option: str) -> None:
    if name not in fields:
        raise invalid(
            "no such field", option, found=repr(name), expected=" or ".join(fields), nearest=nearest(name, fields)
        )
