"""Hyperparameters and transforms for parameters chosen by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ftrainer.builtins import OPTIMIZERS
from ftrainer.components.optim.adamw import AdamW
from ftrainer.components.optim.averaged import eval_params
from ftrainer.components.optim.mask import Mask
from ftrainer.components.optim.muon import Muon
from ftrainer.components.optim.partition import Partition
from ftrainer.components.optim.schedule_free_adamw import ScheduleFreeAdamW
from ftrainer.components.optim.scheduled import Scheduled
from ftrainer.components.optim.sgd import SGD
from ftrainer.components.optim.torch import NATIVE, REFUSED, torch_optimizer
from ftrainer.components.schedules.linear import Linear
from ftrainer.functional import pytree
from ftrainer.functional.state import evolve_at
from registry import ConfigError, component

from .contracts.transforms import context, grads_for, params_for
from .test_optim import assert_same_way, run, run_torch

BIASES = {"match": "*.bias", "weight_decay": 0, "lr": 0.05}


def torch_groups(make: Any, **rest: Any) -> Any:
    """Torch's optimizer with the group that `BIASES` describes."""

    def built(flat: dict[str, Any]) -> Any:
        biases = [p for name, p in flat.items() if name.endswith(".bias")]
        others = [p for name, p in flat.items() if not name.endswith(".bias")]
        return make([{"params": others}, {"params": biases, "weight_decay": 0, "lr": 0.05}], **rest)

    return built


def test_groups_equal_torchs_parameter_groups() -> None:
    params = params_for("optim.adamw")
    theirs = run_torch(torch_groups(torch.optim.AdamW, lr=0.01, weight_decay=0.1), params)
    assert_same_way(params, run(AdamW(lr=0.01, weight_decay=0.1, groups=[BIASES]), params)[0], theirs)
    bridged = torch_optimizer(type="optim_cls.AdamW", kwargs={"lr": 0.01, "weight_decay": 0.1}, groups=[BIASES])
    assert_same_way(params, run(bridged, params)[0], theirs)


def test_a_schedule_reaches_the_groups_rates_too() -> None:
    params = params_for("optim.sgd")
    spec = SGD(lr=1.0, groups=[{"match": "scale", "lr": 10.0}])
    grads, half = grads_for(params), Scheduled(transform=spec, schedule=Linear(steps=10))
    updates = half.update(grads, half.init(params), params, context(5))[0]["model"]
    torch.testing.assert_close(updates["scale"], -5.0 * grads["model"]["scale"])
    torch.testing.assert_close(updates["0.bias"], -0.5 * grads["model"]["0.bias"])


def test_the_first_group_that_matches_wins() -> None:
    params = params_for("optim.sgd")
    spec = SGD(lr=1.0, groups=[{"match": "0.*", "lr": 2.0}, {"match": "*.weight", "lr": 3.0}])
    updates = spec.update(grads_for(params), spec.init(params), params, context(0))[0]["model"]
    rates = {
        name: float((-u / g).flatten()[0])
        for (name, u), g in zip(updates.items(), grads_for(params)["model"].values(), strict=True)
    }
    assert rates == pytest.approx({"0.weight": 2.0, "1.weight": 3.0, "0.bias": 2.0, "scale": 1.0})


def test_names_may_carry_their_role() -> None:
    params = {"actor": {"w": torch.ones(1)}, "critic": {"w": torch.ones(1)}}
    spec = SGD(lr=1.0, groups=[{"match": "critic.*", "lr": 0.5}])
    updates, _ = spec.update(params, spec.init(params), params, context(0))
    assert (float(updates["actor"]["w"]), float(updates["critic"]["w"])) == (-1.0, -0.5)


def test_schedule_free_groups_evaluate_their_own_averages() -> None:
    params = params_for("optim.schedule_free_adamw")
    grouped = ScheduleFreeAdamW(groups=[{"match": "*.bias", "betas": [0.5, 0.9]}])
    mine, state = run(grouped, params, 5)
    alone, alone_state = run(ScheduleFreeAdamW(betas=(0.5, 0.9)), params, 5)
    bias = eval_params(grouped, state, mine)["model"]["0.bias"]
    torch.testing.assert_close(
        bias, eval_params(ScheduleFreeAdamW(betas=(0.5, 0.9)), alone_state, alone)["model"]["0.bias"]
    )


@component
class Holder:
    optimizer: Any


def test_a_groups_number_can_be_swept_and_its_pattern_cannot() -> None:
    holder = Holder(optimizer=AdamW(groups=[BIASES]))
    swept = evolve_at(holder, "optimizer.groups.0.lr", torch.tensor(0.5)).optimizer
    assert float(swept.groups[0]["lr"]) == 0.5
    assert evolve_at(holder, "optimizer.betas.0", 0.5).optimizer.betas == (0.5, 0.999)
    with pytest.raises(KeyError, match=r"groups.0.match: '\*.bias' is structural"):
        evolve_at(holder, "optimizer.groups.0.match", 1.0)
    parted = Holder(optimizer=Partition(parts=[{"match": "*", "transform": AdamW()}]))
    assert evolve_at(parted, "optimizer.parts.0.transform.lr", 0.5).optimizer.parts[0]["transform"].lr == 0.5


WRONG_GROUPS: list[tuple[Any, str]] = [
    ({"match": "*"}, r"groups: not a list"),
    ([{"weight_decay": 0}], r"groups\[0\]: a group without a pattern; expected a mapping with `match: <pattern>`"),
    (["*.bias"], r"groups\[0\]: a group without a pattern"),
    (
        [{"match": "*", "weight_decy": 0}],
        r"groups\[0\].weight_decy: unknown hyperparameter; did you mean 'weight_decay'",
    ),
    ([{"match": "*", "lr": -1}], r"groups\[0\].lr: out of range; found -1"),
]


@pytest.mark.parametrize(("groups", "message"), WRONG_GROUPS)
def test_a_wrong_group_is_named(groups: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AdamW(groups=groups)


def test_a_pattern_that_matches_nothing_shows_the_nearest_names() -> None:
    params = params_for("optim.adamw")
    with pytest.raises(ConfigError, match=r"groups\[0\].match: the pattern matches nothing; found '0.wait'.*0.weight"):
        AdamW(groups=[{"match": "0.wait", "lr": 1.0}]).init(params)
    with pytest.raises(ConfigError, match=r"parts\[0\].match: the pattern matches nothing"):
        Partition(parts=[{"match": "*.wait", "transform": SGD()}]).init(params)
    with pytest.raises(ConfigError, match=r"match: the pattern matches nothing"):
        Mask(transform=SGD(), match="*.wait").init(params)


def test_a_mask_leaves_the_rest_alone() -> None:
    params, grads = params_for("optim.sgd"), grads_for(params_for("optim.sgd"))
    for mask in (
        Mask(transform=SGD(lr=1.0), match="*.weight"),
        Mask(transform=SGD(lr=1.0), match=["*.bias", "scale"], invert=True),
    ):
        updates, _ = mask.update(grads, mask.init(params), params, context(0))
        expected = {name: -g if name.endswith("weight") else g for name, g in grads["model"].items()}
        torch.testing.assert_close(updates["model"], expected)
        assert eval_params(mask, {}, params) == params


def test_a_mask_without_a_pattern_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"match: no pattern"):
        Mask(transform=SGD(), match=())


def test_a_partition_is_each_transform_on_its_own_part() -> None:
    params = params_for("optim.adamw")
    muon, adamw = Muon(lr=0.01, dtype="float64"), ScheduleFreeAdamW(lr=0.01)
    parts = [{"match": "*.weight", "transform": muon}, {"match": "*", "transform": adamw}]
    mine, state = run(Partition(parts=parts), params, 10)
    weights = {"model": {name: p for name, p in params["model"].items() if name.endswith("weight")}}
    rest = {"model": {name: p for name, p in params["model"].items() if not name.endswith("weight")}}
    rest_alone, rest_state = run(adamw, rest, 10)
    torch.testing.assert_close(mine["model"], {**run(muon, weights, 10)[0]["model"], **rest_alone["model"]})
    averaged = eval_params(Partition(parts=parts), state, mine)["model"]
    torch.testing.assert_close(averaged["scale"], eval_params(adamw, rest_state, rest_alone)["model"]["scale"])
    assert averaged["0.weight"] is mine["model"]["0.weight"]


WRONG_PARTS: list[tuple[Any, str]] = [
    ([], r"parts: no parts"),
    ([{"match": "*", "transfrom": SGD()}], r"parts\[0\].transfrom: unknown key; did you mean 'transform'"),
    ([{"match": "*"}], r"parts\[0\]: incomplete; expected `match: <pattern>` and `transform: <optimizer>`"),
]


@pytest.mark.parametrize(("parts", "message"), WRONG_PARTS)
def test_a_wrong_part_is_named(parts: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Partition(parts=parts)


def test_a_parameter_that_no_part_wants_is_an_error() -> None:
    with pytest.raises(
        ConfigError,
        match=r'parts: parameters without a transform; found 0.bias, scale \(add a part with `match: "\*"`\)',
    ):
        Partition(parts=[{"match": "*.weight", "transform": SGD()}]).init(params_for("optim.sgd"))


def test_torchs_defaults_hold_for_what_is_left_out() -> None:
    assert torch_optimizer(type="optim_cls.SGD").momentum == 0
    assert torch_optimizer(type="optim_cls.Adam", args=[0.1, [0.5, 0.9]]).betas == (0.5, 0.9)
    assert torch_optimizer(type="optim_cls.AdamW", kwargs={"fused": True, "foreach": False}) == AdamW()


WRONG_TORCH: list[tuple[dict[str, Any], str]] = [
    ({"type": "optim_cls.AdamX"}, r"type: unknown optimizer; found 'optim_cls.AdamX'; .*did you mean 'optim_cls.Adam"),
    ({"type": "AdamW"}, r"type: unknown optimizer; found 'AdamW'; .*did you mean 'optim_cls.AdamW'"),
    ({"type": "optim_cls.AdamW", "kwargs": {"lr": "1e-3"}}, r"kwargs.lr: has the wrong type; .*; expected a number$"),
    ({"type": "optim_cls.LBFGS"}, r"type: torch.optim.LBFGS has no equal here: it evaluates the loss several times"),
    ({"type": "optim_cls.ASGD"}, r"use optim.sgd with the learner's ema_decay"),
    ({"type": "optim_cls.Rprop"}, r"use optim.lion or optim.rmsprop"),
    ({"type": "optim_cls.SparseAdam"}, r"gradients here are dense"),
    ({"type": "optim_cls.SGD", "kwargs": {"momentun": 0.9}}, r"momentun: not an argument .* mean 'momentum'"),
    ({"type": "optim_cls.SGD", "args": [0.1], "kwargs": {"lr": 0.1}}, r"kwargs.lr: given in args too"),
    ({"type": "optim_cls.SGD", "args": [0.1] * 9}, r"args: too many arguments; found 9; expected at most 5"),
    ({"type": "optim_cls.SGD", "args": [-1.0]}, r"args\[0\]: out of range; found -1.0"),
    ({"type": "optim_cls.SGD", "kwargs": {"lr": -1.0}}, r"kwargs.lr: out of range; found -1.0"),
    ({"type": "optim_cls.SGD", "kwargs": {"maximize": True}}, r"maximize has no equivalent here.*negate the loss"),
    ({"type": "optim_cls.SGD", "groups": [{"match": 1}]}, r"groups\[0\]: a group without a pattern"),
]


@pytest.mark.parametrize(("spec", "message"), WRONG_TORCH)
def test_what_the_torch_bridge_cannot_translate_is_named(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        torch_optimizer(**spec)


def test_every_class_of_torch_is_either_translated_or_refused_with_a_reason() -> None:
    classes = {n for n, c in vars(torch.optim).items() if isinstance(c, type) and issubclass(c, torch.optim.Optimizer)}
    assert classes - {"Optimizer"} == set(NATIVE) | set(REFUSED)
    assert all(hasattr(torch_optimizer(type=f"optim_cls.{name}"), "update") for name in NATIVE)


def test_the_short_keys_take_groups() -> None:
    with_groups = {"adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "lion", "muon", "nadam", "radam"}
    params = params_for("optim.muon")
    for name in with_groups | {"rmsprop", "schedule_free_adamw", "sgd"}:
        transform = OPTIMIZERS[f"optim.{name}"](groups=[{"match": "0.*", "lr": 0.0}])
        updates, _ = transform.update(grads_for(params), transform.init(params), params, context(0))
        assert not updates["model"]["0.weight"].any()
        assert updates["model"]["1.weight"].any()
        assert pytree.paths(updates) == pytree.paths(params)
