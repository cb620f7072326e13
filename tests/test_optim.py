"""Every optimizer against torch's own, or its paper, in float64, on distances from the start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import pytest
import torch

from ftrainer.builtins import OPTIMIZERS
from ftrainer.components.optim.adamw import AdamW
from ftrainer.components.optim.averaged import eval_params
from ftrainer.components.optim.chain import Chain
from ftrainer.components.optim.clip_by_global_norm import ClipByGlobalNorm
from ftrainer.components.optim.clip_by_value import ClipByValue
from ftrainer.components.optim.lion import Lion
from ftrainer.components.optim.muon import Muon
from ftrainer.components.optim.schedule_free_adamw import ScheduleFreeAdamW
from ftrainer.components.optim.scheduled import Scheduled, scheduled
from ftrainer.components.optim.sgd import SGD
from ftrainer.components.optim.torch import torch_optimizer
from ftrainer.components.schedules.linear import Linear
from ftrainer.functional import pytree
from registry import ConfigError

from .contracts.transforms import context, grads_for, params_for
from .parity import optimizers as papers

STEPS = 120

TORCH: list[tuple[str, dict[str, Any]]] = [
    ("Adadelta", {"lr": 0.5, "weight_decay": 0.1}),
    ("Adafactor", {"weight_decay": 0.1}),
    ("Adafactor", {"lr": 0.2, "beta2_decay": -0.5, "eps": (1e-12, 1e-2), "d": 1.5}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.01, "weight_decay": 0.1, "initial_accumulator_value": 0.1}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.01, "betas": (0.3, 0.9), "weight_decay": 0.1, "amsgrad": True, "eps": 1e-3}),
    ("Adam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.0, "amsgrad": True}),
    ("Adamax", {"lr": 0.01, "weight_decay": 0.1}),
    ("NAdam", {"lr": 0.01, "weight_decay": 0.1}),
    ("NAdam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True, "momentum_decay": 0.1}),
    ("RAdam", {"lr": 0.01, "weight_decay": 0.1}),
    ("RAdam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True, "betas": (0.5, 0.9)}),
    ("RMSprop", {"lr": 0.01, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.01, "alpha": 0.5, "momentum": 0.9, "centered": True}),
    ("SGD", {"lr": 0.01}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
]


@pytest.fixture
def float64() -> Iterator[None]:
    """Torch keeps some of its own counters in the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def run(transform: Any, params: Any, steps: int = STEPS, opt_state: Any = None, start: int = 0) -> tuple[Any, Any]:
    opt_state = transform.init(params) if opt_state is None else opt_state
    for k in range(start, start + steps):
        updates, opt_state = transform.update(grads_for(params, k), opt_state, params, context(k))
        params = pytree.map(torch.add, params, updates)
    return params, opt_state


def run_torch(make: Any, params: Any, steps: int = STEPS, before: Any = lambda tensors: None) -> Any:
    flat = {name: p.clone() for name, p in params["model"].items()}
    optimizer = make(flat)
    for k in range(steps):
        for tensor, grad in zip(flat.values(), grads_for({"model": flat}, k)["model"].values(), strict=True):
            tensor.grad = grad
        before(list(flat.values()))
        optimizer.step()
    return {"model": flat}


def assert_same_way(start: Any, mine: Any, theirs: Any, tolerance: float = 1e-12) -> None:
    for name, p in start["model"].items():
        moved = theirs["model"][name] - p
        assert moved.abs().max() > 1e-3, "the comparison is empty if nothing moves"
        torch.testing.assert_close(mine["model"][name] - p, moved, rtol=0, atol=tolerance)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "kwargs"), TORCH)
def test_the_native_transform_equals_torchs_optimizer(name: str, kwargs: dict[str, Any]) -> None:
    params = params_for("optim.adamw")
    mine, _ = run(torch_optimizer(type=f"optim_cls.{name}", kwargs=kwargs), params)
    theirs = run_torch(lambda flat: getattr(torch.optim, name)(flat.values(), **kwargs), params)
    assert_same_way(params, mine, theirs)


def test_float32_stays_close_to_torch_too() -> None:
    params = params_for("optim.adamw", torch.float32)
    mine, _ = run(AdamW(lr=0.01), params)
    theirs = run_torch(lambda flat: torch.optim.AdamW(flat.values(), lr=0.01), params)
    assert_same_way(params, mine, theirs, 2e-5)


@pytest.mark.parametrize("adjust", [None, "match_rms_adamw"])
def test_muon_equals_torchs_at_the_precision_of_bfloat16(adjust: str | None) -> None:
    params = params_for("optim.muon", torch.float32)
    transform = torch_optimizer(type="optim_cls.Muon", kwargs={"lr": 0.1, "adjust_lr_fn": adjust})
    mine, _ = run(transform, params, 1)
    theirs = run_torch(lambda flat: torch.optim.Muon(flat.values(), lr=0.1, adjust_lr_fn=adjust), params, 1)
    assert_same_way(params, mine, theirs, 0.1 * 2**-6)


@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_in_float64_is_its_published_iteration(nesterov: bool) -> None:
    params = params_for("optim.muon")
    mine, _ = run(Muon(lr=0.01, weight_decay=0.1, nesterov=nesterov, dtype="float64"), params)
    theirs = {"model": dict(params["model"])}
    mean = pytree.map(torch.zeros_like, params)
    for k in range(STEPS):
        grads = grads_for(theirs, k)
        for name, p in theirs["model"].items():
            g, m = grads["model"][name], mean["model"][name]
            m = mean["model"][name] = 0.95 * m + 0.05 * g
            direction = papers.muon_direction(0.95 * m + 0.05 * g if nesterov else m)
            ratio = max(1.0, p.shape[0] / p.shape[1]) ** 0.5
            theirs["model"][name] = p * (1 - 0.01 * 0.1) - 0.01 * ratio * direction
    assert_same_way(params, mine, theirs)


def test_muon_refuses_what_is_no_matrix() -> None:
    with pytest.raises(ConfigError, match=r"Muon is for matrices; found 0\.bias, scale"):
        Muon().init(params_for("optim.adamw"))


def test_lion_is_its_published_rule() -> None:
    params = params_for("optim.lion")
    mine, _ = run(Lion(lr=0.01, betas=(0.9, 0.99), weight_decay=0.1), params)
    theirs = {name: papers.Lion(p, lr=0.01, beta1=0.9, beta2=0.99, decay=0.1) for name, p in params["model"].items()}
    for k in range(STEPS):
        grads = grads_for({"model": {name: rule.theta for name, rule in theirs.items()}}, k)
        for name, rule in theirs.items():
            rule.step(grads["model"][name])
    assert_same_way(params, mine, {"model": {name: rule.theta for name, rule in theirs.items()}})


def test_schedule_free_adamw_is_its_published_rule() -> None:
    params = params_for("optim.schedule_free_adamw")
    settings = {"lr": 0.05, "beta1": 0.9, "beta2": 0.99, "decay": 0.1, "eps": 1e-8}
    theirs = {name: papers.ScheduleFreeAdamW(p, warmup=10, **settings) for name, p in params["model"].items()}
    rate = Linear(steps=9, start=0.1, final=1.0)  # t / warmup, t from 1
    transform = Scheduled(transform=ScheduleFreeAdamW(lr=0.05, betas=(0.9, 0.99), weight_decay=0.1), schedule=rate)
    mine, opt_state = run(transform, params)
    for k in range(STEPS):
        grads = grads_for({"model": {name: rule.y() for name, rule in theirs.items()}}, k)
        for name, rule in theirs.items():
            rule.step(grads["model"][name])
    assert_same_way(params, mine, {"model": {name: rule.y() for name, rule in theirs.items()}})
    averaged = eval_params(transform, opt_state, mine)
    assert_same_way(params, averaged, {"model": {name: rule.x for name, rule in theirs.items()}})


def test_schedule_free_stays_where_it_is_while_the_rate_is_zero() -> None:
    params = params_for("optim.schedule_free_adamw")
    mine, _ = run(Scheduled(transform=ScheduleFreeAdamW(), schedule=Linear(steps=5, start=0.0, final=1.0)), params, 1)
    torch.testing.assert_close(mine, params)


def test_schedule_free_needs_a_share_of_the_average() -> None:
    with pytest.raises(ConfigError, match=r"betas\[0\]: the average cannot be told from y"):
        ScheduleFreeAdamW(betas=(0.0, 0.99))


def test_clipping_in_front_of_an_optimizer_equals_torchs() -> None:
    params = params_for("optim.sgd")
    mine, _ = run(Chain(transforms=[ClipByGlobalNorm(max_norm=0.5), SGD(lr=0.1)]), params)
    clip = lambda tensors: torch.nn.utils.clip_grad_norm_(tensors, 0.5)  # noqa: E731
    assert_same_way(params, mine, run_torch(lambda flat: torch.optim.SGD(flat.values(), lr=0.1), params, before=clip))
    mine, _ = run(Chain(transforms=[ClipByValue(limit=0.5), SGD(lr=0.1)]), params)
    clip = lambda tensors: torch.nn.utils.clip_grad_value_(tensors, 0.5)  # noqa: E731
    assert_same_way(params, mine, run_torch(lambda flat: torch.optim.SGD(flat.values(), lr=0.1), params, before=clip))


def test_a_penalty_in_front_of_an_optimizer_is_the_optimizers_own() -> None:
    params = params_for("optim.sgd")
    decayed = OPTIMIZERS["optim.add_decayed_weights"](weight_decay=0.1)
    mine, _ = run(Chain(transforms=[decayed, SGD(lr=0.1, momentum=0.9)]), params)
    torch.testing.assert_close(mine, run(SGD(lr=0.1, momentum=0.9, weight_decay=0.1), params)[0])


def test_ema_is_the_mean_of_what_passed_through() -> None:
    params = {"model": {"w": torch.ones(2, dtype=torch.float64)}}
    ema = OPTIMIZERS["optim.ema"](decay=0.5)
    first, state = ema.update({"model": {"w": params["model"]["w"]}}, ema.init(params), params, context(0))
    second, _ = ema.update({"model": {"w": 4 * params["model"]["w"]}}, state, params, context(1))
    assert first["model"]["w"].tolist() == [1.0, 1.0]
    assert second["model"]["w"].tolist() == [3.0, 3.0]  # (0.5 * 0.5 * 1 + 0.5 * 4) / (1 - 0.25)


def test_a_long_run_does_not_lose_the_bias_correction() -> None:
    step = AdamW(lr=1.0, weight_decay=0.0, betas=(0.9, 0.99999), eps=0.0)
    ones = {"model": {"w": torch.ones(1, dtype=torch.float64)}}
    state = step.init(ones)
    state["mu"], state["nu"] = ones, pytree.map(lambda x: x * (1 - 0.99999 ** (10**6)), ones)
    updates, _ = step.update(ones, state, ones, context(10**6 - 1))
    torch.testing.assert_close(updates["model"]["w"], torch.tensor([-1.0], dtype=torch.float64), rtol=1e-9, atol=0)


def test_the_loops_scale_is_applied_once_however_deep_the_schedules() -> None:
    params = params_for("optim.sgd")
    inner = Scheduled(transform=SGD(lr=1.0), schedule=Linear(steps=10))
    outer = Scheduled(transform=Chain(transforms=[inner]), schedule=Linear(steps=10))
    grads = grads_for(params)
    updates, _ = outer.update(grads, outer.init(params), params, context(5, lr_scale=0.1))
    torch.testing.assert_close(updates, pytree.map(lambda g: -0.5 * 0.5 * 0.1 * g, grads))


def test_no_schedule_leaves_the_transform_itself() -> None:
    assert scheduled(SGD(), None) == SGD()


def test_a_transform_without_averages_evaluates_the_parameters_themselves() -> None:
    params = params_for("optim.sgd")
    assert eval_params(Chain(transforms=[SGD()]), {"0": {}}, params) is params


def test_a_momentum_swept_from_nothing_says_what_to_do() -> None:
    params = params_for("optim.sgd")
    for spec in (SGD(), OPTIMIZERS["optim.rmsprop"]()):
        swept = attrs.evolve(spec, momentum=torch.tensor(0.9, dtype=torch.float64))
        with pytest.raises(ConfigError, match=r"momentum: is swept or scheduled, but .*give the configuration's own"):
            swept.update(grads_for(params), spec.init(params), params, context(0))


WRONG: list[tuple[str, Mapping[str, Any], str]] = [
    ("optim.sgd", {"lr": -1}, r"lr: out of range; found -1; expected a number of at least 0"),
    ("optim.sgd", {"lr": "fast"}, r"lr: not a number; found 'fast'"),
    ("optim.sgd", {"lr": True}, r"lr: not a number; found True"),
    ("optim.sgd", {"lr": float("nan")}, r"lr: out of range; found nan"),
    ("optim.sgd", {"dampening": float("inf"), "momentum": 0.9}, r"dampening: out of range.* expected a finite number"),
    ("optim.sgd", {"nesterov": True}, r"nesterov: Nesterov needs a momentum and no dampening"),
    ("optim.adamw", {"betas": (0.9, 1.0)}, r"betas\[1\]: out of range; found 1.0; expected a number in \[0, 1\)"),
    ("optim.adamw", {"betas": (0.9,)}, r"betas: wrong length; found \(0.9,\); expected 2 values"),
    ("optim.rmsprop", {"alpha": 2}, r"alpha: out of range; found 2; expected a number in \[0, 1\]"),
    ("optim.adafactor", {"eps": (None, None)}, r"eps\[1\]: out of range; found None"),
    ("optim.muon", {"ns_steps": 0}, r"ns_steps: out of range; found 0; expected a whole number from 1 up"),
    ("optim.muon", {"dtype": "int8"}, r"dtype: unknown choice; found 'int8'; expected bfloat16 or float32 or float64"),
    ("optim.clip_by_value", {"limit": 0}, r"limit: out of range; found 0; expected a number above 0"),
    ("optim.chain", {"transforms": []}, r"transforms: a chain without links"),
]


@pytest.mark.parametrize(("key", "kwargs", "message"), WRONG)
def test_a_wrong_number_is_named_with_what_was_expected(key: str, kwargs: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OPTIMIZERS[key](**kwargs)
