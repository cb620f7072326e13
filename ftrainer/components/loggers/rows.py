"""What loggers do with rows: spell their numbers, and forget what an earlier attempt wrote past the checkpoint."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from io import RawIOBase
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
ENCODER = json.JSONEncoder(allow_nan=False)
"""`json.dumps` would make one for each line."""
WORDS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def json_number(value: float) -> float | str:
    """A number as JSON can hold it; `float` reads the words back.

    >>> json_number(0.5), json_number(float("nan")), float(json_number(float("-inf")))
    (0.5, 'NaN', -inf)
    """
    return value if math.isfinite(value) else WORDS[str(float(value))]


def to_line(row: Row) -> str:
    """A row as one line of JSON, newline included.

    >>> to_line({"step": 1, "epoch": 0, "split": "train", "metrics": {"loss": float("inf")}})
    '{"step": 1, "epoch": 0, "split": "train", "metrics": {"loss": "Infinity"}}\\n'
    """
    metrics = {name: json_number(value) for name, value in row["metrics"].items()}
    return ENCODER.encode({**row, "metrics": metrics}) + "\n"


def append(file: RawIOBase, line: str) -> None:
    """Hand a line to the system at once.

    Args:
        file: opened without a buffer.
        line: with its end.

    Raises:
        OSError: the disk is full.
    """
    raw = line.encode()
    if file.write(raw) != len(raw):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def from_line(line: str) -> dict[str, Any]:
    """The inverse of `to_line`."""
    row = json.loads(line)
    return {**row, "metrics": {name: float(value) for name, value in row["metrics"].items()}}


def is_past(line: str, start_step: int) -> bool:
    """Whether a run that goes on from `start_step` will write this line again, or cannot read it: all lines if fresh.

    >>> line = to_line({"step": 20, "epoch": 0, "split": "train", "metrics": {}})
    >>> is_past(line, 20), is_past(line, 10), is_past(line[:9], 20)
    (False, True, True)
    """
    try:
        return not line.endswith("\n") or start_step == 0 or from_line(line)["step"] > start_step
    except (ValueError, KeyError, TypeError, AttributeError):
        return True


def drop_past(path: Path, start_step: int) -> None:
    """Cut a metrics file back to what was logged up to a checkpoint: wholly, or, in a crash, not at all."""
    lines = read_lines(path)
    kept = [line for line in lines if not is_past(line, start_step)]
    if kept != lines:
        replace_text(path, kept)


def history(path: Path, start_step: int) -> Iterator[dict[str, Any]]:
    """What earlier attempts at a run logged up to the checkpoint that it goes on from; nothing for a fresh run."""
    return (from_line(line) for line in read_lines(path) if not is_past(line, start_step))


def read_lines(path: Path) -> list[str]:
    """A text file's lines with their ends; none if there is no file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="", errors="replace") as file:
        return list(file)


def replace_text(path: Path, lines: Iterable[str]) -> None:
    """Write a text file so that, whatever happens meanwhile, the old or the new one is there whole."""
    new = path.with_name(f".{path.name}.new")
    with new.open("w", encoding="utf-8", newline="") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def number_text(value: float) -> str:
    """Four significant digits, as a person reads them.

    >>> [number_text(x) for x in (0.123456, 1234567.0, 3e-7, 200, 0.0, float("nan"))]
    ['0.1235', '1.235e+06', '3e-07', '200', '0', 'nan']
    """
    return f"{value:.4g}"


def figures_text(metrics: Mapping[str, float]) -> str:
    """Every figure by name, the loss first.

    >>> figures_text({"grad_norm": 1.5, "loss": 0.25})
    'loss 0.25  grad_norm 1.5'
    """
    names = sorted(metrics, key=lambda name: name != "loss")
    return "  ".join(f"{name} {number_text(metrics[name])}" for name in names)


def place_text(step: int, total: int | None) -> str:
    """How far the run is.

    >>> place_text(20, 5000), place_text(20, None)
    ('step   20/5000', 'step 20')
    """
    return f"step {step}" if total is None else f"step {step:>{len(str(total))}}/{total}"
