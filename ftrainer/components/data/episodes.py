"""Episodes out of HDF5, in Minari's layout.

`episode_<k>/{observations, actions, rewards, terminations, truncations}`, observations one longer than the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ftrainer.components.fields import readable
from registry.issue import invalid, near_files, nearest

from .extras import require

NAME = re.compile(r"episode_(\d+)")
PER_STEP = ("actions", "rewards", "terminations", "truncations")


class Episodes(NamedTuple):
    """All episodes of a file, end to end.

    Attributes:
        lengths: (E,) int64, steps in each.
        arrays: `observations` (N + E, …), one more per episode than there are steps; `actions` (N, …), `rewards` (N,),
            `terminations` and `truncations` (N,) bool.
    """

    lengths: Tensor
    arrays: Mapping[str, Tensor]


def read_episodes(path: str | Path, observation_keys: tuple[str, ...] = ()) -> Episodes:
    """Every episode of a Minari data set.

    Args:
        path: an HDF5 file, or the directory of a Minari data set.
        observation_keys: which parts of a dictionary observation to take, flattened and joined in this order.

    Returns:
        episodes in their natural order (`episode_10` after `episode_9`), floating point as float32, integers as int64,
        bytes as they are.

    Raises:
        ConfigError: there is no such file, it is damaged or has another layout, or a value is no finite number.
    """
    h5py = require("h5py", extra="rl", by="data.hdf5_episodes")
    file = find_file(Path(path))
    if not h5py.is_hdf5(file):
        raise invalid("not an HDF5 file", "path", found=str(file))
    with readable(file, "path"), h5py.File(file, "r") as root:
        names = sorted((name for name in root if NAME.fullmatch(name)), key=lambda name: int(name.split("_")[1]))
        if not names:
            raise invalid("the file holds no `episode_<k>` groups", "path", found=str(file))
        loaded = [_read(root[name], name, observation_keys) for name in names]
    arrays = {field: _joined([episode[field] for episode in loaded], field) for field in loaded[0]}
    return Episodes(torch.tensor([len(episode["actions"]) for episode in loaded]), arrays)


def find_file(path: Path) -> Path:
    """The HDF5 file that a path means: itself, or the one inside a Minari data set's directory.

    Raises:
        ConfigError: there is none.
    """
    for candidate in (path, path / "main_data.hdf5", path / "data" / "main_data.hdf5"):
        if candidate.is_file():
            return candidate
    raise invalid(
        "no such data set",
        "path",
        found=str(path),
        expected="an HDF5 file or a Minari directory",
        nearest=near_files(path),
    )


def _read(group: Any, name: str, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    missing = [field for field in ("observations", *PER_STEP) if field not in group]
    if missing:
        raise invalid(f"{name} lacks {', '.join(missing)}", "path", found=", ".join(group) or "nothing")
    arrays = {"observations": _observations(group["observations"], name, keys)}
    arrays |= {field: np.asarray(group[field]) for field in PER_STEP}
    for field, array in arrays.items():
        if array.ndim == 0 or array.dtype.kind not in "bfiu":
            found = f"{array.dtype} of shape {array.shape}"
            raise invalid(f"{name}/{field} is no array of numbers", "path", found=found)
    steps = len(arrays["actions"])
    for field, array in arrays.items():
        expected = steps + (field == "observations")
        if len(array) != expected:
            raise invalid(
                f"{name}/{field} does not fit its {steps} actions",
                "path",
                found=f"{len(array)} rows",
                expected=f"{expected} rows",
            )
        check_finite(array, name, field)
    return arrays


def _observations(node: Any, name: str, keys: tuple[str, ...]) -> np.ndarray:
    parts = dict(_leaves(node))
    if set(parts) == {""} and not keys:
        return np.asarray(parts[""])
    for key in keys:
        if key not in parts:
            raise invalid(
                f"{name} has no such part of an observation",
                "observation_keys",
                found=repr(key),
                nearest=nearest(key, parts),
            )
    if not keys:
        raise invalid(
            "observations are dictionaries", "observation_keys", found="nothing", expected=f"some of {', '.join(parts)}"
        )
    rows = [np.asarray(parts[key]) for key in keys]
    return np.concatenate([row.reshape(len(row), -1) for row in rows], axis=1)


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not hasattr(node, "items"):
        yield prefix, node
        return
    for key, child in node.items():
        yield from _leaves(child, f"{prefix}.{key}" if prefix else key)


def check_finite(array: np.ndarray, owner: str, field: str, at: str = "path") -> None:
    """Every number is one.

    Args:
        array: (T, …).
        owner: the episode or file, for the error.
        field: likewise.
        at: the argument that names the file.

    Raises:
        ConfigError: one is NaN or infinite; the message names owner, field and row.
    """
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    row = int(np.argwhere(~np.isfinite(array))[0][0])
    raise invalid(f"{owner}/{field} is not finite at row {row}", at, found=str(array[row]))


def _joined(arrays: list[np.ndarray], field: str) -> Tensor:
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) > 1:
        raise invalid(f"{field} differ in shape between episodes", "path", found=" and ".join(map(str, sorted(shapes))))
    joined = np.concatenate(arrays)
    if joined.dtype.kind == "f":
        joined = joined.astype(np.float32)
    elif joined.dtype.kind in "iu" and joined.dtype != np.uint8:
        joined = joined.astype(np.int64)
    return torch.from_numpy(joined)
