"""How much memory does training take at its peak, and does it grow?

    python -m benchmarks.memory

Resident memory of processes of their own, compiled code and libraries not counted: each trains once to warm up, lets
everything go, and is measured from there. The growth is read off one `fit` of 100,000 steps.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from . import harness
from .workloads import LR, WEIGHT_DECAY, Workload, perceptron

MB = 1024.0
WIDE = perceptron(4096, 6)
"""17 → 4096 → 4096 → 6: weights, moments and gradients are 270 MB in float32, activations 13."""
LONG = perceptron(64, 100_000)
READ_AT = (10_000, 40_000, 70_000, 100_000)


def hand_written(workload: Workload) -> None:
    """The loop that everyone writes, in place, with torch's fused AdamW."""
    module, batches = workload.module().train(), workload.batches()
    optimizer = torch.optim.AdamW(module.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    for index in range(workload.steps):
        batch = batches[index % len(batches)]
        optimizer.zero_grad(set_to_none=True)
        F.mse_loss(module(batch["x"]), batch["y"]).backward()
        optimizer.step()


def handed_over(guard: str) -> Callable[[Workload], None]:
    """`fit(…, donate=True)`."""

    def run(workload: Workload) -> None:
        from ftrainer import fit  # noqa: PLC0415 (the hand-written loop's process does without)

        from .peers import state_of  # noqa: PLC0415

        fit(state_of(workload, "inductor", {"trainer.guard": guard}), workload.batches(), donate=True)

    return run


CONTESTANTS: dict[str, Callable[[Workload], None]] = {
    "hand-written": hand_written, "fit, guard off": handed_over("off"), "fit": handed_over("grads"),
}  # fmt: skip


def peak(name: str) -> float:
    """Megabytes at the peak of a run above what the process held before it, warmed up."""
    run = CONTESTANTS[name]
    run(WIDE)
    before = settled()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    run(WIDE)
    return (resident("VmHWM") - before) / MB


def settled() -> float:
    """Kilobytes resident once all that nobody holds is given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return resident("VmRSS")


def resident(field: str) -> float:
    """A line of this process's status, in kilobytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(field)))


def growth() -> dict[str, float]:
    """Megabytes resident at some steps of one long `fit`."""
    from ftrainer.engine.loop import iterate  # noqa: PLC0415
    from ftrainer.functional.events import StepEnd  # noqa: PLC0415

    from .peers import state_of  # noqa: PLC0415

    found = {}
    for event in iterate(state_of(LONG, "inductor"), LONG.batches(), donate=True):
        if isinstance(event, StepEnd) and event.step in READ_AT:
            found[str(event.step)] = settled() / MB
    return found


def child(name: str) -> Any:
    """What a process of its own found."""
    command = [sys.executable, "-m", "benchmarks.memory", "--child", name]
    run = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return json.loads(run.stdout.splitlines()[-1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures and write them down."""
    parser = argparse.ArgumentParser(prog="benchmarks.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.child:
        print(json.dumps(growth() if chosen.child == "growth" else peak(chosen.child)))
        return 0
    peaks = harness.rounds({name: lambda name=name: child(name) for name in CONTESTANTS}, chosen.rounds)
    table = Table("", "MB at the peak", "times the hand-written loop's", title=WIDE.name)
    for name, values in peaks.items():
        found = harness.spread(values)
        ratio = found.median / harness.spread(peaks["hand-written"]).median
        table.add_row(name, f"{found.median:.0f} ({found.low:.0f}–{found.high:.0f})", f"{ratio:.3f}")
    over_time = child("growth")
    Console().print(table, f"{LONG.name}, MB resident after steps: {over_time}")
    content = {name: harness.rounded(harness.spread(values)) for name, values in peaks.items()}
    print(harness.write("memory", {"workload": WIDE.name, "peak MB": content, "MB after steps": over_time}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
