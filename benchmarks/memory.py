"""How much memory does training take at its peak, and does it grow?

    python -m benchmarks.memory
    python -m benchmarks.memory --device cuda

Resident memory of processes of their own, compiled code and libraries not counted: each trains once to warm up, lets
everything go, and is measured from there. The growth is read off one `fit` of 100,000 steps. On a GPU it is what
tensors take there, by the count of torch's allocator.
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

import attrs
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


def handed_over(guard: str, backend: str = "inductor") -> Callable[[Workload], None]:
    """`fit(…, donate=True)`."""

    def run(workload: Workload) -> None:
        from ftrainer import fit  # noqa: PLC0415 (the hand-written loop's process does without)

        from .peers import state_of  # noqa: PLC0415

        fit(state_of(workload, backend, {"trainer.guard": guard}), workload.batches(), donate=True)

    return run


CONTESTANTS: dict[str, Callable[[Workload], None]] = {
    "hand-written": hand_written, "fit, guard off": handed_over("off"), "fit": handed_over("grads"),
    "fit, cuda_graphs": handed_over("grads", "cuda_graphs"),
}  # fmt: skip


def contestants(device: str) -> list[str]:
    """Those that a device knows."""
    return [name for name in CONTESTANTS if device == "cuda" or not name.endswith("cuda_graphs")]


def peak(name: str, device: str) -> float:
    """Megabytes at the peak of a run above what the process held before it, warmed up."""
    run = CONTESTANTS[name]
    if device == "cuda":
        return peak_there(run)
    run(WIDE)
    before = settled()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    run(WIDE)
    return (resident("VmHWM") - before) / MB


def peak_there(run: Callable[[Workload], None]) -> float:
    """The same of the GPU's memory."""
    there = attrs.evolve(WIDE, device="cuda")
    run(there)
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run(there)
    return (torch.cuda.max_memory_allocated() - before) / MB / MB


def held(device: str) -> float:
    """Megabytes that are in use now."""
    if device == "cuda":
        gc.collect()
        return torch.cuda.memory_allocated() / MB / MB
    return settled() / MB


def settled() -> float:
    """Kilobytes resident once all that nobody holds is given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return resident("VmRSS")


def resident(field: str) -> float:
    """A line of this process's status, in kilobytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(field)))


def growth(device: str) -> dict[str, float]:
    """Megabytes in use at some steps of one long `fit`."""
    from ftrainer.engine.loop import iterate  # noqa: PLC0415
    from ftrainer.functional.events import StepEnd  # noqa: PLC0415

    from .peers import state_of  # noqa: PLC0415

    found, there = {}, LONG.on(device)
    for event in iterate(state_of(there, "inductor"), there.batches(), donate=True):
        if isinstance(event, StepEnd) and event.step in READ_AT:
            found[str(event.step)] = held(device)
    return found


def child(name: str, device: str) -> Any:
    """What a process of its own found."""
    command = [sys.executable, "-m", "benchmarks.memory", "--child", name, "--device", device]
    run = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return json.loads(run.stdout.splitlines()[-1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures and write them down."""
    parser = argparse.ArgumentParser(prog="benchmarks.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    harness.ask_device(parser)
    chosen = parser.parse_args(arguments)
    device = chosen.device
    if chosen.child:
        print(json.dumps(growth(device) if chosen.child == "growth" else peak(chosen.child, device)))
        return 0
    peaks = harness.rounds({n: lambda n=n: child(n, device) for n in contestants(device)}, chosen.rounds)
    table = Table("", "MB at the peak", "times the hand-written loop's", title=WIDE.name)
    for name, values in peaks.items():
        found = harness.spread(values)
        ratio = found.median / harness.spread(peaks["hand-written"]).median
        table.add_row(name, f"{found.median:.0f} ({found.low:.0f}–{found.high:.0f})", f"{ratio:.3f}")
    over_time = child("growth", device)
    Console().print(table, f"{LONG.name}, MB in use after steps: {over_time}")
    content = {name: harness.rounded(harness.spread(values)) for name, values in peaks.items()}
    figures = {"workload": WIDE.name, "peak MB": content, "MB after steps": over_time}
    print(harness.write(harness.called("memory", device), figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
