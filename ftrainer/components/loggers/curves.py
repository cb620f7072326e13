"""Learning curves as a picture."""

from __future__ import annotations

from pathlib import Path

import attrs

from ftrainer.components.base import LogSink, RunInfo
from ftrainer.components.data.extras import require
from registry.spec import component

from .drawing import draw
from .record import Record
from .rows import Row, history


@component
class Curves:
    """A PNG with one panel for each figure: training, validation and evaluation in their colours (`log.curves`).

    Attributes:
        path: the picture, under the run's directory unless absolute.
        figures: the names to draw; all of them unless given.
        history: the metrics file, under the run's directory, where a resumed run finds its earlier rows.
    """

    path: str = "curves.png"
    figures: tuple[str, ...] | None = None
    history: str = "metrics.jsonl"

    def open(self, info: RunInfo) -> LogSink:
        """Begin with what was logged before a resume.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
        """
        require("matplotlib", extra="plots", by="log.curves")
        record = Record()
        for row in history(info.out_dir / self.history, info.start_step):
            record.add(row)
        return CurvesSink(info.out_dir / self.path, info.name, self.figures, record)


@attrs.frozen
class CurvesSink:
    """Collects rows until the run ends."""

    path: Path
    title: str
    figures: tuple[str, ...] | None
    record: Record

    def write(self, row: Row) -> None:
        """Keep the row's figures."""
        self.record.add(row)

    def close(self) -> None:
        """Draw, if there is anything to draw."""
        names = [name for name in self.record.names() if self.figures is None or name in self.figures]
        if names:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            draw(self.record, names, self.title).savefig(self.path, dpi=120)
