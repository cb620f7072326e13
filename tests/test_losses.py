"""Losses against torch's own, with and without padded rows."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from ftrainer import build, fit
from ftrainer.builtins import LOSSES, builtin_registry
from ftrainer.components.losses.cross_entropy import CrossEntropy
from ftrainer.components.losses.gaussian_nll import GaussianNLL
from ftrainer.components.losses.huber import Huber
from ftrainer.components.losses.l1 import L1
from ftrainer.components.losses.mse import MSE
from ftrainer.components.losses.torch import TorchLoss
from ftrainer.components.losses.weighted_sum import WeightedSum
from ftrainer.config.catalogue import describe_component
from ftrainer.config.schema import json_schema
from registry import ConfigError, check, instantiate
from registry.spec import Deferred


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def torch_loss(cls: Any, **kwargs: Any) -> TorchLoss:
    return TorchLoss(fn=Deferred(key=f"nn.{cls.__name__}", factory=cls, kwargs=kwargs))


REGRESSIONS = [(MSE(), nn.MSELoss()), (L1(), nn.L1Loss()), (Huber(delta=0.3), nn.HuberLoss(delta=0.3))]


@pytest.mark.parametrize(("mine", "theirs"), REGRESSIONS)
def test_a_regression_loss_equals_torchs(mine: Any, theirs: Any) -> None:
    outputs, target = normal(5, 3), normal(5, 3, seed=1)
    torch.testing.assert_close(mine(outputs, {"y": target}), theirs(outputs, target))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weight", [(), (1.0, 3.0, 0.5, 2.0)])
@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_cross_entropy_equals_torchs(smoothing: float, weight: tuple[float, ...], shape: tuple[int, ...]) -> None:
    scores, target = normal(6, 4, *shape), torch.arange(6).reshape(6, *[1] * len(shape)).expand(6, *shape) % 4
    mine = CrossEntropy(label_smoothing=smoothing, weight=weight)
    kwargs = {"label_smoothing": smoothing, "weight": torch.tensor(weight).double() if weight else None}
    torch.testing.assert_close(mine(scores, {"y": target}), F.cross_entropy(scores, target, **kwargs))
    soft = normal(6, 4, *shape, seed=1).softmax(1)
    torch.testing.assert_close(mine(scores, {"y": soft}), F.cross_entropy(scores, soft, **kwargs))


def test_cross_entropy_wants_one_weight_for_each_class() -> None:
    with pytest.raises(ConfigError, match=r"weight: wrong number of weights; found 2; expected 3, one for each class"):
        CrossEntropy(weight=[1.0, 2.0])(normal(2, 3), {"y": torch.tensor([0, 1])})


@pytest.mark.parametrize("full", [True, False])
def test_gaussian_nll_equals_torchs_however_the_two_halves_come(full: bool) -> None:
    mean, log_std, target = normal(5, 2), normal(5, 2, seed=1), normal(5, 2, seed=2)
    expected = F.gaussian_nll_loss(mean, target, torch.exp(2 * log_std), full=full, eps=0.0)
    for outputs in ({"mean": mean, "log_std": log_std}, (mean, log_std), torch.cat([mean, log_std], -1)):
        torch.testing.assert_close(GaussianNLL(full=full)(outputs, {"y": target}), expected)


def test_gaussian_nll_bounds_the_spread_from_below() -> None:
    outputs = (torch.zeros(1), torch.tensor([-100.0]))
    assert float(GaussianNLL(min_log_std=-2.0)(outputs, {"y": torch.zeros(1)})) == -2.0


def test_gaussian_nll_says_what_it_looks_for() -> None:
    with pytest.raises(
        ConfigError, match=r"pred_path: no mean and log_std; found \(2, 3\); expected a mapping, a pair"
    ):
        GaussianNLL()(normal(2, 3), {"y": normal(2, 3)})
    with pytest.raises(
        ConfigError, match=r"pred_path: no 'log_std' here; found 'mean', 'logstd'; did you mean 'logstd'"
    ):
        GaussianNLL()({"mean": normal(2), "logstd": normal(2)}, {"y": normal(2)})


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"pred_path: shapes differ; found prediction \(4, 1\), target \(4,\)"):
        MSE()(normal(4, 1), {"y": normal(4)})
    with pytest.raises(ConfigError, match=r"pred_path: shapes differ; found prediction \(4, 1\), target \(4, 3\)"):
        torch_loss(nn.SmoothL1Loss)(normal(4, 1), {"y": normal(4, 3)})


@pytest.mark.parametrize("target", [torch.tensor([0.0, 1.0]), torch.tensor([[0], [1]]), torch.zeros(2, 4)])
def test_targets_that_are_no_classes_are_refused(target: Tensor) -> None:
    with pytest.raises(ConfigError, match=r"target_path: the target goes with neither class indices nor probabilities"):
        CrossEntropy()(normal(2, 3), {"y": target})


def test_class_indices_may_be_any_integers() -> None:
    indices = torch.tensor([0, 2])
    torch.testing.assert_close(
        CrossEntropy()(normal(2, 3), {"y": indices.int()}), CrossEntropy()(normal(2, 3), {"y": indices})
    )


def test_a_weighted_sum_adds_losses_up() -> None:
    outputs, targets = normal(4, 2), {"y": normal(4, 2, seed=1)}
    total = WeightedSum(losses=[MSE(), L1()], weights=[2.0, -1.0])(outputs, targets)
    torch.testing.assert_close(total, 2 * MSE()(outputs, targets) - L1()(outputs, targets))
    torch.testing.assert_close(WeightedSum(losses=[MSE()])(outputs, targets), MSE()(outputs, targets))
    with pytest.raises(ConfigError, match=r"weights: wrong number of weights; found 1; expected 2"):
        WeightedSum(losses=[MSE(), L1()], weights=[1.0])
    with pytest.raises(ConfigError, match=r"losses: nothing to sum"):
        WeightedSum(losses=[])


TORCH: list[tuple[Any, dict[str, Any], Any, Any]] = [
    (nn.MSELoss, {}, normal(6, 3), normal(6, 3, seed=1)),
    (nn.MSELoss, {"reduction": "sum"}, normal(6, 3), normal(6, 3, seed=1)),
    (nn.SmoothL1Loss, {"beta": 0.5}, normal(6, 3), normal(6, 3, seed=1)),
    (nn.BCEWithLogitsLoss, {}, normal(6), (normal(6, seed=1) > 0).double()),
    (nn.KLDivLoss, {"reduction": "batchmean"}, normal(6, 3).log_softmax(1), normal(6, 3, seed=1).softmax(1)),
    (nn.CrossEntropyLoss, {"weight": torch.tensor([1.0, 5.0, 2.0])}, normal(6, 3), torch.arange(6) % 3),
    (nn.CrossEntropyLoss, {"ignore_index": 1}, normal(6, 3), torch.arange(6) % 3),
    (nn.CrossEntropyLoss, {"label_smoothing": 0.1}, normal(6, 3), normal(6, 3, seed=1).softmax(1)),
    (nn.NLLLoss, {}, normal(6, 3, 2).log_softmax(1), (torch.arange(12) % 3).reshape(6, 2)),
    (nn.MultiMarginLoss, {}, normal(6, 3), torch.arange(6) % 3),
]


@pytest.mark.parametrize(("cls", "kwargs", "outputs", "target"), TORCH)
def test_a_mask_leaves_padded_rows_out_of_any_torch_loss(
    cls: Any, kwargs: Any, outputs: Tensor, target: Tensor
) -> None:
    loss, mask = torch_loss(cls, **kwargs), torch.tensor([True, False, True, True, False, True])
    theirs = cls(**kwargs).to(outputs.dtype)
    torch.testing.assert_close(loss(outputs, {"y": target}), theirs(outputs, target))
    torch.testing.assert_close(loss(outputs, {"y": target}, torch.ones(6, dtype=torch.bool)), theirs(outputs, target))
    torch.testing.assert_close(loss(outputs, {"y": target}, mask), theirs(outputs[mask], target[mask]))


@given(st.lists(st.booleans(), min_size=1, max_size=12).filter(any), st.sampled_from(sorted(LOSSES)[:5]))
def test_padding_never_counts(mask: list[bool], key: str) -> None:
    kept = torch.tensor(mask)
    outputs = normal(len(mask), 4)
    narrow = normal(len(mask), 2 if key == "loss.gaussian_nll" else 4, seed=1)
    target = torch.arange(len(mask)) % 4 if key == "loss.cross_entropy" else narrow
    loss = LOSSES[key]()
    garbage = torch.where(kept.reshape(-1, 1), outputs, 1e6)
    torch.testing.assert_close(loss(garbage, {"y": target}, kept), loss(outputs[kept], {"y": target[kept]}))


def test_a_loss_that_cannot_leave_rows_out_is_named() -> None:
    class Own(nn.Module):
        def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
            return (prediction - target).abs().max()

    loss = torch_loss(Own)
    assert loss(normal(2), {"y": normal(2)}) == 0
    with pytest.raises(ConfigError, match=r"fn: Own cannot leave padded rows out; found reduction None"):
        loss(normal(2), {"y": normal(2)}, torch.tensor([True, False]))


def test_a_function_may_stand_for_a_module() -> None:
    loss = TorchLoss(fn=Deferred(key="mine", factory=lambda: lambda p, t: (p - t).sum()))
    assert math.isclose(loss(torch.tensor([2.0]), {"y": torch.tensor([0.5])}), 1.5)


def test_paths_lead_to_the_prediction_and_the_target() -> None:
    outputs, targets = {"heads": [normal(2), normal(2, seed=1)]}, {"a": normal(2), "b": normal(2, seed=2)}
    loss = MSE(pred_path=["heads", 1], target_path="b")
    torch.testing.assert_close(loss(outputs, targets), F.mse_loss(outputs["heads"][1], targets["b"]))


WRONG: list[tuple[dict[str, Any], Any, dict[str, Tensor], str]] = [
    ({}, normal(2), {"a": normal(2), "b": normal(2)}, r"target_path: which target\?; found 'a', 'b'.*name one"),
    ({}, normal(2), {}, r"target_path: which target\?; found no targets"),
    ({"target_path": ["act"]}, normal(2), {"action": normal(2)}, r"target_path: no 'act' here; found 'action'"),
    ({"pred_path": ["meen"]}, {"mean": normal(2)}, {"y": normal(2)}, r"pred_path: no 'meen' .*did you mean 'mean'"),
    ({"pred_path": [3]}, [normal(2)], {"y": normal(2)}, r"pred_path: no 3 here; found a list"),
]


@pytest.mark.parametrize(("kwargs", "outputs", "targets", "message"), WRONG)
def test_a_path_that_leads_nowhere_is_named(kwargs: Any, outputs: Any, targets: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MSE(**kwargs)(outputs, targets)


SCORES, LABELS = normal(6, 3), torch.tensor([0, 2, 1, 1, 0, 2])
WEIGHTED = {
    "nn.CrossEntropyLoss": ({"weight": [0.1, 0.9, 3]}, LABELS),
    "nn.NLLLoss": ({"weight": [0.1, 0.9, 3]}, LABELS),
    "nn.MultiMarginLoss": ({"weight": [0.1, 0.9, 3]}, LABELS),
    "nn.BCEWithLogitsLoss": (
        {"pos_weight": [0.1, 0.9, 3], "weight": [[0.3], [1], [1], [2], [1], [1]]},
        SCORES.sigmoid(),
    ),
    "nn.MultiLabelSoftMarginLoss": ({"weight": [0.1, 0.9, 3]}, SCORES.sigmoid().round()),
}


def fitted(loss: Any, **run: Any) -> Tensor:
    """The weights after three steps on regression data whose targets are probabilities."""
    settings = {
        "run": {"name": "weighted", **run},
        "model": {"sequential": {"layers": [{"_type_": "nn.Linear", "in_features": 3, "out_features": 2}]}},
        "data": {
            "_type_": "data.random_regression",
            "batch_size": 4,
            "steps_per_epoch": 3,
            "x_shape": [3],
            "y_shape": [2],
        },
        "io": {"_type_": "io.mapping", "model_kwargs": {"x": ["x"]}, "targets": {"y": ["y"]}},
        "loss": loss,
        "optimizer": {"_type_": "optim.sgd", "lr": 0.1},
        "trainer": {"_type_": "trainer.default", "max_steps": 3},
    }
    return fit(*build(settings)).params["model"]["0.weight"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", WEIGHTED)
def test_class_weights_are_lists_of_numbers(name: str, dtype: torch.dtype) -> None:
    kwargs, target = WEIGHTED[name]
    spec = {"_type_": "loss.torch", "fn": {"_type_": name, **kwargs}}
    loss = instantiate(builtin_registry(), spec)
    assert loss == instantiate(builtin_registry(), spec)
    assert len({loss, instantiate(builtin_registry(), spec)}) == 1
    tensors = {key: torch.tensor(value, dtype=dtype) for key, value in kwargs.items()}
    theirs = getattr(nn, name.removeprefix("nn."))(**tensors)
    scores, target = SCORES.to(dtype), target.to(dtype) if target.is_floating_point() else target
    assert torch.equal(loss(scores, {"y": target}), theirs(scores, target))


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_class_weights_hold_in_a_traced_step(precision: str) -> None:
    spec = {"_type_": "loss.torch", "fn": {"_type_": "nn.BCEWithLogitsLoss", "pos_weight": [0.1, 5]}}
    plain = {"_type_": "loss.torch", "fn": {"_type_": "nn.BCEWithLogitsLoss"}}
    eager, traced = (fitted(spec, compile=backend, precision=precision) for backend in ("eager", "trace"))
    torch.testing.assert_close(traced, eager)
    assert not torch.allclose(traced, fitted(plain, compile="eager", precision=precision))


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([[1, 2], [3]], "loss.fn.weight[1]: has another shape than the first row; found (1); expected (2)"),
        ([[1], 2], "loss.fn.weight[1]: has another shape than the first row; found a number; expected (1)"),
        ([1, "a"], "loss.fn.weight[1]: has the wrong type; found 'a'; expected a number"),
        ([True, 1], "loss.fn.weight[0]: has the wrong type; found True; expected a number"),
        ({"a": 1}, "loss.fn.weight: has the wrong type; found a mapping; expected a list of numbers"),
        ("1, 2", "loss.fn.weight: has the wrong type; found '1, 2'; expected a list of numbers"),
    ],
)
def test_class_weights_that_are_no_rows_of_numbers_are_refused(weight: Any, message: str) -> None:
    spec = {"_type_": "loss.torch", "fn": {"_type_": "nn.CrossEntropyLoss", "weight": weight}}
    assert [str(issue) for issue in check(builtin_registry(), spec, ("loss",))] == [message]


def test_editors_and_the_list_of_components_know_class_weights() -> None:
    registry = builtin_registry()
    assert "weight           numbers or null" in describe_component(registry, "nn.CrossEntropyLoss")
    taken = json_schema(registry)["$defs"]["key:nn.CrossEntropyLoss"]["properties"]["weight"]["anyOf"]
    assert {"type": ["number", "array"]} in taken
