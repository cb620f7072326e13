"""Packages that only some sources need."""

from __future__ import annotations

import importlib
from types import ModuleType


class MissingPackage(ModuleNotFoundError):
    """A package that an extra installs is not there; the message says which extra."""


def require(module: str, *, extra: str, by: str) -> ModuleType:
    """An optional package.

    Args:
        module: its import name.
        extra: the extra of ftrainer that installs it.
        by: who needs it, as the user named it.

    Raises:
        MissingPackage: it is not installed; the message names the extra.

    >>> require("h6py", extra="rl", by="data.hdf5")
    Traceback (most recent call last):
    ftrainer.components.data.extras.MissingPackage: data.hdf5 needs the package 'h6py': pip install 'ftrainer[rl]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingPackage(f"{by} needs the package {module!r}: pip install 'ftrainer[{extra}]'") from error
