"""What a run does about steps that go wrong, callbacks and loggers that fail, and its time: as a user meets it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE
from typing import Any

import attrs
import numpy as np
import pytest
import torch

from benchmarks.poison import poisoned
from ftrainer import ConfigError, TrainState, build, builtin_registry, evaluate, fit, iterate, run_experiment
from ftrainer.engine import checkpoint
from ftrainer.engine.reactions import CallbackError
from ftrainer.functional import pytree, step
from registry import component
from tests.test_experiment import config
from tests.test_resume import after, rows
from tests.test_step import assert_trees_equal

SAVING = {"_type_": "cb.model_checkpoint", "save_dir": "${run.out_dir}/checkpoints", "every_n_steps": 1}


@component
class Faulty:
    """A callback and logger that raises from its third word on."""

    def init(self) -> int:
        return 0

    def on_event(self, memory: int, event: Any) -> tuple[int, tuple[Any, ...]]:
        del event
        if memory == 2:
            raise OSError("no more paper")
        return memory + 1, ()

    def open(self, info: Any) -> Faulty:
        del info
        written = iter(range(2))
        return FaultySink(write=lambda row: next(written))  # type: ignore[return-value]


@attrs.frozen
class FaultySink:
    """What it opens."""

    write: Callable[[Any], Any]

    def close(self) -> None:
        raise AssertionError("a sink that failed is left alone")


def settings(trainer: Any, sections: dict[str, Any]) -> dict[str, Any]:
    """A run's configuration."""
    given = {"_type_": "trainer.default", "max_steps": 6, "log_every_n_steps": 1, **(trainer or {})}
    return config(**{"callbacks": [SAVING], "loggers": [{"_type_": "log.jsonl"}], "trainer": given, **sections})


def run(
    out_dir: Path, trainer: Any = None, *, resume: str | None = None, stop: int | None = None, **sections: Any
) -> TrainState:
    """A run, maybe one that is stopped; its state without its program, which names the directory."""
    registry = builtin_registry().register("log.faulty", Faulty).register("cb.faulty", Faulty)
    state, data = build(settings(trainer, sections), {"run.out_dir": str(out_dir)}, registry=registry)
    if stop is None:
        state = fit(state, data, resume=resume)
    else:
        *_, last = iterate(state, data, interrupted=after(stop))
        state = last.state
    return attrs.evolve(state, program=None)


def on_files(directory: Path, *bad_rows: int) -> dict[str, Any]:
    """24 examples in batches of 4, in their own order, some of which are not finite."""
    x = np.random.default_rng(0).standard_normal((24, 3)).astype(np.float32)
    np.save(directory / "y.npy", x[:, :2])
    x[list(bad_rows), 1] = np.nan
    np.save(directory / "x.npy", x)
    files = {name: str(directory / f"{name}.npy") for name in ("x", "y")}
    return {"_type_": "data.arrays", "files": files, "memory_map": True, "batch_size": 4, "shuffle": False}


def saved_at(out_dir: Path) -> int:
    return int(checkpoint.verify(out_dir / "checkpoints" / "last")["cursor"]["step"])


# Bad steps.


def test_fifty_poisoned_batches_of_a_hundred_and_fifty_leave_no_trace() -> None:
    found = poisoned(seed=1)
    assert found["poisoned batches"] == 50
    assert found["steps applied"] == 100
    assert found["bitwise equal to the run that skipped them"]


def test_skipped_steps_are_counted_exactly_through_a_resume(tmp_path: Path) -> None:
    data, trainer = on_files(tmp_path, 5, 9), {"max_steps": 18, "log_every_n_steps": 4, "max_bad_steps": 3}
    whole = run(tmp_path / "whole", trainer, data=data)
    assert int(whole.step) == 12
    counts = [row["metrics"].get("skipped") for row in rows(tmp_path / "whole") if row["split"] == "train"]
    assert counts == [2, 3, 4, 6, 6]
    for stop in (2, 9, 10):
        parts = tmp_path / f"stopped at {stop}"
        run(parts, trainer, data=data, stop=stop)
        assert_trees_equal(run(parts, trainer, data=data, resume="auto"), whole)
        assert rows(parts) == rows(tmp_path / "whole")


def test_too_many_bad_steps_end_the_run_with_the_last_good_state_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = settings({"max_bad_steps": 3}, {"data": on_files(tmp_path, 9, 13, 17, 21)})
    state = attrs.evolve(run_experiment(bad, {"run.out_dir": str(tmp_path / "run")}), program=None)
    assert int(state.step) == 2
    assert_trees_equal(state, attrs.evolve(run(tmp_path / "short", {"max_steps": 2}, data=on_files(tmp_path)),
                                           tick=state.tick))  # fmt: skip
    manifest = checkpoint.verify(tmp_path / "run" / "checkpoints" / "last")
    assert (manifest["step"], manifest["cursor"]["step"]) == (2, 5)
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["status"], status["reason"]) == ("failed", "3 steps in a row were not finite, the last at step 5")
    assert "step 4 was skipped: its loss or gradients were not finite (epoch 0, batch 3)" in caplog.text


def test_a_state_that_is_spoilt_is_never_saved(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = run(tmp_path / "run", {"guard": "off"}, data=on_files(tmp_path, 13))
    assert not all(leaf.isfinite().all() for leaf in state.params["model"].values())
    assert saved_at(tmp_path / "run") == 3
    assert "last is not saved, since params/model/0.0.bias is not finite; earlier checkpoints stand" in caplog.text


# What is logged.


def test_learning_rate_and_norms_are_logged(tmp_path: Path) -> None:
    state = run(tmp_path, {"log_norms": True}, scheduler={"_type_": "schedule.cosine"})
    told = [row["metrics"] for row in rows(tmp_path) if row["split"] == "train"]
    falling = [0.01 * (1 + np.cos(np.pi * n / 6)) / 2 for n in range(6)]
    assert [row["lr"] for row in told] == pytest.approx(falling, rel=1e-6)
    assert told[-1]["param_norm"] == pytest.approx(float(step.global_norm(state.params)), rel=1e-6)
    assert all(row["grad_norm"] > 0 for row in told)


def test_figures_are_of_the_whole_split_and_not_means_of_batches(tmp_path: Path) -> None:
    data = {**on_files(tmp_path), "val_fraction": 0.5, "batch_size": 5}
    state, source = build(config(data=data, metrics=[{"_type_": "metric.r2"}]))
    found = evaluate(state, source)
    whole = {"_type_": "data.arrays", **data, "batch_size": 12}
    at_once = evaluate(*build(config(data=whole, metrics=[{"_type_": "metric.r2"}])))
    assert source.n_batches("val") == 3
    assert found == pytest.approx(at_once, rel=1e-5)


# Time, failures of others, and other runs.


def test_the_clock_ends_a_run_and_a_longer_limit_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert int(run(tmp_path, {"max_time": 1e-9}).step) == 1
        assert saved_at(tmp_path) == 1
        assert int(run(tmp_path, {"max_time": 1e-9}, resume="auto").step) == 1
    assert "test is finished: its 1e-09 minutes are over" in caplog.text
    assert int(run(tmp_path, {"max_time": 60.0}, resume="auto").step) == 6


def test_a_logger_that_fails_is_named_and_the_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert int(run(tmp_path, loggers=[{"_type_": "log.faulty"}, {"_type_": "log.jsonl"}]).step) == 6
    assert "loggers[0] (Faulty) failed and is left out from here on" in caplog.text
    assert "loggers[0] (Faulty) failed and lacks" in caplog.text
    assert sum(row["split"] == "train" for row in rows(tmp_path)) == 6


def test_a_callback_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(CallbackError, match=r"callbacks\[1\] \(Faulty\) failed on \w+ at step 2: no more paper"):
        run(tmp_path, callbacks=[SAVING, {"_type_": "cb.faulty"}])
    assert saved_at(tmp_path) == 1


AT_WORK = """
import sys
from pathlib import Path
from ftrainer.engine.rundir import claim
with claim(Path(sys.argv[1]), "", resume=False, overwrite=False):
    print("at work", flush=True)
    sys.stdin.read()
"""


def test_a_directory_where_a_run_is_at_work_is_refused(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", AT_WORK, str(tmp_path)], stdin=PIPE, stdout=PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"at work\n"
        for wish in ({"resume": "auto"}, {"overwrite": True}):
            with pytest.raises(ConfigError, match=r"run\.out_dir: another run is at work here.*another run\.name"):
                run_experiment(settings({}, {}), {"run.out_dir": str(tmp_path)}, **wish)


def test_a_loader_of_ones_own_resumes_where_its_order_is_fixed(tmp_path: Path) -> None:
    pairs = [{"x": torch.randn(3), "y": torch.randn(2)} for _ in range(12)]
    state, _ = build(config(callbacks=[SAVING], trainer={"_type_": "trainer.default", "max_steps": 5}),
                     {"run.out_dir": str(tmp_path)})  # fmt: skip
    loader = torch.utils.data.DataLoader(pairs, batch_size=4)  # type: ignore[arg-type]
    whole = fit(state, loader)
    again = fit(state, loader, resume=str(tmp_path / "checkpoints" / "step-00000004"))
    assert all(map(torch.equal, pytree.leaves(again), pytree.leaves(whole)))
    with pytest.raises(ConfigError, match=r"run.resume_from: cannot resume: the DataLoader's order comes from its own"):
        fit(state, torch.utils.data.DataLoader(pairs, batch_size=4, shuffle=True), resume="auto")  # type: ignore[arg-type]
