"""What the transcriptions of offline algorithms have in common: networks with given weights, and transitions."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from ftrainer import builtin_registry, jit
from ftrainer.engine.stepper import update
from ftrainer.functional import pytree, random
from ftrainer.functional.state import Program, TrainState
from ftrainer.model import Model, build_model

OBS, ACTION, BATCH, HIDDEN = 5, 3, 32, 16
UPDATES = 200
TOLERANCE = 1e-9


def transitions(index: int) -> dict[str, Tensor]:
    """Batch number `index`, float64; its observations are neither centred nor of one scale."""
    draws = random.split(random.fold_in(random.key(5), index), 5)
    obs = random.normal(draws[0], (2, BATCH, OBS), torch.float64) * torch.arange(1.0, OBS + 1, dtype=torch.float64) + 3
    return {
        "obs": obs[0],
        "action": random.normal(draws[1], (BATCH, ACTION), torch.float64).clamp(-1, 1),
        "reward": random.normal(draws[2], (BATCH,), torch.float64),
        "next_obs": obs[1],
        "terminal": random.bernoulli(draws[3], 0.2, (BATCH,)).to(torch.float64),
    }


def statistics() -> dict[str, dict[str, Tensor]]:
    """Mean and deviation of the observations of ten batches, of no more digits than a float32 model keeps."""
    obs = torch.cat([transitions(index)["obs"] for index in range(10)])
    moments = {"mean": obs.mean(0), "std": obs.std(0, correction=0)}
    return {"obs": {name: value.float().double() for name, value in moments.items()}}


def normalised(batch: Mapping[str, Tensor], floor: float = 1e-3) -> dict[str, Tensor]:
    """The batch with its observations normalised beforehand, as the papers' code does with the whole data set."""
    of = statistics()["obs"]
    scale = {name: (batch[name] - of["mean"]) / (of["std"] + floor) for name in ("obs", "next_obs")}
    return {**batch, **scale}


def policy(*head: Mapping[str, Any]) -> Model:
    """A normalised perceptron and what stands on top of it."""
    body = {"_type_": "mlp", "dims": [OBS, HIDDEN, HIDDEN], "final_activation": "relu"}
    layers = [{"_type_": "normalize", "field": "obs"}, body, *head]
    return build_model(builtin_registry(), {"sequential": {"inputs": ["obs"], "layers": layers}})


def start(learner: Any) -> TrainState:
    """Step zero of a learner in float64: weights are drawn in float32 and widened."""
    example = {name: value.float() for name, value in transitions(0).items()}
    state = attrs.evolve(learner.init(random.key(0), example, statistics()), program=Program(learner=learner))
    return pytree.map(lambda x: x.double() if x.is_floating_point() else x, state)  # type: ignore[no-any-return]


def trained(state: TrainState, updates: int = UPDATES) -> TrainState:
    """The state after so many updates by the traced step."""
    step = jit(update, backend="trace")
    for index in range(updates):
        state, _ = step(state, transitions(index))
    return state


def mlp(n_in: int, *widths: int) -> nn.Sequential:
    """Linear layers with ReLU between them, float64."""
    pairs = list(itertools.pairwise((n_in, *widths)))
    layers = [layer for a, b in pairs for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1]).double()


def loaded(module: nn.Module, params: Mapping[str, Tensor], prefix: str = "") -> nn.Module:
    """The module with the weights of these names behind a prefix."""
    module.load_state_dict({name: params[prefix + name] for name in module.state_dict()})
    return module


def assert_follows(module: nn.Module, tree: Mapping[str, Tensor], prefix: str = "") -> None:
    """Every parameter of a module equals the one of the same name."""
    for name, weight in module.named_parameters():
        torch.testing.assert_close(tree[prefix + name], weight.detach(), rtol=0, atol=TOLERANCE)


def assert_moments(
    module: nn.Module, optimizer: torch.optim.Optimizer, opt_state: Mapping[str, Any], role: str, prefix: str = ""
) -> None:
    """Both of Adam's moments of every parameter of a module equal those of the phase."""
    for name, weight in module.named_parameters():
        for ours, theirs in (("mu", "exp_avg"), ("nu", "exp_avg_sq")):
            moment = opt_state[ours][role][prefix + name]
            torch.testing.assert_close(moment, optimizer.state[weight][theirs], rtol=0, atol=TOLERANCE)
