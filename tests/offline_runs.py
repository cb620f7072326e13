"""Small offline runs for tests: a task whose best action is known, and a learner of every kind on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

BEST = 0.3
"""The action that is always best; the data's are uniform on [-1, 1]."""

ACTOR = {
    "sequential": {
        "inputs": ["obs"],
        "layers": [
            {"_type_": "normalize", "field": "obs"},
            {"_type_": "mlp", "dims": [2, 32, 1]},
        ],
    }
}
GAUSSIAN = {
    "sequential": {
        "inputs": ["obs"],
        "layers": [
            {"_type_": "normalize", "field": "obs"},
            {"_type_": "mlp", "dims": [2, 32], "final_activation": "relu"},
            {"_type_": "gaussian_head", "in_features": 32, "out_features": 1, "state_dependent": False},
        ],
    }
}
VELOCITY = {
    "graph": {
        "inputs": ["obs", "action", "time"],
        "modules": {
            "scale": {"_type_": "normalize", "field": "obs"},
            "clock": {"_type_": "time_embedding", "dim": 8, "scale": 1000},
            "body": {"_type_": "residual_mlp", "in_features": None, "width": 32, "out_features": 2},
        },
        "steps": [
            {"call": "module:scale", "args": ["$obs"], "out": "seen"},
            {"call": "module:clock", "args": ["$time"], "out": "when"},
            {"call": "op:cat", "args": [["$seen", "$action", "$when"]], "kwargs": {"dim": -1}, "out": "all"},
            {"call": "module:body", "args": ["$all"], "out": "velocity"},
        ],
        "outputs": ["$velocity"],
    }
}  # fmt: skip
CRITIC = {"hidden": [64], "reward": {"_type_": "reward.normalize"}}
TRANSITION = ["obs", "action", "reward", "next_obs", "terminal"]
LEARNERS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "bc": ({"_type_": "learner.bc"}, ACTOR, {}),
    "bc_gaussian": ({"_type_": "learner.bc"}, GAUSSIAN, {}),
    "td3_bc": ({"_type_": "learner.td3_bc", "critic": CRITIC}, ACTOR, {}),
    "iql": ({"_type_": "learner.iql", "critic": CRITIC}, GAUSSIAN, {}),
    "flow_bc": (
        {"_type_": "learner.flow_bc", "steps": 5},
        VELOCITY,
        {"fields": ["obs", "action", "action_mask"], "chunk": 2},
    ),
}
"""Learner, model, and what else the data gives, by name."""


def write_episodes(path: Path, n: int = 160, steps: int = 4) -> Path:
    """Episodes of random observations and actions, rewarded for being near `BEST`; every third runs out of time."""
    draws = np.random.default_rng(0)
    with h5py.File(path, "w") as root:
        for k in range(n):
            ends = np.arange(steps) == steps - 1
            action = draws.uniform(-1, 1, (steps, 1))
            episode = {
                "observations": draws.normal(3.0, [0.1, 10.0], (steps + 1, 2)),
                "actions": action,
                "rewards": -np.square(action[:, 0] - BEST),
                "terminations": ends & (k % 3 != 0),
                "truncations": ends & (k % 3 == 0),
            }
            for field, values in episode.items():
                root[f"episode_{k}/{field}"] = values
    return path


def config(name: str, path: Path, **changes: Any) -> dict[str, Any]:
    """A run of one of `LEARNERS` on the episodes at a path; `changes` replace whole sections."""
    learner, model, data = LEARNERS[name]
    sections = {
        "settings": {"allow_imports": True, "allowed_import_prefixes": ["extensions."]},
        "imports": ["extensions.offline"],
        "run": {"name": name, "out_dir": str(path.parent / "run"), "compile": "trace"},
        "model": model,
        "learner": learner,
        "data": {
            "_type_": "data.hdf5_episodes", "path": str(path), "fields": TRANSITION, "require_terminals": True,
            "batch_size": 64, "val_fraction": 0.1, "last": "drop", **data,
        },
        "optimizer": {"_type_": "optim.adam", "lr": 1e-2},
        "trainer": {"_type_": "trainer.default", "max_steps": 200, "val_every_n_epochs": None},
    }  # fmt: skip
    return sections | changes
