"""Offline data by path: transitions, action chunks, n-step returns and histories out of recorded episodes."""

from __future__ import annotations

from pathlib import Path

import attrs
import torch
from torch import Tensor

from ftrainer.components.fields import between, count
from registry.issue import invalid, nearest
from registry.spec import component

from .episodes import Episodes, find_file, read_episodes
from .memory import Examples, MemorySpec
from .windows import Steps, lay_out, looking_ahead, looking_back, n_step_return

FIELDS = ("obs", "action", "action_mask", "reward", "next_obs", "terminal", "discount")


@component
class EpisodesSpec(MemorySpec):
    """One example per recorded step, from a file in Minari's layout; `val_fraction` is of the episodes.

    Fields of a batch, those that `fields` names, by default all that the options give a meaning:

    - `obs` (B, …), with `history` above 1 (B, history, …): the observations up to this step, oldest first;
    - `action` (B, …), with `chunk` above 1 (B, chunk, …): the actions from this step on, and `action_mask` (B, chunk)
      bool, False past the episode's end, where the last action repeats;
    - `reward` (B,): with `n_step` above 1 the discounted sum over as many steps, fewer at the episode's end;
    - `next_obs`: like `obs`, after those steps;
    - `terminal` (B,) 0 or 1: whether the episode terminated there. Running out of time is no termination;
    - `discount` (B,): `gamma ** steps`, what the value of `next_obs` is worth.

    Everything is laid out in memory, a history of h observations h times over.

    Attributes:
        fields: which fields to give.
        observation_keys: which parts of a dictionary observation to join.
        history: observations in `obs`.
        chunk: actions in `action`.
        n_step: rewards in `reward`.
        gamma: the discount in `reward` and `discount`.
        require_terminals: refuse data in which no episode terminates, from which no value can be learnt.
    """

    fields: tuple[str, ...] | None = None
    observation_keys: tuple[str, ...] = ()
    history: int = attrs.field(default=1, validator=count(1))
    chunk: int = attrs.field(default=1, validator=count(1))
    n_step: int = attrs.field(default=1, validator=count(1))
    gamma: float = attrs.field(default=0.99, validator=between(0, 1))
    require_terminals: bool = False

    def __attrs_post_init__(self) -> None:
        for index, name in enumerate(self.fields or ()):
            if name not in FIELDS:
                raise invalid(
                    "no such field",
                    "fields",
                    index,
                    found=repr(name),
                    expected=", ".join(FIELDS),
                    nearest=nearest(name, FIELDS),
                )

    def read(self, path: str | Path) -> Examples:
        """The steps of this file, laid out as the fields say.

        Raises:
            ConfigError: no such file, another layout, a value that is not finite, or no terminals where some must be.
        """
        episodes = read_episodes(path, self.observation_keys)
        if self.require_terminals and not episodes.arrays["terminations"].any():
            raise invalid(
                f"no terminals: none of the {len(episodes.lengths)} episodes ends in one, so no value can be learnt",
                "path",
                found=str(path),
                hint="set `require_terminals: false` for tasks that never terminate",
            )
        steps = lay_out(episodes.lengths)
        return Examples(self.examples(episodes, steps), groups=steps.episode)

    def examples(self, episodes: Episodes, steps: Steps) -> dict[str, Tensor]:
        """The chosen fields, one row per step."""
        arrays, names = episodes.arrays, self.fields or self._meaningful()
        reward, span = n_step_return(steps, arrays["rewards"], self.n_step, self.gamma)
        ahead, mask = looking_ahead(steps, self.chunk)
        make = {
            "obs": lambda: self._observations(arrays["observations"], steps, steps.here),
            "action": lambda: _unit(arrays["actions"][ahead], self.chunk),
            "action_mask": lambda: mask,
            "reward": lambda: reward,
            "next_obs": lambda: self._observations(arrays["observations"], steps, steps.here + span),
            "terminal": lambda: arrays["terminations"][steps.here + span - 1].to(torch.float32),
            "discount": lambda: (self.gamma ** span.to(torch.float64)).to(torch.float32),
        }
        return {name: make[name]() for name in names}

    def _observations(self, observations: Tensor, steps: Steps, at: Tensor) -> Tensor:
        # Each episode has one observation more than steps, so its own start further along by its number.
        rows = looking_back(steps, at, self.history) + steps.episode[:, None]
        return _unit(observations[rows], self.history)

    def _meaningful(self) -> tuple[str, ...]:
        idle = {"action_mask": self.chunk == 1, "discount": self.n_step == 1}
        return tuple(name for name in FIELDS if not idle.get(name))


def _unit(windows: Tensor, n: int) -> Tensor:
    """(N, n, …), or (N, …) where n is 1."""
    return windows.squeeze(1) if n == 1 else windows


@component
class HDF5Episodes(EpisodesSpec):
    """Recorded episodes by path (`data.hdf5_episodes`).

    Attributes:
        path: an HDF5 file, or the directory of a Minari data set.

    Raises:
        ConfigError: there is none, or `fields` names what no step has.
    """

    path: str

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        find_file(Path(self.path))

    def load(self) -> Examples:
        """Read the file and lay out its steps."""
        return self.read(self.path)
