"""In-memory data: order, splits, last batches, statistics."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from extensions.example_plugin import ConstantRegression, register
from ftrainer.components.data.memory import Examples, MemoryData, MemorySpec, in_memory
from ftrainer.components.data.order import epoch_order, split_rows
from ftrainer.components.data.random_regression import RandomRegression
from ftrainer.components.data.shuffle import shuffled, sorting
from ftrainer.components.data.statistics import statistics
from ftrainer.functional import random
from registry import ConfigError, Registry

sizes = st.integers(1, 60)
seeds = st.integers(0, 2**40)
lasts = st.sampled_from(["keep", "drop", "pad"])


def numbered(n: int, **options: object) -> MemoryData:
    return in_memory({"i": torch.arange(n), "x": torch.arange(n).float()[:, None]}, **options)


def seen(data: MemoryData, split: str = "train", epoch: int = 0, start: int = 0) -> list[int]:
    return [int(i) for batch in data.batches(split, epoch, start) for i in batch["i"]]


@given(sizes, seeds, st.integers(0, 5))
def test_an_epoch_is_a_permutation_that_seed_and_epoch_decide(n: int, seed: int, epoch: int) -> None:
    order = epoch_order(n, seed=seed, epoch=epoch)
    assert sorted(order.tolist()) == list(range(n))
    assert torch.equal(order, epoch_order(n, seed=seed, epoch=epoch))


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 70_000))
@settings(max_examples=50)
def test_the_shuffle_is_the_permutation_of_the_key(key: int, n: int) -> None:
    assert torch.equal(shuffled(key, n), random.permutation(torch.tensor(key), n))


@given(st.lists(st.integers(-5, 5).map(lambda high: high << 32), max_size=20), st.randoms())
def test_words_with_equal_high_halves_are_sorted_too(highs: list[int], rng: Random) -> None:
    words = np.array([high + low for low, high in enumerate(highs)], dtype=np.int64)
    rng.shuffle(words)
    assert sorting(words).tolist() == np.argsort(words).tolist()


def test_epochs_and_seeds_differ() -> None:
    orders = [epoch_order(50, seed=s, epoch=e).tolist() for s in range(4) for e in range(4)]
    assert len({tuple(order) for order in orders}) == 16


def test_without_shuffle_the_order_is_natural() -> None:
    assert seen(numbered(7, batch_size=3, shuffle=False), epoch=3) == list(range(7))


@given(sizes, st.integers(1, 20), lasts, seeds, st.integers(0, 25))
@settings(max_examples=60)
def test_starting_later_continues_exactly(n: int, batch_size: int, last: str, seed: int, start: int) -> None:
    if last == "drop" and n < batch_size:
        return
    data = numbered(n, batch_size=batch_size, last=last, run_seed=seed)
    whole = list(data.batches("train", 1))
    later = list(data.batches("train", 1, start))
    assert len(whole) == data.n_batches("train")
    assert len(later) == max(0, len(whole) - start)
    for a, b in zip(whole[start:], later, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


@given(sizes, st.integers(1, 20), lasts)
@settings(max_examples=60)
def test_last_batches(n: int, batch_size: int, last: str) -> None:
    if last == "drop" and n < batch_size:
        return
    batches = list(numbered(n, batch_size=batch_size, last=last).batches("train", 0))
    lengths = {len(batch["i"]) for batch in batches}
    if last == "keep":
        assert sorted(int(i) for b in batches for i in b["i"]) == list(range(n))
    if last in ("drop", "pad"):
        assert lengths == {batch_size}
    if last == "pad":
        real = [int(i) for b in batches for i, m in zip(b["i"], b["sample_mask"], strict=True) if m]
        assert sorted(real) == list(range(n))


def test_dropping_spares_validation() -> None:
    data = numbered(20, batch_size=3, val_fraction=0.5, last="drop")
    assert (data.n_batches("train"), data.n_batches("val")) == (3, 4)
    assert len(seen(data, "val")) == 10


def test_validation_has_one_order_and_an_empty_split_no_batches() -> None:
    data = numbered(20, batch_size=4, val_fraction=0.3)
    assert seen(data, "val", epoch=0) == seen(data, "val", epoch=9) == sorted(seen(data, "val"))
    assert list(numbered(4, batch_size=2).batches("val", 0)) == []


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(KeyError, match="no split 'test'; there are 'train' and 'val'"):
        numbered(4, batch_size=2).n_batches("test")


@given(st.lists(st.integers(0, 9), min_size=2, max_size=60), st.floats(0.01, 0.9), seeds)
def test_a_split_keeps_groups_whole(groups: list[int], fraction: float, seed: int) -> None:
    labels = torch.tensor(groups)
    try:
        train, val = split_rows(len(groups), fraction=fraction, seed=seed, groups=labels)
    except ValueError:
        assert max(1, round(fraction * len(set(groups)))) >= len(set(groups))
        return
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(len(groups)))
    assert not set(labels[train].tolist()) & set(labels[val].tolist())
    assert len(set(labels[val].tolist())) == max(1, round(fraction * len(set(groups))))


def test_the_split_follows_the_datas_seed_and_the_order_the_runs() -> None:
    def rows(data: MemoryData) -> set[int]:
        return set(data.val.tolist())

    one, other = (numbered(100, batch_size=10, val_fraction=0.2, run_seed=s) for s in (0, 1))
    assert rows(one) == rows(other) != rows(numbered(100, batch_size=10, val_fraction=0.2, seed=1))
    assert not torch.equal(one.indices(0), other.indices(0))


def test_split_by_a_field() -> None:
    fields = {"x": torch.zeros(12), "patient": torch.arange(12) // 3}
    data = in_memory(fields, batch_size=2, val_fraction=0.25, split_by="patient")
    assert len(data.val) == 3
    assert len(fields["patient"][data.val].unique()) == 1


def test_indices_are_what_batches_gather() -> None:
    data = numbered(30, batch_size=7, val_fraction=0.2, run_seed=5)
    assert data.fields["i"][data.indices(4)].tolist() == seen(data, epoch=4)
    assert data.indices(4).dtype == torch.int64


def test_weights_decide_how_often_an_example_is_drawn() -> None:
    n = 4000
    weights = (torch.arange(n) % 4).float()
    data = in_memory({"i": torch.arange(n), "w": weights}, batch_size=n, weights="w")
    drawn = weights[data.indices(0)]
    shares = [(drawn == w).float().mean().item() for w in range(4)]
    assert shares[0] == 0
    assert shares[1:] == pytest.approx([1 / 6, 2 / 6, 3 / 6], abs=0.03)
    assert torch.equal(data.indices(2), data.indices(2))
    assert not torch.equal(data.indices(2), data.indices(3))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.floats(-1e6, 1e6))
def test_statistics_of_pieces_are_those_of_the_whole(lengths: list[int], offset: float) -> None:
    x = torch.randn(sum(lengths), 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + offset
    found = statistics({"x": piece, "k": torch.arange(len(piece))} for piece in x.split(lengths))
    assert set(found) == {"x"}
    torch.testing.assert_close(found["x"]["mean"], x.mean(0))
    torch.testing.assert_close(found["x"]["std"], x.std(0, correction=0), rtol=1e-6, atol=1e-8)


def test_statistics_are_of_the_training_split_alone_and_skip_padding() -> None:
    data = numbered(11, batch_size=4, val_fraction=0.2, last="pad")
    expected = data.fields["x"][data.train].double()
    found = data.statistics()["x"]
    assert found["mean"].dtype == torch.float64
    torch.testing.assert_close(found["mean"], expected.mean(0))
    torch.testing.assert_close(statistics(data.batches("train", 0))["x"]["std"], expected.std(0, correction=0))


def test_batches_do_not_alias_the_data() -> None:
    data = numbered(4, batch_size=4)
    next(data.batches("train", 0))["x"].zero_()
    assert data.fields["x"].squeeze(1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: out of range"),
        ({"batch_size": 2, "val_fraction": 1.0}, r"val_fraction: out of range.*\[0, 1\)"),
        ({"batch_size": 2, "last": "skip"}, "last: unknown choice; found 'skip'"),
        ({"batch_size": 2, "val_fraction": 0.9}, "val_fraction: 0.9 of 4 example.s. for validation leaves none"),
        ({"batch_size": 5, "last": "drop"}, "batch_size: larger than the training split.*expected at most 4"),
        ({"batch_size": 2, "weights": "y"}, "weights: no such field; found 'y'; expected x or negative"),
        ({"batch_size": 2, "weights": "x"}, r"weights: not usable as weights; found x of shape \(4, 1\)"),
        ({"batch_size": 2, "weights": "negative"}, "weights: not usable as weights"),
        ({"batch_size": 2, "split_by": "negativ"}, "split_by: no such field.*did you mean 'negative'"),
        ({"batch_size": 2, "split_by": "x"}, r"split_by: not one value per example; found x of shape \(4, 1\)"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, object], message: str) -> None:
    fields = {"x": torch.zeros(4, 1), "negative": -torch.ones(4)}
    with pytest.raises(ConfigError, match=message):
        in_memory(fields, **options)


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        ({"x": torch.zeros(3), "y": torch.zeros(4)}, {}, "same number of examples, at least one; found x: 3, y: 4"),
        ({"x": torch.zeros(0)}, {}, "at least one; found x: 0"),
        ({"sample_mask": torch.ones(3)}, {"last": "pad"}, "last: the data has a field `sample_mask`"),
    ],
)
def test_fields_that_do_not_fit(fields: dict[str, torch.Tensor], options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        in_memory(fields, batch_size=2, **options)


def test_no_fields_at_all() -> None:
    with pytest.raises(ConfigError, match="found no fields"):
        in_memory({}, batch_size=2)


def test_a_source_must_say_what_it_loads() -> None:
    with pytest.raises(NotImplementedError, match="MemorySpec says nothing of what it loads"):
        MemorySpec(batch_size=1).open(seed=0, device="cpu")


def test_batches_come_to_the_device_when_the_data_stay_behind() -> None:
    spec = MemorySpec(batch_size=2, last="pad")
    data = spec.arrange(Examples({"x": torch.zeros(3)}), seed=0, device="meta", resident=False)
    batch = next(data.batches("train", 0))
    assert data.fields["x"].device.type == "cpu"
    assert {leaf.device.type for leaf in batch.values()} == {"meta"}


class TestRandomRegression:
    def spec(self, **options: object) -> RandomRegression:
        shape = {"batch_size": 32, "steps_per_epoch": 20, "x_shape": [8], "y_shape": [2, 3]}
        return RandomRegression(**shape | options)

    def test_contents_follow_its_own_seed_alone(self) -> None:
        one, again, other = (self.spec(seed=s).open(seed=r, device="cpu") for s, r in ((0, 1), (0, 2), (1, 1)))
        assert torch.equal(one.fields["y"], again.fields["y"])
        assert not torch.equal(one.fields["y"], other.fields["y"])
        assert not torch.equal(one.indices(0), again.indices(0))

    def test_shapes_and_lengths(self) -> None:
        data = self.spec(val_steps_per_epoch=3).open(seed=0, device="cpu")
        batch = next(data.batches("val", 0))
        assert (data.n_batches("train"), data.n_batches("val")) == (20, 3)
        assert (batch["x"].shape, batch["y"].shape) == ((32, 8), (32, 2, 3))

    def test_a_linear_map_explains_all_but_the_noise_also_of_validation(self) -> None:
        data = self.spec(val_steps_per_epoch=3).open(seed=0, device="cpu")
        x, y = data.fields["x"], data.fields["y"].flatten(1)
        weights = torch.linalg.lstsq(x[data.train], y[data.train]).solution
        residual = (y - x @ weights)[data.val].std().item()
        assert residual == pytest.approx(0.1, rel=0.1)

    def test_sizes_must_be_positive(self) -> None:
        with pytest.raises(ConfigError, match="x_shape: out of range; found 0"):
            self.spec(x_shape=[0])
        with pytest.raises(ConfigError, match="steps_per_epoch: out of range"):
            self.spec(steps_per_epoch=0)


class TestExamplePlugin:
    def spec(self, **options: object) -> ConstantRegression:
        shape = {"batch_size": 4, "steps_per_epoch": 2, "x_shape": [3], "y_shape": [1]}
        return ConstantRegression(**shape | options)

    def test_both_splits_hold_the_number(self) -> None:
        data = self.spec(value=0.25, val_steps_per_epoch=1).open(seed=0, device="cpu")
        batches = [*data.batches("train", 0), *data.batches("val", 0)]
        assert len(batches) == 3
        assert all((batch["y"] == 0.25).all() and batch["x"].shape == (4, 3) for batch in batches)

    def test_register_returns_a_registry_that_knows_it(self) -> None:
        before = Registry()
        assert "data.constant_regression" in register(before)
        assert "data.constant_regression" not in before

    @pytest.mark.parametrize("name", ["batch_size", "steps_per_epoch", "val_steps_per_epoch"])
    def test_counts_must_be_positive(self, name: str) -> None:
        with pytest.raises(ConfigError, match=f"{name}: too small; found -1"):
            self.spec(**{name: -1})
