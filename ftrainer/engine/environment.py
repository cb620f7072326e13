"""What besides the state decides the last bits of a run: versions, machine, threads."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Any

import torch


def environment() -> dict[str, Any]:
    """The versions and settings under which a resumed run is bitwise the same."""
    return {
        "ftrainer": _version("ftrainer"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }


def drift(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """What differs between the checkpoint's environment and this one, as `name: then -> now`; exactness ends there."""
    then, now = manifest["environment"], environment()
    return tuple(f"{name}: {then.get(name)} -> {now[name]}" for name in now if then.get(name) != now[name])


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
