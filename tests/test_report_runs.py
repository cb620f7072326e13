"""Runs as their directories tell of them: status, table, and whatever can be wrong with a directory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from ftrainer import run_experiment
from ftrainer.engine.rundir import claim
from ftrainer.report.groups import Trace, chosen_figures, group_runs, mean_and_band, title_of
from ftrainer.report.metrics import read_metrics
from ftrainer.report.runs import find_runs, gather, read_run
from ftrainer.report.standing import SILENT
from ftrainer.report.table import filter_runs, sort_runs
from ftrainer.report.thin import evenly, extremes
from ftrainer.run import main
from registry import ConfigError
from tests.test_experiment import config
from tests.written_runs import falling, replicated, row, write_run


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.stderr
    return result.stderr


def test_a_run_says_how_it_went_and_where_its_values_came_from(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_experiment(config(run={"name": "small", "out_dir": str(out), "compile": "eager"}))
    found = read_run(out)
    assert (found.standing.status, found.standing.reason) == ("finished", "finished")
    assert (found.step, found.total_steps, found.name) == (15, 15, "small")
    assert found.content["environment"]["backend"] == "eager"
    assert found.content["started"] <= found.content["ended"]
    assert found.digest == found.resolved.digest
    assert "max_epochs: 3" in (found.origins or "")
    assert found.headline() == "val/loss"


def test_a_run_that_stops_or_fails_says_why(tmp_path: Path) -> None:
    small = config(run={"name": "small", "compile": "eager"})
    run_experiment(small, {"run.out_dir": str(tmp_path / "a")}, interrupted=lambda: "stopped by SIGTERM")
    stopped = read_run(tmp_path / "a")
    assert (stopped.standing.status, stopped.standing.reason, stopped.step) == ("stopped", "stopped by SIGTERM", 1)
    run_experiment(small, {"run.out_dir": str(tmp_path / "a")}, resume="auto")
    resumed = read_run(tmp_path / "a")
    assert (resumed.standing.status, resumed.content["attempts"]) == ("finished", 2)
    assert resumed.content["started"] == stopped.content["started"]

    def fall_over() -> str | None:
        raise RuntimeError("out of coffee")

    with pytest.raises(RuntimeError):
        run_experiment(small, {"run.out_dir": str(tmp_path / "b")}, interrupted=fall_over)
    failed = read_run(tmp_path / "b")
    assert (failed.standing.status, failed.standing.reason) == ("failed", "RuntimeError: out of coffee")


def test_too_many_bad_steps_are_a_failure_and_are_noted(tmp_path: Path) -> None:
    overrides = {"run.out_dir": str(tmp_path / "a"), "optimizer.lr": 1e30, "trainer.max_bad_steps": 2,
                 "trainer.log_every_n_steps": 1, "trainer.max_epochs": 20}  # fmt: skip
    run_experiment(config(run={"name": "bad", "compile": "eager"}), overrides)
    found = read_run(tmp_path / "a")
    assert found.standing.status == "failed"
    assert "2 steps in a row were not finite" in (found.standing.reason or "")
    assert [note["kind"] for note in found.notes if "kind" in note] == ["bad step"] * 2


HOLD = """
import sys, time
from pathlib import Path
from ftrainer.engine.rundir import claim
with claim(Path(sys.argv[1]), "run: {name: x}", resume=True, overwrite=False):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_is_running_while_its_lock_is_held_and_failed_when_it_was_killed(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a", falling(3), status="running", reason=None, step=None, seconds=None, ended=None)
    assert read_run(path).standing.reason == SILENT
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert read_run(path).standing.status == "running"
        assert read_run(path).step == 30
        assert "running" in run("runs", tmp_path).stdout
        holder.kill()
    assert read_run(path).standing.status == "failed"
    with claim(path, "run: {name: x}", resume=True, overwrite=False):
        pass  # looking did not take the lock


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_status_that_cannot_be_read_is_no_status(tmp_path: Path, text: str) -> None:
    path = write_run(tmp_path / "a", falling())
    (path / "status.json").write_text(text)
    (path / "notes.jsonl").write_text(text)
    found = read_run(path)
    assert (found.standing.status, found.total_steps, found.step) == ("stopped", 100, 100)
    assert found.digest == found.resolved.digest


@given(torn=st.integers(0, 200), junk=st.sampled_from(["", "[]\n", "\0\0\n", '{"step": 1}\n', "null\n"]))
def test_a_torn_metrics_file_gives_all_whole_rows(torn: int, junk: str, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("torn") / "metrics.jsonl"
    whole = json.dumps(row(1, loss=0.5)) + "\n"
    last = json.dumps(row(2, loss=0.25))
    path.write_text(whole + junk + last[: min(torn, len(last) - 1)])
    read = read_metrics(path)
    ((steps, values),) = read.record.series.values()
    assert (steps, values) == ([1], [0.5])
    assert read.damaged == bool(junk) + bool(torn)
    assert read.seconds == 0.1


def test_a_missing_metrics_file_is_a_run_that_logged_nothing(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a")
    (path / "metrics.jsonl").unlink()
    assert read_run(path).figures == []
    assert "0/100" not in refused("plot", path)
    assert "nothing was logged yet" in refused("plot", path)


def test_the_table_sorts_and_filters(tmp_path: Path) -> None:
    for index, scale in enumerate((3.0, 1.0, 2.0)):
        write_run(
            tmp_path / f"r{index}",
            falling(scale=scale),
            lr=0.1 * (1 + index),
            status=["finished", "stopped", "failed"][index],
        )
    runs = gather([tmp_path])[0]
    names = [found.name for found in sort_runs(runs, "val/loss")]
    assert names == ["r1", "r2", "r0"]
    assert [found.name for found in sort_runs(runs, "optimizer.lr", reverse=True)] == ["r2", "r1", "r0"]
    assert [found.name for found in filter_runs(runs, ["status=fin*"])] == ["r0"]
    assert [found.name for found in filter_runs(runs, ["optimizer.lr=2e-1", "steps=100"])] == ["r1"]
    shown = run("runs", tmp_path, "--sort", "val/loss", "--where", "name=r*").stdout
    assert [line.split("│")[0].strip()[-2:] for line in shown.splitlines()[2:]] == ["r1", "r2", "r0"]
    assert "val/loss 0.1" in shown
    assert "12.5 s" in shown
    assert runs[0].digest[:12] in shown
    assert run("runs", tmp_path, "--where", "status=running").stdout == "no run is like that\n"


def test_the_table_counts_members(tmp_path: Path) -> None:
    rows, members = replicated(seeds=[0, 1, 2], lrs=[0.1, 0.2])
    write_run(tmp_path / "many", rows, members=members)
    (found,) = gather([tmp_path])[0]
    assert found.n_members == 6
    assert "│       6" in run("runs", tmp_path).stdout
    assert [group.label for group in group_runs([found])] == ["lr=0.1 (3 seeds)", "lr=0.2 (3 seeds)"]


def test_members_are_found_in_the_rows_where_the_status_lacks_them(tmp_path: Path) -> None:
    rows, _ = replicated(seeds=[0, 1], lrs=[0.1])
    ended = {**row(50, loss=1.0), "member": 1, "values": rows[1]["values"], "ended": "diverged"}
    found = read_run(write_run(tmp_path / "many", [*rows, ended]))
    assert found.n_members == 2
    assert found.outcome is not None
    assert found.outcome.ended == {1: "diverged"}


@pytest.mark.parametrize("statuses", [("finished", "finished"), ("finished", "stopped"), ("stopped", "failed")])
def test_a_sweep_is_one_run_that_stands_as_the_worst_of_its_shares(tmp_path: Path, statuses: tuple[str, str]) -> None:
    rows, _ = replicated(seeds=[0, 1], lrs=[0.1])
    sweep = write_run(tmp_path / "sweep", rows)
    (sweep / "status.json").unlink()
    for index, status in enumerate(statuses):
        write_run(sweep / "shares" / str(index), falling(), status=status)
    (found,) = gather([tmp_path])[0]
    assert (found.path, found.standing.status, found.standing.seconds) == (sweep, statuses[1], 25.0)


def test_seeds_of_one_configuration_belong_together(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        for seed in (0, 1):
            write_run(tmp_path / f"lr{lr}-{seed}", falling(scale=1 + seed), lr=lr, seed=seed)
    groups = group_runs(gather([tmp_path])[0])
    assert [group.label for group in groups] == ["lr=0.1 (2 seeds)", "lr=0.2 (2 seeds)"]
    assert [group.n for group in groups] == [2, 2]
    assert groups[0].finals("val/loss") == [0.1, 0.2]
    assert title_of(groups) == "lr0.1-0 … lr0.2-1 · optim.sgd"


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    for index in range(2):
        write_run(tmp_path / str(index), falling(), name="same", lr=0.1)
        with (tmp_path / str(index) / "config.yaml").open("a") as file:
            file.write(f"a{index}: 1\nb{index}: 1\n")
    labels = [group.label for group in group_runs(gather([tmp_path])[0])]
    assert labels == [f"same ({tmp_path}/0)", f"same ({tmp_path}/1)"]


def test_a_metric_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    groups = group_runs([read_run(write_run(tmp_path / "a", falling()))])
    assert chosen_figures(groups, ["loss"]) == ["val/loss", "train/loss"]
    assert chosen_figures(groups, ["val/loss"]) == ["val/loss"]
    with pytest.raises(ConfigError, match=r"no run logged this metric; found 'val/lss'.*did you mean 'val/loss'"):
        chosen_figures(groups, ["val/lss"])


@pytest.mark.parametrize("command", ["runs", "plot", "report"])
def test_paths_that_lead_to_no_run_are_refused(tmp_path: Path, command: str) -> None:
    assert "holds no run" in refused(command, tmp_path)
    assert "runs are made by `ftrainer train CONFIG`" in refused(command, tmp_path)
    assert "no such directory" in refused(command, tmp_path / "gone")
    with pytest.raises(ConfigError, match="no such directory"):
        find_runs(tmp_path / "gone")


def test_a_damaged_configuration_is_named_with_its_place(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a", falling())
    with (path / "config.yaml").open("a") as file:
        file.write("run: [\n")
    assert "config.yaml:" in refused("runs", tmp_path)


DAMAGE = {
    "a broken end": ("config.yaml", lambda text: text + b"run: [\n"),
    "cut off": ("config.yaml", lambda text: text[:30]),
    "empty": ("config.yaml", lambda text: b""),
    "no text": ("config.yaml", lambda text: text + b"\xff\xfe"),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("command", ["runs", "report"])
def test_one_damaged_run_does_not_hide_the_others(tmp_path: Path, kind: str, command: str) -> None:
    write_run(tmp_path / "all" / "good", falling())
    broken = write_run(tmp_path / "all" / "broken", falling())
    name, damage = DAMAGE[kind]
    (broken / name).write_bytes(damage((broken / name).read_bytes()))
    args = ["--out", str(tmp_path / "r.html")] if command == "report" else []
    done = CliRunner().invoke(main, [command, str(tmp_path / "all"), *args])
    assert done.exit_code == 0, done.output
    assert "left out, since they are damaged" in done.stderr
    assert "broken/config.yaml" in done.stderr
    assert ("good" in done.stdout) if command == "runs" else (tmp_path / "r.html").is_file()
    assert "config.yaml" in refused("runs", broken)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"status": 3}', '{"status": "finished", "step": "x", "members": [1], "total_steps": [2]}']
)
def test_a_damaged_status_file_does_not_hide_the_run(tmp_path: Path, text: str) -> None:
    path = write_run(tmp_path / "a", falling())
    (path / "status.json").write_text(text)
    done = CliRunner().invoke(main, ["runs", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert str(path) in done.stdout
    assert "100" in done.stdout


def test_rows_that_are_none_are_counted(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a", falling())
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": "x", "split": "train", "metrics": {"loss": 1}}\n{"step": 1, "split": 2, "metrics": {}}\n')
    assert read_run(path).metrics.damaged == 2


def test_questions_about_what_no_run_has_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "a", falling())
    assert "did you mean val/loss?" in refused("runs", tmp_path, "--sort", "val/los")
    assert "unknown key" in refused("runs", tmp_path, "--where", "optimizer.lrr=1")
    assert "is no condition" in refused("runs", tmp_path, "--where", "finished")
    assert "Missing argument 'RUN…'" in refused("plot")


VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400)


@given(values=VALUES, limit=st.integers(4, 60))
def test_thinning_keeps_ends_and_extremes(values: list[float], limit: int) -> None:
    column = np.array(values)
    keep = extremes(column, limit)
    assert len(keep) <= limit
    assert list(keep) == sorted(set(keep))
    assert {0, len(values) - 1} <= set(keep.tolist())
    assert column[keep].min() == column.min()
    assert column[keep].max() == column.max()
    even = evenly(len(values), limit)
    assert len(even) <= limit
    assert {0, len(values) - 1} <= set(even.tolist())


@given(columns=st.lists(st.lists(st.floats(0.1, 10), min_size=1, max_size=6), min_size=2, max_size=4))
def test_the_band_stays_within_the_seeds(columns: list[list[float]]) -> None:
    traces = [Trace(np.arange(len(column)), np.array(column)) for column in columns]
    steps, mean, low, high = mean_and_band(traces)
    for at in steps:
        there = [column[at] for column in columns if len(column) > at]
        assert mean[at] == pytest.approx(np.mean(there))
        assert min(there) <= low[at] <= mean[at] + 1e-9
        assert mean[at] - 1e-9 <= high[at] <= max(there)
