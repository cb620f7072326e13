"""`ftrainer export`: which weights of a checkpoint, which network, in which form."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from ftrainer import TrainState, run_experiment, to_module
from ftrainer.exporting import export_checkpoint, write_model
from ftrainer.run import main
from registry import ConfigError

WITHOUT = """
import sys, torch
torch.set_num_threads(1)
x, y = torch.load(sys.argv[2], weights_only=True)
torch.testing.assert_close(torch.export.load(sys.argv[1]).module()(x), y)
weights = torch.load(sys.argv[3], weights_only=True)
assert not any(name.split(".")[0] in ("ftrainer", "registry", "extensions") for name in sys.modules)
"""


def trained(
    folder: Path, sections: Mapping[str, Any] = MappingProxyType({}), **learner: Any
) -> tuple[TrainState, Path]:
    """A run of four steps, and its last checkpoint."""
    config = {
        "run": {"name": "out", "out_dir": str(folder / "run"), "compile": "eager"},
        "model": {
            "sequential": {"layers": [{"_type_": "normalize", "field": "x"}, {"_type_": "mlp", "dims": [3, 4, 2]}]}
        },
        "data": {
            "_type_": "data.random_regression",
            "batch_size": 8,
            "steps_per_epoch": 4,
            "x_shape": [3],
            "y_shape": [2],
        },
        "io": {"_type_": "io.mapping", "model_kwargs": {"x": ["x"]}, "targets": {"y": ["y"]}},
        "loss": {"_type_": "loss.mse"},
        "optimizer": {"_type_": "optim.sgd", "lr": 0.1},
        "learner": {"_type_": "learner.supervised", **learner},
        "trainer": {"_type_": "trainer.default", "max_steps": 4},
        "callbacks": [
            {"_type_": "cb.model_checkpoint", "save_dir": str(folder / "run" / "checkpoints"), "save_last": True}
        ],
    }
    return run_experiment(config | sections), folder / "run" / "checkpoints" / "last"


def test_the_average_or_the_trained_weights_are_written(tmp_path: Path) -> None:
    state, last = trained(tmp_path, ema_decay=0.9)
    names = list(state.params["model"])
    written = {
        choice: load_file(export_checkpoint(last, tmp_path / f"{choice}.safetensors", weights=choice))
        for choice in ("ema", "trained", None)
    }
    for name in names:
        assert torch.equal(written["ema"][name], state.slots["ema"][name])
        assert torch.equal(written[None][name], state.slots["ema"][name])
        assert torch.equal(written["trained"][name], state.params["model"][name])
        assert not torch.equal(written["trained"][name], written["ema"][name])
    assert torch.equal(written["trained"]["0.mean"], state.buffers["model"]["0.mean"])


def test_programs_and_weights_load_where_this_package_is_not_installed(tmp_path: Path) -> None:
    state, last = trained(tmp_path, ema_decay=0.9)
    program = export_checkpoint(last, tmp_path / "model.pt2")
    weights = export_checkpoint(last, tmp_path / "model.pt", weights="ema")
    x = torch.randn(5, 3) * 4
    torch.save((x, to_module(state)(x)), tmp_path / "io.pt")
    command = [sys.executable, "-I", "-c", WITHOUT, str(program), str(tmp_path / "io.pt"), str(weights)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_network_alone_is_its_tensors(tmp_path: Path) -> None:
    state, last = trained(tmp_path)
    out = tmp_path / "net.pt"
    done = CliRunner().invoke(main, ["export", str(last), str(out), "--network", "model"])
    assert done.exit_code == 0, done.output
    found = torch.load(out, weights_only=True)
    expected = {**state.params["model"], **state.buffers["model"]}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_checkpoint_allows_itself_nothing(tmp_path: Path) -> None:
    layers = [{"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2}]
    settings = {"allow_target": True, "allowed_import_prefixes": ["torch"]}
    _, last = trained(tmp_path, {"model": {"sequential": {"layers": layers}}, "settings": settings})
    with pytest.raises(ConfigError, match=r"_target_: needs settings.allow_target: true; found 'torch.nn.Linear'"):
        export_checkpoint(last, tmp_path / "a.pt")
    out = tmp_path / "a.pt"
    allowed = ["settings.allow_target=true", "settings.allowed_import_prefixes=[torch]"]
    done = CliRunner().invoke(main, ["export", str(tmp_path / "run"), str(out), *allowed])
    assert done.exit_code == 0, done.output
    assert torch.load(out, weights_only=True)["0.weight"].shape == (2, 3)


def test_what_a_checkpoint_does_not_hold_is_named(tmp_path: Path) -> None:
    _, last = trained(tmp_path)
    with pytest.raises(ConfigError, match=r"learner: keeps no average of its weights; found Supervised .train with"):
        export_checkpoint(last, tmp_path / "a.pt", weights="ema")
    with pytest.raises(
        ConfigError, match=r"network: no such network; found 'modle'; expected model; did you mean 'mod"
    ):
        export_checkpoint(last, tmp_path / "a.pt", network="modle")
    with pytest.raises(ConfigError, match=r"out: a network alone is tensors, no program; found '\.pt2'"):
        export_checkpoint(last, tmp_path / "a.pt2", network="model")
    with pytest.raises(ConfigError, match=r"out: a plain checkpoint holds everything"):
        export_checkpoint(last, tmp_path / "plain", 0, network="model")
    assert not list(tmp_path.glob("*.p*"))


def test_a_learner_that_makes_no_module_names_its_networks(tmp_path: Path) -> None:
    state, _ = trained(tmp_path)
    unable = attrs.evolve(state, program=state.program.but(learner="several networks"))
    with pytest.raises(ConfigError, match=r"str has no to_module: it makes no module .choose .*--network model"):
        write_model(unable, {}, tmp_path / "a.pt")
