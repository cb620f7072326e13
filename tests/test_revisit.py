"""What one does with a trained run: judge a checkpoint, prove that a configuration resumes, replay a step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from torch import Tensor, nn

from ftrainer import ConfigError, TrainState, builtin_registry, evaluate, fit, load, run_experiment
from ftrainer.api import MemoryData
from ftrainer.engine import checkpoint
from ftrainer.revisit.compare import differing_leaves, differing_memories, differing_rows
from ftrainer.revisit.judge import as_table, judge
from ftrainer.revisit.nonfinite import Finding, first_finding
from ftrainer.revisit.replay import replay
from ftrainer.revisit.revive import revive
from ftrainer.revisit.verify import verify_resume
from ftrainer.run import main
from registry import Registry, component
from tests.test_experiment import config

SAVING = {"_type_": "cb.model_checkpoint", "save_dir": "${run.out_dir}/checkpoints", "every_n_steps": 4}


def train(out_dir: Path, registry: Registry | None = None, **sections: Any) -> TrainState:
    trainer = {"_type_": "trainer.default", "max_steps": 10, "log_every_n_steps": 1}
    given = config(**{"callbacks": [SAVING], "trainer": trainer, **sections})
    return run_experiment(given, {"run.out_dir": str(out_dir)}, registry=registry)


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


@component
class Weight:
    """An evaluator that looks at a weight."""

    scale: float = 1.0

    def evaluate(self, state: TrainState) -> Mapping[str, float]:
        return {"norm": self.scale * float(sum(w.square().sum() for w in state.params["model"].values()))}


def with_weight() -> Registry:
    return builtin_registry().register("evaluator.weight", Weight)


# Judging.


def test_a_checkpoint_is_judged_as_the_run_was_at_its_end(tmp_path: Path) -> None:
    sections: dict[str, Any] = {
        "metrics": [{"_type_": "metric.mae"}],
        "learner": {"_type_": "learner.supervised", "ema_decay": 0.5},
        "evaluators": {"weight": {"_type_": "evaluator.weight", "scale": 2.0}},
    }
    trained = train(tmp_path / "run", with_weight(), **sections)
    found = revive(tmp_path / "run", registry=with_weight())
    (figures,) = judge(found).values()
    assert set(figures) == {"val/loss", "val/mae", "eval/norm"}
    assert figures["val/loss"] == pytest.approx(evaluate(trained, found.data)["loss"], rel=1e-6)
    assert figures["eval/norm"] == pytest.approx(Weight(scale=2.0).evaluate(trained)["norm"])
    older = revive(tmp_path / "run" / "checkpoints" / "step-00000004", registry=with_weight())
    assert int(older.state.step) == 4
    assert next(iter(judge(older).values()))["val/loss"] != figures["val/loss"]


@component
class Flown:
    """An evaluator that counts episodes."""

    episodes: int = 20

    def evaluate(self, state: TrainState) -> Mapping[str, float]:
        del state
        return {"flown": self.episodes}


def test_a_run_is_loaded_judged_and_trained_on(tmp_path: Path) -> None:
    """As in one go: half of a run, loaded and trained to its end, is the run."""
    sections: dict[str, Any] = {"evaluators": {"weight": {"_type_": "evaluator.weight"}}}
    trained = train(tmp_path / "run", with_weight(), **sections)
    state, data = load(str(tmp_path / "run"), registry=with_weight())
    assert evaluate(state, data) == evaluate(trained, data)
    place = tmp_path / "run" / "checkpoints" / "step-00000004"
    early, data = load(place, {"callbacks": []}, registry=with_weight())
    assert int(early.step) == 4
    assert not early.program.callbacks
    on = fit(early, data)
    assert int(on.step) == 10
    for name, weight in trained.params["model"].items():
        assert torch.equal(on.params["model"][name], weight), name
    with pytest.raises(ConfigError, match=r"evaluators\.weight\._type_"):
        load(place)


def test_as_many_episodes_as_asked(tmp_path: Path) -> None:
    registry = with_weight().register("evaluator.flown", Flown)
    both = {"weight": {"_type_": "evaluator.weight"}, "flown": {"_type_": "evaluator.flown"}}
    train(tmp_path / "both", registry, evaluators=both, replicate={"seeds": 2})
    for episodes, expected in ((None, 20), (3, 3)):
        found = judge(revive(tmp_path / "both", registry=registry), episodes=episodes)
        assert [figures["eval/flown/flown"] for figures in found.values()] == [expected, expected]
    train(tmp_path / "plain")
    result = command("eval", tmp_path / "plain", "--episodes", 3)
    assert "evaluators: no evaluator counts episodes" in result.output


def test_overrides_judge_on_other_data(tmp_path: Path) -> None:
    train(tmp_path)
    found = revive(tmp_path, ["data.val_steps_per_epoch=7", "data.batch_size=4"])
    assert found.data.n_batches("val") == 7
    assert set(next(iter(judge(found, "train").values()))) == {"train/loss"}


def test_every_member_of_a_stack_is_judged(tmp_path: Path) -> None:
    train(tmp_path, replicate={"seeds": [3, 4], "strategy": "vmap"})
    judgement = judge(revive(tmp_path))
    assert list(judgement) == ["0: seed=3", "1: seed=4"]
    losses = {figures["val/loss"] for figures in judgement.values()}
    assert len(losses) == 2
    assert as_table(judgement).row_count == 2


def test_the_command_prints_a_table(tmp_path: Path) -> None:
    train(tmp_path / "run")
    result = command("eval", tmp_path / "run", "--split", "train")
    assert result.exit_code == 0
    assert "step 10" in result.output
    assert "train/loss" in result.output


def test_the_environments_values_are_read_anew_and_not_from_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "token-123")
    train(tmp_path, params={"token": "${env:SECRET}", "text": "costs $${5}", "again": "${params.text}"})
    raw = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"token-123" not in raw
    monkeypatch.setenv("SECRET", "token-456")
    params = revive(tmp_path).program.config["params"]
    assert params["text"] == params["again"] == "costs $${5}"
    monkeypatch.delenv("SECRET")
    with pytest.raises(ConfigError, match=r"params\.token: the environment variable 'SECRET' is not set"):
        revive(tmp_path)


def test_a_checkpoint_allows_itself_nothing(tmp_path: Path) -> None:
    """A stranger's configuration may call what it likes, by its own account; not by ours."""
    settings = {"allow_target": True, "allow_imports": True, "allowed_import_prefixes": ["torch", "tests"]}
    layers = [{"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2}]
    train(tmp_path, settings=settings, model={"sequential": {"layers": layers}}, imports=["tests.stranger"])
    with pytest.raises(ConfigError) as caught:
        revive(tmp_path)
    text = str(caught.value)
    assert "'tests.stranger'" in text
    assert "settings.allowed_import_prefixes" in text
    assert "needs settings.allow_target: true" in text
    allowed = ["settings.allow_target=true", "settings.allowed_import_prefixes=[torch, tests]"]
    assert int(revive(tmp_path, allowed).state.step) == 10


def test_a_directory_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither the directory of a run nor a checkpoint"):
        revive(tmp_path)
    train(tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").rglob(checkpoint.TENSORS):
        path.write_bytes(b"no tensors")
    with pytest.raises(ConfigError, match="no intact checkpoint in this run's directory"):
        revive(tmp_path / "run")


def test_an_empty_split_cannot_be_judged(tmp_path: Path) -> None:
    train(tmp_path)
    with pytest.raises(ConfigError, match=r"data: the val split is empty.*--split train"):
        judge(revive(tmp_path, {"data.val_steps_per_epoch": 0}))


# Verification.


class Forgetful:
    """In-memory data that is in another order each time it is opened."""

    opened = itertools.count()

    def __init__(self, data: MemoryData):
        self._data = attrs.evolve(data, seed=next(self.opened))
        self.exact_resume = None

    def n_batches(self, split: str) -> int:
        return self._data.n_batches(split)

    def batches(self, split: str, epoch: int, start: int = 0) -> Iterator[Any]:
        return self._data.batches(split, epoch, start)

    def statistics(self) -> Any:
        return self._data.statistics()


@component
class Unrepeatable:
    """Data whose order no seed decides; with `honest` it says so."""

    honest: bool = False

    def open(self, *, seed: int, device: Any) -> Any:
        del seed, device
        x, rows = torch.randn(24, 3, generator=torch.Generator().manual_seed(0)), torch.arange(24)
        fields = {"x": x, "y": x[:, :2]}
        data = Forgetful(MemoryData(fields=fields, train=rows, val=rows[:4], batch_size=8))
        data.exact_resume = "its order comes from nowhere" if self.honest else None
        return data


@component
class Amnesiac:
    """A callback that forgets: what it counts is not in its memory."""

    counted: Any = attrs.field(factory=itertools.count, eq=False)

    def init(self) -> Any:
        return 0

    def on_event(self, memory: Any, event: Any) -> tuple[Any, tuple[Any, ...]]:
        del event
        return next(self.counted), ()


def registry() -> Registry:
    known = builtin_registry().register("data.unrepeatable", Unrepeatable)
    return known.register("cb.amnesiac", Amnesiac)


def test_an_exact_run_is_found_exact_by_separate_processes(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    dropout = [{"_type_": "mlp", "dims": [None, 8, 2], "dropout": 0.3}]
    patience = {"_type_": "cb.early_stopping", "monitor": "val/loss", "patience": 100}
    saving = {**SAVING, "save_dir": str(tmp_path / "elsewhere")}
    sections = {"model": {"sequential": {"layers": dropout}}, "callbacks": [patience, saving]}
    path.write_text(yaml.safe_dump(config(**sections)))
    result = command("verify-resume", path, "--at", 4, "--steps", 7, f"run.out_dir={tmp_path}/out")
    assert result.output == "exact: 7 steps, stopped after 4 and resumed, ended bitwise as those at once\n"
    assert result.exit_code == 0
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_that_does_not_repeat_is_told_from_one_that_does_not_resume() -> None:
    verdict = verify_resume(config(data={"_type_": "data.unrepeatable"}), at=2, registry=registry())
    assert not verdict.is_exact
    assert "already at the stop, so the run itself does not repeat. First: params/model/" in str(verdict)
    verdict = verify_resume(config(callbacks=[{"_type_": "cb.amnesiac"}]), at=2, registry=registry())
    assert verdict.before == ()
    assert str(verdict).startswith("not exact: the runs differ after the resume. First: callbacks remember [")


@pytest.mark.parametrize(
    ("sections", "at", "steps", "message"),
    [
        ({"data": {"_type_": "data.unrepeatable", "honest": True}}, 2, None, "data: cannot be resumed exactly: its or"),
        ({}, 5, 5, "at: must lie within the run; found 5; expected 1 to 4"),
        ({}, 0, 5, "at: must lie within the run; found 0"),
        ({"trainer": {"_type_": "trainer.default", "max_epochs": 1}}, 6, 9, "at: the run is over by then; found 6"),
        ({"optimizer": {"_type_": "optim.adamv"}}, 2, 4, "optimizer._type_"),
    ],
)
def test_what_cannot_be_verified(sections: dict[str, Any], at: int, steps: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        verify_resume(config(**sections), at=at, steps=steps, registry=registry())


def test_an_error_in_another_process_is_told(tmp_path: Path) -> None:
    result = command("verify-resume", "configs/experiments/gone.yaml", "--at", 2)
    assert result.exit_code == 2


def test_leaves_differ_by_bits() -> None:
    nan = torch.tensor([float("nan"), 1.0])
    a: dict[str, Tensor] = {"same": nan, "moved": torch.tensor([1.0, 2.0]), "wide": torch.zeros(2)}
    b = {"same": nan.clone(), "moved": torch.tensor([1.0, 2.5]), "wide": torch.zeros(2, dtype=torch.float64)}
    zero = {"z": torch.tensor(0.0)}
    assert list(differing_leaves(a, b)) == [
        "moved: 1 element of 2 differs, by 0.5 at most",
        "wide: torch.float32 (2,) and torch.float64 (2,)",
    ]
    assert list(differing_leaves(zero, {"z": torch.tensor(-0.0)})) == ["z: 1 element of 1 differs"]
    assert list(differing_leaves(zero, {})) == ["z: is there only once"]


def test_rows_differ_but_for_the_clock() -> None:
    row = {"step": 1, "time": 0.1, "metrics": {"loss": 1.0}}
    assert list(differing_rows([row], [{**row, "time": 9.9}])) == []
    (told,) = differing_rows([row], [{**row, "metrics": {"loss": 2.0}}])
    assert told == "row 0 (step 1): metrics {'loss': 1.0} and {'loss': 2.0}"
    (told,) = differing_rows([row], [])
    assert told.startswith("row 0: is there only once")


# Replay.


class Root(nn.Module):
    """The root of a layer's output: its derivative at 0 is infinite."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + torch.sqrt(x[:, :2].clamp(min=0) * self.inner.bias)


class Logarithm(nn.Module):
    """A child whose output is not finite below 0."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.log(x)


class Broken(nn.Module):
    def __init__(self, at: str):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(3, 2), Logarithm() if at == "forward" else nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)


def square(module: nn.Module) -> Any:
    x = torch.tensor([[0.0, 1.0, 2.0], [-1.0, 0.5, 0.0]])

    def loss(params: Any) -> Tensor:
        return torch.func.functional_call(module, params["model"], (x,)).square().mean()

    return loss


def params_of(module: nn.Module) -> Any:
    return {"model": {name: p.detach().clone() for name, p in module.named_parameters()}}


def test_the_module_whose_output_is_not_finite() -> None:
    module = Broken("forward")
    nn.init.constant_(module.head[0].bias, -100.0)
    found = first_finding(square(module), params_of(module))
    assert found == Finding(place="head.1 (Logarithm)", what="its output holds 4 nan among 4 numbers")
    assert first_finding(square(Broken("nowhere")), params_of(Broken("nowhere"))) is None


def test_the_module_behind_a_gradient_that_is_not_finite() -> None:
    module = Root()
    nn.init.constant_(module.inner.bias, 1.0)
    found = first_finding(square(module), params_of(module))
    assert found is not None
    assert found.place == "parameter model/inner.bias"
    assert found.line is not None
    assert "tests/test_revisit.py" in found.line
    assert "torch.sqrt" in found.line
    assert "Backward0' returned nan values" in found.line


class Cliff(nn.Module):
    """Finite, and its derivative with respect to its input is not."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sqrt((x - x.detach()).abs())


def test_the_module_that_hands_a_bad_gradient_on() -> None:
    module = nn.Sequential(nn.Linear(3, 2), Cliff(), nn.Linear(2, 2))
    found = first_finding(square(module), params_of(module))
    assert found is not None
    assert found.place == "1 (Cliff)"
    assert found.what.startswith("the gradient that it hands to its input holds 4 nan")


def test_a_loss_that_hands_a_bad_gradient_to_the_model() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Identity())

    def loss(params: Any) -> Tensor:
        outputs = torch.func.functional_call(module, params["model"], (torch.ones(2, 3),))
        return torch.sqrt((outputs - outputs.detach()).abs()).sum()

    found = first_finding(loss, params_of(module))
    assert found is not None
    assert found.place == "Sequential"
    assert found.what.startswith("the gradient that reaches its output holds 4 nan")


def test_a_loss_that_is_not_finite_by_itself() -> None:
    found = first_finding(lambda params: params["w"].sum() / 0, {"w": torch.ones(2)})
    assert found == Finding(place="the loss", what="it is inf, though all that modules gave is finite")


def poisoned(tmp_path: Path, **sections: Any) -> Path:
    """A run on files with a row that is not a number; the run's directory."""
    x = np.random.default_rng(0).standard_normal((24, 3)).astype(np.float32)
    np.save(tmp_path / "y.npy", x[:, :2])
    x[13, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    files = {name: str(tmp_path / f"{name}.npy") for name in ("x", "y")}
    data = {"_type_": "data.arrays", "files": files, "memory_map": True, "batch_size": 4}
    train(tmp_path / "run", **{"data": data, **sections})
    return tmp_path / "run"


def bad_steps(run: Path) -> list[int]:
    lines = (run / "notes.jsonl").read_text().splitlines()
    return [note["step"] for note in map(yaml.safe_load, lines) if note.get("kind") == "bad step"]


def test_a_skipped_step_is_replayed_from_the_nearest_checkpoint(tmp_path: Path) -> None:
    run = poisoned(tmp_path, trainer={"_type_": "trainer.default", "max_steps": 12, "log_every_n_steps": 1})
    first, second = bad_steps(run)
    assert first <= 6 < second
    again = replay(run, second)
    assert again.origin is not None
    assert again.origin.name == f"step-{4 * ((second - 1) // 4):08d}"
    assert "x holds 1 nan among 12 numbers, in row 13" in again.batches[0]
    assert again.finding is not None
    assert again.finding.place == "0.0 (Linear)"
    assert again.finding.what.endswith("from inputs that were not finite either")
    assert replay(run, second - 1).finding is None
    result = command("replay", run, "--step", first)
    assert result.exit_code == 0
    assert "first not finite: 0.0 (Linear): its output holds" in result.output
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "last",
        "step-00000004",
        "step-00000008",
        "step-00000012",
    ]


def test_before_the_first_checkpoint_a_replay_begins_at_the_beginning(tmp_path: Path) -> None:
    run = poisoned(tmp_path)
    again = replay(run / "checkpoints" / "step-00000008", 1)
    assert again.origin is None
    assert str(again).startswith("step 1, reached from the beginning\nepoch 0, batch 0: rows ")


def test_accumulated_steps_and_members_are_replayed(tmp_path: Path) -> None:
    trainer = {"_type_": "trainer.default", "max_steps": 6, "log_every_n_steps": 1, "grad_accum_steps": 2}
    run = poisoned(tmp_path, trainer=trainer, replicate={"seeds": [1, 2], "strategy": "vmap"})
    found = [[step for step in range(1, 4) if replay(run, step, member=who).finding is not None] for who in range(2)]
    assert [len(steps) for steps in found] == [1, 1]
    assert sorted(steps[0] for steps in found) == sorted(step for step in bad_steps(run) if step < 4)
    assert len(replay(run, found[0][0], member=0).batches) == 2
    with pytest.raises(ConfigError, match=r"one run of a checkpoint is wanted; found member None; expected --member 0"):
        replay(run, 2)


def test_data_that_is_not_in_memory_is_told_of_by_batch(tmp_path: Path) -> None:
    known = builtin_registry().register("data.unrepeatable", Unrepeatable)
    train(tmp_path, known, data={"_type_": "data.unrepeatable"})
    assert replay(tmp_path, 5, registry=known).batches == ("epoch 1, batch 1: not in memory",)


@pytest.mark.parametrize("step", [0, 11])
def test_a_step_that_the_run_does_not_have(tmp_path: Path, step: int) -> None:
    train(tmp_path)
    with pytest.raises(ConfigError, match=rf"step: the run has no such step; found {step}; expected 1 to 10"):
        replay(tmp_path, step)


def test_steps_are_replayed_on_the_batches_that_they_had(tmp_path: Path) -> None:
    saving = {**SAVING, "keep": 1}
    first = config(callbacks=[saving], trainer={"_type_": "trainer.default", "max_steps": 5})
    run_experiment(first, {"run.out_dir": str(tmp_path)})
    assert "rows" in replay(tmp_path, 3).batches[0]
    later = {"run.out_dir": str(tmp_path), "data.batch_size": 4, "data.steps_per_epoch": 7, "trainer.max_steps": 9}
    run_experiment(first, later, resume="auto")
    (told,) = replay(tmp_path, 7).batches
    assert told.count(",") == 1 + 3
    with pytest.raises(ConfigError, match=r"step: the run had other batches then.*found 3; expected at least 6"):
        replay(tmp_path, 3)


def test_a_run_without_checkpoints_cannot_be_replayed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no intact checkpoint there"):
        replay(tmp_path, 1)


def test_memories_are_compared_without_their_clocks() -> None:
    def saved(best: float, clock: float) -> Any:
        cursor = {"step": 3, "elapsed": clock, "clock": {"n_batches": 5}}
        return type("Saved", (), {"manifest": {"callbacks": [{"best": best, "clock": clock}], "cursor": cursor}})

    assert list(differing_memories(saved(0.5, 1.0), saved(0.5, 2.0))) == []
    assert list(differing_memories(saved(0.5, 1.0), saved(0.6, 1.0))) == [
        "callbacks remember [{'best': 0.5}] and [{'best': 0.6}]"
    ]
