"""Out again: tables of layers, state dicts, programs that need nothing of this package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ftrainer.functional.random import key
from ftrainer.model import from_module
from ftrainer.model.export import export
from ftrainer.model.summary import table
from registry import ConfigError
from tests.models import graph, sequential, typed

X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)) * 3
STATISTICS = {"x": {"mean": X.mean(0).double(), "std": X.std(0).double()}}


def model() -> Any:
    """A normaliser, lazy layers and dropout."""
    return sequential(
        {"_type_": "normalize", "field": "x"},
        {"_type_": "mlp", "dims": [None, 8, 4], "dropout": 0.5},
        {"_type_": "nn.LazyBatchNorm1d"},
    )


def test_the_table_has_a_row_for_every_layer() -> None:
    rows = {row.path: row for row in table(model(), {"x": X}, STATISTICS)}
    assert list(rows)[:3] == ["", "0", "1"]
    assert rows[""][1:] == ("Sequential", "(6, 5)", "(6, 4)", 5 * 8 + 8 + 8 * 4 + 4 + 8, 0)
    assert rows["1.0"][1:] == ("Linear", "(6, 5)", "(6, 8)", 48, 0)
    assert rows["1.2"][1:] == ("Dropout", "(6, 8)", "(6, 8)", 0, 0)


def test_the_table_counts_tied_weights_once_and_frozen_ones_apart() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 5)
            self.b.weight = self.a.weight
            self.b.bias.requires_grad_(False)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"y": self.b(self.a(x))}

    rows = {row.path: row for row in table(from_module(Tied()), {"x": X})}
    assert rows[""].outputs == "{y: (6, 5)}"
    assert (rows[""].n_params, rows[""].n_frozen) == (30, 5)
    assert (rows["b"].n_params, rows["b"].n_frozen) == (0, 5)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_state_dict_loads_into_the_ordinary_module(tmp_path: Path, suffix: str) -> None:
    params, buffers = model().init(key(0), {"x": X}, STATISTICS)
    path = export(model(), params, buffers, tmp_path / f"weights{suffix}", {"x": X})
    state = load_file(path) if suffix == ".safetensors" else torch.load(path, weights_only=True)
    module = model().to_module(*model().init(key(1), {"x": X}, STATISTICS))
    module.load_state_dict(state)
    torch.testing.assert_close(module(X), model().apply(params, buffers, {"x": X})[0])


def test_tied_weights_are_written_under_all_their_names(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    module[1].weight = module[0].weight
    tied = from_module(module)
    path = export(tied, *tied.init(key(0), {"x": X}), tmp_path / "w.safetensors", {"x": X})
    assert load_file(path).keys() == module.state_dict().keys()


RUN = """
import sys, torch
assert not any(name.split(".")[0] in ("ftrainer", "registry") for name in sys.modules)
program = torch.export.load(sys.argv[1]).module()
saved = torch.load(sys.argv[2], weights_only=True)
torch.testing.assert_close(program(saved["x"]), saved["y"])
torch.testing.assert_close(program(saved["x"][:2]), saved["y"][:2])
assert not any(name.split(".")[0] in ("ftrainer", "registry") for name in sys.modules)
"""


def test_a_program_gives_the_same_outputs_where_this_package_is_not_installed(tmp_path: Path) -> None:
    params, buffers = model().init(key(0), {"x": X}, STATISTICS)
    path = export(model(), params, buffers, tmp_path / "policy.pt2", {"x": X})
    torch.save({"x": X, "y": model().apply(params, buffers, {"x": X})[0]}, tmp_path / "io.pt")
    command = [sys.executable, "-I", "-c", RUN, str(path), str(tmp_path / "io.pt")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")  # torch 2.11's own loader
def test_a_graph_of_blocks_is_a_program_too(tmp_path: Path) -> None:
    section = {
        "inputs": ["x", "t"],
        "modules": {
            "time": {"_type_": "time_embedding", "dim": 8},
            "encoder": {"_type_": "transformer_encoder", "d_model": 8, "nhead": 2, "num_layers": 1, "causal": True},
            "head": {"_type_": "gaussian_head", "in_features": 8, "out_features": 2, "squash": True},
        },
        "nodes": [
            {"name": "e", "call": "module:time", "args": ["$t"]},
            {"name": "u", "call": "op:unsqueeze", "args": ["$e", 1]},
            {"name": "s", "call": "op:add", "args": ["$x", "$u"]},
            {"name": "h", "call": "module:encoder", "args": ["$s"]},
            {"name": "d", "call": "module:head", "args": ["$h"]},
        ],
        "outputs": ["$d"],
    }
    example = {"x": torch.randn(3, 4, 8), "t": torch.rand(3)}
    built = graph(section)
    params, buffers = built.init(key(0), example)
    program = torch.export.load(export(built, params, buffers, tmp_path / "m.pt2", example)).module()
    expected = built.apply(params, buffers, example)[0]
    for name, tensor in program(example["x"], example["t"]).items():
        torch.testing.assert_close(tensor, expected[name])


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ConfigError, match=r"out: unknown format; found '\.onnx'; expected \.safetensors, \.pt, \.pt2"):
        export(model(), {}, {}, tmp_path / "m.onnx", {"x": X})
    with pytest.raises(ConfigError, match=r"torch\.export cannot capture Branching.*export the state dict instead"):
        export(typed(Branching), {}, {}, tmp_path / "m.pt2", {"x": X})
    assert not list(tmp_path.iterdir())
