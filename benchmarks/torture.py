"""Can a run be lost? Kill runs at random moments, damage checkpoints, fill the disk, and compare with a run left alone.

    python -m benchmarks.torture --kills 200 --flips 1000

Every run trains a small network with dropout, accumulated gradients, averaged weights, best-k saves and patience, from
data in memory or from a loader with 0 or 2 workers, to its last step or until its patience ends. It is killed again and
again by SIGTERM, SIGINT or SIGKILL, goes on each time by `ftrainer train CONFIG --resume auto`, and in the end must
equal, to the bit, the run that nobody killed: tensors, the callbacks' memories, and the metrics but for the wall clock.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs

from ftrainer.engine import checkpoint
from ftrainer.engine.environment import environment
from ftrainer.engine.tensors import CheckpointError

from .torture_runs import KINDS, PATIENCE_SECONDS, STEPS, Run

RESULT = Path(__file__).parent / "results" / "torture.json"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
KILLS_PER_RUN = 5
LIMIT = 1 << 16
STOPPED = (0, 1, 130, 143)
"""Exit codes of a process that was told to stop: 1 is click's, for an interrupt before training."""


@attrs.frozen
class Kill:
    """How and when one process ended.

    Attributes:
        signal: what it was sent.
        rows: how many rows it had logged by then.
        missed: whether the process was over before the signal came.
        saving: whether it left a save half done.
    """

    signal: str
    rows: int
    missed: bool
    saving: bool


def kill_once(run: Run, draw: random.Random, total_rows: int) -> Kill:
    """Start a process and end it at a random moment: while it trains, sometimes while it starts or comes to its end.

    Raises:
        RuntimeError: a process ignored SIGTERM or SIGINT, or failed by itself.
    """
    chosen = draw.choice(SIGNALS)
    before = run.rows()
    process = run.start()
    moment = draw.random()
    if moment < 0.1:
        time.sleep(draw.uniform(0.0, 4.0))
    else:
        target = (
            total_rows - draw.randrange(3)
            if moment > 0.9
            else draw.randint(1, min(total_rows, before + total_rows // 3))
        )
        wait_until(process, lambda: target <= run.rows() != before, PATIENCE_SECONDS)
        time.sleep(draw.uniform(0.0, 0.02))
    rows, missed = run.rows(), process.poll() is not None
    process.send_signal(chosen)
    try:
        code = process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise RuntimeError(f"{run.root}: did not stop on {chosen.name}\n{run.tail()}") from error
    if code not in (*STOPPED, -chosen):
        raise RuntimeError(f"{run.root}: exit code {code} after {chosen.name}\n{run.tail()}")
    return Kill(chosen.name, rows, missed, any((run.out_dir / "checkpoints").glob(".*.*")))


def wait_until(process: subprocess.Popen[bytes], reached: Callable[[], bool], seconds: float) -> None:
    """Until the condition holds, the process is over, or the time is."""
    end = time.monotonic() + seconds
    while not reached() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.001)


def torment(run: Run, kills: int, seed: int, expected: Mapping[str, Any]) -> tuple[list[Kill], list[str]]:
    """Kill a run up to so many times, let it end, and name what differs from the run that nobody killed."""
    draw, ends = random.Random(seed), []
    try:
        for _ in range(kills):
            ends.append(kill_once(run, draw, len(expected["metrics.jsonl"])))
            if ends[-1].missed:
                break
        run.finish()
        found = run.result()
    except (RuntimeError, CheckpointError, subprocess.TimeoutExpired) as error:
        return ends, [str(error)]
    return [end for end in ends if not end.missed], [name for name in expected if found[name] != expected[name]]


def damaged(run: Run, count: int, seed: int) -> tuple[int, int]:
    """Flip bits of a checkpoint's files and cut them off: how many were noticed, how many loaded all the same."""
    draw, path = random.Random(seed), run.out_dir / "checkpoints" / "last"
    files = {name: (path / name).read_bytes() for name in (checkpoint.TENSORS, checkpoint.MANIFEST)}
    noticed = loaded = 0
    for number in range(count):
        name = draw.choice(sorted(files))
        (path / name).write_bytes(
            flipped(files[name], draw) if number % 4 else files[name][: draw.randrange(len(files[name]))]
        )
        found, skipped = checkpoint.latest(path.parent)
        noticed += found != path and any("last" in str(issue) for issue in skipped)
        try:
            checkpoint.verify(path)
            loaded += 1
        except CheckpointError:
            pass
        (path / name).write_bytes(files[name])
    return noticed, loaded


def flipped(raw: bytes, draw: random.Random) -> bytes:
    """The bytes with one bit turned over."""
    copy, bit = bytearray(raw), draw.randrange(8 * len(raw))
    copy[bit // 8] ^= 1 << bit % 8
    return bytes(copy)


def full_disk(run: Run) -> dict[str, Any]:
    """Halfway through, let no file grow beyond `LIMIT`, which rows stay below and tensors do not.

    Returns:
        How many saves failed, whether the run trained to its end, and whether the previous checkpoint stands.
    """
    process = run.start()
    wait_until(process, lambda: run.rows() > STEPS // 2, PATIENCE_SECONDS)
    process.kill()
    process.wait()
    before = checkpoint.latest(run.out_dir / "checkpoints")[0]
    run.finish(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT)))
    steps = max(json.loads(line)["step"] for line in run.metrics.read_text().splitlines())
    return {
        "failed saves": (run.root / "log.txt").read_text().count("File too large"),
        "went on": steps == STEPS,
        "previous stands": checkpoint.latest(run.out_dir / "checkpoints")[0] == before is not None,
    }


def kill_runs(root: Path, kills: int, jobs: int, seed: int) -> dict[str, Any]:
    """Torment runs, a few at a time and the kinds in turn, until enough processes were killed at work."""
    kinds, outcomes = list(KINDS)[: max(1, kills // 2)], []
    with ThreadPoolExecutor(jobs) as pool:
        expected = dict(zip(kinds, pool.map(lambda kind: undisturbed(root, kind), kinds), strict=True))

        def one(number: int) -> tuple[list[Kill], list[str]]:
            kind = kinds[number % len(kinds)]
            left = kills - sum(len(ends) for ends, _ in outcomes)
            return torment(Run(root / f"run-{number}", kind), min(left, KILLS_PER_RUN), seed + number, expected[kind])

        while sum(len(ends) for ends, _ in outcomes) < kills:
            outcomes += pool.map(one, range(len(outcomes), len(outcomes) + jobs))
    return told(outcomes)


def told(outcomes: Sequence[tuple[Sequence[Kill], Sequence[str]]]) -> dict[str, Any]:
    """What kills came to, as figures."""
    ends = [end for kills, _ in outcomes for end in kills]
    return {
        "kills": len(ends),
        "kills whose run ended bitwise equal": sum(len(kills) for kills, differences in outcomes if not differences),
        "by signal": dict(sorted(Counter(end.signal for end in ends).items())),
        "before the first row": sum(end.rows == 0 for end in ends),
        "with a save half done": sum(end.saving for end in ends),
        "differences": [f"run-{number}: {', '.join(d)}" for number, (_, d) in enumerate(outcomes) if d],
    }


def undisturbed(root: Path, kind: str) -> dict[str, Any]:
    """What a run comes to that nobody kills."""
    run = Run(root / f"undisturbed {kind}", kind)
    run.finish()
    return run.result()


def measure(root: Path, kills: int, flips: int, jobs: int, seed: int) -> dict[str, Any]:
    """Every torment, by name."""
    killed = kill_runs(root, kills, jobs, seed)
    noticed, loaded = damaged(Run(root / "undisturbed memory", "memory"), flips, seed)
    return {
        "killed": killed,
        "damaged": {"flips and truncations": flips, "noticed": noticed, "loaded": loaded},
        "full disk": full_disk(Run(root / "full disk", "memory")),
    }


def is_sound(result: Mapping[str, Any]) -> bool:
    """Whether nothing was lost."""
    killed, damage, disk = result["killed"], result["damaged"], result["full disk"]
    whole = killed["kills"] == killed["kills whose run ended bitwise equal"]
    noticed = damage["noticed"] == damage["flips and truncations"] and not damage["loaded"]
    return whole and noticed and disk["failed saves"] > 0 and disk["went on"] and disk["previous stands"]


def show(result: Mapping[str, Any]) -> None:
    """Print every figure on a line."""
    for torment_name, figures in result.items():
        print(torment_name)
        for name, value in figures.items():
            print(f"  {name:<38}{value}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code is 1 where something was lost."""
    parser = argparse.ArgumentParser(prog="benchmarks.torture", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="work in this directory and leave it")
    parser.add_argument("--out", type=Path, default=RESULT, help="write the figures to this file")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        root, start = options.keep or Path(temporary), time.monotonic()
        result = measure(root, options.kills, options.flips, options.jobs, options.seed)
    show(result)
    about = {"command": " ".join(["python -m benchmarks.torture", *(arguments or sys.argv[1:])]),
             "seconds": round(time.monotonic() - start), "environment": environment()}  # fmt: skip
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps({**about, **result}, indent=1) + "\n")
    return 0 if is_sound(result) else 1


if __name__ == "__main__":
    sys.exit(main())
