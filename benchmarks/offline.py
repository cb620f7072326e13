"""How many updates a second do offline learners make? IQL and TD3+BC against their papers' way to write them, and JAX.

    python -m benchmarks.offline
    python -m benchmarks.offline --only iql --rounds 15

At HalfCheetah's shapes: 17 observations, 6 actions, batches of 256, networks of two hidden layers of 256; float32,
Adam, on one core. Everybody trains on the same batches, which are on the device. The papers' way runs a backward pass,
an optimizer step and an `.item()` for each loss. Ours is a whole `fit` with its guard and its log, and its bare
compiled step.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from ftrainer import TrainState, build, builtin_registry, fit
from ftrainer.api import MemoryData, component, in_memory, pytree
from ftrainer.engine.stepper import Stepper, update

from . import harness, offline_torch
from .harness import Runner

OBS, ACTION, BATCH, WIDTH = 17, 6, 256, 256
N_BATCHES, STEPS = 8, 100
PAPER = "papers' torch"

ACTOR = (
    {"_type_": "normalize", "field": "obs"},
    {"_type_": "mlp", "dims": [OBS, WIDTH, WIDTH, ACTION], "final_activation": "tanh"},
)
LEARNERS: Mapping[str, tuple[Mapping[str, Any], ...]] = MappingProxyType(
    {"iql": (*ACTOR, {"_type_": "policy.spread", "out_features": ACTION}), "td3_bc": ACTOR}
)
"""The layers of each learner's policy."""


def batches(device: str) -> list[dict[str, Tensor]]:
    """Made-up transitions."""
    generator = torch.Generator().manual_seed(0)

    def batch() -> dict[str, Tensor]:
        obs, next_obs = torch.randn(2, BATCH, OBS, generator=generator).unbind()
        action = torch.rand(BATCH, ACTION, generator=generator) * 2 - 1
        reward, ends = torch.randn(BATCH, generator=generator), torch.rand(BATCH, generator=generator) < 0.01
        made = {"obs": obs, "action": action, "reward": reward, "next_obs": next_obs, "terminal": ends.float()}
        return {name: value.to(device) for name, value in made.items()}

    return [batch() for _ in range(N_BATCHES)]


@component
class Transitions:
    """The same transitions as data, from which `build` takes its shapes and statistics."""

    def open(self, *, seed: int, device: Any) -> MemoryData:
        """All batches, end to end."""
        fields = {name: torch.cat([batch[name] for batch in batches("cpu")]) for name in batches("cpu")[0]}
        return in_memory(fields, run_seed=seed, device=device, batch_size=BATCH)


def state_of(learner: str, device: str, **parts: Any) -> TrainState:
    """Step zero, as a user of ftrainer configures it."""
    configuration = {
        "settings": {"allow_imports": True, "allowed_import_prefixes": ["extensions."]},
        "imports": ["extensions.offline"],
        "run": {"name": "benchmark", "compile": "inductor", "device": device},
        "model": {"sequential": {"inputs": ["obs"], "layers": list(LEARNERS[learner])}},
        "learner": {"_type_": f"learner.{learner}", "critic": {"hidden": [WIDTH, WIDTH]}},
        "data": {"_type_": "data.transitions"},
        "optimizer": {"_type_": "optim.adam", "lr": 3e-4},
        "trainer": {"_type_": "trainer.default", "max_steps": STEPS, "val_every_n_epochs": None},
        **parts,
    }
    return build(configuration, registry=builtin_registry().register("data.transitions", Transitions))[0]


def timed(run: Callable[[], Any], device: str) -> float:
    """Seconds per update of a run of `STEPS` of them, after the device has ended them."""
    begin = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - begin) / STEPS


def papers(learner: str, device: str) -> Runner:
    """Several backward passes and `.item()` calls for each update."""
    algorithm = {"iql": offline_torch.IQL, "td3_bc": offline_torch.TD3BC}[learner](OBS, ACTION, WIDTH, device)
    data = batches(device)
    return lambda: timed(lambda: [algorithm.update(data[k % N_BATCHES]) for k in range(STEPS)], device)


def whole_fit(learner: str, device: str) -> Runner:
    """From the call of `fit` to its return."""
    state, data = state_of(learner, device), batches(device)
    return lambda: timed(lambda: fit(state, data), device)


def bare_step(learner: str, device: str) -> Runner:
    """The compiled update alone."""
    stepper = Stepper(pytree.map(torch.clone, state_of(learner, device)), "inductor")
    data = batches(device)
    return lambda: timed(lambda: [stepper(update, data[k % N_BATCHES]) for k in range(STEPS)], device)


def jax_peer(learner: str, device: str) -> Runner:
    """One jitted function for each update, its state donated."""
    import jax  # noqa: PLC0415 (a peer that need not be installed)

    from . import offline_jax  # noqa: PLC0415

    advance, state = {"iql": offline_jax.iql, "td3_bc": offline_jax.td3_bc}[learner](OBS, ACTION, WIDTH)
    data = [{name: jax.numpy.asarray(x.numpy()) for name, x in batch.items()} for batch in batches("cpu")]

    def run() -> None:
        nonlocal state
        for k in range(STEPS):
            state, metrics = advance(state, data[k % N_BATCHES])
        jax.block_until_ready((state, metrics))

    return lambda: timed(run, device)


CONTESTANTS: Mapping[str, Callable[[str, str], Runner]] = MappingProxyType(
    {PAPER: papers, "fit": whole_fit, "bare step": bare_step, "JAX": jax_peer}
)


def contestants() -> list[str]:
    """Those that are installed."""
    installed = all(importlib.util.find_spec(name) is not None for name in ("jax", "optax"))
    return [name for name in CONTESTANTS if name != "JAX" or installed]


def measure(learner: str, device: str, n_rounds: int) -> dict[str, Any]:
    """One learner, every contestant that is there."""
    runners = {name: CONTESTANTS[name](learner, device) for name in contestants()}
    harness.rounds(runners, 1)  # compiles, and warms the caches
    figures = harness.summary(harness.rounds(runners, n_rounds), PAPER)
    for row in figures.values():
        row["updates per second"] = round(1e6 / row["microseconds"]["median"])
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and write it down."""
    parser = argparse.ArgumentParser(prog="benchmarks.offline", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    harness.ask_device(parser)
    parser.add_argument("--only", choices=list(LEARNERS), help="a learner")
    chosen = parser.parse_args(arguments)
    if chosen.device == "cpu":
        harness.one_core()
    picked = [chosen.only] if chosen.only else list(LEARNERS)
    results = {learner: measure(learner, chosen.device, chosen.rounds) for learner in picked}
    harness.show("offline", results, PAPER)
    if not chosen.only:
        print(harness.write(harness.called("offline", chosen.device), {"rounds": chosen.rounds, "learners": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
