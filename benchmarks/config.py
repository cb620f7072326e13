"""What does the configuration language cost? A large configuration, and what a user waits for at the prompt.

    python -m benchmarks.config

Resolving is timed in this process: a configuration whose resolved YAML has 5,000 lines, composed of 30 files, with 500
interpolations. The commands are timed as new processes, with files and bytecode in their caches; `check` in turn with
`import torch`, which it cannot do without, so that the difference is what ftrainer adds.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.harness import Spread, rounded, spread, write
from ftrainer.config import resolve_config

ROOT = Path(__file__).parents[1]
BASELINE = "configs/experiments/baseline.yaml"
FILES, LINES, INTERPOLATIONS = 30, 5000, 500
LIMITS = {"resolve": 0.5, "help": 0.3, "check beyond torch": 0.5}
"""Seconds that each may take."""


def large_configuration(folder: Path) -> Path:
    """Write files that resolve to at least `LINES` lines, and return the one that names the others.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     text = resolve_config(large_configuration(Path(folder))).to_yaml()
    >>> text.count(chr(10)) >= LINES, "${" in text
    (True, False)
    """
    names = [f"part_{number}.yaml" for number in range(FILES - 1)]
    for number, name in enumerate(names):
        (folder / name).write_text("\n".join(part(number)) + "\n", encoding="utf-8")
    main = folder / "main.yaml"
    main.write_text(
        "defaults:\n" + "".join(f"  - {name}\n" for name in names) + "shared: {base: 1}\n", encoding="utf-8"
    )
    return main


def part(number: int) -> list[str]:
    """One file: nested mappings, lists and flow style, with its share of the interpolations."""
    entries = -(-LINES // (9 * (FILES - 1)))
    share = -(-INTERPOLATIONS // (FILES - 1))
    lines = [f"part_{number}:"]
    for entry in range(entries):
        references = [f"${{part_{number}.entry_0.rate}}" if 2 * entry + k < share + 2 else "1e-3" for k in range(2)]
        first, second = references if entry else ("1e-3", "text")
        lines += [
            f"  entry_{entry}:",
            "    _type_: block.dense",
            f"    rate: {first}",
            f'    label: "run {second}"',
            "    sizes:",
            f"      - {entry}",
            "      - 64",
            "    options: {bias: true, mode: 'fan_in'}  # two lines when written out",
        ]
    return lines


class Seconds(NamedTuple):
    """Two clocks: on the wall, and the processor's, which neighbours on the machine disturb less."""

    wall: float
    cpu: float


def command(compiled: str, *arguments: str) -> Seconds:
    """One run of a command; `compiled` holds its modules' bytecode, as an installation does."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = compiled
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True, env=environment)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Seconds(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def resolving(main: Path) -> Seconds:
    """One resolution of the large configuration."""
    begin, cpu = time.perf_counter(), time.process_time()
    resolve_config(main)
    return Seconds(time.perf_counter() - begin, time.process_time() - cpu)


def measure(n: int) -> dict[str, list[Seconds]]:
    """Every question `n` times, in turn, after one time that does not count."""
    with tempfile.TemporaryDirectory() as folder:
        main, compiled = large_configuration(Path(folder)), f"{folder}/compiled"
        questions: dict[str, Callable[[], Seconds]] = {
            "resolve": lambda: resolving(main),
            "help": lambda: command(compiled, "-m", "ftrainer", "--help"),
            "torch": lambda: command(compiled, "-c", "import torch"),
            "check": lambda: command(compiled, "-m", "ftrainer", "check", BASELINE),
        }
        rows = [{name: ask() for name, ask in questions.items()} for _ in range(n + 1)][1:]
    taken = {name: [row[name] for row in rows] for name in questions}
    beyond = [Seconds(r["check"].wall - r["torch"].wall, r["check"].cpu - r["torch"].cpu) for r in rows]
    return {**taken, "check beyond torch": beyond}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    taken = measure(parser.parse_args().rounds)
    table = Table(title="the configuration language: seconds, median (quartiles)")
    for column in ("", "on the wall", "of the processor", "at most"):
        table.add_column(column, justify="right" if column else "left")
    results = {}
    for name, values in taken.items():
        wall, cpu = spread([value.wall for value in values]), spread([value.cpu for value in values])
        table.add_row(name, shown(wall), shown(cpu), f"{LIMITS[name]:.1f}" if name in LIMITS else "")
        results[name] = {"wall": rounded(wall), "cpu": rounded(cpu), "limit": LIMITS.get(name)}
    Console().print(table)
    sizes = {"files": FILES, "lines": LINES, "interpolations": INTERPOLATIONS}
    write("config", {"rounds": len(taken["help"]), "sizes": sizes, "seconds": results})


def shown(figures: Spread) -> str:
    """A median with its quartiles."""
    return f"{figures.median:.3f} ({figures.low:.3f}–{figures.high:.3f})"


if __name__ == "__main__":
    main()
