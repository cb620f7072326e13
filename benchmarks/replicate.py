"""What is it worth to train many runs in one step? Replica-steps per second against one run after another.

    python -m benchmarks.replicate
    python -m benchmarks.replicate --device cuda

Peers, all on the same data of 4,096 examples (17 inputs, 6 targets), each gathering its batches from it: the loop
that one writes by hand in PyTorch (eager, fused AdamW), run once for each seed; this library's own compiled run of one
seed; `replicate` with all seeds, by each strategy, and as `auto` decides. Ours are timed between two events of `fit`'s
own loop, so that all it does between steps counts; building and compiling do not. In every round each peer trains for
as long as the others, in turn, and medians of rounds are compared. Replica-steps are steps times members.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ftrainer import build, iterate
from ftrainer.engine import checkpoint
from ftrainer.functional.events import StepEnd

from . import harness

RESULTS = Path(__file__).parent / "results"
EXAMPLES, INPUTS, TARGETS = 4096, 17, 6
FOREVER = 10**9


class Case(NamedTuple):
    """A size, and what it shall reach as (peer, times as many replica-steps)."""

    width: int
    batch: int
    members: int
    goals: Mapping[str, float] = MappingProxyType({})

    def __str__(self) -> str:
        return f"{self.members} x width {self.width}, batch {self.batch}"


CASES = (
    Case(32, 32, 64, {"hand": 20.0, "solo": 5.0}),
    Case(64, 64, 16, {"hand": 7.0}),
    Case(64, 256, 8),
    Case(256, 256, 8),
    Case(1024, 256, 4),
)
Run = Callable[[float], float]
"""Trains for about so many seconds and says how many replica-steps it made in each of them."""


def configuration(case: Case, device: str, backend: str, **parts: Any) -> dict[str, Any]:
    """A run of an MLP with two hidden layers that goes on for ever and logs next to nothing."""
    return {
        "run": {"name": "replicate", "compile": backend, "device": device},
        "model": {"sequential": {"layers": [{"_type_": "mlp", "dims": [None, case.width, case.width, TARGETS]}]}},
        "data": {"_type_": "data.random_regression", "batch_size": case.batch,
                 "steps_per_epoch": EXAMPLES // case.batch, "x_shape": [INPUTS], "y_shape": [TARGETS]},
        "io": {"_type_": "io.mapping", "model_kwargs": {"x": ["x"]}, "targets": {"y": ["y"]}},
        "loss": {"_type_": "loss.torch", "fn": {"_type_": "nn.MSELoss"}},
        "optimizer": {"_type_": "optim.adamw", "lr": 1e-3},
        "trainer": {"_type_": "trainer.default", "max_steps": FOREVER, "log_every_n_steps": 500,
                    "val_every_n_epochs": None},
        **parts,
    }  # fmt: skip


def ours(case: Case, device: str, members: int, backend: str = "inductor", **replicate: Any) -> Run:
    """The steps of a run that is under way, one round after another."""
    parts = {"replicate": {"seeds": members, **replicate}} if replicate else {}
    state, data = build(configuration(case, device, backend, **parts))
    ends = (event for event in iterate(state, data, donate=True) if isinstance(event, StepEnd))
    return lambda seconds: paced(lambda: next(ends).state.step, members, seconds)


def by_hand(case: Case, device: str) -> Run:
    """The steps of the loop that one writes by hand, one seed."""
    torch.manual_seed(0)
    layers = [nn.Linear(INPUTS, case.width), nn.ReLU(), nn.Linear(case.width, case.width), nn.ReLU(),
              nn.Linear(case.width, TARGETS)]  # fmt: skip
    model = nn.Sequential(*layers).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    x, y = torch.randn(EXAMPLES, INPUTS, device=device), torch.randn(EXAMPLES, TARGETS, device=device)
    batches = endless(case.batch, device)

    def step() -> Tensor:
        rows = next(batches)
        loss = nn.functional.mse_loss(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return lambda seconds: paced(step, 1, seconds)


def endless(size: int, device: str) -> Iterator[Tensor]:
    """Rows of batches, shuffled anew in every epoch."""
    while True:
        yield from torch.randperm(EXAMPLES, device=device).split(size)


def paced(step: Callable[[], Tensor], members: int, seconds: float) -> float:
    """Replica-steps per second of at least a few steps, after the device has ended them."""
    start, n = time.perf_counter(), 0
    while n < 5 or time.perf_counter() - start < seconds:
        last = step()
        n += 1
    if last.is_cuda:
        torch.cuda.synchronize()
    return n * members / (time.perf_counter() - start)


def peers(case: Case, device: str) -> dict[str, Run]:
    """Everybody who takes part; on a GPU, played from CUDA graphs too."""
    strategies = ("vmap", "loop") if device == "cuda" else ()
    return {
        "hand": by_hand(case, device),
        "solo": ours(case, device, 1),
        "vmap": ours(case, device, case.members, strategy="vmap"),
        "loop": ours(case, device, case.members, strategy="loop"),
        "auto": ours(case, device, case.members, strategy="auto"),
        **{f"{name}+graphs": ours(case, device, case.members, "cuda_graphs", strategy=name) for name in strategies},
    }


def measure(case: Case, device: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Medians over rounds in which everybody takes a turn, and whom `auto` falls short of."""
    runs = peers(case, device)
    for run in runs.values():
        run(seconds / 5)  # compiles
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            taken[name].append(run(seconds))
    rates = {name: statistics.median(values) for name, values in taken.items()}
    better = max(
        ("vmap", "loop"), key=lambda name: rates[name]
    )  # by medians: the best of two noisy figures is too good
    auto = statistics.median(a / b for a, b in zip(taken["auto"], taken[better], strict=True))
    ratios = {
        name: statistics.median(a / b for a, b in zip(taken["auto"], taken[name], strict=True))
        for name in ("hand", "solo")
    }
    return {
        "replica-steps per second": {name: round(rate) for name, rate in rates.items()},
        "auto over": {name: round(ratio, 2) for name, ratio in ratios.items()},
        "auto over the better strategy": round(auto, 3),
        "goals": dict(case.goals),
    }


def table(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The lines to print."""
    names = list(next(iter(results.values()))["replica-steps per second"])
    yield (
        f"{'replica-steps per second':<32}"
        + "".join(f"{n:>{width(n)}}" for n in names)
        + "   auto/hand  /solo  /better"
    )
    for case, found in results.items():
        rates, over = found["replica-steps per second"], found["auto over"]
        line = f"{case:<32}" + "".join(f"{rates[n]:>{width(n)}}" for n in names)
        missed = [f"{name} {goal:g}x" for name, goal in found["goals"].items() if over[name] < goal]
        note = f"   short of {', '.join(missed)}" if missed else ""
        yield line + f"{over['hand']:>12.1f}{over['solo']:>7.1f}{found['auto over the better strategy']:>9.2f}" + note


def width(name: str) -> int:
    """Characters of a peer's column.

    >>> width("auto"), width("vmap+graphs")
    (9, 13)
    """
    return max(9, len(name) + 2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and write it down."""
    parser = argparse.ArgumentParser(prog="benchmarks.replicate", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.6)
    harness.ask_device(parser)
    parser.add_argument("--cases", type=int, default=len(CASES), help="how many of them, from the smallest up")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = {}
    for case in CASES[: chosen.cases]:
        results[str(case)] = measure(case, chosen.device, chosen.rounds, chosen.seconds)
        print("\n".join(table(results)) if len(results) == 1 else list(table(results))[-1], flush=True)
    RESULTS.mkdir(exist_ok=True)
    content = {"environment": checkpoint.environment(), "device": chosen.device, **results}
    path = RESULTS / f"{harness.called('replicate', chosen.device)}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
