"""Paired measurements: every contestant once per round, in turn, so that what slows the machine slows all of them."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("ftrainer", "torch", "numpy", "optree", "lightning", "jax", "jaxlib", "optax")

Runner = Callable[[], float]
"""One measurement of a contestant, warmed up: seconds per step."""


def one_core() -> None:
    """Confine this process, and every library's threads, to one core. Call it before JAX is imported."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    torch.set_num_threads(1)


def environment() -> dict[str, Any]:
    """What a figure depends on besides the code: machine, versions, threads."""
    versions = {name: version(name) for name in PACKAGES if importlib.util.find_spec(name) is not None}
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "gpus": gpus,
        "python": platform.python_version(),
        "versions": versions,
        "threads": torch.get_num_threads(),
        "mkldnn": torch.backends.mkldnn.is_available(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def version(package: str) -> str:
    """An installed distribution's version; a source tree has none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "source tree"


def processor() -> str:
    """The processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def rounds(contestants: Mapping[str, Runner], n: int) -> dict[str, list[float]]:
    """Measure each contestant `n` times, A B A B …, every other round backwards.

    Returns:
        Seconds per step, by contestant, in the order of the rounds.
    """
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(n):
        for name in list(contestants)[:: 1 if number % 2 == 0 else -1]:
            taken[name].append(contestants[name]())
    return taken


@attrs.frozen(kw_only=True)
class Spread:
    """The middle of some measurements, and how far they lie apart."""

    median: float
    low: float
    high: float
    least: float
    n: int


def spread(values: Sequence[float]) -> Spread:
    """Median, quartiles and minimum.

    >>> spread([3.0, 1.0, 2.0])
    Spread(median=2.0, low=1.0, high=3.0, least=1.0, n=3)
    """
    low, median, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return Spread(median=median, low=low, high=high, least=min(values), n=len(values))


def ratios(taken: Mapping[str, Sequence[float]], base: str) -> dict[str, Spread]:
    """How many times as long `base` took as each contestant, round by round: above 1 is faster than `base`."""
    return {
        name: spread([reference / own for reference, own in zip(taken[base], values, strict=True)])
        for name, values in taken.items()
    }


def summary(taken: Mapping[str, Sequence[float]], base: str) -> dict[str, Any]:
    """Microseconds per step and speed against `base`, by contestant, as JSON data."""
    speeds = ratios(taken, base)
    return {
        name: {
            "microseconds": rounded(spread([1e6 * value for value in values])),
            f"times as fast as {base}": rounded(speeds[name]),
        }
        for name, values in taken.items()
    }


def rounded(figures: Spread) -> dict[str, float]:
    """Four significant digits: more would be noise."""
    return {name: float(f"{value:.4g}") for name, value in attrs.asdict(figures).items()}


def show(title: str, results: Mapping[str, Mapping[str, Any]], base: str) -> None:
    """Print one row per workload and one column per contestant: median time, quartiles, and speed against `base`."""
    names = list(dict.fromkeys(name for row in results.values() for name in row))
    table = Table(title=f"{title}\nmicroseconds per step: median (quartiles), and times as fast as {base}")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    for workload, row in results.items():
        table.add_row(workload, *(cell(row.get(name), base) for name in names))
    Console(width=None if os.isatty(1) else 40 + 24 * len(names)).print(table)


def cell(figures: Mapping[str, Any] | None, base: str) -> str:
    """One contestant on one workload."""
    if figures is None:
        return "–"
    time, speed = figures["microseconds"], figures[f"times as fast as {base}"]
    return f"{time['median']:,.0f} ({time['low']:,.0f}–{time['high']:,.0f})\n{speed['median']:.2f}×"


def ask_device(parser: argparse.ArgumentParser) -> None:
    """Add the option `--device`."""
    parser.add_argument(
        "--device", default="cpu", choices=["cpu", "cuda"], help="figures of a GPU have files of their own"
    )


def called(name: str, device: str) -> str:
    """What the results of a question are called, by where it was asked.

    >>> called("step", "cpu"), called("step", "cuda")
    ('step', 'step_cuda')
    """
    return name if device == "cpu" else f"{name}_{device}"


def write(name: str, results: Mapping[str, Any]) -> Path:
    """Write figures with their environment to `results/<name>.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"environment": environment(), **results}, indent=1) + "\n")
    return path


def merged(name: str, results: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured before under other names, and these; for a question that is answered in parts."""
    path = RESULTS / f"{name}.json"
    before = json.loads(path.read_text()) if path.is_file() else {}
    return {key: value for key, value in before.items() if key != "environment"} | dict(results)
