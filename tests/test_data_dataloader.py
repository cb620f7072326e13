"""Torch's data sets, loaded in our order, and what users hand to `fit`."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from ftrainer.components.data.adapt import as_data, to_tensors
from ftrainer.components.data.dataloader import Loader, LoaderData, leave_with_parent
from ftrainer.components.data.memory import in_memory
from registry import ConfigError, Deferred


class Noisy(Dataset[Any]):
    """Samples that draw from all three global generators."""

    def __init__(self, n: int = 20, drawn: bool = True):
        self.n, self.drawn, self.first = n, drawn, torch.rand(())

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        noise = (torch.rand(2), np.random.rand(2), random.random()) if self.drawn else (torch.zeros(2),) * 3
        return (index, *noise)


NAMES = ["i", "torch", "numpy", "python"]


def factory(cls: Any = Noisy, **kwargs: Any) -> Deferred:
    return Deferred(key="data.test", factory=cls, kwargs=kwargs)


def opened(seed: int = 0, **options: Any) -> LoaderData:
    options = {"dataset": factory(), "batch_size": 3, "fields": NAMES} | options
    return Loader(**options).open(seed=seed, device="cpu")


def same(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class TestLoader:
    @pytest.mark.parametrize("start", [0, 1, 5, 7, 9])
    @pytest.mark.parametrize("last", ["keep", "drop", "pad"])
    def test_starting_later_continues_exactly(self, start: int, last: str) -> None:
        whole = list(opened(last=last).batches("train", 3))
        later = list(opened(last=last).batches("train", 3, start))
        assert len(later) == max(0, len(whole) - start)
        assert all(same(a, b) for a, b in zip(whole[start:], later, strict=True))

    def test_workers_change_nothing(self) -> None:
        alone = list(opened(val_fraction=0.2).batches("train", 1))
        helped = list(opened(val_fraction=0.2, workers=2, prefetch=1).batches("train", 1))
        assert all(same(a, b) for a, b in zip(alone, helped, strict=True))

    def test_a_worker_ends_with_the_run_that_is_killed_while_it_starts(self) -> None:
        fork = multiprocessing.get_context("fork")
        ours, theirs = fork.Pipe()

        def work() -> None:
            leave_with_parent(0)
            theirs.send(os.getpid())
            time.sleep(60)

        def run() -> None:
            fork.Process(target=work).start()
            time.sleep(60)

        process = fork.Process(target=run)
        process.start()
        theirs.close()
        worker = ours.recv()
        os.kill(worker, 0)  # it is there
        process.kill()
        process.join()
        assert ours.poll(10)
        with pytest.raises(EOFError):  # nobody is left who could write
            ours.recv()

    def test_every_epoch_draws_anew_and_visits_all(self) -> None:
        epochs = [list(opened().batches("train", epoch)) for epoch in (0, 1)]
        for name in NAMES[1:]:
            draws = [torch.cat([batch[name].flatten() for batch in epoch]) for epoch in epochs]
            assert len(torch.cat(draws).unique()) == torch.cat(draws).numel()
        for epoch in epochs:
            assert sorted(torch.cat([batch["i"] for batch in epoch]).tolist()) == list(range(20))

    def test_validation_draws_the_same_every_time(self) -> None:
        first, second = (list(opened(val_fraction=0.2).batches("val", epoch)) for epoch in (0, 5))
        assert all(same(a, b) for a, b in zip(first, second, strict=True))

    def test_the_callers_generators_are_left_alone(self) -> None:
        before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        list(opened().batches("train", 0))
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate())

    def test_contents_follow_the_datas_seed(self) -> None:
        def first(data: LoaderData) -> float:
            return float(data.splits["train"].dataset.first)

        one, again, other = (
            Loader(dataset=factory(), batch_size=2, seed=own).open(seed=run, device="cpu")
            for own, run in ((0, 1), (0, 2), (1, 1))
        )
        assert first(one) == first(again) != first(other)

    def test_padding_marks_what_is_real(self) -> None:
        batches = list(opened(last="pad").batches("train", 0))
        assert [int(batch["sample_mask"].sum()) for batch in batches] == [3] * 6 + [2]
        assert {len(batch["i"]) for batch in batches} == {3}

    def test_a_data_set_of_its_own_to_validate_on(self) -> None:
        data = opened(val_dataset=factory(n=4), shuffle=False)
        assert (data.n_batches("train"), data.n_batches("val")) == (7, 2)
        assert next(data.batches("train", 8))["i"].tolist() == [0, 1, 2]

    def test_samples_without_names_stay_tuples(self) -> None:
        batch = next(opened(fields=None).batches("train", 0))
        assert isinstance(batch, (list, tuple))
        assert batch[1].shape == (3, 2)

    def test_statistics(self) -> None:
        data = opened(dataset=factory(drawn=False), fields=NAMES)
        found = data.statistics()
        assert set(found) == {"torch", "numpy", "python"}
        assert found["torch"]["mean"].tolist() == [0, 0]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"prefetch": 2}, "prefetch: without workers nothing is loaded ahead"),
            ({"val_dataset": factory(), "val_fraction": 0.5}, "val_fraction: there is a `val_dataset`"),
            ({"dataset": factory(int)}, "dataset: not a map-style data set; found data.test made a int; expected"),
            ({"dataset": factory(n=0)}, "dataset: no batch to train on; found 0 samples"),
            ({"batch_size": 21, "last": "drop"}, "dataset: no batch to train on; found 20 samples"),
            ({"val_fraction": 0.99}, "val_fraction: 0.99 of 20 example.s. for validation leaves none"),
            ({"fields": ["i"]}, "fields: these names do not fit a sample; found a tuple of 4 parts; expected 1 parts"),
            (
                {"dataset": Deferred(key="data.test", factory=range, args=(3,))},
                "fields: these names do not fit a sample; found a int",
            ),
            ({"fields": None, "last": "pad"}, "last: padding needs batches with names"),
            ({"workers": -1}, "workers: out of range"),
        ],
    )
    def test_what_is_refused(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            opened(**options)


class Stream(IterableDataset[Any]):
    def __init__(self, n: int):
        self.n = n

    def __iter__(self) -> Iterator[Any]:
        return iter(torch.arange(self.n))


class SizedStream(Stream):
    def __len__(self) -> int:
        return self.n


def pairs(n: int = 10) -> TensorDataset:
    return TensorDataset(torch.arange(n), torch.arange(n).float())


class TestAdapted:
    def test_data_pass_through(self) -> None:
        data = in_memory({"x": torch.zeros(4)}, batch_size=2)
        assert as_data(data) is data

    def test_lists_keep_their_order_and_resume(self) -> None:
        batches = [{"x": torch.full((2,), float(i))} for i in range(4)]
        data = as_data(batches, val=batches[:1])
        assert data.exact_resume is None
        assert (data.n_batches("train"), data.n_batches("val")) == (4, 1)
        assert [float(b["x"][0]) for b in data.batches("train", 7, 2)] == [2, 3]
        assert float(data.statistics()["x"]["mean"]) == 1.5

    def test_numpy_becomes_tensors_at_any_depth(self) -> None:
        batch = to_tensors({"a": (np.zeros(2), torch.ones(1))})
        assert isinstance(batch["a"][0], torch.Tensor)

    def test_a_loader_in_fixed_order_resumes_exactly(self) -> None:
        data = as_data(DataLoader(pairs(), batch_size=3))
        assert data.exact_resume is None
        assert data.n_batches("train") == 4
        assert [b[0].tolist() for b in data.batches("train", 0, 2)] == [[6, 7, 8], [9]]

    @pytest.mark.parametrize(
        ("loader", "reason"),
        [
            (DataLoader(pairs(), shuffle=True), "order comes from its own RandomSampler, whose state cannot be saved"),
            (DataLoader(SizedStream(3)), "streams from SizedStream, whose place cannot be saved"),
            (DataLoader(Noisy()), "samples of Noisy draw from global random generators; `data.dataloader` owns"),
            (DataLoader(pairs(), batch_sampler=[[0, 1], [2]]), "order comes from its own list"),
        ],
    )
    def test_reasons_to_refuse_an_exact_resume(self, loader: DataLoader[Any], reason: str) -> None:
        data = as_data(loader)
        assert data.exact_resume is not None
        assert reason in data.exact_resume
        assert len(list(itertools.islice(data.batches("train", 0), 2))) == 2

    def test_asking_leaves_the_generators_alone(self) -> None:
        loader = DataLoader(Noisy())
        before = torch.get_rng_state()
        as_data(loader)
        assert torch.equal(before, torch.get_rng_state())

    @pytest.mark.parametrize(
        ("source", "error", "message"),
        [
            (3, TypeError, "cannot read batches from a int; expected a Data, a torch DataLoader or a list of batches"),
            ("path", TypeError, "cannot read batches from a str"),
            ([], ValueError, "there is not a single batch to train on"),
            ([{"x": [1.0]}], TypeError, r"a batch holds a float at 'x.0'; expected tensors or numpy arrays"),
            (["words"], TypeError, "a batch holds a str; expected tensors"),
            (DataLoader(Stream(3)), TypeError, "the DataLoader has no length, since its Stream has none; give"),
        ],
    )
    def test_what_is_refused(self, source: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            as_data(source)

    def test_data_bring_their_own_validation(self) -> None:
        data = in_memory({"x": torch.zeros(4)}, batch_size=2)
        with pytest.raises(TypeError, match="MemoryData brings its own validation split"):
            as_data(data, val=[])
