"""Every small benchmark, one after the other.

    python -m benchmarks                # all of them: some ten minutes on one core
    python -m benchmarks step loop      # these

Each also runs alone (`python -m benchmarks.step --help` lists its options).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

QUESTIONS = ("step", "start", "memory", "loop", "replicate", "offline", "config", "report")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run each in a process of its own, so that none warms another's caches; the exit code counts those that failed."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", choices=[*QUESTIONS, []], default=[], metavar="NAME", help=", ".join(QUESTIONS)
    )
    failed = 0
    for name in parser.parse_args(arguments).names or QUESTIONS:
        print(f"\n{name}", flush=True)
        failed += subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
