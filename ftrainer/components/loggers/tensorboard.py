"""Rows as TensorBoard scalars."""

from __future__ import annotations

from typing import Any

import attrs

from ftrainer.components.base import LogSink, RunInfo
from ftrainer.components.data.extras import require
from registry.spec import component

from .rows import Row


@component
class TensorBoard:
    """Event files for TensorBoard, one tag `split/name` for each figure (`log.tensorboard`).

    A run that is resumed tells TensorBoard to forget the rows past its checkpoint.

    Attributes:
        path: the directory of the event files, under the run's directory unless absolute.
    """

    path: str = "tensorboard"

    def open(self, info: RunInfo) -> LogSink:
        """Begin a new event file.

        Raises:
            ModuleNotFoundError: the package `tensorboard` is not installed.
        """
        require("tensorboard", extra="tensorboard", by="log.tensorboard")
        module = require("torch.utils.tensorboard", extra="tensorboard", by="log.tensorboard")
        purge = info.start_step + 1 if info.start_step else 0
        return TensorBoardSink(module.SummaryWriter(str(info.out_dir / self.path), purge_step=purge))


@attrs.frozen
class TensorBoardSink:
    """The open event file."""

    writer: Any

    def write(self, row: Row) -> None:
        """Add one scalar for each figure."""
        member = f"/{row['member']}" if "member" in row else ""
        for name, value in row["metrics"].items():
            self.writer.add_scalar(f"{row['split']}/{name}{member}", value, row["step"])

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()
