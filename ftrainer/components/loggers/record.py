"""Every figure of a run, kept for what is drawn or told at its end."""

from __future__ import annotations

import attrs

from .rows import Row

Series = tuple[list[int], list[float]]


@attrs.frozen
class SeriesKey:
    """Which curve a figure belongs to."""

    name: str
    split: str
    member: str = ""

    @property
    def label(self) -> str:
        """Split and member, as a person reads them."""
        return f"{self.split} [{self.member}]" if self.member else self.split


@attrs.frozen
class Record:
    """Steps and values of each figure, in the order in which figures first appeared.

    >>> record = Record()
    >>> record.add({"step": 1, "epoch": 0, "split": "train", "metrics": {"loss": 0.5}})
    >>> record.series[SeriesKey("loss", "train")]
    ([1], [0.5])
    """

    series: dict[SeriesKey, Series] = attrs.field(factory=dict)

    def add(self, row: Row) -> None:
        """Append a row's figures."""
        for name, value in row["metrics"].items():
            key = SeriesKey(name, row["split"], str(row.get("member", "")))
            steps, values = self.series.setdefault(key, ([], []))
            steps.append(row["step"])
            values.append(float(value))

    def names(self) -> list[str]:
        """The figures' names, the loss first."""
        found = list(dict.fromkeys(key.name for key in self.series))
        return sorted(found, key=lambda name: name != "loss")
