"""Rows as a run of MLflow."""

from __future__ import annotations

import math
import time
from typing import Any

import attrs

from ftrainer.components.base import LogSink, RunInfo
from ftrainer.components.data.extras import require
from registry.spec import component

from .rows import Row
from .tracking import hyperparameters, tag_of

RUN_TAG = "ftrainer.out_dir"
LONGEST = 6000
"""Letters of a parameter's value that every store of MLflow takes."""
AT_ONCE = 100
"""Parameters that one request may hold."""


@component
class MLflow:
    """One run with the configuration as parameters and one metric `split/name` for each figure (`log.mlflow`).

    A resumed run goes on in the run of the same directory, if that is found; rows past the checkpoint stay there
    beside those of the second attempt.

    Attributes:
        tracking_uri: a server, or a local store; a folder of files under the run's directory unless given.
        experiment: the experiment that the run belongs to, made if missing.
    """

    tracking_uri: str | None = None
    experiment: str = "ftrainer"

    def open(self, info: RunInfo) -> LogSink:
        """Begin a run, or go on with that of the checkpoint.

        Raises:
            ModuleNotFoundError: the package `mlflow` is not installed.
        """
        mlflow = require("mlflow", extra="mlflow", by="log.mlflow")
        place = self.tracking_uri or (info.out_dir / "mlruns").resolve().as_uri()
        client = mlflow.MlflowClient(tracking_uri=place)
        run = find_run(client, self.experiment, info) or new_run(client, self.experiment, info)
        return MLflowSink(client, require("mlflow.entities", extra="mlflow", by="log.mlflow"), run)


@attrs.frozen
class MLflowSink:
    """The open run."""

    client: Any
    entities: Any
    run: str

    def write(self, row: Row) -> None:
        """Send a row, all figures in one request."""
        now = int(1000 * time.time())
        metrics = [
            self.entities.Metric(metric_name(tag_of(row, name)), value, now, row["step"])
            for name, value in row["metrics"].items()
            if math.isfinite(value)  # some stores refuse the others
        ]
        if metrics:
            self.client.log_batch(self.run, metrics=metrics)

    def close(self) -> None:
        """Mark the run as over."""
        self.client.set_terminated(self.run)


def find_run(client: Any, experiment: str, info: RunInfo) -> str | None:
    """The run of this directory that a resumed run goes on with; None where there is none."""
    known = client.get_experiment_by_name(experiment) if info.start_step else None
    if known is None:
        return None
    place = str(info.out_dir.resolve()).replace("'", "")
    found = client.search_runs([known.experiment_id], f"tags.`{RUN_TAG}` = '{place}'", max_results=1)
    if not found:
        return None
    client.update_run(found[0].info.run_id, status="RUNNING")
    return str(found[0].info.run_id)


def new_run(client: Any, experiment: str, info: RunInfo) -> str:
    """A run that has its parameters."""
    known = client.get_experiment_by_name(experiment)
    where = known.experiment_id if known is not None else client.create_experiment(experiment)
    tags = {RUN_TAG: str(info.out_dir.resolve()).replace("'", "")}
    run: str = client.create_run(where, run_name=info.name, tags=tags).info.run_id
    entities = require("mlflow.entities", extra="mlflow", by="log.mlflow")
    params = [
        entities.Param(metric_name(name), str(value)[:LONGEST]) for name, value in hyperparameters(info.config).items()
    ]
    for start in range(0, len(params), AT_ONCE):
        client.log_batch(run, params=params[start : start + AT_ONCE])
    return run


def metric_name(name: str) -> str:
    """A name in the letters that MLflow takes.

    >>> metric_name("callbacks[0].save_dir"), metric_name("val/cost in $")
    ('callbacks.0.save_dir', 'val/cost in _')
    """
    plain = name.replace("[", ".").replace("]", "")
    return "".join(letter if letter.isalnum() or letter in "_-. /" else "_" for letter in plain)
