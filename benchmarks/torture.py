"""Can a run be lost? Kill runs at random moments, damage checkpoints, fill the disk, and compare with a run left alone.

    python -m benchmarks.torture --kills 200 --flips 1000
    python -m benchmarks.torture --keep DIR --seconds 200    # in parts: the same again goes on, until it is done

Every run trains a small network with dropout, accumulated gradients, averaged weights, best-k saves and patience, from
data in memory or from a loader with 0 or 2 workers, to its last step or until its patience ends. It is killed again and
again by SIGTERM, SIGINT or SIGKILL, goes on each time by `ftrainer train CONFIG --resume auto`, and in the end must
equal, to the bit, the run that nobody killed: tensors, the callbacks' memories, and the metrics but for the wall clock.

Most processes are copies of this one, which spares them the imports and the tracing; every tenth, and those of the runs
that nobody kills, start from nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import attrs
import torch

from ftrainer import run_experiment
from ftrainer.engine import checkpoint
from ftrainer.engine.environment import environment
from ftrainer.engine.tensors import CheckpointError

from .forked import MOMENTS, Forked
from .poison import poisoned
from .torture_runs import KINDS, PATIENCE_SECONDS, STEPS, Process, Run, configuration

RESULT = Path(__file__).parent / "results" / "torture.json"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
KILLS_PER_RUN = 5
LIMIT = 1 << 16
STOPPED = (0, 130, 143)
"""Exit codes of a process that was told to stop."""
UNFINISHED = 3


@attrs.frozen
class Kill:
    """How and when one process ended.

    Attributes:
        signal: what it was sent.
        rows: how many rows it had logged by then.
        moment: what it was doing.
        saving: whether it left a save half done.
        missed: whether the process was over before the signal came.
    """

    signal: str
    rows: int
    moment: str
    saving: bool
    missed: bool


def kill_once(run: Run, draw: random.Random, total_rows: int) -> Kill:
    """Start a process and end it at a random moment: while it trains, sometimes while it starts or comes to its end.

    Raises:
        RuntimeError: a process ignored SIGTERM or SIGINT, or failed by itself.
    """
    chosen, luck = draw.choice(SIGNALS), draw.random()
    process = run.start(fresh=luck < 0.1)
    strike_at(run, process, draw, luck, total_rows)
    rows, missed = run.rows(), process.poll() is not None
    process.send_signal(chosen)
    try:
        code = process.wait(PATIENCE_SECONDS)
    except (TimeoutError, subprocess.TimeoutExpired) as error:
        process.kill()
        raise RuntimeError(f"{run.root}: did not stop on {chosen.name}\n{run.tail()}") from error
    if code not in (*STOPPED, -chosen):
        raise RuntimeError(f"{run.root}: exit code {code} after {chosen.name}\n{run.tail()}")
    moment = process.moment if isinstance(process, Forked) else "anywhere, in a process from nothing"
    return Kill(chosen.name, rows, moment, run.is_saving, missed)


def strike_at(run: Run, process: Process, draw: random.Random, luck: float, total_rows: int) -> None:
    """Wait for a moment to kill a process: at a time, at its last rows, at some row, or at some row's next save."""
    before = run.rows()
    if luck < 0.2:
        wait_until(process, lambda: False, draw.uniform(0.0, 6.0 if luck < 0.1 else 1.0))
        return
    target = (
        total_rows - draw.randrange(3) if luck > 0.9 else draw.randint(1, min(total_rows, before + total_rows // 3))
    )
    wait_until(process, lambda: target <= run.rows() != before, PATIENCE_SECONDS)
    time.sleep(draw.uniform(0.0, 0.02))
    moment = draw.choice(("whatever", "saving", *MOMENTS[2:]))
    if moment == "saving":
        wait_until(process, lambda: run.is_saving, PATIENCE_SECONDS)
    elif moment != "whatever" and isinstance(process, Forked):
        wait_until(process, lambda: process.moment == moment, PATIENCE_SECONDS, pause=0.0)


def wait_until(process: Process, reached: Callable[[], bool], seconds: float, pause: float = 0.001) -> None:
    """Until the condition holds, the process is over, or the time is."""
    end = time.monotonic() + seconds
    while not reached() and process.poll() is None and time.monotonic() < end:
        time.sleep(pause)


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
    except (RuntimeError, CheckpointError) as error:
        return ends, [str(error)]
    return [end for end in ends if not end.missed], [name for name in expected if found[name] != expected[name]]


def damaged(run: Run, count: int, seed: int) -> dict[str, int]:
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
    return {"flips and truncations": count, "noticed": noticed, "loaded": loaded}


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
    process.wait(PATIENCE_SECONDS)
    before = checkpoint.latest(run.out_dir / "checkpoints")[0]
    run.finish(prepare=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT)), expected=1)
    steps = max(json.loads(line)["step"] for line in run.metrics.read_text().splitlines())
    return {
        "failed saves": (run.root / "log.txt").read_text().count("File too large"),
        "went on": steps == STEPS,
        "previous stands": checkpoint.latest(run.out_dir / "checkpoints")[0] == before is not None,
    }


@attrs.define
class Tally:
    """What has been found so far, kept in a file between the parts of a measurement."""

    path: Path
    content: dict[str, Any]

    @classmethod
    def at(cls, path: Path) -> Tally:
        """The one in a file, or an empty one."""
        return cls(path, json.loads(path.read_text()) if path.exists() else {"runs": []})

    def once(self, name: str, find: Callable[[], Any]) -> Any:
        """What was found under this name, or is now."""
        if name not in self.content:
            self.content[name] = find()
            self.write()
        return self.content[name]

    def add(self, kind: str, kills: Sequence[Kill], differences: Sequence[str]) -> None:
        """One more run that came to its end."""
        told = {"kind": kind, "kills": [attrs.asdict(kill) for kill in kills], "differences": list(differences)}
        self.content["runs"].append(told)
        self.write()

    def write(self) -> None:
        """Keep it."""
        self.path.write_text(json.dumps(self.content))

    @property
    def kills(self) -> int:
        """How many processes were killed at work."""
        return sum(len(run["kills"]) for run in self.content["runs"])


def kill_runs(root: Path, tally: Tally, kills: int, seed: int, end: float) -> None:
    """Torment runs, the kinds in turn, until enough processes were killed at work or the time is over."""
    kinds = list(KINDS)[: max(1, kills // 2)]
    expected = {kind: undisturbed(root, kind, tally) for kind in kinds}
    warm_up(root / "warm up", kinds)
    while tally.kills < kills and time.monotonic() < end:
        number = len(tally.content["runs"])
        kind, run_root = kinds[number % len(kinds)], root / f"run-{number}"
        shutil.rmtree(run_root, ignore_errors=True)
        found = torment(Run(run_root, kind), min(kills - tally.kills, KILLS_PER_RUN), seed + number, expected[kind])
        tally.add(kind, *found)
        if not found[1]:
            shutil.rmtree(run_root)


def undisturbed(root: Path, kind: str, tally: Tally) -> dict[str, Any]:
    """What a run comes to that nobody kills, in a process that starts from nothing."""
    run = Run(root / f"undisturbed {kind}", kind)

    def train() -> bool:
        shutil.rmtree(run.root, ignore_errors=True)
        run.finish(fresh=True)
        return True

    tally.once(f"undisturbed {kind}", train)
    return run.result()


def warm_up(root: Path, kinds: Sequence[str]) -> None:
    """Import and trace here what the copies of this process will need."""
    with (Path(os.devnull)).open("w") as nowhere, redirect_stdout(nowhere):
        for number, kind in enumerate(kinds[:2]):  # the rest trains the same programs on batches of the same sizes
            run_experiment(configuration(kind, root / str(number)), overwrite=True)


def told(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What kills came to, as figures."""
    ends = [end for run in runs for end in run["kills"]]
    return {
        "kills": len(ends),
        "kills whose run ended bitwise equal": sum(len(run["kills"]) for run in runs if not run["differences"]),
        "runs": counted(run["kind"] for run in runs),
        "by signal": counted(end["signal"] for end in ends),
        "by moment": counted(end["moment"] for end in ends),
        "before the first row": sum(end["rows"] == 0 for end in ends),
        "with a save half done": sum(end["saving"] for end in ends),
        "differences": [f"run-{number}: {', '.join(run['differences'])}"
                        for number, run in enumerate(runs) if run["differences"]],
    }  # fmt: skip


def counted(values: Any) -> dict[str, int]:
    """How many there are of each."""
    return dict(sorted(Counter(values).items()))


def measure(root: Path, tally: Tally, kills: int, flips: int, seed: int, end: float) -> dict[str, Any] | None:
    """Every torment, by name; None where the time was over before."""
    kill_runs(root, tally, kills, seed, end)
    if tally.kills < kills:
        return None
    return {
        "killed": told(tally.content["runs"]),
        "damaged": tally.once("damaged", lambda: damaged(Run(root / "undisturbed memory", "memory"), flips, seed)),
        "full disk": tally.once("full disk", lambda: full_disk(Run(root / "full disk", "memory"))),
        "poisoned": tally.once("poisoned", lambda: poisoned(seed)),
    }


def is_sound(result: Mapping[str, Any]) -> bool:
    """Whether nothing was lost."""
    killed, damage, disk = result["killed"], result["damaged"], result["full disk"]
    whole = killed["kills"] == killed["kills whose run ended bitwise equal"]
    noticed = damage["noticed"] == damage["flips and truncations"] and not damage["loaded"]
    spared = result["poisoned"]["bitwise equal to the run that skipped them"]
    return whole and noticed and spared and disk["failed saves"] > 0 and disk["went on"] and disk["previous stands"]


def show(result: Mapping[str, Any]) -> None:
    """Print every figure on a line."""
    for torment_name, figures in result.items():
        print(torment_name)
        for name, value in figures.items():
            print(f"  {name:<44}{value}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code is 1 where something was lost, 3 where the time was over before the end."""
    parser = argparse.ArgumentParser(prog="benchmarks.torture", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="work in this directory and leave it; what it holds counts")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no further run after this time")
    parser.add_argument("--out", type=Path, default=RESULT, help="write the figures to this file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root, start = options.keep or Path(temporary), time.monotonic()
        root.mkdir(parents=True, exist_ok=True)
        tally = Tally.at(root / "tally.json")
        result = measure(root, tally, options.kills, options.flips, options.seed, start + options.seconds)
        tally.content["seconds"] = seconds = round(tally.content.get("seconds", 0) + time.monotonic() - start)
        tally.write()
    if result is None:
        print(f"{tally.kills} of {options.kills} kills so far; the same command goes on")
        return UNFINISHED
    show(result)
    about = {"command": f"python -m benchmarks.torture --kills {options.kills} --flips {options.flips}",
             "seconds": seconds, "environment": environment()}  # fmt: skip
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps({**about, **result}, indent=1) + "\n")
    return 0 if is_sound(result) else 1


if __name__ == "__main__":
    sys.exit(main())
