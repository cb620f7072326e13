"""The judge: policies in gymnasium's environments, and those that do not fit them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ftrainer import build, builtin_registry, fit
from registry import ConfigError

gym = pytest.importorskip("gymnasium", reason="needs the extra rl")
pytest.importorskip("gymnasium.envs.box2d.lunar_lander", reason="needs the extra rl")
Image = pytest.importorskip("PIL.Image", reason="needs the extra rl")

from extensions import simulator as module  # noqa: E402
from extensions.lunar_lander import simulator  # noqa: E402
from extensions.simulator import JUDGE, Seen, Simulate, act, interval, make_policy  # noqa: E402


class Expert(nn.Module):
    """Gymnasium's heuristic for continuous engines, over a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(20.0))

    def forward(self, s: torch.Tensor) -> torch.Tensor:
        angle = (s[:, 0] * 0.5 + s[:, 2]).clamp(-0.4, 0.4)
        turn, rise = (angle - s[:, 4]) * 0.5 - s[:, 5], (0.55 * s[:, 0].abs() - s[:, 1]) * 0.5 - s[:, 3] * 0.5
        landed = (s[:, 6] + s[:, 7]) > 0
        turn, rise = torch.where(landed, 0.0, turn), torch.where(landed, -s[:, 3] * 0.5, rise)
        return torch.stack([rise * self.gain - 1, -turn * self.gain], dim=1)


class Swing(nn.Module):
    """A policy for the pendulum, (B, 3) to chunks (B, horizon, 1) or actions (B, 1)."""

    def __init__(self, horizon: int | None = None, history: int = 1) -> None:
        super().__init__()
        self.scale, self.horizon, self.history = nn.Parameter(torch.tensor(1.0)), horizon, history

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        assert obs.shape[1:] == ((3,) if self.history == 1 else (self.history, 3))
        last = obs if self.history == 1 else obs[:, -1]
        action = self.scale * last[:, 2:]
        return action if self.horizon is None else action[:, None].expand(-1, self.horizon, -1)


def pendulum(**options: Any) -> Simulate:
    return Simulate(environment="Pendulum-v1", episodes=2, **options)


def config(path: Path, n_in: int = 3, n_out: int = 1, **evaluator: Any) -> dict[str, Any]:
    """A policy for the pendulum, fitted to made-up data for one step."""
    shapes = {"x_shape": [n_in], "y_shape": [n_out]}
    data = {"_type_": "data.random_regression", "batch_size": 4, "steps_per_epoch": 1, **shapes}
    return {
        "settings": {"allow_imports": True, "allowed_import_prefixes": ["extensions."]},
        "imports": ["extensions.simulator"],
        "run": {"name": "judged", "out_dir": str(path), "compile": "eager"},
        "model": {"sequential": {"layers": [{"_type_": "nn.Linear", "in_features": n_in, "out_features": n_out}]}},
        "data": data,
        "io": {"_type_": "io.mapping", "model_kwargs": {"x": ["x"]}, "targets": {"y": ["y"]}},
        "loss": {"_type_": "loss.mse"},
        "optimizer": {"_type_": "optim.sgd", "lr": 0.1},
        "trainer": {"_type_": "trainer.default", "max_steps": 1},
        "evaluators": {"judge": {"_type_": "eval.gymnasium", "environment": "Pendulum-v1", "episodes": 2} | evaluator},
    }


def test_the_expert_solves_every_episode() -> None:
    returns, lengths = simulator().fly(make_policy(Expert()), 6)
    assert (returns > 200).all()
    assert len(set(returns)) == 6
    assert (lengths < 1000).all()


def test_side_by_side_is_one_after_the_other() -> None:
    policy, judge = make_policy(Expert()), simulator()
    together = judge.fly(policy, 3, first=100)
    alone = [judge.fly(policy, 1, first=100 + k) for k in range(3)]
    assert together.returns.tolist() == pytest.approx([float(one.returns[0]) for one in alone], abs=1e-3)
    assert together.lengths.tolist() == [one.lengths[0] for one in alone]


def test_policies_in_float64_fly_too() -> None:
    assert simulator().fly(make_policy(Expert().double()), 1, first=100).returns[0] > 200


@pytest.mark.parametrize("seed", [0, 3])
def test_seeds_are_those_of_the_judge(seed: int) -> None:
    starts = [gym.make("Pendulum-v1").reset(seed=JUDGE + 10_000 * seed + k)[0] for k in range(2)]
    seen: list[np.ndarray] = []

    def policy(observations: np.ndarray) -> np.ndarray:
        seen.append(observations.copy())
        return np.zeros((2, 1, 1), np.float32)

    pendulum(seed=seed).fly(policy, 2)
    assert np.array_equal(seen[0], np.stack(starts))


def test_figures_and_what_they_mean(tmp_path: Path) -> None:
    state = fit(*build(config(tmp_path, solved=-1e9)))
    judge = state.program.evaluators["judge"]
    figures = judge.evaluate(state)
    assert set(figures) == {"return", "return_std", "return_low", "return_high", "success", "length"}
    assert figures["return_low"] <= figures["return"] <= figures["return_high"]
    assert figures["success"] == 1
    assert figures["length"] == 200
    assert judge.evaluate(state) == figures
    assert "success" not in fit(*build(config(tmp_path))).program.evaluators["judge"].evaluate(state)


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    draws = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        low, high = interval(draws.exponential(1.0, 40))
        held += low <= 1.0 <= high
    assert 0.88 <= held / 200 <= 0.99


def test_a_chunk_is_executed_as_far_as_asked() -> None:
    calls: list[int] = []

    def policy(observations: np.ndarray) -> np.ndarray:
        calls.append(len(observations))
        return np.zeros((len(observations), 4, 1), np.float32)

    for execute, expected in ((1, 200), (3, 67), (4, 50)):
        calls.clear()
        flights = pendulum(execute=execute).fly(policy, 2)
        assert len(calls) == expected
        assert flights.lengths.tolist() == [200, 200]


def test_actions_stay_within_their_bounds() -> None:
    far = pendulum().fly(lambda obs: np.full((2, 1, 1), 50.0, np.float32), 2)
    bound = pendulum().fly(lambda obs: np.full((2, 1, 1), 2.0, np.float32), 2)
    assert far.returns.tolist() == bound.returns.tolist()


def test_a_history_begins_with_the_first_observation_repeated() -> None:
    seen = Seen(np.array([[1.0]]), 3)
    assert seen.window.tolist() == [[[1.0], [1.0], [1.0]]]
    seen.add(np.array([[2.0]]))
    assert seen.window.tolist() == [[[1.0], [1.0], [2.0]]]
    flights = pendulum(history=3, execute=2).fly(make_policy(Swing(horizon=2, history=3)), 2)
    assert flights.lengths.tolist() == [200, 200]


def test_a_picture_of_the_first_episode(tmp_path: Path) -> None:
    state = fit(*build(config(tmp_path, render=True)))
    (path,) = tmp_path.glob("*.gif")
    assert path.name == f"episode_{int(state.step):07d}.gif"
    with Image.open(path) as picture:
        assert picture.n_frames > 50
        assert min(picture.size) > 100


def test_a_picture_for_each_member(tmp_path: Path) -> None:
    given = config(tmp_path, render=True) | {"replicate": {"seeds": 2, "strategy": "loop"}}
    fit(*build(given))
    assert {path.name for path in tmp_path.glob("*.gif")} == {f"episode_0000001_seed={seed}.gif" for seed in (0, 1)}


def test_drawing_policies_draw_the_same_and_leave_torchs_generator_alone(tmp_path: Path) -> None:
    state = fit(*build(config(tmp_path)))
    judge = state.program.evaluators["judge"]
    before = torch.get_rng_state()
    first = judge.evaluate(state)
    torch.rand(3)
    assert judge.evaluate(state) == first
    torch.set_rng_state(before)


@pytest.mark.parametrize(
    ("evaluator", "message"),
    [
        ({"environment": "Pendulom-v1"}, r"judge\.environment: gymnasium makes no such environment: .*'Pendulum-v1'"),
        ({"environment": "nowhere:Pendulum-v1"}, "gymnasium makes no such environment"),
        ({"options": {"gravitas": 1}}, "gymnasium makes no such environment: .*gravitas"),
        ({"environment": "CartPole-v1"}, r"observations and actions must be boxes; found Discrete\(2\)"),
        ({"execute": 2}, r"evaluators\.judge\.execute: longer than the policy's chunks; found 2; expected at most 1"),
    ],
)
def test_judges_that_do_not_fit_are_refused_before_training(
    evaluator: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(config(tmp_path, **evaluator))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            {"n_in": 4},
            r"the policy cannot take the environment's observations: .*; expected observations of shape \(3,\)",
        ),
        (
            {"n_out": 2},
            r"the policy's actions are not the environment's; found \(2,\); expected \(1,\) for Pendulum-v1",
        ),
    ],
)
def test_policies_that_do_not_fit_are_refused_before_training(
    shapes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(config(tmp_path, **shapes))


@pytest.mark.parametrize(("head", "found"), [(nn.LSTM(3, 2), "tuple"), (nn.Flatten(0), r"shape \(12,\)")])
def test_what_is_no_policy(head: nn.Module, found: str) -> None:
    with pytest.raises(ConfigError, match=rf"model: is no policy; found {found}"):
        act(head, torch.zeros(4, 3))


def test_a_gaussian_acts_by_its_action() -> None:
    class Gaussian(nn.Module):
        def forward(self, obs: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"action": obs[:, :1], "mean": obs, "log_std": obs}

    assert act(Gaussian(), torch.zeros(4, 3)).shape == (4, 1, 1)


@pytest.mark.parametrize("name", ["episodes", "execute", "history"])
def test_counts_begin_at_one(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: out of range; found 0; expected 1 to 10000"):
        Simulate(**{"environment": "Pendulum-v1", name: 0})


def test_seeds_are_bounded() -> None:
    with pytest.raises(ConfigError, match="seed: out of range"):
        pendulum(seed=2**30)


def test_register_adds_the_key() -> None:
    assert "eval.gymnasium" in module.register(builtin_registry())
