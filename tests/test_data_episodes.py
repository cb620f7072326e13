"""Recorded episodes: windows inside them, and what reading them refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ftrainer.components.data.episodes import Episodes
from ftrainer.components.data.hdf5_episodes import EpisodesSpec, HDF5Episodes
from ftrainer.components.data.windows import lay_out, looking_ahead, looking_back, n_step_return
from registry import ConfigError

h5py = pytest.importorskip("h5py", reason="needs the extra rl")

episode_lengths = st.lists(st.integers(1, 8), min_size=1, max_size=8)


def episode(number: int, steps: int, terminates: bool = True) -> dict[str, np.ndarray]:
    """Observation, action and reward tell where they come from: 100 × episode + time."""
    time = np.arange(steps + 1, dtype=np.float64) + 100 * number
    ends = np.arange(steps) == steps - 1
    return {
        "observations": np.stack([time, -time], axis=1),
        "actions": time[:-1, None],
        "rewards": time[:-1],
        "terminations": ends & terminates,
        "truncations": ends & (not terminates),
    }


def write(path: Path, episodes: dict[str, dict[str, Any]]) -> Path:
    with h5py.File(path, "w") as root:
        for name, arrays in episodes.items():
            for field, values in arrays.items():
                root[f"{name}/{field}"] = values
    return path


def load(path: Path, **options: Any) -> dict[str, torch.Tensor]:
    return dict(HDF5Episodes(path=str(path), batch_size=1, **options).load().fields)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Twelve episodes of 3, 4, 5, 3, … steps; those with an odd number run out of time."""
    return write(tmp_path / "e.hdf5", {f"episode_{k}": episode(k, 3 + k % 3, k % 2 == 0) for k in range(12)})


@given(episode_lengths, st.integers(1, 12))
def test_windows_never_cross_an_episodes_end(lengths: list[int], n: int) -> None:
    steps = lay_out(torch.tensor(lengths))
    back = looking_back(steps, steps.here, n)
    ahead, mask = looking_ahead(steps, n)
    assert (steps.episode[back] == steps.episode[:, None]).all()
    assert (steps.episode[ahead] == steps.episode[:, None]).all()
    assert torch.equal(back[:, -1], steps.here)
    assert torch.equal(ahead[:, 0], steps.here)
    assert (back.diff(dim=1) <= 1).all()
    assert torch.equal(mask.sum(1), (steps.stop - steps.here).clamp(max=n))
    assert (ahead[mask] == (steps.here[:, None] + torch.arange(n))[mask]).all()


@given(episode_lengths, st.integers(1, 12), st.floats(0, 1), st.integers(0, 2**31))
def test_n_step_returns_equal_the_plain_sum(lengths: list[int], n: int, gamma: float, seed: int) -> None:
    steps = lay_out(torch.tensor(lengths))
    reward = torch.randn(sum(lengths), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    total, span = n_step_return(steps, reward, n, gamma)
    for t in range(sum(lengths)):
        k = min(n, int(steps.stop[t]) - t)
        assert int(span[t]) == k
        assert float(total[t]) == pytest.approx(sum(gamma**i * float(reward[t + i]) for i in range(k)))


def test_transitions(file: Path) -> None:
    fields = load(file)
    assert set(fields) == {"obs", "action", "reward", "next_obs", "terminal"}
    assert {field.dtype for field in fields.values()} == {torch.float32}
    assert (fields["next_obs"] - fields["obs"] == torch.tensor([1.0, -1.0])).all()
    assert torch.equal(fields["obs"][:, :1], fields["action"])
    assert torch.equal(fields["reward"], fields["action"][:, 0])


def test_episodes_come_in_their_natural_order(file: Path) -> None:
    numbers = (load(file)["reward"] // 100).to(torch.int64)
    assert torch.equal(numbers.unique_consecutive(), torch.arange(12))


def test_running_out_of_time_is_no_terminal(file: Path) -> None:
    fields = load(file)
    ends = fields["terminal"].to(torch.bool)
    assert ends.sum() == 6
    assert ((fields["reward"][ends] // 100) % 2 == 0).all()


@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 7))
@settings(max_examples=25)
def test_all_windows_together(history: int, chunk: int, n_step: int) -> None:
    spec = EpisodesSpec(batch_size=1, history=history, chunk=chunk, n_step=n_step)
    lengths = [3, 1, 5]
    parts = [episode(k, n) for k, n in enumerate(lengths)]
    arrays = {field: torch.from_numpy(np.concatenate([part[field] for part in parts])) for field in parts[0]}
    fields = spec.examples(Episodes(torch.tensor(lengths), arrays), lay_out(torch.tensor(lengths)))
    number = fields["reward"].new_tensor([k for k, n in enumerate(lengths) for _ in range(n)])
    for name in ("obs", "next_obs", "action"):
        assert (fields[name][..., 0].reshape(len(number), -1) // 100 == number[:, None]).all()
    now = fields["obs"].reshape(len(number), history, 2)[:, -1, 0]
    then = fields["next_obs"].reshape(len(number), history, 2)[:, -1, 0]
    ends = torch.tensor([100 * k + n for k, n in enumerate(lengths) for _ in range(n)])
    assert torch.equal(then, torch.minimum(now + n_step, ends))
    assert torch.equal(fields["terminal"], (then == ends).float())


def test_discounts_go_with_the_steps_that_were_summed(file: Path) -> None:
    fields = load(file, n_step=3, gamma=0.5, chunk=2)
    assert {"discount", "action_mask"} <= set(fields)
    assert fields["discount"][:3].tolist() == [0.125, 0.25, 0.5]
    assert fields["reward"][:3].tolist() == [0 + 0.5 + 0.5, 1 + 1, 2]
    assert fields["action_mask"][:3].tolist() == [[True, True], [True, True], [True, False]]


def test_only_the_named_fields(file: Path) -> None:
    assert list(load(file, fields=["action", "obs"])) == ["action", "obs"]


def test_the_split_is_by_episode(file: Path) -> None:
    data = HDF5Episodes(path=str(file), batch_size=8, val_fraction=0.25).open(seed=0, device="cpu")
    train, val = ({int(i) for i in data.fields["reward"][rows] // 100} for rows in (data.train, data.val))
    assert len(val) == 3
    assert not train & val


def test_a_minari_directory(tmp_path: Path) -> None:
    (tmp_path / "set" / "data").mkdir(parents=True)
    write(tmp_path / "set" / "data" / "main_data.hdf5", {"episode_0": episode(0, 3)})
    assert len(load(tmp_path / "set")["obs"]) == 3


def test_dictionary_observations_are_joined(tmp_path: Path) -> None:
    parts = {"robot": np.zeros((4, 2)), "goal": {"position": np.ones((4, 1, 3))}}
    path = tmp_path / "d.hdf5"
    write(path, {"episode_0": {k: v for k, v in episode(0, 3).items() if k != "observations"}})
    with h5py.File(path, "a") as root:
        root["episode_0/observations/robot"] = parts["robot"]
        root["episode_0/observations/goal/position"] = parts["goal"]["position"]
    assert load(path, observation_keys=["goal.position", "robot"])["obs"][0].tolist() == [1, 1, 1, 0, 0]
    with pytest.raises(ConfigError, match=r"observations are dictionaries; .*expected some of goal.position, robot"):
        load(path)
    with pytest.raises(ConfigError, match=r"observation_keys: episode_0 has no such part.*did you mean 'robot'"):
        load(path, observation_keys=["robo"])


def test_discrete_actions_and_images_keep_their_kind(tmp_path: Path) -> None:
    arrays = episode(0, 3) | {"actions": np.arange(3, dtype=np.int32), "observations": np.zeros((4, 2, 2), np.uint8)}
    fields = load(write(tmp_path / "i.hdf5", {"episode_0": arrays}))
    assert (fields["action"].dtype, fields["obs"].dtype) == (torch.int64, torch.uint8)


def test_values_that_are_no_numbers_are_found_at_load(tmp_path: Path) -> None:
    bad = episode(1, 3)
    bad["actions"][2] = np.nan
    path = write(tmp_path / "n.hdf5", {"episode_0": episode(0, 3), "episode_1": bad})
    with pytest.raises(ConfigError, match=r"path: episode_1/actions is not finite at row 2; found \[nan\]"):
        load(path)


def test_missing_terminals_are_reported_on_request(tmp_path: Path) -> None:
    path = write(tmp_path / "t.hdf5", {"episode_0": episode(0, 3, terminates=False)})
    assert not load(path)["terminal"].any()
    with pytest.raises(ConfigError, match="no terminals: none of the 1 episodes ends in one"):
        load(path, require_terminals=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": None}, "path: episode_0 lacks rewards; found actions, observations"),
        (
            {"observations": np.zeros((3, 2))},
            "episode_0/observations does not fit its 3 actions; found 3 rows; expected 4",
        ),
        ({"actions": [b"left", b"left", b"up"]}, r"episode_0/actions is no array of numbers; found .* of shape \(3,\)"),
        ({"rewards": 1.0}, r"episode_0/rewards is no array of numbers; found float64 of shape \(\)"),
        ({"rewards": np.zeros(2)}, "episode_0/rewards does not fit its 3 actions; found 2 rows; expected 3"),
    ],
)
def test_another_layout_is_described(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    arrays = {k: v for k, v in (episode(0, 3) | change).items() if v is not None}
    with pytest.raises(ConfigError, match=message):
        load(write(tmp_path / "l.hdf5", {"episode_0": arrays}))


def test_files_that_hold_no_episodes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"path: no such data set; .*expected an HDF5 file or a Minari directory"):
        load(tmp_path / "none.hdf5")
    with pytest.raises(ConfigError, match="the file holds no `episode_<k>` groups"):
        load(write(tmp_path / "empty.hdf5", {}))
    (tmp_path / "text.hdf5").write_text("no data")
    with pytest.raises(ConfigError, match="not an HDF5 file"):
        load(tmp_path / "text.hdf5")
    whole = write(tmp_path / "whole.hdf5", {"episode_0": episode(0, 3)}).read_bytes()
    (tmp_path / "cut.hdf5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match=r"path: cannot be read: .*truncated file.*; found .*cut.hdf5"):
        load(tmp_path / "cut.hdf5")


def test_episodes_of_different_shape(tmp_path: Path) -> None:
    other = episode(1, 3) | {"actions": np.zeros((3, 2))}
    with pytest.raises(ConfigError, match=r"actions differ in shape between episodes; found \(1,\) and \(2,\)"):
        load(write(tmp_path / "s.hdf5", {"episode_0": episode(0, 3), "episode_1": other}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fields": ["obs", "acton"]}, r"fields\[1\]: no such field; found 'acton'.*did you mean 'action'"),
        ({"history": 0}, "history: out of range"),
        ({"gamma": 1.5}, "gamma: out of range"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EpisodesSpec(batch_size=1, **options)
