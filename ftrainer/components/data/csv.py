"""Comma-separated values."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Mapping

import numpy as np

from ftrainer.components.fields import readable
from registry.issue import invalid
from registry.spec import component

from .table import TableSpec


@component
class CSV(TableSpec):
    """Rows of a text file whose first line names the columns (`data.csv`).

    Attributes:
        delimiter: what stands between two values.
    """

    delimiter: str = ","

    def names(self) -> tuple[str, ...]:
        """The first line.

        Raises:
            ConfigError: the file is no UTF-8 text.
        """
        with readable(self.path, "path"), open(self.path, newline="", encoding="utf-8") as file:
            return tuple(next(csv.reader(file, delimiter=self.delimiter), ()))

    def read(self, columns: tuple[str, ...]) -> Mapping[str, np.ndarray]:
        """These columns as float64.

        Raises:
            ConfigError: a cell is no number.
        """
        names = self.names()
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "loadtxt: input contained no data")  # told where fields are checked
                table = np.loadtxt(
                    self.path,
                    delimiter=self.delimiter,
                    skiprows=1,
                    usecols=[names.index(column) for column in columns],
                    quotechar='"',
                    encoding="utf-8",
                    ndmin=2,
                )
        except ValueError as error:
            raise invalid(f"not a table of numbers: {error}", "path", found=self.path) from error
        return dict(zip(columns, table.T, strict=True))
