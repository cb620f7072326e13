"""Arrays on disk, one per field: `.npz`, or `.npy` files that may stay there and be read batch by batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ftrainer.components.fields import must_exist, readable
from registry.issue import ConfigPath, invalid
from registry.spec import component

from .episodes import check_finite
from .memory import Examples, MemoryData, MemorySpec


@component
class Arrays(MemorySpec):
    """Fields from numpy's files (`data.arrays`), in the dtypes that they have there.

    Attributes:
        files: a `.npz` file whose arrays are the fields, or `{field: .npy file}`.
        memory_map: leave `.npy` files on disk; a batch reads its own rows. Values are then not checked to be finite.

    Raises:
        ConfigError: a file is missing, or is to stay on disk and cannot.
    """

    files: str | Mapping[str, str]
    memory_map: bool = False

    def __attrs_post_init__(self) -> None:
        if self.memory_map and isinstance(self.files, str):
            raise invalid("only `.npy` files can stay on disk", "memory_map", found="true", hint="give `{field: file}`")
        if isinstance(self.files, str):
            must_exist(self.files, "files")
        else:
            for name, file in self.files.items():
                must_exist(file, "files", name)

    def load(self) -> Examples:
        """Read or map the files.

        Raises:
            ConfigError: a file is no numpy file, or a value is not finite.
        """
        if isinstance(self.files, str):
            arrays = unpacked(self.files)
        else:
            mode = "c" if self.memory_map else None  # copy on write: torch wants memory that it could write to
            arrays = {name: read(file, ("files", name), mode) for name, file in self.files.items()}
        return Examples({name: self._tensor(name, array) for name, array in arrays.items()})

    def open(self, *, seed: int, device: Any) -> MemoryData:
        """Load the contents to the device, or map them and bring each batch there."""
        return self.arrange(self.load(), seed=seed, device=device, resident=not self.memory_map)

    def _tensor(self, name: str, array: np.ndarray) -> Tensor:
        if array.ndim == 0 or array.dtype.kind not in "bfiu":
            raise invalid(f"{name} is no array of numbers", "files", found=f"{array.dtype} of shape {array.shape}")
        if not self.memory_map:
            check_finite(array, str(self.files), name, at="files")
        return torch.from_numpy(array)


def read(file: str, field: ConfigPath, mode: Any = None) -> Any:
    """A numpy file, pickles refused.

    Raises:
        ConfigError: it is something else; the issue lies at `field`.
    """
    with readable(file, *field, expected="a .npy or .npz file"):
        return np.load(file, mmap_mode=mode, allow_pickle=False)


def unpacked(file: str) -> dict[str, np.ndarray]:
    """All arrays of a `.npz` file.

    Raises:
        ConfigError: it is something else, or damaged.
    """
    archive = read(file, ("files",))
    if isinstance(archive, np.ndarray):
        raise invalid("holds one array, without a name", "files", found=file, hint="write {field: file}")
    with archive, readable(file, "files", expected="a .npz file of arrays of numbers"):
        return {name: archive[name] for name in archive.files}
