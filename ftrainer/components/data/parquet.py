"""Apache Parquet."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ftrainer.components.fields import readable
from registry.issue import invalid
from registry.spec import component

from .extras import require
from .table import TableSpec


@component
class Parquet(TableSpec):
    """Rows of a Parquet file (`data.parquet`); needs the extra `parquet`."""

    def names(self) -> tuple[str, ...]:
        """The columns of the file's schema.

        Raises:
            ConfigError: the file is no Parquet file, or is damaged.
        """
        parquet = require("pyarrow.parquet", extra="parquet", by="data.parquet")
        with readable(self.path, "path", expected="a Parquet file"):
            return tuple(parquet.read_schema(self.path).names)

    def read(self, columns: tuple[str, ...]) -> Mapping[str, np.ndarray]:
        """These columns in the file's own dtypes; missing values become NaN.

        Raises:
            ConfigError: a column does not hold numbers, or the file is damaged.
        """
        parquet = require("pyarrow.parquet", extra="parquet", by="data.parquet")
        with readable(self.path, "path", expected="a Parquet file"):
            table = parquet.read_table(self.path, columns=list(columns))
        arrays = {name: table.column(name).to_numpy() for name in columns}
        for name, array in arrays.items():
            if array.dtype.kind not in "bfiu":
                raise invalid(
                    f"column {name!r} does not hold numbers", "path", found=str(table.schema.field(name).type)
                )
        return arrays
