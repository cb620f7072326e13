"""Every small benchmark, one after the other.

    python -m benchmarks                # all of them: some ten minutes on one core
    python -m benchmarks step loop      # these
    python -m benchmarks --device cuda  # those that a GPU answers otherwise, on it

Each also runs alone (`python -m benchmarks.step --help` lists its options).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

from . import harness

ON_DEVICES = ("step", "start", "memory", "loop", "replicate", "offline")
QUESTIONS = (*ON_DEVICES, "config", "report")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run each in a process of its own, so that none warms another's caches; the exit code counts those that failed."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", choices=[*QUESTIONS, []], default=[], metavar="NAME", help=", ".join(QUESTIONS)
    )
    harness.ask_device(parser)
    chosen = parser.parse_args(arguments)
    failed = 0
    for name in chosen.names or (QUESTIONS if chosen.device == "cpu" else ON_DEVICES):
        print(f"\n{name}", flush=True)
        where = ["--device", chosen.device] if name in ON_DEVICES else []
        failed += subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *where], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
