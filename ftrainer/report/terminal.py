"""How commands talk to a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console


def colours() -> bool:
    """Whether messages may be coloured: they go to a terminal, and the user did not say `NO_COLOR`."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


def console() -> Console:
    """Where tables go: as wide as the terminal; in a file or a pipe nothing is cut."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 400)


@contextmanager
def needing_extras() -> Iterator[None]:
    """A package that is not installed is an error of use: what to install is said, without a traceback."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise click.UsageError(str(error)) from error
