"""What does a page about many runs cost? Twenty runs of 10,000 rows each, as `ftrainer report` and as its page.

    python -m benchmarks.report

The command is timed as a new process, imports included, with its modules' bytecode in its cache.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from benchmarks.config import command, shown
from benchmarks.harness import rounded, spread, write
from ftrainer.engine.rundir import HEADER

RUNS, ROWS = 20, 10_000
SECONDS, MEGABYTES = 5.0, 5.0
"""What a page may cost at most."""


def write_run(path: Path, seed: int) -> None:
    """A run's directory as training leaves it: a noisy curve with two figures, one row in a hundred a validation."""
    config = {"run": {"name": path.name, "out_dir": str(path), "seed": 0}, "optimizer": {"_type_": "optim.sgd"}}
    config["optimizer"]["lr"] = 0.1 * (seed + 1)
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(HEADER + yaml.safe_dump(config))
    (path / "metrics.jsonl").write_text("".join(json.dumps(row(step, seed)) + "\n" for step in range(1, ROWS + 1)))


def row(step: int, seed: int) -> dict[str, Any]:
    """One row of metrics."""
    noise = math.sin(12.9898 * step * (seed + 1)) / 5
    loss = 1 / step + abs(noise)
    split, figures = ("val", {"loss": loss}) if step % 100 == 0 else ("train", {"loss": loss, "grad_norm": 1 + noise})
    return {"step": step, "epoch": step // 100, "split": split, "time": step / 10, "metrics": figures}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    n = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        runs, page = Path(folder) / "runs", Path(folder) / "report.html"
        for seed in range(RUNS):
            write_run(runs / f"run-{seed:02}", seed)
        arguments = ("-m", "ftrainer", "report", str(runs), "--out", str(page))
        taken = [command(f"{folder}/compiled", *arguments) for _ in range(n + 1)][1:]
        size = page.stat().st_size / 1e6
    wall, cpu = spread([each.wall for each in taken]), spread([each.cpu for each in taken])
    Console().print(f"{RUNS} runs of {ROWS} rows: {shown(wall)} s on the wall (at most {SECONDS}), {shown(cpu)} s of "
                    f"the processor, {size:.2f} MB (at most {MEGABYTES})")  # fmt: skip
    seconds = {"wall": rounded(wall), "cpu": rounded(cpu), "limit": SECONDS}
    page_size = {"megabytes": round(size, 3), "limit": MEGABYTES}
    write("report", {"rounds": n, "runs": RUNS, "rows": ROWS, "seconds": seconds, "page": page_size})


if __name__ == "__main__":
    main()
