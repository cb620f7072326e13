"""Judging a policy in any gymnasium environment: episodes flown side by side, from seeds that no data was made with.

Name it under `imports:` and use `_type_: eval.gymnasium` as evaluator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

try:
    import gymnasium as gym
except ImportError as error:
    raise ImportError("extensions.simulator needs gymnasium: pip install 'ftrainer[rl]'") from error

import numpy as np
import torch

from ftrainer import to_module
from ftrainer.api import Plain, TrainState
from registry import Registry, component, invalid, nearest

JUDGE = 2**30  # environment seeds from here on judge, those below it collect
STRIDE = 10_000  # environment seeds to each seed of a configuration
RESAMPLES = 10_000
FRAME_STRIDE, FRAME_MS = 2, 40  # of a picture: every second frame of an episode, 25 in a second

Policy = Callable[[np.ndarray], np.ndarray]
"""Observations (B, …) to chunks of actions (B, H, A)."""


class Flights(NamedTuple):
    """What came of each episode, (episodes,) each."""

    returns: np.ndarray
    lengths: np.ndarray


@component
class Simulate:
    """Let the trained policy act in episodes that no data has seen (`eval.gymnasium`).

    Attributes:
        environment: gymnasium's id, `LunarLander-v3`; its actions and observations are boxes.
        options: arguments of the environment.
        episodes: how many.
        seed: decides starts and what the policy draws; the environments' own seeds begin at 2**30.
        solved: the return from which an episode is a success; null counts none.
        execute: how many of a chunk's actions are executed before the policy is asked again.
        history: how many observations the policy takes.
        render: write a GIF of the first episode into the run's directory, one for each member of a stack of runs.
    """

    environment: str
    options: Plain = None
    episodes: int = 20
    seed: int = 0
    solved: float | None = None
    execute: int = 1
    history: int = 1
    render: bool = False

    def __attrs_post_init__(self) -> None:
        for name, low, high in (
            ("episodes", 1, STRIDE),
            ("seed", 0, JUDGE // STRIDE - 1),
            ("execute", 1, STRIDE),
            ("history", 1, STRIDE),
        ):
            if not low <= getattr(self, name) <= high:
                raise invalid("out of range", name, found=str(getattr(self, name)), expected=f"{low} to {high}")

    def check(self, state: TrainState) -> None:
        """See that the policy fits the environment, before a step is trained.

        Raises:
            ConfigError: there is no such environment, its spaces are no boxes, or the policy does not fit them.
        """
        environment = self.make()
        shape, actions = tuple(environment.observation_space.shape or ()), environment.action_space.shape
        environment.close()
        observations = torch.zeros(2, *(() if self.history == 1 else (self.history,)), *shape)
        found = self._outputs(to_module(state), observations)
        if found.shape[0] != 2 or found.shape[2:] != actions:
            described = str(tuple(found.squeeze(1).shape[1:]))
            raise invalid("the policy's actions are not the environment's", "environment", found=described,
                          expected=f"{actions} for {self.environment}")  # fmt: skip
        if found.shape[1] < self.execute:
            raise invalid("longer than the policy's chunks", "execute", found=str(self.execute),
                          expected=f"at most {found.shape[1]}")  # fmt: skip

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Return (mean, deviation, 95% interval of the mean), share of successes, mean length."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            policy = make_policy(to_module(state))
            returns, lengths = self.fly(policy, self.episodes)
            if self.render:
                name = f"episode_{int(state.step):07d}{member_text(state.program.values)}.gif"
                write_gif(Path(state.program.run.out_dir) / name, self.film(policy))
        low, high = interval(returns)
        figures = {"return": returns.mean(), "return_std": returns.std(), "return_low": low, "return_high": high}
        figures |= {} if self.solved is None else {"success": (returns >= self.solved).mean()}
        return {name: float(x) for name, x in (figures | {"length": lengths.mean()}).items()}

    def make(self, **options: Any) -> gym.Env[Any, Any]:
        """A new environment.

        Raises:
            ConfigError: gymnasium does not know it, refuses its options, or its spaces are no boxes.
        """
        options = {**(self.options or {}), **options}
        try:
            environment = gym.make(self.environment, **options)
        except (gym.error.Error, TypeError, ValueError, ModuleNotFoundError) as error:
            names = nearest(self.environment, gym.registry)
            raise invalid(f"gymnasium makes no such environment: {error}", "environment", found=repr(self.environment),
                          nearest=() if self.environment in names else names) from error  # fmt: skip
        for space in (environment.observation_space, environment.action_space):
            if not isinstance(space, gym.spaces.Box):
                raise invalid("observations and actions must be boxes", "environment", found=str(space))
        return environment

    def fly(self, policy: Policy, episodes: int, first: int | None = None) -> Flights:
        """One episode in each of several environments, side by side.

        Args:
            policy: see `Policy`.
            episodes: how many.
            first: seed of the first environment, by default as `seed` decides; the others count on from it.
        """
        environments = gym.vector.SyncVectorEnv([lambda: Once(self.make())] * episodes)
        observations, _ = environments.reset(seed=JUDGE + self.seed * STRIDE if first is None else first)
        seen = Seen(observations, self.history)
        while not all(environments.get_attr("ended")):
            chunk = policy(seen.window)
            for action in np.swapaxes(chunk, 0, 1)[: self.execute]:
                seen.add(environments.step(clipped(action, environments.single_action_space))[0])
        returns, lengths = (np.array(environments.get_attr(name)) for name in ("total", "length"))
        environments.close()
        return Flights(returns, lengths)

    def film(self, policy: Policy) -> list[Any]:
        """Pictures (H, W, 3) uint8 of the first episode."""
        environment = Once(self.make(render_mode="rgb_array"))
        observation, _ = environment.reset(seed=JUDGE + self.seed * STRIDE)
        seen, frames = Seen(observation[None], self.history), [environment.render()]
        while not environment.ended:
            for action in policy(seen.window)[0][: self.execute]:
                seen.add(environment.step(clipped(action, environment.action_space))[0][None])
                frames.append(environment.render())
        environment.close()
        return frames[::FRAME_STRIDE]

    def _outputs(self, module: torch.nn.Module, observations: torch.Tensor) -> torch.Tensor:
        try:
            return act(module, observations)
        except (RuntimeError, IndexError) as error:
            expected = f"observations of shape {tuple(observations.shape[1:])} for {self.environment}"
            raise invalid(f"the policy cannot take the environment's observations: {error}", "environment",
                          expected=expected) from error  # fmt: skip


class Seen:
    """The last observations of several environments.

    Attributes:
        window: (B, …), or with a history above 1 (B, history, …), oldest first; before an episode its first repeats.
    """

    def __init__(self, observations: np.ndarray, history: int):
        self._several = history > 1
        self.window = np.stack([observations] * history, axis=1) if self._several else observations

    def add(self, observations: np.ndarray) -> None:
        """One more observation of each environment."""
        if not self._several:
            self.window = observations
            return
        self.window = np.concatenate([self.window[:, 1:], observations[:, None]], axis=1)


class Once(gym.Wrapper[Any, Any, Any, Any]):
    """One episode and its record. After its end the environment stands still, so that its neighbours can finish."""

    total, length, ended = 0.0, 0, False

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Start the episode."""
        self.total, self.length, self.ended = 0.0, 0, False
        self.observation, info = super().reset(**kwargs)
        return self.observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step, or none after the end; the end is told by `ended` alone, so nobody resets the environment."""
        if self.ended:
            return self.observation, 0.0, False, False, {}
        self.observation, reward, terminated, truncated, info = super().step(action)
        self.total, self.length, self.ended = self.total + float(reward), self.length + 1, terminated or truncated
        return self.observation, float(reward), False, False, info


def make_policy(module: torch.nn.Module) -> Policy:
    """A module over tensors as a function over arrays; see `act` for what the module may give."""
    example = next(iter(module.parameters()))

    def policy(observations: np.ndarray) -> np.ndarray:
        actions = act(module, torch.from_numpy(observations).to(example.device, example.dtype))
        return actions.to("cpu", torch.float32).numpy()

    return policy


def act(module: torch.nn.Module, observations: torch.Tensor) -> torch.Tensor:
    """Chunks of actions (B, H, A) from a module that gives actions (B, A), chunks, or a Gaussian with its `action`.

    Raises:
        ConfigError: the module gives something else.
    """
    with torch.no_grad():
        outputs = module(observations)
    actions = outputs.get("action") if isinstance(outputs, Mapping) else outputs
    if not isinstance(actions, torch.Tensor) or actions.ndim not in (2, 3):
        found = f"shape {tuple(actions.shape)}" if isinstance(actions, torch.Tensor) else type(outputs).__name__
        raise invalid("is no policy", "model", found=found, expected="actions (B, A), or chunks of them (B, H, A)")
    return actions if actions.ndim == 3 else actions[:, None]


def clipped(action: np.ndarray, space: Any) -> np.ndarray:
    """An action within the bounds of its space, a box."""
    return np.clip(action, space.low, space.high)


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron, 1979), always from the same draws.

    >>> interval(np.array([1.0, 1.0, 1.0]))
    (1.0, 1.0)
    """
    rows = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[rows].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def member_text(values: Mapping[str, Any]) -> str:
    """What tells the file of a member from those of the others; nothing for a plain run.

    >>> member_text({"run.seed": 3, "optimizer.lr": 0.01}), member_text({})
    ('_seed=3_lr=0.01', '')
    """
    return "".join(f"_{path.rpartition('.')[2]}={value}" for path, value in values.items())


def write_gif(path: Path, frames: list[np.ndarray]) -> None:
    """Write pictures (H, W, 3) as an animation of half their size."""
    from PIL import Image  # noqa: PLC0415 - of the extra `rl`, wanted by `render` alone

    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = (Image.fromarray(frame).reduce(2) for frame in frames)
    first.save(path, save_all=True, append_images=rest, duration=FRAME_MS, loop=0, optimize=True)


def register(registry: Registry) -> Registry:
    """What `imports: [extensions.simulator]` adds."""
    return registry.register("eval.gymnasium", Simulate)
