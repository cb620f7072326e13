"""Rows as TensorBoard scalars."""

from __future__ import annotations

import importlib.util
from typing import Any

import attrs
import numpy as np

from ftrainer.components.base import LogSink, RunInfo
from ftrainer.components.data.extras import require
from registry.spec import component

from .drawing import draw
from .record import Record
from .rows import Row, history
from .tracking import hyperparameters, last_values, tag_of


@component
class TensorBoard:
    """Event files for TensorBoard: one tag `split/name` for each figure, the hyperparameters with the last value of
    each figure, and the final picture of all curves (`log.tensorboard`).

    A run that is resumed tells TensorBoard to forget the rows past its checkpoint.

    Attributes:
        path: the directory of the event files, under the run's directory unless absolute.
        history: the metrics file, under the run's directory, where a resumed run finds its earlier rows.
    """

    path: str = "tensorboard"
    history: str = "metrics.jsonl"

    def open(self, info: RunInfo) -> LogSink:
        """Begin a new event file.

        Raises:
            ModuleNotFoundError: the package `tensorboard` is not installed.
        """
        require("tensorboard", extra="tensorboard", by="log.tensorboard")
        module = require("torch.utils.tensorboard", extra="tensorboard", by="log.tensorboard")
        purge = info.start_step + 1 if info.start_step else 0
        record = Record()
        for row in history(info.out_dir / self.history, info.start_step):
            record.add(row)
        return TensorBoardSink(info, module.SummaryWriter(str(info.out_dir / self.path), purge_step=purge), record)


@attrs.frozen
class TensorBoardSink:
    """The open event file."""

    info: RunInfo
    writer: Any
    record: Record

    def write(self, row: Row) -> None:
        """Add one scalar for each figure."""
        self.record.add(row)
        for name, value in row["metrics"].items():
            self.writer.add_scalar(tag_of(row, name), value, row["step"])

    def close(self) -> None:
        """Add hyperparameters and the picture, and write what is left."""
        if self.record.series:
            self._add_hyperparameters()
            if importlib.util.find_spec("matplotlib") is not None:
                self._add_picture()
        self.writer.close()

    def _add_hyperparameters(self) -> None:
        summary = require("torch.utils.tensorboard.summary", extra="tensorboard", by="log.tensorboard")
        given = {name: "null" if value is None else value for name, value in hyperparameters(self.info.config).items()}
        for part in summary.hparams(given, last_values(self.record)):
            self.writer.file_writer.add_summary(part)

    def _add_picture(self) -> None:
        agg = require("matplotlib.backends.backend_agg", extra="plots", by="log.tensorboard")
        canvas = agg.FigureCanvasAgg(draw(self.record, self.record.names(), self.info.name))
        canvas.draw()
        step = max(steps[-1] for steps, _ in self.record.series.values())
        self.writer.add_image("curves", np.asarray(canvas.buffer_rgba())[..., :3].copy(), step, dataformats="HWC")
