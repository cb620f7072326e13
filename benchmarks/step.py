"""How long does a training step take? A whole `fit` against its own bare step, a hand-written loop, and its peers.

    python -m benchmarks.step
    python -m benchmarks.step --only "mlp 64" --rounds 15
    python -m benchmarks.step --device cuda

On one core or one GPU, float32, AdamW. Every round trains each contestant for the workload's number of steps, in turn;
speeds are medians of the rounds' own ratios. Peers that are not installed (`pip install ftrainer[bench]`) are left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from . import harness
from .peers import CONTESTANTS, HAND, is_there
from .workloads import WORKLOADS, Workload


def measure(workload: Workload, n_rounds: int, names: Sequence[str]) -> dict[str, Any]:
    """One workload, every contestant that is there."""
    runners = {name: CONTESTANTS[name](workload) for name in names if is_there(name, workload)}
    harness.rounds(runners, 1)  # compiles, and warms the caches
    return harness.summary(harness.rounds(runners, n_rounds), HAND)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and write it down."""
    parser = argparse.ArgumentParser(prog="benchmarks.step", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", action="append", help="a workload, by name; may be repeated")
    parser.add_argument("--peer", action="append", help="a contestant besides the hand-written loop; may be repeated")
    harness.ask_device(parser)
    chosen = parser.parse_args(arguments)
    if chosen.device == "cpu":
        harness.one_core()
    names = [HAND, *chosen.peer] if chosen.peer else list(CONTESTANTS)
    picked = [workload for workload in WORKLOADS if not chosen.only or workload.name in chosen.only]
    results = {}
    for workload in picked:
        results[workload.name] = measure(workload.on(chosen.device), chosen.rounds, names)
        harness.show(workload.name, {workload.name: results[workload.name]}, HAND)
    harness.show("step", results, HAND)
    if len(picked) == len(WORKLOADS) and not chosen.peer:
        print(harness.write(harness.called("step", chosen.device), {"rounds": chosen.rounds, "workloads": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
