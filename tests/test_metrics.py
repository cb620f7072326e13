"""Figures over whole splits."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ftrainer import build, evaluate
from ftrainer.components.metrics.accuracy import Accuracy
from ftrainer.components.metrics.mae import MAE
from ftrainer.components.metrics.mse import MSE
from ftrainer.components.metrics.r2 import R2
from ftrainer.components.metrics.torchmetrics import TorchMetric
from registry import ConfigError
from tests.test_experiment import config


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_errors_are_torchs() -> None:
    outputs, targets = {"head": normal(7, 2)}, {"y": normal(7, 2, seed=1)}
    assert MSE(pred_path="head").compute(outputs, targets)["mse"] == F.mse_loss(outputs["head"], targets["y"])
    assert MAE(pred_path="head", name="error").compute(outputs, targets)["error"] == F.l1_loss(
        outputs["head"], targets["y"]
    )


def test_r2_is_one_for_the_truth_and_zero_for_its_mean() -> None:
    target = normal(9, 3)
    assert R2().compute(target, {"y": target})["r2"] == 1
    assert float(R2().compute(target.mean(0).expand(9, 3), {"y": target})["r2"]) == pytest.approx(0, abs=1e-12)


def test_accuracy_counts_the_best_scores_or_two_sides() -> None:
    scores, target = torch.tensor([[3.0, 1, 2], [1, 2, 3]]), {"y": torch.tensor([2, 2])}
    assert Accuracy().compute(scores, target)["accuracy"] == 0.5
    assert Accuracy(top_k=2).compute(scores, target)["accuracy"] == 1
    assert Accuracy(top_k=99).compute(scores, target)["accuracy"] == 1
    logits = torch.tensor([-1.0, 0.3, 0.7])
    assert Accuracy().compute(logits, {"y": torch.tensor([0, 1, 1])})["accuracy"] == 1
    assert float(Accuracy(threshold=0.5).compute(logits, {"y": torch.tensor([0, 1, 1])})["accuracy"]) == pytest.approx(
        2 / 3
    )


def test_accuracy_takes_maps_of_classes() -> None:
    scores = normal(2, 3, 4, 4)
    assert Accuracy().compute(scores, {"y": scores.argmax(1)})["accuracy"] == 1


def test_shapes_that_would_broadcast_are_refused() -> None:
    for metric in (MSE(), MAE(), R2()):
        with pytest.raises(ConfigError, match="shapes differ"):
            metric.compute(normal(4, 1), {"y": normal(4)})


class TestTorchmetrics:
    @pytest.fixture(autouse=True)
    def _installed(self) -> Any:
        return pytest.importorskip("torchmetrics", reason="needs the extra `metrics`")

    def test_a_function_gets_the_whole_split(self) -> None:
        outputs, targets = normal(6), {"y": normal(6, seed=1)}
        figure = TorchMetric(name="mean_absolute_error").compute(outputs, targets)
        torch.testing.assert_close(figure["mean_absolute_error"], F.l1_loss(outputs, targets["y"]))

    def test_r2_and_accuracy_agree_with_the_plain_ones(self) -> None:
        outputs, targets = normal(9, 3), {"y": normal(9, 3, seed=1)}
        torch.testing.assert_close(
            TorchMetric(name="r2_score").compute(outputs, targets)["r2_score"], R2().compute(outputs, targets)["r2"]
        )
        labels = {"y": torch.arange(9) % 3}
        kwargs = {"task": "multiclass", "num_classes": 3, "average": "micro"}
        figure = TorchMetric(name="accuracy", kwargs=kwargs).compute(outputs, labels)["accuracy"]
        assert float(figure) == pytest.approx(float(Accuracy().compute(outputs, labels)["accuracy"]))

    def test_lists_in_the_configuration_arrive_as_lists(self) -> None:
        scores, targets = torch.linspace(0, 1, 8), {"y": torch.arange(8) % 2}
        figure = TorchMetric(name="average_precision", kwargs={"task": "binary", "thresholds": [0.2, 0.5]})
        assert figure.compute(scores, targets)["average_precision"].shape == ()

    def test_several_figures_are_numbered_and_curves_refused(self) -> None:
        scores, targets = torch.linspace(0, 1, 9).reshape(3, 3), {"y": torch.tensor([0, 1, 2])}
        kwargs = {"task": "multiclass", "num_classes": 3, "average": None}
        assert list(TorchMetric(name="accuracy", kwargs=kwargs).compute(scores, targets)) == [
            "accuracy/0",
            "accuracy/1",
            "accuracy/2",
        ]
        curve = TorchMetric(name="precision_recall_curve", kwargs={"task": "binary", "thresholds": [0.2, 0.5]})
        with pytest.raises(
            ConfigError, match=r"name: gives curves or maps, not figures; found 'precision_recall_curve'"
        ):
            curve.compute(torch.linspace(0, 1, 8), {"y": torch.arange(8) % 2})

    def test_an_unknown_function_or_argument_is_named(self) -> None:
        with pytest.raises(ConfigError, match=r"name: unknown metric; found 'mean_abs_error'.*'mean_absolute_error'"):
            TorchMetric(name="mean_abs_error")
        with pytest.raises(
            ConfigError, match=r"kwargs.num_output: not an argument of r2_score|kwargs.adjust: not an argument"
        ):
            TorchMetric(name="r2_score", kwargs={"adjust": 1})


def test_without_torchmetrics_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"needs torchmetrics \(pip install 'ftrainer\[metrics\]'\)"):
        TorchMetric(name="r2_score")


@pytest.mark.parametrize("second", [{}, {"target_path": ["y"]}])
def test_two_metrics_under_one_name_are_refused_by_both_places(second: dict[str, Any]) -> None:
    metrics = [{"_type_": "metric.mae"}, {"_type_": "metric.mse"}, {"_type_": "metric.mae", **second}]
    with pytest.raises(
        ConfigError, match=r"metrics\[2\]: would overwrite metrics\[0\], .*found 'mae' \(leave one out or"
    ):
        build(config(metrics=metrics))
    metrics[2] |= {"name": "again"}
    state, data = build(config(metrics=metrics))
    assert evaluate(state, data).keys() == {"loss", "mae", "mse", "again"}
