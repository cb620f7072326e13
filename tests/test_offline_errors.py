"""Configurations of offline learners that cannot work: one clear error before training."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftrainer import build, run_experiment
from registry import ConfigError

h5py = pytest.importorskip("h5py", reason="needs the extra rl")

from .offline_runs import ACTOR, GAUSSIAN, TRANSITION, VELOCITY, config, write_episodes  # noqa: E402


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_episodes(tmp_path / "e.hdf5", n=20)


def changed(model: dict[str, Any], layer: int, **values: Any) -> dict[str, Any]:
    """A sequential model with one layer's arguments replaced."""
    model = copy.deepcopy(model)
    model["sequential"]["layers"][layer] |= values
    return model


def body(**values: Any) -> dict[str, Any]:
    """The velocity with its body's arguments replaced."""
    model = copy.deepcopy(VELOCITY)
    model["graph"]["modules"]["body"] |= values
    return model


TWO_INPUTS = {
    "graph": {
        "inputs": ["obs", "goal"],
        "steps": [{"call": "op:add", "args": ["$obs", "$goal"], "out": "y"}],
        "outputs": ["$y"],
    }
}
DICT = {"sequential": {"inputs": ["obs"], "layers": [{"_type_": "mlp", "dims": [2, 1]}], "outputs": {"move": "$h0"}}}


@pytest.mark.parametrize(
    ("name", "model", "message"),
    [
        ("bc", changed(ACTOR, 1, dims=[2, 3]), r"model: the policy's actions .*; found \(3,\); expected \(1,\)"),
        ("iql", changed(GAUSSIAN, 2, out_features=3), r"model: the policy's actions .*; found \(3,\); expected \(1,\)"),
        ("bc", changed(ACTOR, 1, dims=[4, 1]), r"model.sequential.layers\[1\]: .*found float32 \(64, 2\)"),
        (
            "iql",
            changed(GAUSSIAN, 2, squash=True),
            "have no density .*; found squash: true; expected squash: false",
        ),
        ("td3_bc", GAUSSIAN, "model: TD3.BC moves a deterministic policy; found a distribution"),
        ("bc", DICT, "model: is no policy; found a mapping with move; expected an action"),
        ("bc", TWO_INPUTS, "model.inputs: takes several inputs, .*; found obs, goal"),
        ("bc", changed(ACTOR, 0, field="observation"), "field: the data has no statistics of this field"),
        ("flow_bc", ACTOR, "model: is no velocity; found obs; expected obs, action, time"),
        ("flow_bc", body(out_features=3), r"has not the size of the data's actions; found \(3,\); expected \(2,\)"),
    ],
)
def test_models_that_are_no_policy_for_the_data(name: str, model: Any, message: str, path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        build(config(name, path, model=model))


@pytest.mark.parametrize("missing", TRANSITION)
@pytest.mark.parametrize("name", ["iql", "td3_bc"])
def test_fields_that_the_data_does_not_give(name: str, missing: str, path: Path) -> None:
    fields = [field for field in TRANSITION if field != missing]
    with pytest.raises(ConfigError, match=f"data.fields: .*does not give; found {', '.join(fields)}; .*{missing}"):
        build(config(name, path), {"data.fields": fields})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"learner.steps": 0}, "learner.steps: out of range; found 0"),
        ({"learner.ema_decay": 1.5}, "learner.ema_decay: out of range"),
        ({"learner.decay": 0.9}, "learner.decay: .*did you mean 'ema_decay'"),
    ],
)
def test_numbers_of_a_flow(overrides: dict[str, Any], message: str, path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        build(config("flow_bc", path), overrides)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("iql", {"learner.expectile": 1.0}, "learner.expectile: out of range; found 1.0"),
        ("iql", {"learner.discount": 1.1}, "learner.discount: out of range; found 1.1"),
        ("iql", {"learner.tau": -0.1}, "learner.tau: out of range"),
        ("iql", {"learner.max_weight": 0.0}, "learner.max_weight: out of range"),
        ("iql", {"learner.temperature": -1.0}, "learner.temperature: out of range"),
        ("td3_bc", {"learner.every": 0}, "learner.every: out of range; found 0"),
        ("td3_bc", {"learner.alpha": -1.0}, "learner.alpha: out of range"),
        ("td3_bc", {"learner.noise": -1.0}, "learner.noise: out of range"),
        ("td3_bc", {"learner.critic.hidden": [256, 0]}, "learner.critic.hidden: out of range; found 0"),
        (
            "td3_bc",
            {"learner.critic.activation": "rely"},
            "learner.critic.activation: unknown activation; found 'rely'; .*relu",
        ),
        ("td3_bc", {"learner.critic.hiden": [256]}, "learner.critic.hiden: .*did you mean 'hidden'"),
        ("td3_bc", {"learner.critic.reward.floor": -1.0}, "learner.critic.reward.floor: must not be negative"),
        ("td3_bc", {"learner.critic.reward.field": "return"}, "learner.critic.reward.*no statistics of this field"),
    ],
)
def test_numbers_of_learners_with_values(name: str, overrides: dict[str, Any], message: str, path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        build(config(name, path), overrides)


def test_a_spread_needs_room(path: Path) -> None:
    model = changed(ACTOR, 1)
    model["sequential"]["layers"].append({"_type_": "policy.spread", "out_features": 1, "log_std_min": 3.0})
    with pytest.raises(ConfigError, match=r"log_std_min: must be below log_std_max; found 3.0 ≥ 2.0"):
        build(config("iql", path, model=model))


def test_data_without_terminals(path: Path) -> None:
    with h5py.File(path, "r+") as root:
        for episode in root.values():
            episode["terminations"][:] = False
    with pytest.raises(ConfigError, match=r"data.path: no terminals: none of the 20 episodes ends in one"):
        build(config("iql", path))


def arrays(path: Path, **fields: np.ndarray) -> dict[str, Any]:
    """Data of made-up transitions, some of whose fields are others."""
    columns = {"obs": (40, 2), "action": (40, 1), "reward": (40,), "next_obs": (40, 2), "terminal": (40,)}
    rows = {name: np.zeros(shape, np.float32) for name, shape in columns.items()}
    np.savez(path / "rows.npz", **(rows | fields))
    return {"_type_": "data.arrays", "files": str(path / "rows.npz"), "batch_size": 8, "val_fraction": 0.2}


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("iql", {"reward": np.zeros((40, 1), np.float32)}, r"data: the field 'reward' .*found \(8, 1\); expected \(8,"),
        ("td3_bc", {"next_obs": np.zeros((40, 3), np.float32)}, r"data: the field 'next_obs' .*expected \(8, 2\)"),
        ("td3_bc", {"discount": np.zeros((40, 2), np.float32)}, "data: the field 'discount' has not the shape"),
        ("iql", {"terminal": np.zeros(40, bool)}, "learner: the loss of phase 'iql' fails: RuntimeError: Subtraction"),
        ("flow_bc", {"action": np.zeros((40, 2), np.int64)}, "data: there are no statistics of the field 'action'"),
    ],
)
def test_data_that_a_learner_cannot_read(name: str, fields: Any, message: str, tmp_path: Path) -> None:
    spec = config(name, tmp_path / "e.hdf5", data=arrays(tmp_path, **fields))
    with pytest.raises(ConfigError, match=message):
        run_experiment(spec, {"run.out_dir": str(tmp_path / "run")})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["bc", "iql", "flow_bc"])
def test_a_metric_that_refuses_the_actions(name: str, path: Path) -> None:
    with pytest.raises(ConfigError, match=r"metrics\[0\]\.target_path: .*"):
        build(config(name, path, metrics=[{"_type_": "metric.mae", "target_path": ["y"]}]))


def test_a_number_that_is_none_is_found_when_the_data_is_loaded(path: Path) -> None:
    with h5py.File(path, "r+") as root:
        root["episode_7/rewards"][2] = float("nan")
    with pytest.raises(ConfigError, match=r"data.path: episode_7/rewards is not finite at row 2; found nan"):
        build(config("iql", path))


@pytest.mark.parametrize(
    ("section", "spec"),
    [
        ("loss", {"_type_": "loss.mse"}),
        ("io", {"_type_": "io.mapping", "model_kwargs": {"obs": ["obs"]}}),
    ],
)
def test_sections_that_the_learner_would_ignore(section: str, spec: dict[str, Any], path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{section}: learner.iql makes no use of it .say `{section}: null`"):
        build(config("iql", path, **{section: spec}))
    build(config("iql", path, **{section: None}))
