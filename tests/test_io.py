"""Paths from a batch to the model's inputs and the loss's targets."""

from __future__ import annotations

import pytest
import torch

from ftrainer.components.io import mapping
from registry import ConfigError


def test_paths_go_through_keys_and_indices() -> None:
    io = mapping(model_kwargs={"image": ["views", 1], "text": "text"}, targets={"y": [0]})
    batch = {"views": [torch.zeros(1), torch.ones(1)], "text": torch.arange(3), 0: torch.full((1,), 5.0)}
    assert io.inputs(batch)["image"] is batch["views"][1]
    assert io.inputs(batch)["text"] is batch["text"]
    assert io.targets(batch) == {"y": batch[0]}


def test_tuples_are_batches_too() -> None:
    io = mapping(model_kwargs={"x": [0]}, targets={"y": [1]})
    assert (io.inputs((1, 2)), io.targets((1, 2))) == ({"x": 1}, {"y": 2})


def test_targets_may_be_left_out() -> None:
    assert mapping(model_kwargs={"x": ["x"]}).targets({"x": 1}) == {}


def test_it_is_a_value() -> None:
    one, other = (mapping(model_kwargs={"x": ["x"]}, targets={"y": "y"}) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (["image"], r"^io.model_kwargs.x: the batch has no 'image'; found 'x', 'y'$"),
        ("xx", r"io.model_kwargs.x: the batch has no 'xx'; found 'x', 'y'; did you mean 'x'\?"),
        (["x", "left"], r"no 'left' under 'x'; found 2 items"),
        (["x", 2], r"no 2 under 'x'; found 2 items"),
        (["y", "a", "b"], r"no 'b' under 'y.a'; found a Tensor"),
    ],
)
def test_a_path_that_leads_nowhere(path: object, message: str) -> None:
    batch = {"x": [1, 2], "y": {"a": torch.zeros(1)}}
    with pytest.raises(ConfigError, match=message):
        mapping(model_kwargs={"x": path}).inputs(batch)


def test_the_error_says_which_target() -> None:
    with pytest.raises(ConfigError, match=r"io.targets.label: the batch has no 'y'; found no keys"):
        mapping(model_kwargs={}, targets={"label": ["y"]}).targets({})


def test_paths_are_checked_when_built() -> None:
    with pytest.raises(ConfigError, match=r"model_kwargs.x: an empty path"):
        mapping(model_kwargs={"x": []})
