"""The section `replicate:`: which runs it means, and everything that can be wrong with it, by line."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ftrainer import ConfigError, build, member
from ftrainer.config import Replicate
from ftrainer.config.replicate import SEED
from ftrainer.functional import random
from registry import instantiate
from registry.registry import Registry
from tests.test_replicate import rich, small


def read(**section: Any) -> Replicate:
    """The section as a configuration would give it."""
    found = instantiate(Registry(), section, ("replicate",), expected=Replicate)
    assert isinstance(found, Replicate)
    return found


def test_seeds_count_from_the_runs_own() -> None:
    (group,) = read(seeds=3).split(5)
    assert [values[SEED] for values in group.members] == [5, 6, 7]
    assert [values[SEED] for values in read(seeds=[0, 1, 5]).split(9)[0].members] == [0, 1, 5]


def test_every_value_with_every_other_and_every_seed() -> None:
    over = {"optimizer.lr": [0.1, 0.2], "learner.alpha": {"linspace": [0, 1, 3]}}
    (group,) = read(seeds=2, over=over).split(0)
    expected = [(seed, lr, alpha) for lr, alpha, seed in itertools.product([0.1, 0.2], [0.0, 0.5, 1.0], [0, 1])]
    assert [tuple(values.values()) for values in group.members] == expected


def test_values_side_by_side() -> None:
    over = {"optimizer.lr": [0.1, 0.2], "learner.alpha": [3, 4]}
    (group,) = read(over=over, combine="zip").split(0)
    assert [tuple(values.values()) for values in group.members] == [(0, 0.1, 3), (0, 0.2, 4)]


def test_a_range_by_factors_has_both_its_ends() -> None:
    (row,) = {tuple(row.values()) for row in read(over={"a": {"logspace": [1e-4, 1e-2, 3]}}).rows()[1:2]}
    assert row == (1e-3,)
    assert [row["a"] for row in read(over={"a": {"logspace": [0.1, 10, 4]}}).rows()][::3] == [0.1, 10.0]


def test_groups_are_trained_apart_and_have_names() -> None:
    over = {"model.width": [32, 64], "optimizer.lr": [0.1, 0.2]}
    narrow, wide = read(seeds=2, over=over, groups=["model.width"]).split(0)
    assert (narrow.name, wide.name) == ("width=32", "width=64")
    assert narrow.members == wide.members
    assert [tuple(values) for values in narrow.members] == [(SEED, "optimizer.lr")] * 4
    zipped = read(over=over, groups=["model.width"], combine="zip").split(0)
    rates = {group.values["model.width"]: group.members[0]["optimizer.lr"] for group in zipped}
    assert rates == {32: 0.1, 64: 0.2}


def test_a_share_of_the_members() -> None:
    assert [values[SEED] for values in read(seeds=8, members=[2, 5]).split(0)[0].members] == [2, 3, 4]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"seeds": 0}, "replicate.seeds: must be at least 1"),
        ({"seeds": []}, "replicate.seeds: names no seed"),
        ({"seeds": [1, 2, 1]}, r"replicate.seeds\[2\]: is there twice; found 1"),
        ({"seeds": [-1]}, r"replicate.seeds\[0\]: must lie between 0 and"),
        ({"seeds": "many"}, "replicate.seeds: has the wrong type"),
        ({"over": [1]}, "replicate.over: has the wrong type"),
        ({"over": {"a": 1}}, "replicate.over.a: has the wrong type; found 1; expected a list of values, {logspace"),
        ({"over": {"a": []}}, "replicate.over.a: names no value"),
        ({"over": {"a..b": [1]}}, r"replicate.over.a..b: is no path"),
        ({"over": {"run.seed": [1]}}, r"replicate.over.run.seed: is swept by `seeds`"),
        ({"over": {"a.b": [1], "a": [2]}}, "replicate.over.a: is swept twice, by 'a.b' too"),
        ({"over": {"a[0]": [1], "a.0": [2]}}, r"replicate.over.a.0: is swept twice, by 'a\[0\]' too"),
        ({"over": {"a": {"geomspace": [1, 2, 3]}}}, "replicate.over.a: is no range; found geomspace"),
        ({"over": {"a": {"logspace": [1, 2]}}}, r"replicate.over.a.logspace: is no range; found \(1, 2\)"),
        ({"over": {"a": {"linspace": [1, 2, 1]}}}, "replicate.over.a.linspace: is no range"),
        ({"over": {"a": {"logspace": [0, 2, 3]}}}, "replicate.over.a.logspace: has an end that is not positive"),
        ({"over": {"a": [1], "b": [1, 2]}, "combine": "zip"}, "replicate.over: lists of unequal length.*a: 1, b: 2"),
        ({"over": {"a": [1]}, "groups": ["b"]}, r"replicate.groups\[0\]: is not swept; found 'b'; expected one of a"),
        ({"groups": ["b"]}, "expected a path that `over` names"),
        ({"chunk": 0}, "replicate.chunk: must be at least 1"),
        ({"chunk": "all"}, "replicate.chunk: has the wrong value|replicate.chunk"),
        ({"strategy": "both"}, "replicate.strategy"),
        ({"sedes": 3}, "replicate.sedes.*seeds"),
    ],
)
def test_what_is_wrong_with_the_section(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(**section)


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"optimizer.weight_dcay": [1, 2]}, r"over.optimizer.weight_dcay: unknown key.*mean 'optimizer.weight_decay'"),
        ({"optimiser.lr": [1, 2]}, r"optimiser.lr: unknown section.*optimizer"),
        ({"optimizer.lr": ["fast", 0.1]}, r"replicate.over.optimizer.lr\[0\]: has the wrong type; found 'fast'"),
        ({"optimizer.lr": [0.1, 0.2, -3]}, r"replicate.over.optimizer.lr\[2\]: out of range; found -3"),
        ({"optimizer.amsgrad": [True, False]}, r"optimizer.amsgrad: is structural.*optimizer.amsgrad: True and False.*"
                                               r"groups: \[optimizer.amsgrad\]"),
        ({"model.sequential.layers[0].dims[1]": [8, 16]}, r"is structural.*model.*groups: \[model.sequential"),
        ({"data.batch_size": [4, 8]}, r"is structural.*data.batch_size: 4 and 8.*groups: \[data.batch_size\]"),
        ({"trainer.grad_clip_norm": [1.0, 2.0]}, r"is structural.*clip_norm"),
        ({"run.name": ["a", "b"]}, r"run.name: changes nothing in the step"),
        ({"optimizer.lr.x": [1, 2]}, r"optimizer.lr.x.*: the path runs through"),
        ({"learner.ema_decay": [None, 0.9]}, r"learner.ema_decay: is structural.*ema_decay: None and 0.9"),
    ],
)  # fmt: skip
def test_what_cannot_be_swept_is_refused_by_name(over: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(small(replicate={"over": over}))


def test_everything_that_cannot_be_swept_is_told_at_once_with_its_line(tmp_path: Path) -> None:

    file = tmp_path / "sweep.yaml"
    section = "replicate:\n  over:\n    optimizer.amsgrad: [true, false]\n    optimizer.lr: [1.0, -1.0]\n"
    file.write_text(yaml.safe_dump(small()) + section)
    with pytest.raises(ConfigError) as caught:
        build(file)
    first, second = sorted(caught.value.issues, key=lambda issue: issue.where.line)
    assert first.path == ("replicate", "over", "optimizer.amsgrad")
    assert first.where.text.strip() == "optimizer.amsgrad: [true, false]"
    assert (second.path[-1], second.where.column) == (1, 25)


def test_more_members_than_memory_can_hold(tmp_path: Path) -> None:
    wide = {"sequential": {"layers": [{"_type_": "mlp", "dims": [3, 2000, 2000, 2]}]}}
    with pytest.raises(ConfigError, match=r"replicate: more members than memory can hold; found 5000 members of .* MiB"
                       r", twice: .* expected at most \d+ members, since .* are free"):  # fmt: skip
        build(small(model=wide, replicate={"seeds": 5000}))


def test_a_configuration_that_builds_on_its_seed_is_refused() -> None:
    config = small(replicate={"seeds": 2})
    config["run"] = {**config["run"], "seed": 0}
    config["data"] = {**config["data"], "seed": "${run.seed}"}
    with pytest.raises(ConfigError, match=r"replicate.seeds: seeds change more than draws.*data.seed: 0 and 1"):
        build(config)


def test_interpolations_follow_what_is_swept() -> None:
    config = small(replicate={"over": {"params.rate": [0.1, 0.2]}}, params={"rate": 0.1})
    config["optimizer"] = {"_type_": "optim.adamw", "lr": "${params.rate}"}
    states, _ = build(config)
    assert states.hyper["optimizer.lr"].tolist() == [0.1, 0.2]
    one = member(states, 1).program
    assert one.learner.optimizer.lr == 0.2
    assert one.config["params"]["rate"] == 0.2
    assert "replicate" not in one.config


def test_numbers_of_torch_factories_are_swept_where_the_configuration_writes_them() -> None:
    factory = {"_type_": "optim_factory.torch", "type": "optim_cls.SGD", "kwargs": {"lr": 0.1, "momentum": 0.9}}
    over = {"optimizer.kwargs.lr": [0.1, 0.2], "optimizer.kwargs.momentum": [0.8, 0.9]}
    states, _ = build(small(optimizer=factory, replicate={"over": over, "combine": "zip"}))
    assert {path: values.tolist() for path, values in states.hyper.items()} == {
        "optimizer.lr": [0.1, 0.2], "optimizer.momentum": [0.8, 0.9]
    }  # fmt: skip
    assert member(states, 1).program.values == {SEED: 0, "optimizer.kwargs.lr": 0.2, "optimizer.kwargs.momentum": 0.9}


def test_members_whose_tensors_differ_are_refused_with_the_way_out() -> None:
    optimizer = {"_type_": "optim.sgd", "lr": 0.1}
    with pytest.raises(ConfigError, match=r"opt_state/model/momentum.*decides which tensors.*groups: \[optimizer.mom"):
        build(small(optimizer=optimizer, replicate={"over": {"optimizer.momentum": [0.0, 0.9]}}))


def test_one_value_for_all_is_no_sweep_but_is_taken() -> None:
    states, _ = build(small(replicate={"seeds": 2, "over": {"optimizer.lr": [0.5]}}))
    assert states.hyper == {}
    assert states.program.learner.optimizer.lr == 0.5


def test_several_groups_are_no_one_state() -> None:
    section = {"over": {"data.batch_size": [4, 8]}, "groups": ["data.batch_size"]}
    with pytest.raises(ConfigError, match=r"replicate\.groups: makes 2 groups, which are no one state"):
        build(small(replicate=section))


SWEEPS = {
    "optimizer.lr": st.floats(1e-5, 1.0),
    "optimizer.betas[0]": st.floats(0.0, 0.99),
    "optimizer.weight_decay": st.floats(1e-6, 1.0),
    "learner.ema_decay": st.floats(0.01, 0.99),
    "scheduler.final": st.floats(0.0, 1.0),
}


@st.composite
def sections(draw: st.DrawFn) -> dict[str, Any]:
    """A `replicate:` section of at most a dozen members."""
    paths = draw(st.lists(st.sampled_from(sorted(SWEEPS)), unique=True, max_size=2))
    combine = draw(st.sampled_from(["product", "zip"]))
    n = draw(st.integers(1, 2))
    over = {path: draw(st.lists(SWEEPS[path], min_size=n, max_size=n, unique=True)) for path in paths}
    seeds = draw(st.integers(1, 3) | st.lists(st.integers(0, 10**6), min_size=1, max_size=3, unique=True))
    return {"seeds": seeds, "over": over, "combine": combine}


@settings(max_examples=12)
@given(section=sections(), run_seed=st.integers(0, 10))
def test_any_section_makes_the_members_that_it_means(section: dict[str, Any], run_seed: int) -> None:
    config = small(replicate=section, scheduler={"_type_": "schedule.cosine"}, run={"name": "any", "seed": run_seed})
    config["learner"] = {"_type_": "learner.supervised", "ema_decay": 0.5}
    config["optimizer"] = {"_type_": "optim.adamw", "betas": [0.9, 0.99]}
    states, _ = build(config)
    (group,) = read(**section).split(run_seed)
    programs = states.program.members
    assert [program.values for program in programs] == list(group.members)
    n_seeds = section["seeds"] if isinstance(section["seeds"], int) else len(section["seeds"])
    assert len(programs) == n_seeds * len(read(**section).rows())
    for index, program in enumerate(programs):
        one = member(states, index)
        assert int(one.key) == int(random.key(program.values[SEED]))
        assert "active" not in one.slots
        for path, values in states.hyper.items():
            assert float(values[index]) == number_at(program.learner, path)


def number_at(learner: Any, path: str) -> float:
    """The number that a component holds at a path."""
    found = learner
    for part in path.removeprefix("learner.").split("."):
        found = found[int(part)] if isinstance(found, tuple) else getattr(found, part)
    return float(found)


def test_rich_configurations_sweep_schedules_and_averages() -> None:
    over = {"scheduler.inner.final": [0.0, 0.1], "learner.ema_decay": [0.9, 0.99]}
    states, _ = build(rich(replicate={"over": over}))
    assert set(states.hyper) == {"scheduler.inner.final", "learner.ema_decay"}
    assert torch.equal(states.hyper["learner.ema_decay"], torch.tensor([0.9, 0.99] * 2, dtype=torch.float64))
