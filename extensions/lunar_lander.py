"""LunarLander-v3 with continuous engines: demonstrations by gymnasium's scripted expert, and a simulator that judges.

Name it under `imports:` and use `_type_: data.lunar_lander` as data, `eval.lunar_lander` as evaluator.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

try:
    import Box2D  # noqa: F401 - gymnasium's own error about its absence is no ImportError
    import gymnasium as gym
    import h5py
    from gymnasium.envs.box2d.lunar_lander import heuristic
except ImportError as error:
    raise ImportError("extensions.lunar_lander needs gymnasium[box2d] and h5py: pip install 'ftrainer[rl]'") from error

import numpy as np

from ftrainer.api import EpisodesSpec, Examples
from registry import Registry, component, invalid

from .simulator import JUDGE, STRIDE, Simulate

ENVIRONMENT = "LunarLander-v3"
SOLVED = 200.0  # the return from which gymnasium's documentation calls an episode a solution
Mixture = tuple[tuple[int, float], ...]


@component
class Demonstrations(EpisodesSpec):
    """Episodes of the scripted expert, collected when the file is missing and reused afterwards.

    Besides what `data.hdf5_episodes` takes:

    Attributes:
        path: the HDF5 file; by default one under `datasets/` that is named after what it holds.
        fields: which fields to give; see `data.hdf5_episodes`.
        episodes: how many, or a mixture of qualities: `[[episodes, standard deviation of the action noise], …]`.
        seed: decides landscapes, starts and noise, and which episodes validate.
    """

    path: str | None = None
    fields: tuple[str, ...] | None = ("obs", "action")
    episodes: int | Mixture = 50

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        for index, (n, noise) in enumerate(self.mixture):
            if n < 1 or noise < 0:
                raise invalid("not a number of episodes and a noise", "episodes", index, found=f"[{n}, {noise}]")
        if not 0 < sum(n for n, _ in self.mixture) <= STRIDE:
            raise invalid("too few or too many", "episodes", found=str(self.episodes), expected=f"1 to {STRIDE} in all")
        if not 0 <= self.seed < JUDGE // STRIDE:
            raise invalid("out of range", "seed", found=str(self.seed), expected=f"0 to {JUDGE // STRIDE - 1}")

    @property
    def mixture(self) -> Mixture:
        """Episodes and their action noise, by quality."""
        return ((self.episodes, 0.0),) if isinstance(self.episodes, int) else self.episodes

    @property
    def file(self) -> Path:
        """Where the episodes lie, or will."""
        if self.path is not None:
            return Path(self.path)
        parts = "_".join(f"{n}x{noise:g}" for n, noise in self.mixture)
        return Path("datasets") / f"lunar_lander_{parts}_seed{self.seed}.hdf5"

    def load(self) -> Examples:
        """Collect the episodes unless the file is there; then read it.

        Raises:
            ConfigError: the file was made with other settings.
        """
        if not self.file.exists():
            write_episodes(self.file, collect(self.mixture, self.seed), self._origin())
        found = read_origin(self.file)
        if found != self._origin():
            raise invalid(
                f"{self.file} was made with other settings",
                "path",
                found=str(found),
                expected=str(self._origin()),
                hint="remove the file, or leave `path` out and have it named after its settings",
            )
        return self.read(self.file)

    def _origin(self) -> dict[str, str]:
        return {"environment": f"{ENVIRONMENT} continuous", "mixture": str(self.mixture), "seed": str(self.seed)}


Episode = Mapping[str, np.ndarray]


def collect(mixture: Mixture, seed: int) -> Iterator[Episode]:
    """Episodes of the scripted expert, Gaussian noise on its actions, a pure function of the arguments.

    Args:
        mixture: `((episodes, standard deviation of the action noise), …)`.
        seed: any two differ in every episode.

    Yields:
        `observations` (T+1, 8), `actions` (T, 2), `rewards` (T,), `terminations` and `truncations` (T,).
    """
    environment = gym.make(ENVIRONMENT, continuous=True)
    noises = [noise for n, noise in mixture for _ in range(n)]
    for index, noise in enumerate(noises):
        yield record(environment, seed * STRIDE + index, noise)
    environment.close()


def record(environment: gym.Env[Any, Any], seed: int, noise: float) -> Episode:
    """One episode of the expert; what is recorded is what was executed, noise included and clipped to [-1, 1]."""
    draws = np.random.default_rng(seed)
    observation, _ = environment.reset(seed=seed)
    observations = [observation]
    steps: list[tuple[np.ndarray, float, bool, bool]] = []
    while not steps or not (steps[-1][2] or steps[-1][3]):
        action = heuristic(environment, observation) + noise * draws.standard_normal(2)
        action = np.clip(action, -1, 1).astype(np.float32)
        observation, reward, terminated, truncated, _ = environment.step(action)
        observations.append(observation)
        steps.append((action, float(reward), terminated, truncated))
    actions, rewards, terminations, truncations = (np.array(column) for column in zip(*steps, strict=True))
    return {
        "observations": np.stack(observations),
        "actions": actions,
        "rewards": rewards,
        "terminations": terminations,
        "truncations": truncations,
    }


def write_episodes(path: Path, episodes: Iterator[Episode], origin: Mapping[str, str]) -> None:
    """Write episodes in Minari's layout, `origin` as attributes; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".collecting-") as folder:
        unfinished = Path(folder) / path.name
        with h5py.File(unfinished, "w") as root:
            root.attrs.update(origin)
            for index, episode in enumerate(episodes):
                group = root.create_group(f"episode_{index}")
                group.attrs.update(id=index, total_steps=len(episode["actions"]))
                for field, values in episode.items():
                    group.create_dataset(field, data=values)
        os.replace(unfinished, path)


def read_origin(path: Path) -> dict[str, str]:
    """What `write_episodes` was told of a file's origin.

    Raises:
        ConfigError: it is no HDF5 file.
    """
    if not h5py.is_hdf5(path):
        raise invalid("not an HDF5 file", "path", found=str(path))
    with h5py.File(path, "r") as root:
        return {name: str(value) for name, value in root.attrs.items()}


def simulator(episodes: int = 20, seed: int = 0, execute: int = 1, history: int = 1, render: bool = False) -> Simulate:
    """The environment of the demonstrations as a judge (`eval.lunar_lander`); a return of 200 is a success.

    Args:
        episodes, seed, execute, history, render: as for `eval.gymnasium`. No demonstration starts as they do.
    """
    return Simulate(
        environment=ENVIRONMENT, options={"continuous": True}, solved=SOLVED,
        episodes=episodes, seed=seed, execute=execute, history=history, render=render,
    )  # fmt: skip


def register(registry: Registry) -> Registry:
    """What `imports: [extensions.lunar_lander]` adds."""
    return registry.register("data.lunar_lander", Demonstrations).register("eval.lunar_lander", simulator)
