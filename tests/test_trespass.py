"""Python code and the command line in one directory: a run that lies there is gone on with, or left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from ftrainer import ConfigError, TrainState, build, fit, iterate, load
from ftrainer.experiment import plan, train
from tests.test_experiment import config
from tests.test_step import assert_trees_equal

SAVING = {"_type_": "cb.model_checkpoint", "save_dir": "${run.out_dir}/checkpoints"}
REFUSED = (
    r"^run\.out_dir: a run of the command line or of `run_experiment` lies here, and this one would write over it; "
    r"found .*, where {} would write \(another run\.name keeps both; `ftrainer train CONFIG --resume auto`"
)


def settings(out_dir: Path, steps: int = 5, **sections: Any) -> dict[str, Any]:
    run = {"name": "test", "compile": "eager", "out_dir": str(out_dir)}
    trainer = {"_type_": "trainer.default", "max_steps": steps}
    return config(**{"run": run, "callbacks": [SAVING], "trainer": trainer, **sections})


def command_line(given: dict[str, Any], **options: Any) -> TrainState:
    """What `ftrainer train` does, without its table and pictures."""
    state = train(plan(given), **options).state
    assert isinstance(state, TrainState)
    return state


def contents(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({}, r"callbacks\[0\]"),
        ({"callbacks": [], "loggers": [{"_type_": "log.stdout"}, {"_type_": "log.jsonl"}]}, r"loggers\[1\]"),
    ],
)
def test_a_run_of_the_command_line_is_not_written_over(tmp_path: Path, sections: dict[str, Any], named: str) -> None:
    command_line(settings(tmp_path / "run"))
    before = contents(tmp_path)
    state, data = build(settings(tmp_path / "run", **sections))
    with pytest.raises(ConfigError, match=REFUSED.format(named)):
        fit(state, data)
    with pytest.raises(ConfigError, match=REFUSED.format(named)):
        next(iterate(state, data))
    assert contents(tmp_path) == before


def test_what_writes_nothing_there_may_run_there(tmp_path: Path) -> None:
    command_line(settings(tmp_path / "run"))
    before = contents(tmp_path / "run")
    loggers = [{"_type_": "log.stdout"}, {"_type_": "log.jsonl", "path": str(tmp_path / "mine.jsonl")}]
    elsewhere = [{**SAVING, "save_dir": str(tmp_path / "mine")}]
    assert int(fit(*build(settings(tmp_path / "run", loggers=loggers, callbacks=elsewhere))).step) == 5
    assert (tmp_path / "mine.jsonl").is_file()
    assert contents(tmp_path / "run") == before


def test_a_run_of_the_command_line_is_gone_on_with(tmp_path: Path) -> None:
    whole = command_line(settings(tmp_path / "whole", 10, callbacks=[]))
    last = tmp_path / "run" / "checkpoints" / "last"
    for resume in ("auto", last, None):
        command_line(settings(tmp_path / "run"), overwrite=True)
        state, data = build(settings(tmp_path / "run", 10))
        if resume is None:
            state, data = load(last, {"trainer.max_steps": 10})
        trained = fit(state, data, resume=resume)
        assert_trees_equal(attrs.evolve(trained, program=None), attrs.evolve(whole, program=None))
        assert int(load(tmp_path / "run")[0].step) == 10


def test_a_state_of_another_run_is_none_of_this_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run = {"name": name, "compile": "eager", "out_dir": str(tmp_path / name), "seed": int(name == "b")}
        command_line(settings(tmp_path / name, run=run, loggers=[{"_type_": "log.jsonl"}]))
    state, data = build(settings(tmp_path / "b", 10))
    with pytest.raises(ConfigError, match="would write over it"):
        fit(state, data, resume=tmp_path / "a" / "checkpoints" / "last")
    state, data = load(tmp_path / "a", {"run.out_dir": str(tmp_path / "b"), "trainer.max_steps": 10})
    with pytest.raises(ConfigError, match="would write over it"):
        fit(state, data)


def test_python_alone_may_use_a_name_again(tmp_path: Path) -> None:
    for _ in range(2):
        fit(*build(settings(tmp_path / "run", loggers=[{"_type_": "log.jsonl"}])))
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
