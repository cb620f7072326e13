"""Networks that judge actions and states, and what they learn from: rewards on a scale, targets one step ahead."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from ftrainer.api import MLP, Batch, Deferred, Model, Normalize, Tree, component, count, torch_model

AT = ("learner", "critic")
"""Where the configuration describes the networks, for errors."""


@component
class Critics:
    """Sizes of the networks beside the policy, and the scale of what they learn.

    Attributes:
        hidden: widths of the hidden layers.
        activation: between them.
        normalize: put observations on a common scale by the training split's statistics.
        reward: a module that rewards go through first, `reward.scale` or `reward.normalize`; null takes them raw.
    """

    hidden: tuple[int, ...] = attrs.field(default=(256, 256), validator=count(1))
    activation: str = "relu"
    normalize: bool = True
    reward: Deferred | None = None

    def __attrs_post_init__(self) -> None:
        with torch.device("meta"):  # takes no memory and draws nothing, but refuses what cannot be built
            MLP([1, *self.hidden, 1], self.activation)

    @functools.cached_property
    def q(self) -> Model:
        """Twin action values, `(obs, action)` to (B, 2)."""
        return self._model(TwinQ, ("obs", "action"))

    @functools.cached_property
    def q1(self) -> Model:
        """The first of the twin values alone, `(obs, action)` to (B,); it takes the parameters and buffers of both."""
        return self._model(FirstQ, ("obs", "action"))

    @functools.cached_property
    def v(self) -> Model:
        """State values, `obs` to (B,)."""
        return self._model(StateValue, ("obs",))

    @functools.cached_property
    def scale(self) -> Model:
        """Rewards to rewards."""
        return torch_model(self.reward or Deferred(key="nn.Identity", factory=nn.Identity), ("reward",))

    def init(self, keys: Mapping[str, Tensor], batch: Batch, statistics: Mapping[str, Any]) -> tuple[Tree, Tree]:
        """Parameters of the networks, and buffers of these and of the scale, by role.

        Args:
            keys: for each role that is wanted, `critic` (q) and `value` (v), what to draw its weights from.
            batch, statistics: as for a learner.
        """
        models = {"critic": self.q, "value": self.v}
        made = {role: models[role].init(key, inputs(models[role], batch), statistics) for role, key in keys.items()}
        _, scale = self.scale.init(next(iter(keys.values())), {"reward": batch["reward"]}, statistics)
        params = {role: params for role, (params, _) in made.items()}
        return params, {"reward": scale, **{role: buffers for role, (_, buffers) in made.items()}}

    def target(self, buffers: Tree, batch: Batch, next_value: Tensor, discount: Any) -> Tensor:
        """`r + γ (1 - terminal) V(s')`, (B,): an episode that ran out of time goes on, one that terminated does not.

        Args:
            buffers: the state's.
            batch: with `reward` and `terminal` (B,); with `discount` where rewards are summed over several steps.
            next_value: of `next_obs`, (B,).
            discount: γ of one step.
        """
        reward, _ = self.scale.apply({}, buffers["reward"], batch)
        return reward + batch.get("discount", discount) * (1 - batch["terminal"]) * next_value

    def _model(self, network: type[nn.Module], names: tuple[str, ...]) -> Model:
        kwargs = {"hidden": self.hidden, "activation": self.activation, "normalize": self.normalize}
        return torch_model(Deferred(key=network.__name__, factory=network, kwargs=kwargs, path=AT), names)


def inputs(model: Model, batch: Batch) -> dict[str, Tensor]:
    """The parts of a batch that a model takes, by their own names."""
    return {name: batch[name] for name in model.inputs}


class TwinQ(nn.Module):
    """Two action values that differ in their initial weights alone (Fujimoto et al., 2018, section 4.2)."""

    def __init__(self, hidden: tuple[int, ...], activation: str, normalize: bool) -> None:
        super().__init__()
        self.normalize = Normalize("obs") if normalize else nn.Identity()
        self.q1, self.q2 = (MLP([None, *hidden, 1], activation) for _ in range(2))

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """(B, O) and (B, A) to (B, 2)."""
        x = torch.cat([self.normalize(obs), action], dim=-1)
        return torch.cat([self.q1(x), self.q2(x)], dim=-1)


class FirstQ(TwinQ):
    """The first of two action values, without the work for the other."""

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """(B, O) and (B, A) to (B,)."""
        return self.q1(torch.cat([self.normalize(obs), action], dim=-1)).squeeze(-1)


class StateValue(nn.Module):
    """The value of a state."""

    def __init__(self, hidden: tuple[int, ...], activation: str, normalize: bool) -> None:
        super().__init__()
        self.normalize = Normalize("obs") if normalize else nn.Identity()
        self.v = MLP([None, *hidden, 1], activation)

    def forward(self, obs: Tensor) -> Tensor:
        """(B, O) to (B,)."""
        return self.v(self.normalize(obs)).squeeze(-1)


class ScaleReward(nn.Module):
    """`factor * reward + shift` (`reward.scale`).

    >>> ScaleReward(factor=0.1)(torch.tensor([100.0]))
    tensor([10.])
    """

    def __init__(self, factor: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.factor, self.shift = factor, shift

    def forward(self, reward: Tensor) -> Tensor:
        """(B,) to (B,)."""
        return self.factor * reward + self.shift


class NormalizeReward(Normalize):
    """Rewards divided by their standard deviation in the training split (`reward.normalize`).

    The mean stays: taking it off would pay for long episodes or for short ones.

    >>> scale = NormalizeReward(floor=0.0)
    >>> scale.fit({"reward": {"mean": torch.tensor(3.0), "std": torch.tensor(2.0)}})
    >>> scale(torch.tensor([5.0]))
    tensor([2.5000])
    """

    def __init__(self, field: str = "reward", floor: float = 1e-3) -> None:
        super().__init__(field, floor)

    def forward(self, reward: Tensor) -> Tensor:
        """(B,) to (B,)."""
        return reward / (self.std + self.floor)
