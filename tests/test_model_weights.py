"""Where weights come from: files, checkpoints, initialisers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ftrainer.functional.random import key
from ftrainer.model import build_model
from registry import ConfigError
from tests.models import REGISTRY, sequential

X = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
LAYERS = ({"_type_": "nn.Linear", "in_features": 5, "out_features": 4}, {"_type_": "nn.BatchNorm1d", "num_features": 4})


def source() -> nn.Module:
    """A module whose tensors are none that a fresh one has."""
    module = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(3.0)
        module[1].running_mean.fill_(7.0)
    return module


def write(folder: Path, suffix: str, tensors: Mapping[str, Tensor]) -> str:
    """Tensors in a file of this kind."""
    path = folder / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(dict(tensors), path)
    else:
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)
    return str(path)


def checkpoint(folder: Path, leaves: Mapping[str, Tensor]) -> str:
    """A directory with leaves in the file where a run keeps them."""
    folder.mkdir()
    save_file(dict(leaves), folder / "state.safetensors")
    return str(folder)


def start(init_from: Any, *layers: Any, **beside: Any) -> dict[str, Tensor]:
    """All tensors of a model that starts from a file."""
    params, buffers = sequential(*(layers or LAYERS), init_from=init_from, **beside).init(key(0), {"x": X})
    return {**params, **buffers}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_state_dict_is_loaded(tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    state = source().state_dict()
    with caplog.at_level(logging.INFO, "ftrainer.model"):
        loaded = start({"path": write(tmp_path, suffix, state)})
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    assert "matched  0.weight" in caplog.text


def test_names_are_changed_by_pattern(tmp_path: Path) -> None:
    state = {f"net.layer{name}": tensor for name, tensor in source().state_dict().items()}
    loaded = start({"path": write(tmp_path, ".pt", state), "rename": {"net.layer*": "*"}})
    assert (loaded["0.weight"] == 3).all()


def test_what_does_not_fit_is_a_table(tmp_path: Path) -> None:
    state = {**source().state_dict(), "0.weight": torch.zeros(4, 6), "head.weight": torch.zeros(2)}
    del state["1.bias"]
    path = write(tmp_path, ".safetensors", state)
    with pytest.raises(ConfigError) as caught:
        start({"path": path})
    lines = [line.split() for line in str(caught.value).splitlines()]
    assert ["mis-shaped", "0.weight", "(4,", "6)", "(4,", "5)"] in lines
    assert ["missing", "1.bias", "-", "(4,)"] in lines
    assert ["unexpected", "head.weight", "(2,)", "-"] in lines
    assert "model.init_from: the weights do not fit" in str(caught.value)


def test_without_strict_what_both_have_is_taken_but_shapes_must_agree(tmp_path: Path) -> None:
    state = {"0.weight": torch.full((4, 5), 3.0), "head.weight": torch.zeros(2)}
    loaded = start({"path": write(tmp_path, ".pt", state), "strict": False})
    assert (loaded["0.weight"] == 3).all()
    assert (loaded["1.weight"] == 1).all()
    bad = write(tmp_path, ".safetensors", {"0.weight": torch.zeros(4, 6)})
    for init_from in ({"path": bad, "strict": False}, {"path": write(tmp_path, ".pt", {"a": X}), "strict": False}):
        with pytest.raises(ConfigError, match="the weights do not fit"):
            start(init_from)


def test_a_tied_weight_may_be_there_under_any_of_its_names(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 5)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x))

    registry = REGISTRY.register("tied", Tied)
    state = {"b.weight": torch.full((5, 5), 3.0), "a.bias": torch.zeros(5), "b.bias": torch.zeros(5)}
    section = {"_type_": "tied", "init_from": {"path": write(tmp_path, ".pt", state)}}
    model = build_model(registry, section)
    params, buffers = model.init(key(0), {"x": X})
    assert (params["a.weight"] == 3).all()
    back = model.to_module(params, buffers)
    assert back.b.weight is back.a.weight


NORMAL = ({"_type_": "normalize", "field": "x"}, {"_type_": "nn.Linear", "in_features": 5, "out_features": 4})


def leaves() -> dict[str, Tensor]:
    """What a run of a normalised linear model leaves on disk."""
    return {
        "params/model/1.weight": torch.full((4, 5), 3.0), "params/model/1.bias": torch.zeros(4),
        "buffers/model/0.mean": torch.full((5,), 2.0), "buffers/model/0.std": torch.full((5,), 4.0),
        "slots/ema/1.weight": torch.full((4, 5), 9.0), "slots/ema/1.bias": torch.zeros(4),
        "slots/epoch": torch.tensor(3), "step": torch.tensor(7), "params/critic/w": torch.zeros(1),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "weight", "mean"),
    [({}, 3.0, 2.0), ({"part": "weights"}, 3.0, 0.0), ({"part": "normalizer"}, None, 2.0), ({"slot": "ema"}, 9.0, 2.0)],
)
def test_a_checkpoint_of_a_run_gives_weights_normaliser_or_both(
    tmp_path: Path, options: dict[str, Any], weight: float | None, mean: float
) -> None:
    loaded = start({"path": checkpoint(tmp_path / "last", leaves()), **options}, *NORMAL)
    fresh, _ = sequential(*NORMAL).init(key(0), {"x": X})
    expected = fresh["1.weight"] if weight is None else torch.full((4, 5), weight)
    assert torch.equal(loaded["1.weight"], expected)
    assert (loaded["0.mean"] == mean).all()


def test_frozen_parameters_of_a_checkpoint_are_found_among_its_buffers(tmp_path: Path) -> None:
    moved = {**leaves(), "buffers/model/1.bias": torch.full((4,), 5.0)}
    del moved["params/model/1.bias"]
    loaded = start({"path": checkpoint(tmp_path / "last", moved)}, *NORMAL)
    assert (loaded["1.bias"] == 5).all()


def test_a_file_wins_over_initialisers_and_can_be_frozen(tmp_path: Path) -> None:
    state = source().state_dict()
    model = sequential(
        *LAYERS, init_from={"path": write(tmp_path, ".pt", state)}, freeze=["0.*"],
        initializers=[{"match": "*", "init": "zeros"}],
    )  # fmt: skip
    params, buffers = model.init(key(0), {"x": X})
    assert set(params) == {"1.weight", "1.bias"}
    assert (buffers["0.weight"] == 3).all()


@pytest.mark.parametrize(
    ("message", "options"),
    [
        (r"model\.init_from\.path: there is no such file; found nowhere\.pt", {"path": "nowhere.pt"}),
        (r"model\.init_from\.part: unknown part; found 'some'; expected all, weights, normalizer", {"part": "some"}),
        (r"role: the checkpoint has no such network; found 'actor'; expected critic, model", {"role": "actor"}),
        (r"model\.init_from\.slot: the checkpoint has no such slot; found 'target'; expected ema", {"slot": "target"}),
        (r"model\.init_from\.rename\.a\*: the pattern matches nothing; found 'a\*'", {"rename": {"a*": "b"}}),
        (r"model\.init_from\.rename\.1\.w\*: has more \* than its pattern", {"rename": {"1.w*": "*.*"}}),
        (r"model\.init_from\.rename: '1.*' and '1.*' both become 'w'", {"rename": {"1.*": "w"}}),
        (r"unknown key; found 'patth'", {"patth": "x"}),
    ],
)  # fmt: skip
def test_what_cannot_be_started_from(tmp_path: Path, message: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=message):
        start({"path": checkpoint(tmp_path / "last", leaves()), **options}, *NORMAL)


class Payload:
    """Something that a weights file must not hold."""


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.safetensors", b"not a file", "cannot be read as weights"),
        ("a.pt", b"not a file", "cannot be read as weights"),
        ("b.pt", Payload(), "cannot be read as weights: Weights only load failed"),
        ("c.pt", {"epoch": 3}, "holds no weights; found a dict; expected a state dict"),
    ],
)
def test_files_that_hold_no_weights_are_refused(tmp_path: Path, name: str, content: Any, message: str) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ConfigError, match=message):
        start({"path": str(path)})


def test_initialisers_fill_what_they_match_and_the_last_one_wins() -> None:
    rules = [
        {"match": "*.weight", "init": "constant", "args": {"val": 2.0}},
        {"match": "0.weight", "init": "xavier_uniform"},
    ]
    one, two = (sequential(*LAYERS, initializers=rules).init(key(0), {"x": X})[0] for _ in range(2))
    other = sequential(*LAYERS, initializers=rules).init(key(1), {"x": X})[0]
    assert (one["1.weight"] == 2).all()
    assert torch.equal(one["0.weight"], two["0.weight"])
    assert not torch.equal(one["0.weight"], other["0.weight"])
    assert one["0.weight"].abs().max() <= (6 / 9) ** 0.5


@pytest.mark.parametrize(
    ("message", "rule"),
    [
        (r"initializers\[0\]\.match: the pattern matches nothing; found '2\.\*'", {"match": "2.*", "init": "zeros"}),
        (r"\[0\]\.init: unknown initialiser; found 'zero'; .*did you mean 'zeros'", {"match": "*", "init": "zero"}),
        (
            r"initializers\[0\]: orthogonal does not suit a parameter: .* found 0\.bias \(4,\)",
            {"match": "0.bias", "init": "orthogonal"},
        ),
        (r"\[0\]: zeros does not suit a parameter: .*gain", {"match": "*", "init": "zeros", "args": {"gain": 1}}),
    ],
)  # fmt: skip
def test_what_an_initialiser_cannot_do(message: str, rule: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"model.*" + message):
        sequential(*LAYERS, initializers=[rule]).init(key(0), {"x": X})
