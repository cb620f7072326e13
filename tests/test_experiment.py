"""build, fit, evaluate, predict, to_module and run_experiment, as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ftrainer
from ftrainer import ConfigError, build, builtin_registry, evaluate, fit, predict, run_experiment, to_module
from ftrainer.api import MemoryData
from ftrainer.components.data.extras import require
from ftrainer.experiment import architecture
from ftrainer.functional import pytree
from registry import component
from tests.test_step import assert_trees_equal


def config(**changes: Any) -> dict[str, Any]:
    """A small run as a mapping."""
    base: dict[str, Any] = {
        "run": {"name": "test", "compile": "trace"},
        "data": {"_type_": "data.random_regression", "batch_size": 8, "steps_per_epoch": 5, "val_steps_per_epoch": 2,
                 "x_shape": [3], "y_shape": [2]},
        "io": {"_type_": "io.mapping", "model_kwargs": {"x": ["x"]}, "targets": {"y": ["y"]}},
        "model": {"sequential": {"layers": [{"_type_": "mlp", "dims": [None, 16, 2]}]}},
        "loss": {"_type_": "loss.torch", "fn": {"_type_": "nn.MSELoss"}},
        "optimizer": {"_type_": "optim.adamw", "lr": 0.01},
        "trainer": {"_type_": "trainer.default", "max_epochs": 3},
    }  # fmt: skip
    return base | changes


def test_training_lowers_the_loss_and_leaves_the_first_state_valid() -> None:
    state, data = build(config(trainer={"_type_": "trainer.default", "max_epochs": 30}))
    before = pytree.map(torch.clone, state)
    trained = fit(state, data)
    assert_trees_equal(state, before)
    assert int(trained.step) == 150
    assert evaluate(trained, data)["loss"] < 0.5 * evaluate(state, data)["loss"]


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    runs = [fit(*build(config(), {"run.seed": seed})) for seed in (1, 1, 2)]
    assert_trees_equal(runs[0], runs[1])
    assert not torch.equal(runs[0].params["model"]["0.0.weight"], runs[2].params["model"]["0.0.weight"])


def test_nobodys_random_state_is_touched() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    fit(*build(config(model={"sequential": {"layers": [{"_type_": "mlp", "dims": [None, 8, 2], "dropout": 0.5}]}})))
    assert torch.equal(before, torch.random.get_rng_state())


def test_overrides_by_dotted_path() -> None:
    state, data = build(config(), {"trainer.max_steps": 2, "optimizer.lr": 0.5})
    assert state.program.learner.optimizer.lr == 0.5
    assert int(fit(state, data).step) == 2


def test_fit_takes_a_dataloader_or_a_list_of_batches() -> None:
    state, _ = build(config(trainer={"_type_": "trainer.default", "max_epochs": 2}))
    x, y = torch.randn(12, 3), torch.randn(12, 2)
    batches = [{"x": x[i : i + 4], "y": y[i : i + 4]} for i in (0, 4, 8)]
    named = [{"x": a, "y": b} for a, b in TensorDataset(x, y)]
    loader = DataLoader(named, batch_size=4)  # type: ignore[arg-type]
    a, b = fit(state, batches), fit(state, loader)
    assert int(a.step) == 6
    assert_trees_equal(a, b)


def test_ones_own_factories() -> None:
    @component
    class Zeros:
        n: int = 16

        def open(self, *, seed: int, device: Any) -> MemoryData:
            rows = torch.arange(self.n)
            fields = {"x": torch.zeros(self.n, 3), "y": torch.zeros(self.n, 2)}
            return MemoryData(fields=fields, train=rows, val=rows[:0], batch_size=8, seed=seed)

    registry = builtin_registry().register("data.zeros", Zeros)
    state, data = build(config(data={"_type_": "data.zeros", "n": 24}), registry=registry)
    assert data.n_batches("train") == 3
    assert int(fit(state, data).step) == 9


@pytest.mark.parametrize("compile", ["eager", "trace"])
def test_a_loss_that_is_not_one_number_is_refused_where_it_stands(compile: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    loss = {"_type_": "loss.torch", "fn": {"_type_": "nn.MSELoss", "reduction": "none"}}
    run = {"name": "test", "compile": compile, "out_dir": str(tmp_path / "out")}
    path.write_text(yaml.safe_dump(config(loss=loss, run=run), sort_keys=False))
    problem = r"the loss of phase '\w+' must be one number; found a tensor of shape \(8, 2\) \(reduce it"
    with pytest.raises(ConfigError, match=problem) as caught:
        run_experiment(path)
    (issue,) = caught.value.issues
    assert issue.path == ("loss",)
    assert issue.where is not None
    assert issue.where.file == str(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"io.targets": {"y": ["z"]}}, r"^io.targets.y: the batch has no 'z'; found 'x', 'y'"),
        ({"io.model_kwargs": {"x": ["xx"]}}, r"^io.model_kwargs.x: the batch has no 'xx'; .*did you mean 'x'\?"),
        ({"data.y_shape": [5]}, r"^loss.pred_path: shapes differ; found prediction \(8, 2\), target \(8, 5\)"),
        ({"data.y_shape": []}, r"^loss.pred_path: shapes differ; found prediction \(8, 2\), target \(8,\)"),
        ({"loss.pred_path": ["a"]}, r"^loss.pred_path: no 'a' here; found a Tensor$"),
        ({"loss.fn.reduction": "men"}, r"^loss: the loss fails: ValueError: men is not a valid value for reduction"),
        (
            {"loss.fn._type_": "nn.CrossEntropyLoss", "data.y_shape": []},
            r"^loss: the loss fails: RuntimeError: .*; found outputs float32 \(8, 2\), target 'y' float32 \(8,\)$",
        ),
        ({"metrics": [{"_type_": "metric.mae", "pred_path": "a"}]}, r"^metrics\[0\].pred_path: no 'a' here"),
        (
            {"callbacks": [{"_type_": "cb.model_checkpoint", "save_dir": "/dev/null/x"}]},
            r"^callbacks\[0\].save_dir: /dev/null is",
        ),
        (
            {"callbacks": [{"_type_": "cb.early_stopping", "monitor": "val_loss"}]},
            r"^callbacks\[0\].monitor: no such figure is logged; found 'val_loss'; expected one of val/loss",
        ),
        ({"run.out_dir": " "}, r"^run.out_dir: must be a directory; found ' '$"),
        (
            {"loss": {"_merge_": "replace", "_value_": {"_type_": "loss.cross_entropy"}}, "data.y_shape": []},
            r"^loss.target_path: .*floats are probabilities",
        ),
    ],
)
def test_data_that_do_not_suit_the_loss_are_refused_before_anything_is_written(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match=message):
        run_experiment(config(run={"name": "test", "out_dir": str(out)}), changes)
    assert not out.exists()


def test_to_module_gives_back_an_ordinary_module() -> None:
    state, data = build(config())
    trained = fit(state, data)
    module = to_module(trained)
    x = torch.randn(5, 3)
    assert isinstance(module, nn.Module)
    assert not module.training
    torch.testing.assert_close(module(x), predict(trained, x))
    torch.testing.assert_close(predict(trained, {"x": x}), predict(trained, x))
    with torch.no_grad():
        next(module.parameters()).zero_()
    assert not torch.equal(next(iter(trained.params["model"].values())), next(module.parameters()))


def test_the_normaliser_travels_with_the_weights() -> None:
    layers = [{"_type_": "normalize", "field": "x", "floor": 0.1}, {"_type_": "mlp", "dims": [None, 4, 2]}]
    state, data = build(config(model={"sequential": {"layers": layers}}))
    x = torch.cat([batch["x"] for batch in data.batches("train", 0)])
    buffers = state.buffers["model"]
    torch.testing.assert_close(buffers["0.mean"], x.mean(0))
    torch.testing.assert_close(to_module(state)[0](x), (x - x.mean(0)) / (x.std(0, correction=0) + 0.1))


def test_build_tells_of_every_issue_at_once(tmp_path: Path) -> None:
    (tmp_path / "table.csv").touch()
    data = {"_type_": "data.csv", "path": str(tmp_path / "tabel.csv"), "fields": {"x": ["a"], "y": "b"},
            "batch_size": 8}  # fmt: skip
    wrong = config(run={"name": "test", "seed": "many"}, data=data, optimiser={})
    with pytest.raises(ConfigError) as caught:
        build(wrong, {"trainer.max_epoch": 1, "loss.fn._type_": "nn.MSLoss", "optimizer.lr": -1.0})
    issues = {".".join(map(str, issue.path)): issue for issue in caught.value.issues}
    assert set(issues) == {
        "optimiser", "run.seed", "trainer.max_epoch", "loss.fn._type_", "data.path", "optimizer.lr",
    }  # fmt: skip
    assert issues["data.path"].problem == "no such file"
    assert issues["data.path"].nearest == (str(tmp_path / "table.csv"),)


@pytest.mark.parametrize(
    ("wrong", "paths"),
    [
        ({"learner": {"_type_": "loss.mse"}}, {("learner", "_type_")}),
        ({"model": {"seqential": {}}}, {("model", "seqential")}),
        ({"model": {"sequential": {"layers": []}, "graph": {}}}, {("model", "graph")}),
    ],
)
def test_one_mistake_is_one_issue(wrong: dict[str, Any], paths: set[tuple[str, ...]]) -> None:
    with pytest.raises(ConfigError) as caught:
        build(config(**wrong))
    assert {issue.path for issue in caught.value.issues} == paths


def test_evaluate_takes_what_fit_takes_and_predict_takes_numpy() -> None:
    state, data = build(config())
    batches = list(data.batches("val", 0))
    whole = [{name: torch.cat([batch[name] for batch in batches]) for name in ("x", "y")}]
    loader: DataLoader[Any] = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    for other in (batches, loader, whole):
        assert evaluate(state, other) == pytest.approx(evaluate(state, data))
    torch.testing.assert_close(predict(state, whole[0]["x"].numpy()), predict(state, whole[0]["x"]))


def test_the_names_that_a_user_meets_are_listed() -> None:
    assert {"build", "fit", "evaluate", "predict", "to_module"} <= set(dir(ftrainer))


def test_evaluating_an_empty_split_says_so() -> None:
    state, data = build(config(), {"data.val_steps_per_epoch": 0})
    with pytest.raises(ValueError, match="the val split is empty"):
        evaluate(state, data)


def test_accumulation_trains_as_one_big_batch_would() -> None:
    one, data = build(config(), {"run.precision": "fp64", "trainer.max_epochs": 2})
    four, _ = build(config(), {"run.precision": "fp64", "trainer.max_epochs": 2, "trainer.grad_accum_steps": 5})
    batches = list(data.batches("train", 0))
    whole = {name: torch.cat([batch[name] for batch in batches]) for name in ("x", "y")}
    a, b = fit(one, [whole]), fit(four, batches)
    assert int(b.step) == 2
    torch.testing.assert_close(a.params, b.params, rtol=0, atol=1e-12)


def test_fp64_takes_data_that_is_float64_and_without_it_the_error_says_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    np.savez(tmp_path / "d.npz", x=torch.randn(9, 3).double().numpy(), y=torch.randn(9, 2).double().numpy())
    data = {"_type_": "data.arrays", "files": str(tmp_path / "d.npz"), "batch_size": 3}
    with pytest.raises(
        ConfigError, match=r"same dtype.*\(data keep the dtype of their file: .*`run.precision: fp64`\)"
    ):
        build(config(data=data))
    state, opened = build(config(data=data), {"run.precision": "fp64"})
    assert int(fit(state, opened).step) == 9


def test_fp64_computes_in_float64() -> None:
    state, data = build(config(), {"run.precision": "fp64"})
    trained = fit(state, data)
    assert {leaf.dtype for leaf in pytree.leaves(trained.params)} == {torch.float64}


def test_a_precision_that_the_device_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"run\.precision: tf32 needs a GPU"):
        build(config(), {"run.precision": "tf32", "run.device": "cpu"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"run\.device: this machine has no usable GPU"):
        build(config(), {"run.device": "cuda"})


def test_run_experiment_leaves_everything_on_disk(tmp_path: Path) -> None:
    run_experiment(config(), {"run.out_dir": str(tmp_path / "run"), "trainer.log_every_n_steps": 5})
    run = tmp_path / "run"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["split"]) for row in rows] == [
        (5, "train"), (5, "val"), (10, "train"), (10, "val"), (15, "train"), (15, "val"),
    ]  # fmt: skip
    assert set(rows[0]["metrics"]) >= {"loss", "grad_norm"}
    assert (run / "config.yaml").read_text().count("random_regression") == 1
    assert (run / "metrics.csv").is_file()
    assert (run / "checkpoints" / "last" / "state.safetensors").is_file()


def test_a_second_run_into_the_same_directory_is_refused(tmp_path: Path) -> None:
    overrides = {"run.out_dir": str(tmp_path / "run"), "trainer.max_steps": 2}
    run_experiment(config(), overrides)
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    with pytest.raises(ConfigError, match=r"run\.out_dir: an earlier run lies here.*--overwrite"):
        run_experiment(config(), overrides)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before
    run_experiment(config(), overrides | {"trainer.max_steps": 1}, overwrite=True)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_data_that_lack_a_package_say_which_extra() -> None:
    @component
    class Lacking:
        def open(self, *, seed: int, device: Any) -> MemoryData:
            require("no_such_package", extra="rl", by="data.lacking")
            raise AssertionError("unreachable")

    registry = builtin_registry().register("data.lacking", Lacking)
    with pytest.raises(ConfigError, match=r"^data: data.lacking needs the package 'no_such_package': pip install 'ftr"):
        build(config(data={"_type_": "data.lacking"}), registry=registry)


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^run\.out_dir: cannot be written to: not a directory; found .*file/run$"):
        run_experiment(config(), {"run.out_dir": str(tmp_path / "file" / "run"), "trainer.max_steps": 1})


def test_the_working_directory_is_never_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = {"run.out_dir": ".", "trainer.max_steps": 1}
    run_experiment(config(), overrides)
    with pytest.raises(ConfigError, match=r"run\.out_dir: holds the working directory, which --overwrite would empty"):
        run_experiment(config(), overrides, overwrite=True)
    assert (tmp_path / "metrics.jsonl").is_file()


def test_a_wrong_configuration_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lrr"):
        run_experiment(config(), {"run.out_dir": str(tmp_path / "run"), "optimizer.lrr": 1.0})
    assert not (tmp_path / "run").exists()


def test_the_architecture_as_a_table() -> None:
    text = architecture(config(model={"sequential": {"layers": [{"_type_": "mlp", "dims": [None, 16, 2]}]}}))
    assert "Linear" in text
    assert "(8, 3)" in text
    assert str(3 * 16 + 16 + 16 * 2 + 2) in text
