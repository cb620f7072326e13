"""Packages that only some sources need."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, *, extra: str, by: str) -> ModuleType:
    """An optional package.

    Args:
        module: its import name.
        extra: the extra of ftrainer that installs it.
        by: who needs it, as the user named it.

    Raises:
        ModuleNotFoundError: it is not installed; the message names the extra.

    >>> require("h6py", extra="rl", by="data.hdf5_episodes")
    Traceback (most recent call last):
    ModuleNotFoundError: data.hdf5_episodes needs the package 'h6py': pip install 'ftrainer[rl]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{by} needs the package {module!r}: pip install 'ftrainer[{extra}]'") from error
