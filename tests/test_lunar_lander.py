"""The lunar lander's demonstrations and its judge."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftrainer import builtin_registry
from registry import ConfigError

pytest.importorskip("gymnasium.envs.box2d.lunar_lander", reason="needs the extra rl")
h5py = pytest.importorskip("h5py", reason="needs the extra rl")

from extensions import lunar_lander  # noqa: E402
from extensions.lunar_lander import Demonstrations, collect, simulator, write_episodes  # noqa: E402
from extensions.simulator import JUDGE  # noqa: E402


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes of the expert and one with noise."""
    path = tmp_path_factory.mktemp("lander") / "e.hdf5"
    spec(path).load()
    return path


def spec(path: Path | None, **options: Any) -> Demonstrations:
    defaults = {"episodes": [[2, 0.0], [1, 0.5]], "batch_size": 32, "path": None if path is None else str(path)}
    return Demonstrations(**defaults | options)


def test_the_file_is_in_minaris_layout(file: Path) -> None:
    with h5py.File(file) as root:
        assert sorted(root) == ["episode_0", "episode_1", "episode_2"]
        for group in root.values():
            steps = len(group["actions"])
            assert group["observations"].shape == (steps + 1, 8)
            assert group["rewards"].shape == (steps,)
            assert group["terminations"][-1] or group["truncations"][-1]
            assert not group["terminations"][:-1].any()
            assert np.abs(group["actions"]).max() <= 1


def test_the_expert_lands_and_noise_shows(file: Path) -> None:
    with h5py.File(file) as root:
        returns = [float(np.sum(root[f"episode_{k}/rewards"])) for k in range(2)]
        clean, noisy = (np.abs(np.diff(root[name]["actions"], axis=0)).mean() for name in ("episode_0", "episode_2"))
    assert min(returns) > 200
    assert noisy > 2 * clean


def test_the_same_seed_collects_the_same_and_another_does_not() -> None:
    one, again, other = (next(collect(((1, 0.3),), seed)) for seed in (3, 3, 4))
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert not np.array_equal(one["observations"][0], other["observations"][0])


def test_a_second_run_reuses_the_file(file: Path) -> None:
    before = file.stat().st_mtime_ns
    fields = spec(file).load().fields
    assert file.stat().st_mtime_ns == before
    assert {name: (field.shape[1:], field.dtype) for name, field in fields.items()} == {
        "obs": ((8,), torch.float32),
        "action": ((2,), torch.float32),
    }


def test_it_gives_whatever_recorded_episodes_give(file: Path) -> None:
    data = spec(file, fields=None, n_step=3, val_fraction=0.34).open(seed=0, device="cpu")
    batch = next(data.batches("train", 0))
    assert {"reward", "next_obs", "terminal", "discount"} <= set(batch)
    assert data.n_batches("val") > 0


def test_a_file_made_otherwise_is_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"path: .* was made with other settings; found .*'seed': '0'.*'seed': '1'"):
        spec(file, seed=1).load()
    with pytest.raises(ConfigError, match=r"expected .*\(\(3, 0.0\),\)"):
        spec(file, episodes=3).load()


def test_the_default_file_is_named_after_what_it_holds() -> None:
    names = {spec(None, episodes=e, seed=s).file.name for e in (50, [[20, 0.0], [30, 0.5]]) for s in (0, 1)}
    assert "lunar_lander_20x0_30x0.5_seed1.hdf5" in names
    assert len(names) == 4


def test_a_collection_cut_short_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Any:
        yield {"actions": np.zeros((1, 2))}
        raise RuntimeError("power failure")

    with pytest.raises(RuntimeError, match="power failure"):
        write_episodes(tmp_path / "e.hdf5", broken(), {})
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    write_episodes(tmp_path / "e.hdf5", iter(()), {"environment": "Moon"})
    with pytest.raises(ConfigError, match=r"was made with other settings; found {'environment': 'Moon'}"):
        spec(tmp_path / "e.hdf5").load()
    (tmp_path / "t.hdf5").write_text("no data")
    with pytest.raises(ConfigError, match="path: not an HDF5 file"):
        spec(tmp_path / "t.hdf5").load()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"episodes": 0}, r"episodes\[0\]: not a number of episodes and a noise; found \[0, 0.0\]"),
        ({"episodes": [[3, -0.5]]}, r"episodes\[0\]: not a number of episodes and a noise; found \[3, -0.5\]"),
        ({"episodes": []}, "episodes: too few or too many"),
        ({"episodes": 10_001}, "episodes: too few or too many.*1 to 10000"),
        ({"seed": -1}, "seed: out of range"),
        ({"fields": ["obs", "image"]}, r"fields\[1\]: no such field"),
    ],
)
def test_demonstrations_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        spec(None, **options)


def test_no_episode_of_the_judge_was_demonstrated() -> None:
    judge = simulator(episodes=1)
    assert judge.solved == 200
    start, _ = judge.make().reset(seed=JUDGE)
    again = [next(collect(((1, 0.0),), seed))["observations"][0] for seed in range(3)]
    assert not any(np.array_equal(start, other) for other in again)


def test_register_adds_the_two_keys() -> None:
    registry = lunar_lander.register(builtin_registry())
    assert "data.lunar_lander" in registry
    assert "eval.lunar_lander" in registry


@pytest.mark.parametrize("missing", ["gymnasium", "h5py", "Box2D"])
def test_without_the_extra_one_error_names_it(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; import extensions.lunar_lander"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "extensions.lunar_lander needs gymnasium[box2d] and h5py: pip install 'ftrainer[rl]'" in done.stderr
