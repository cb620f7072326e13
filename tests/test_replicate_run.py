"""Replicated runs on disk: rows, results, per-member endings and best checkpoints, exact resume, members taken out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from safetensors.torch import load_file

from ftrainer import ConfigError, build, evaluate, fit, member, predict, run_experiment, to_module
from ftrainer.components.loggers.estimates import estimate, interval, iqm
from ftrainer.components.loggers.outcome import Outcome
from ftrainer.engine import checkpoint
from ftrainer.engine.extraction import take_out
from ftrainer.engine.layout import bytes_text, fitting, group_room, system_room, trial
from ftrainer.exporting import export_checkpoint
from ftrainer.functional.graph.liveness import peak_bytes
from tests.test_replicate import alone, assert_trees_close, small
from tests.test_step import assert_trees_equal


def run(tmp_path: Path, section: dict[str, Any], steps: int = 10, **parts: Any) -> dict[str, Any]:
    """A small replicated run in a directory of its own."""
    trainer = {"_type_": "trainer.default", "max_steps": steps, "log_every_n_steps": 2, "max_bad_steps": 2}
    config = small(replicate={"strategy": "vmap", **section}, trainer=trainer) | parts
    return config | {"run": {**config["run"], "out_dir": str(tmp_path / "run"), "compile": "eager"}}


def rows(tmp_path: Path, split: str) -> list[dict[str, Any]]:
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["split"] == split]


def results(tmp_path: Path) -> dict[str, Any]:
    found = json.loads((tmp_path / "run" / "members.json").read_text())
    assert isinstance(found, dict)
    return found


SAVE = {"_type_": "cb.model_checkpoint", "save_dir": "${run.out_dir}/checkpoints", "every_n_steps": 4}


def stopping_at(step: int) -> Callable[[], str | None]:
    """What interrupts a run after so many steps."""
    asked = iter(range(1, 10**6))
    return lambda: "enough" if next(asked) >= step else None


def test_every_row_names_its_member(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    states = run_experiment(run(tmp_path, {"seeds": 2, "over": {"optimizer.lr": [0.01, 0.1]}}))
    trained = rows(tmp_path, "train")
    assert [(row["step"], row["member"]) for row in trained[:4]] == [(2, 0), (2, 1), (2, 2), (2, 3)]
    assert trained[3]["values"] == {"run.seed": 1, "optimizer.lr": 0.1}
    last = {row["member"]: row["metrics"]["loss"] for row in rows(tmp_path, "val")}
    table = results(tmp_path)
    assert table["figures"]["val/loss"]["mean"] == pytest.approx(sum(last.values()) / 4)
    assert table["figures"]["val/loss"]["best_member"] == min(last, key=lambda who: last[who])
    assert table["layout"]["strategy"] == "vmap"
    assert [each["values"]["optimizer.lr"] for each in table["members"]] == [0.01, 0.01, 0.1, 0.1]
    effects = {(each["path"], each["value"]): each for each in table["effects"] if each["figure"] == "val/loss"}
    assert effects["optimizer.lr", 0.1]["mean"] == pytest.approx((last[2] + last[3]) / 2)
    printed = capsys.readouterr().out
    assert "rich: 4 members" in printed
    assert "val/loss by values" in printed
    assert "mean of 4" in printed
    header = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"member", "run.seed", "optimizer.lr"} <= set(header)
    assert int(states.step.min()) == 10


def test_the_picture_has_a_curve_for_each_row_of_values(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plots")
    run_experiment(run(tmp_path, {"seeds": 2, "over": {"optimizer.lr": [0.01, 0.1]}}))
    assert (tmp_path / "run" / "members.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("strategy", ["vmap", "loop", "auto"])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path, strategy: str) -> None:
    section = {"seeds": 3, "strategy": strategy, "over": {"optimizer.lr": [0.01, 1e200]}}
    parts = {"optimizer": {"_type_": "optim.sgd", "lr": 0.01}, "callbacks": [SAVE]}
    whole = run_experiment(run(tmp_path / "whole", section, **parts))
    layout = results(tmp_path / "whole")["layout"]["strategy"]
    same = {**section, "strategy": layout}
    stopped = run(tmp_path / "stopped", same, **parts)
    run_experiment(stopped, interrupted=stopping_at(7))
    resumed = run_experiment(stopped, resume="auto")
    assert_trees_equal(alone(resumed), alone(whole))
    assert resumed.slots["active"].tolist() == [True] * 3 + [False] * 3
    timeless = [
        [{name: value for name, value in row.items() if name != "time"} for row in rows(tmp_path / name, "train")]
        for name in ("whole", "stopped")
    ]
    assert timeless[0] == timeless[1]
    first, second = results(tmp_path / "whole"), results(tmp_path / "stopped")
    assert first["figures"] == second["figures"]
    assert [each["ended"] for each in first["members"]] == [each["ended"] for each in second["members"]]


def test_what_auto_decided_is_kept_when_a_run_goes_on(tmp_path: Path) -> None:
    config = run(tmp_path, {"seeds": 2, "strategy": "auto"}, callbacks=[SAVE])
    run_experiment(config, interrupted=stopping_at(5))
    decided = results(tmp_path)["layout"]
    assert set(decided["why"]["seconds_per_step"]) == {"vmap", "loop"}
    run_experiment(config, resume="auto")
    assert results(tmp_path)["layout"] == decided


def test_a_member_that_diverges_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    section = {"over": {"optimizer.lr": [0.01, 1e200]}}
    run_experiment(run(tmp_path, section, optimizer={"_type_": "optim.sgd", "lr": 0.01}))
    good, bad = results(tmp_path)["members"]
    assert good["ended"] is None
    assert "2 steps in a row were not finite, the last at step" in bad["ended"]
    assert [row["member"] for row in rows(tmp_path, "train") if "ended" in row] == [1]
    assert {row["member"] for row in rows(tmp_path, "val")} == {0}
    assert "member 1 (seed=0 lr=1e+200) ended early: 2 steps in a row" in capsys.readouterr().out.replace("\n", " ")


def test_patience_ends_each_member_by_itself(tmp_path: Path) -> None:
    patience = {"_type_": "cb.early_stopping", "monitor": "train/loss", "patience": 2, "min_delta": 0.2}
    config = run(tmp_path, {"over": {"optimizer.lr": [1e-9, 0.1]}}, steps=40, callbacks=[patience])
    states = run_experiment(config)
    still, _ = results(tmp_path)["members"]
    assert "early stopping: train/loss has not improved" in still["ended"]
    solo = small(trainer=config["trainer"], callbacks=[patience], optimizer={"_type_": "optim.adamw", "lr": 1e-9})
    assert_trees_close(alone(member(states, 0)), alone(fit(*build(solo))), 1e-12)


def test_the_run_ends_when_every_member_has(tmp_path: Path) -> None:
    patience = {"_type_": "cb.early_stopping", "monitor": "train/loss", "patience": 1, "min_delta": 100.0}
    states = run_experiment(run(tmp_path, {"seeds": 2}, steps=100, callbacks=[patience]))
    assert states.step.tolist() == [4, 4]
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["reason"] == "every member has ended"


def test_the_best_of_each_member_is_a_checkpoint_of_its_own(tmp_path: Path) -> None:
    best = {**SAVE, "save_top_k": 1, "monitor": "val/loss"}
    trainer = {"_type_": "trainer.default", "max_steps": 12, "val_every_n_steps": 3}
    config = run(tmp_path, {"seeds": 2}, callbacks=[best], trainer=trainer)
    states = run_experiment(config)
    folder = tmp_path / "run" / "checkpoints"
    assert {path.name for path in folder.iterdir()} >= {"last", "member-0", "member-1"}
    plain = {name: value for name, value in config.items() if name != "replicate"}
    for who in range(2):
        saved, manifest = checkpoint.read(folder / f"member-{who}" / "best-val-loss", member(states, who))
        assert manifest["run"]["seed"] == who
        judged = [row["metrics"]["loss"] for row in rows(tmp_path, "val") if row["member"] == who]
        template, data = build(plain, {"run.seed": who})
        assert evaluate(attrs.evolve(saved, program=template.program), data)["loss"] == pytest.approx(
            min(judged), abs=1e-12
        )


def test_a_member_that_is_taken_out_goes_on_alone(tmp_path: Path) -> None:
    section = {"seeds": 2, "over": {"optimizer.lr": [0.01, 0.1]}}
    config = run(tmp_path, section, callbacks=[SAVE])
    trained = run_experiment(config)
    taken = take_out(tmp_path / "run" / "checkpoints" / "step-00000004", 3, tmp_path / "three")
    manifest = checkpoint.verify(taken)
    assert manifest["config"]["optimizer"]["lr"] == 0.1
    assert manifest["config"]["run"]["seed"] == 1
    assert "replicate" not in manifest["config"]
    alone_again = {**manifest["config"], "run": {**manifest["config"]["run"], "out_dir": str(tmp_path / "alone")}}
    resumed = run_experiment(alone_again, resume=str(taken))
    assert_trees_close(alone(resumed), alone(member(trained, 3)), 1e-11)


def test_weights_of_a_member_are_exported(tmp_path: Path) -> None:
    states = run_experiment(run(tmp_path, {"seeds": 2}, callbacks=[SAVE]))
    last = tmp_path / "run" / "checkpoints" / "last"
    weights = load_file(export_checkpoint(last, tmp_path / "one.safetensors", 1))
    for name, value in to_module(member(states, 1)).state_dict().items():
        assert torch.equal(weights[name], value)
    assert export_checkpoint(last, tmp_path / "plain", 0) == tmp_path / "plain"
    with pytest.raises(ConfigError, match=r"holds 2 members \(choose one: --member 0 to 1\)"):
        export_checkpoint(last, tmp_path / "all.safetensors")
    with pytest.raises(ConfigError, match=r"out: unknown format; found '.onnx'"):
        export_checkpoint(last, tmp_path / "one.onnx", 1)
    with pytest.raises(ConfigError, match="no such member; found 2; expected a number from 0 to 1"):
        export_checkpoint(last, tmp_path / "two", 2)
    with pytest.raises(ConfigError, match="holds a plain run"):
        take_out(tmp_path / "plain", 0, tmp_path / "again")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"seeds": 3}, "the checkpoint holds other members; found 2 members; expected 3 members"),
        (
            {"seeds": [0, 7]},
            "the checkpoint's member 1 is another one; found {'run.seed': 1}; expected {'run.seed': 7}",
        ),
        (None, "the checkpoint holds other members; found 2 members; expected a plain run"),
    ],
)
def test_other_members_do_not_go_on_from_these(tmp_path: Path, section: Any, message: str) -> None:
    config = run(tmp_path, {"seeds": 2}, callbacks=[SAVE])
    run_experiment(config, interrupted=stopping_at(5))
    changed = {**config, "replicate": section and {"strategy": "vmap", **section}}
    with pytest.raises(ConfigError, match=message):
        run_experiment(changed, resume="auto")


@pytest.mark.parametrize("act", [predict, evaluate])
def test_a_stack_is_asked_member_by_member(act: Callable[..., Any]) -> None:
    states, data = build(small(replicate={"seeds": 2}))
    with pytest.raises(ValueError, match=r"holds 2 runs: take one with ftrainer.member\(states, i\)"):
        act(states, data)
    with pytest.raises(ValueError, match="holds 2 runs"):
        to_module(states)


# The estimates, against figures that rliable 1.2 gave for the same scores.

SCORES = [3.45584192, 8.21618144, 3.30437076, -13.03157231, 9.05355867]


def test_the_interquartile_mean_is_rliables() -> None:
    assert iqm(SCORES) == pytest.approx(4.992131372497771, abs=1e-8)
    assert iqm(SCORES[:4]) == pytest.approx((3.45584192 + 3.30437076) / 2)


def test_the_interval_is_rliables() -> None:
    assert interval([SCORES]) == pytest.approx((-7.58625796, 8.77443292), abs=1e-6)


def test_strata_are_resampled_by_themselves() -> None:
    low, high = interval([[0.0] * 4, [10.0] * 4])
    assert (low, high) == (5.0, 5.0)
    pooled = interval([[0.0] * 4 + [10.0] * 4])
    assert pooled[0] < 5.0 < pooled[1]


def test_what_is_not_finite_is_left_out_and_counted() -> None:
    found = estimate([[1.0, float("nan")], [3.0, float("inf")]])
    assert (found.n, found.mean) == (2, 2.0)
    assert estimate([[float("nan")]]).n == 0


def test_the_better_member_depends_on_the_figure() -> None:
    outcome = Outcome(({"run.seed": 0}, {"run.seed": 1}))
    for who, (loss, score) in enumerate([(0.5, 10.0), (0.25, 5.0)]):
        outcome.add({"step": 1, "split": "val", "member": who, "metrics": {"loss": loss, "accuracy": score}})
    assert (outcome.best("val/loss"), outcome.best("val/accuracy"), outcome.headline()) == (1, 0, "val/loss")


# Memory and the clock.


def test_a_step_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="one step of one member does not fit into memory; found 2 GiB needed"):
        fitting(4, 2**31, 2**30)


def test_memory_of_a_graph_counts_what_lives_at_once() -> None:
    def chain(x: torch.Tensor) -> torch.Tensor:
        for _ in range(10):
            x = x + 1
        return x

    assert peak_bytes(chain, torch.ones(1000)) == 2 * 4000
    assert peak_bytes(lambda x: [x + i for i in range(10)], torch.ones(1000)) == 10 * 4000
    assert peak_bytes(lambda x: x.reshape(10, 100).T, torch.ones(1000)) == 0


def test_the_system_tells_how_much_room_there_is(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  4000 kB\nMemAvailable:  2000 kB\n")
    assert system_room(meminfo) == 2000 * 1024
    assert system_room(tmp_path / "none") is None
    for name, text in (("memory.max", "1000\n"), ("memory.current", "400\n")):
        (tmp_path / name).write_text(text)
    assert group_room(tmp_path) == 600
    (tmp_path / "memory.max").write_text("max\n")
    assert group_room(tmp_path) is None
    assert bytes_text(600) == "600 bytes"


def test_the_trial_takes_turns_and_compares_the_least() -> None:
    asked: list[str] = []

    def clocked(strategy: str, n_steps: int) -> float:
        asked.append(strategy)
        return {"vmap": 1.0, "loop": 2.0}[strategy] * (100 if len(asked) > 8 else 1)

    assert trial(clocked) == {"vmap": 1.0, "loop": 2.0}
    assert asked[:8] == ["vmap", "vmap", "loop", "loop", "vmap", "vmap", "loop", "loop"]
