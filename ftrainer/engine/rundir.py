"""A run's directory: one run at a time, never silently two in one."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from registry.issue import invalid

CONFIG, ORIGINS, LOCK, CHECKPOINTS = "config.yaml", "config.origin.yaml", ".lock", "checkpoints"
HEADER = "# The resolved configuration of an ftrainer run.\n"


@contextmanager
def claim(out_dir: Path, config: str, *, resume: bool, overwrite: bool) -> Iterator[Path]:
    """Make a directory this run's own until the context ends, and put the resolved configuration into it.

    Where an earlier run is continued its configuration stays, until the caller has seen that the two go together and
    says `describe`.

    Args:
        out_dir: made if missing.
        config: the resolved configuration as YAML.
        resume: an earlier run in it is to be continued.
        overwrite: an earlier run in it is to be removed.

    Raises:
        ConfigError: another run is at work in it, or lies there and is neither to be continued nor removed; it cannot
            be written to; or to empty it would remove the working directory.
    """
    if is_run(out_dir) and not (resume or overwrite):
        raise invalid("an earlier run lies here", "run", "out_dir", found=str(out_dir),
                      hint="--resume auto goes on, --overwrite removes it, another run.name keeps both")  # fmt: skip
    if overwrite and Path.cwd().is_relative_to(out_dir.resolve()):
        raise invalid("holds the working directory, which --overwrite would empty", "run", "out_dir",
                      found=str(out_dir), hint="give the run a directory of its own")  # fmt: skip
    with locking(out_dir) as lock:
        try:
            # A record lock, which forked data workers do not inherit: a few seconds they outlive a run that was killed.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise invalid("another run is at work here", "run", "out_dir", found=str(out_dir),
                          hint="wait for it, or take another run.name") from error  # fmt: skip
        if overwrite and is_run(out_dir):
            empty(out_dir)
        if not is_run(out_dir):
            describe(out_dir, config)
        yield out_dir


def describe(out_dir: Path, config: str) -> None:
    """Put the resolved configuration, as YAML, into a run's directory."""
    replace_text(out_dir / CONFIG, HEADER + config)


def locking(out_dir: Path) -> TextIO:
    """The lock file of a directory, which is made if missing.

    Raises:
        ConfigError: it cannot be made, or not be written to.
    """
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        return (out_dir / LOCK).open("w")
    except OSError as error:
        problem = f"cannot be written to: {(error.strerror or str(error)).lower()}"
        raise invalid(problem, "run", "out_dir", found=str(out_dir)) from error


def is_run(out_dir: Path) -> bool:
    """Whether a run was here before."""
    config = out_dir / CONFIG
    return config.is_file() and config.read_bytes().startswith(HEADER.encode())


def empty(out_dir: Path) -> None:
    """Remove what an earlier run left."""
    for path in out_dir.iterdir():
        if path.name == LOCK:
            continue
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def replace_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
