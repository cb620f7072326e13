"""Loggers: what lands in the files and on the terminal, also after a run was killed and resumed."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from ftrainer.components.base import LogSink, RunInfo
from ftrainer.components.loggers.csv import CsvLogger
from ftrainer.components.loggers.curves import Curves
from ftrainer.components.loggers.jsonl import JsonLines, JsonLinesSink
from ftrainer.components.loggers.progress import BarSink, LinesSink, ProgressBar
from ftrainer.components.loggers.rows import history
from ftrainer.components.loggers.stdout import Stdout
from ftrainer.components.loggers.summary import Summary
from ftrainer.components.loggers.tensorboard import TensorBoard
from registry import ConfigError


def row(step: int, split: str = "train", **metrics: float) -> dict[str, Any]:
    return {"step": step, "epoch": step // 10, "split": split, "metrics": metrics}


def info(out_dir: Path, start_step: int = 0, total_steps: int | None = 100) -> RunInfo:
    return RunInfo(name="a run", out_dir=out_dir, total_steps=total_steps, start_step=start_step)


def write_all(sink: LogSink, rows: Iterable[dict[str, Any]]) -> None:
    for one in rows:
        sink.write(one)
    sink.close()


def lines(path: Path) -> list[Any]:
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_jsonl_holds_every_row_as_it_was_given(tmp_path: Path) -> None:
    rows = [row(1, loss=0.5, lr=1e-3), {**row(1, "val", loss=0.25), "member": 3, "time": 1.5}]
    write_all(JsonLines().open(info(tmp_path)), rows)
    assert lines(tmp_path / "metrics.jsonl") == rows


def test_jsonl_is_strict_json_and_keeps_what_is_not_finite(tmp_path: Path) -> None:
    write_all(JsonLines().open(info(tmp_path)), [row(1, a=math.nan, b=math.inf, c=-math.inf)])
    assert lines(tmp_path / "metrics.jsonl")[0]["metrics"] == {"a": "NaN", "b": "Infinity", "c": "-Infinity"}
    (read,) = history(tmp_path / "metrics.jsonl", 1)
    assert math.isnan(read["metrics"]["a"])
    assert (read["metrics"]["b"], read["metrics"]["c"]) == (math.inf, -math.inf)


def test_rows_are_on_disk_at_once(tmp_path: Path) -> None:
    jsonl, table_sink = JsonLines().open(info(tmp_path)), CsvLogger().open(info(tmp_path))
    for sink in (jsonl, table_sink):
        sink.write(row(1, loss=0.5))
    assert len(lines(tmp_path / "metrics.jsonl")) == len(table(tmp_path / "metrics.csv")) == 1
    jsonl.close(), table_sink.close()


class Filling(io.RawIOBase):
    """A file on a disk with room for ten bytes, which takes what fits and says how much that was."""

    def write(self, data: Any) -> int:
        return min(10, len(data))


def test_a_row_that_does_not_fit_on_the_disk_is_an_error() -> None:
    with pytest.raises(OSError, match="No space left"):
        JsonLinesSink(Filling()).write(row(1, a=0.5))


def test_csv_grows_columns_on_the_right(tmp_path: Path) -> None:
    rows = [row(1, loss=0.5), row(2, "val", loss=0.25, accuracy=1.0), {**row(3, loss=math.nan), "member": 2}]
    write_all(CsvLogger(path="deep/table.csv").open(info(tmp_path)), rows)
    assert (tmp_path / "deep" / "table.csv").read_text().splitlines() == [
        "step,epoch,split,loss,accuracy,member",
        "1,0,train,0.5,,",
        "2,0,val,0.25,1.0,",
        "3,0,train,nan,,2",
    ]


FIGURES = st.dictionaries(st.sampled_from(["loss", "acc,uracy", 'n"orm', "é"]), st.floats(), max_size=3)


@settings(max_examples=60)
@given(
    figures=st.lists(FIGURES, max_size=8),
    start=st.integers(0, 9),
    torn=st.integers(0, 40),
    spec=st.sampled_from([JsonLines(path="f"), CsvLogger(path="f")]),
)
def test_a_resumed_run_has_neither_gaps_nor_repeats(
    tmp_path_factory: pytest.TempPathFactory, figures: list[dict[str, float]], start: int, torn: int, spec: Any
) -> None:
    whole, killed = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("killed")
    rows = [row(step, "val" if step % 3 == 0 else "train", **metrics) for step, metrics in enumerate(figures, start=1)]
    write_all(spec.open(info(whole)), rows)
    write_all(spec.open(info(killed)), rows[:-1])
    if rows and start < len(rows):  # the kill fell into the last row's writing, which the checkpoint is older than
        with (killed / "f").open("ab") as file:
            file.write((whole / "f").read_bytes().splitlines(keepends=True)[-1][:-1][:torn])
    write_all(spec.open(info(killed, start_step=min(start, len(rows)))), rows[start:] if start < len(rows) else [])
    if start < len(rows):
        assert (killed / "f").read_text() == (whole / "f").read_text()


def test_a_fresh_run_begins_with_empty_files(tmp_path: Path) -> None:
    for _ in range(2):
        for spec in (JsonLines(), CsvLogger()):
            write_all(spec.open(info(tmp_path)), [row(0, "val", loss=1.0), row(1, loss=0.5)])
    assert len(lines(tmp_path / "metrics.jsonl")) == len(table(tmp_path / "metrics.csv")) == 2


def test_lines_that_cannot_be_read_are_dropped_on_resume(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(
        b'\0\0\0\n{"step": 1, "metrics": 3}\n[]\n' + json.dumps(row(1)).encode() + b"\n"
    )
    JsonLines().open(info(tmp_path, start_step=5)).close()
    assert lines(tmp_path / "metrics.jsonl") == [row(1)]


def test_stdout_shows_training_now_and_then_and_judgements_always(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row(step, loss=1 / step) for step in range(10, 61, 10)]
    rows.insert(2, row(20, "val", loss=0.25))
    rows.append({**row(60, "eval", **{"return": 12345.678}), "member": 1})
    write_all(Stdout(every_n_steps=25).open(info(tmp_path, total_steps=1000)), rows)
    assert capsys.readouterr().out.splitlines() == [
        "step   20/1000  epoch 2  val  loss 0.25",
        "step   30/1000  epoch 3  train  loss 0.03333",
        "step   50/1000  epoch 5  train  loss 0.02",
        "step   60/1000  epoch 6  eval [1]  return 1.235e+04",
    ]


def test_stdout_every_n_steps_must_be_a_count() -> None:
    with pytest.raises(ConfigError, match="every_n_steps: out of range; found 0"):
        Stdout(every_n_steps=0)


def test_progress_is_plain_lines_without_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sink = ProgressBar(every_n_seconds=0).open(info(tmp_path, total_steps=20))
    write_all(sink, [row(10, loss=0.5, lr=0.1), row(10, "val", loss=0.25), row(20, loss=0.4)])
    first, judgement, last = capsys.readouterr().out.splitlines()
    assert first.startswith("step 10/20 · ")
    assert " steps/s · loss 0.5 · 0:00:00 left" in first
    assert "lr" not in first
    assert judgement == "step 10 · epoch 1 · val: loss 0.25"
    assert last.startswith("step 20/20 · ")


def test_plain_progress_is_sparing_and_knows_no_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiet = ProgressBar(every_n_seconds=1000).open(info(tmp_path))
    write_all(quiet, [row(step, loss=1.0) for step in range(100)])
    assert capsys.readouterr().out == ""
    write_all(ProgressBar(every_n_seconds=0).open(info(tmp_path, total_steps=None)), [row(5, loss=1.0)])
    assert capsys.readouterr().out.startswith("step 5 · ")


def test_progress_on_a_terminal_is_a_bar_with_judgements_above(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    sink = BarSink(ProgressBar(), info(tmp_path, start_step=40), console)
    write_all(sink, [row(50, loss=0.5), {**row(50, "val", loss=0.125), "member": "lr=[0.1]"}, row(100, loss=0.0625)])
    shown = console.file.getvalue()
    assert "step 50 · epoch 5 · val [lr=[0.1]]: loss 0.125" in shown
    assert "a run" in shown
    assert "100/100" in shown
    assert "loss 0.0625" in shown


def test_plain_progress_goes_where_the_console_does(tmp_path: Path) -> None:
    console = Console(file=io.StringIO())
    write_all(LinesSink(ProgressBar(), info(tmp_path), console), [row(1, "val", loss=0.5)])
    assert console.file.getvalue() == "step 1 · epoch 0 · val: loss 0.5\n"


def test_the_summary_tells_last_lowest_and_highest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        row(1, loss=0.5),
        row(2, loss=0.25),
        row(3, loss=math.nan),
        row(3, "eval", **{"return": 200.0}),
        row(3, bad=math.inf),
    ]
    write_all(Summary().open(info(tmp_path)), rows)
    cells = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines() if "│" in line
    ]
    assert cells == [
        ["train/loss", "nan", "0.25", "2", "0.5", "1"],
        ["train/bad", "inf", "–", "–", "–", "–"],
        ["eval/return", "200", "200", "3", "200", "3"],
    ]


def test_the_summary_of_nothing_is_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_all(Summary().open(info(tmp_path)), [])
    assert capsys.readouterr().out == ""


def test_the_summary_of_a_resumed_run_covers_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_all(JsonLines().open(info(tmp_path)), [row(1, loss=0.125), row(2, loss=9.0)])
    write_all(Summary().open(info(tmp_path, start_step=1)), [row(2, loss=0.5)])
    shown = capsys.readouterr().out
    assert "0.125" in shown
    assert "9" not in shown


def drawn_rows(n: int) -> list[dict[str, Any]]:
    rows = [row(step, loss=1 / step, norm=math.nan if step == 3 else 1 + step % 2) for step in range(1, n)]
    return [*rows, row(n, "val", loss=0.5), row(n, "eval", **{"return": 200.0, "cost in $": 2.0})]


@pytest.mark.parametrize("n", [2, 20, 300])
def test_curves_are_a_picture_with_a_panel_for_each_figure(tmp_path: Path, n: int) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    write_all(Curves(path="deep/curves.png").open(info(tmp_path)), drawn_rows(n))
    assert (tmp_path / "deep" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "matplotlib.pyplot" not in sys.modules


def test_curves_choose_axes_colours_and_titles(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    from ftrainer.components.loggers.drawing import COLOURS, draw  # noqa: PLC0415

    sink: Any = Curves().open(info(tmp_path))
    for one in drawn_rows(300):
        sink.write(one)
    figure = draw(sink.record, sink.record.names(), "a run")
    loss, norm, *hidden = figure.axes
    assert figure.get_suptitle().splitlines() == ["a run", r"eval/return 200   eval/cost in \$ 2"]
    assert (loss.get_title(), loss.get_yscale()) == ("loss", "log")
    assert (norm.get_title(), norm.get_yscale()) == ("norm", "linear")
    assert {line.get_color() for line in loss.get_lines()} == {COLOURS["train"], COLOURS["val"]}
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["train 0.003344", "val 0.5"]
    assert len(norm.get_lines()) == 2  # pale points and their mean
    assert not any(axes.axison for axes in hidden)


def test_curves_of_a_choice_of_figures_and_of_none(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    write_all(Curves(figures=("nothing",)).open(info(tmp_path)), drawn_rows(5))
    assert not list(tmp_path.iterdir())


def test_curves_of_a_resumed_run_cover_all_of_it(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    write_all(JsonLines().open(info(tmp_path)), [row(1, loss=3.0), row(2, loss=2.0)])
    sink: Any = Curves().open(info(tmp_path, start_step=1))
    sink.write(row(2, loss=1.0))
    assert list(sink.record.series.values()) == [([1, 2], [3.0, 1.0])]


@pytest.mark.parametrize(
    ("spec", "package", "message"),
    [
        (Curves(), "matplotlib", r"log.curves needs the package 'matplotlib': pip install 'ftrainer\[plots\]'"),
        (
            TensorBoard(),
            "tensorboard",
            r"log.tensorboard needs the package 'tensorboard': pip install 'ftrainer\[tensorboard\]'",
        ),
    ],
)
def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: Any, package: str, message: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=message):
        spec.open(info(tmp_path))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_holds_one_scalar_for_each_figure(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    write_all(TensorBoard().open(info(tmp_path)), [row(1, loss=0.5), row(2, loss=0.25)])
    write_all(TensorBoard().open(info(tmp_path, start_step=1)), [row(2, loss=0.125), row(2, "val", loss=1.0)])
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Tags()["scalars"] == ["train/loss", "val/loss"]
    assert [(scalar.step, scalar.value) for scalar in events.Scalars("train/loss")] == [(1, 0.5), (2, 0.125)]
