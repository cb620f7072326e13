"""Tracking services: what they are told, and that one that fails never stops a run."""

from __future__ import annotations

import json
import logging
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftrainer import build, builtin_registry, fit, run_experiment
from ftrainer.components.base import LogSink, RunInfo
from ftrainer.components.loggers.jsonl import JsonLines
from ftrainer.components.loggers.mlflow import MLflow
from ftrainer.components.loggers.tensorboard import TensorBoard
from ftrainer.components.loggers.wandb import WandB
from registry import component
from tests.test_experiment import config
from tests.written_runs import row

CONFIG = {"optimizer": {"lr": 0.1, "betas": (0.9, 0.99)}, "run": {"name": "a run", "resume_from": None}}


def info(out_dir: Path, start_step: int = 0) -> RunInfo:
    return RunInfo(name="a run", out_dir=out_dir, total_steps=100, start_step=start_step, config=CONFIG)


def write_all(sink: LogSink, rows: list[dict[str, Any]]) -> None:
    for one in rows:
        sink.write(one)
    sink.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_is_told_hyperparameters_and_shown_the_final_picture(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # noqa: PLC0415

    write_all(JsonLines().open(info(tmp_path)), [row(1, loss=0.5), row(2, loss=0.3)])
    rows = [row(2, loss=0.25), {**row(2, "val", loss=1.0), "member": 3}]
    write_all(TensorBoard().open(info(tmp_path, start_step=1)), rows)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss", "val/loss/3"}
    (picture,) = events.Images("curves")
    assert picture.encoded_image_string.startswith(b"\x89PNG")
    assert picture.width > 500
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    given = HParamsPluginData.FromString(content).session_start_info.hparams
    assert given["optimizer.lr"].number_value == 0.1
    assert given["run.resume_from"].string_value == "null"


def stored_records(data: bytes) -> Iterator[bytes]:
    """The records of a file of wandb's: LevelDB's log format, after a header of its own."""
    block, at, parts = 32768, 7, b""
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece of one
            yield parts
            parts = b""


@pytest.mark.filterwarnings("ignore")
def test_wandb_keeps_everything_on_disk_when_offline(tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb", reason="needs wandb")
    from wandb.proto.wandb_internal_pb2 import Record  # noqa: PLC0415

    write_all(WandB(mode="offline").open(info(tmp_path)), [row(1, loss=0.5), row(1, "val", loss=0.25)])
    write_all(WandB(mode="offline").open(info(tmp_path, start_step=1)), [row(2, loss=0.125)])
    wandb.teardown()  # as at a process's end: its service writes behind our back
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.parent.name)
    ids = {path.stem.removeprefix("run-") for path in files}
    assert ids == {(tmp_path / "wandb_id.txt").read_text().strip()}
    logged, given = [], {}
    for path in files:
        for record in map(Record.FromString, stored_records(path.read_bytes())):
            if record.HasField("history"):
                logged.append({(i.key or i.nested_key[0]): json.loads(i.value_json) for i in record.history.item})
            given |= {item.key: item.value_json for item in record.run.config.update}
    assert [{k: v for k, v in one.items() if not k.startswith("_")} for one in logged] == [
        {"step": 1, "train/loss": 0.5}, {"step": 1, "val/loss": 0.25}, {"step": 2, "train/loss": 0.125},
    ]  # fmt: skip
    assert given["optimizer.lr"] == "0.1"


@pytest.mark.filterwarnings("ignore")
def test_mlflow_keeps_one_run_in_its_store_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    write_all(MLflow().open(info(tmp_path)), [row(1, loss=0.5, bad=np.nan), row(1, "val", loss=0.25)])
    write_all(MLflow().open(info(tmp_path, start_step=1)), [row(2, loss=0.125)])
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("ftrainer").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "a run"
    assert run.data.params["optimizer.betas.0"] == "0.9"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.125)]
    assert "train/bad" not in run.data.metrics


@pytest.mark.parametrize(
    ("spec", "package", "message"),
    [
        (WandB(), "wandb", r"log.wandb needs the package 'wandb': pip install 'ftrainer\[wandb\]'"),
        (MLflow(), "mlflow", r"log.mlflow needs the package 'mlflow': pip install 'ftrainer\[mlflow\]'"),
    ],
)
def test_a_missing_service_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: Any, package: str, message: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=message):
        spec.open(info(tmp_path))


@component
class Breaks:
    """A service that loses its connection."""

    after: int = 2
    at_close: bool = False

    def open(self, info: RunInfo) -> Any:
        if self.after < 0:
            raise ConnectionError("no route")
        return BreaksSink(self)


class BreaksSink:
    def __init__(self, spec: Breaks):
        self.left, self.at_close = spec.after, spec.at_close

    def write(self, row: Any) -> None:
        self.left -= 1
        if self.left < 0:
            raise ConnectionError("connection lost")

    def close(self) -> None:
        if self.at_close:
            raise ConnectionError("lost at last")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"after": 2}, "loggers[0] (Breaks) failed and lacks 4 of 6 entries: connection lost"),
        ({"after": -1}, "loggers[0] (Breaks) failed and lacks 6 of 6 entries: no route"),
        ({"after": 99, "at_close": True}, "loggers[0] (Breaks) failed and lacks 0 of 6 entries: lost at last"),
    ],
)
def test_a_service_that_fails_stops_no_run_and_what_it_missed_is_said(
    fields: dict[str, Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry = builtin_registry().register("log.breaks", Breaks)
    settings = {"_type_": "trainer.default", "max_epochs": 3, "log_every_n_steps": 5}
    small = config(loggers=[{"_type_": "log.breaks", **fields}], trainer=settings)
    with caplog.at_level(logging.WARNING):
        trained = fit(*build(small, registry=registry))
    assert int(trained.step) == 15
    assert caplog.messages[-1] == message


def test_what_a_service_missed_stands_in_the_runs_notes(tmp_path: Path) -> None:
    registry = builtin_registry().register("log.breaks", Breaks)
    small = config(loggers=[{"_type_": "log.breaks"}], run={"name": "a", "out_dir": str(tmp_path), "compile": "eager"})
    run_experiment(small, registry=registry)
    assert "Breaks) failed and lacks" in (tmp_path / "notes.jsonl").read_text()
