"""Rows as a run of Weights & Biases."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from ftrainer.components.base import LogSink, RunInfo
from ftrainer.components.data.extras import require
from registry.spec import component

from .rows import Row
from .tracking import hyperparameters, tag_of

ID = "wandb_id.txt"


@component
class WandB:
    """One run with the configuration as hyperparameters and one key `split/name` for each figure (`log.wandb`).

    The service's name for it is kept in the run's directory, so that a resumed run goes on in the same one. Rows that
    were logged past the checkpoint stay there beside those of the second attempt: a service cannot be told to forget.

    Attributes:
        project, entity: where the run goes; the service's defaults unless given.
        mode: `online` sends while training goes on, `offline` keeps everything under the run's directory, for
            `wandb sync`.
        timeout: seconds to wait for the service when the run begins.
    """

    project: str | None = None
    entity: str | None = None
    mode: Literal["online", "offline"] = "online"
    timeout: float = 60.0

    def open(self, info: RunInfo) -> LogSink:
        """Begin a run, or go on with that of the checkpoint.

        Raises:
            ModuleNotFoundError: the package `wandb` is not installed.
        """
        wandb = require("wandb", extra="wandb", by="log.wandb")
        info.out_dir.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=self.project, entity=self.entity, mode=self.mode, name=info.name, dir=str(info.out_dir),
            id=earlier_id(info), resume="allow", config=hyperparameters(info.config), reinit="create_new",
            settings=wandb.Settings(init_timeout=self.timeout, silent=True, console="off", x_disable_stats=True),
        )  # fmt: skip
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        (info.out_dir / ID).write_text(f"{run.id}\n", encoding="utf-8")
        return WandBSink(run)


@attrs.frozen
class WandBSink:
    """The open run."""

    run: Any

    def write(self, row: Row) -> None:
        """Send a row; the service's own counter of calls is not the step, since rows of several splits share one."""
        self.run.log({"step": row["step"], **{tag_of(row, name): value for name, value in row["metrics"].items()}})

    def close(self) -> None:
        """Hand everything over: the service sends it or, offline, writes it before the process ends."""
        self.run.finish()


def earlier_id(info: RunInfo) -> str | None:
    """What the service calls the run that a resumed run goes on with; None for a fresh one."""
    path = info.out_dir / ID
    return path.read_text(encoding="utf-8").strip() if info.start_step and path.is_file() else None
