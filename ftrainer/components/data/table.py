"""What tables have in common: columns joined into fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs
import numpy as np
import torch
from torch import Tensor

from ftrainer.components.fields import must_exist
from registry.issue import invalid, nearest
from registry.spec import component

from .episodes import check_finite
from .memory import Examples, MemorySpec

Number = Literal["float32", "float64", "int64", "bool"]


@component
class TableSpec(MemorySpec):
    """Examples are rows, fields are columns; a format adds `names` and `read`.

    Attributes:
        path: the file.
        fields: `{field: column}` for a field of shape (B,), `{field: [columns]}` for one of shape (B, columns).
        dtypes: `{field: float32 | float64 | int64 | bool}`; float32 where nothing is said.

    Raises:
        ConfigError: there is no such file, or `dtypes` names no field.
    """

    path: str
    fields: Mapping[str, str | tuple[str, ...]]
    dtypes: Mapping[str, Number] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        for name in self.dtypes:
            if name not in self.fields:
                raise invalid("no such field", "dtypes", name, nearest=nearest(name, self.fields), at="key")
        must_exist(self.path, "path")

    def names(self) -> tuple[str, ...]:
        """The file's columns."""
        raise NotImplementedError(f"{type(self).__name__} reads no names")

    def read(self, columns: tuple[str, ...]) -> Mapping[str, np.ndarray]:
        """These columns, (N,) each."""
        raise NotImplementedError(f"{type(self).__name__} reads no columns")

    def load(self) -> Examples:
        """Read the columns that fields are made of.

        Raises:
            ConfigError: a column is missing, or a value is no finite number.
        """
        self._check_columns(self.names())
        wanted = dict.fromkeys(column for columns in self.fields.values() for column in _several(columns))
        table = self.read(tuple(wanted))
        return Examples({name: self._field(name, columns, table) for name, columns in self.fields.items()})

    def _check_columns(self, names: tuple[str, ...]) -> None:
        for field, columns in self.fields.items():
            for column in _several(columns):
                if column not in names:
                    raise invalid("no such column", "fields", field, found=repr(column), nearest=nearest(column, names))

    def _field(self, name: str, columns: str | tuple[str, ...], table: Mapping[str, np.ndarray]) -> Tensor:
        for column in _several(columns):
            check_finite(table[column], self.path, column)
        values = table[columns] if isinstance(columns, str) else np.stack([table[c] for c in columns], axis=1)
        dtype = getattr(torch, self.dtypes.get(name, "float32"))
        tensor = torch.tensor(values).to(dtype)
        if not dtype.is_floating_point and not np.array_equal(tensor.numpy(), values):
            raise invalid(f"{name} has values that {dtype} cannot hold", "dtypes", name)
        return tensor


def _several(columns: str | tuple[str, ...]) -> tuple[str, ...]:
    return (columns,) if isinstance(columns, str) else columns
