"""What every transform, schedule and loss promises: pure, shape-keeping, deterministic, traceable, alike under vmap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from ftrainer.functional import pytree
from ftrainer.functional.state import evolve_at
from registry.spec import is_traceable

from . import transforms as table
from .transforms import context, grads_for, params_for

OPTIMIZERS, SCHEDULES, LOSSES = table.OPTIMIZER_ROWS, table.SCHEDULE_ROWS, table.LOSS_ROWS


def test_every_key_of_the_step_has_its_row() -> None:
    for section, rows in table.tables():
        assert set(section) == set(rows)


def step(transform: Any, params: Any, opt_state: Any, count: Any = 0) -> tuple[Any, Any]:
    updates, opt_state = transform.update(grads_for(params), opt_state, params, context(count))
    return pytree.map(torch.add, params, updates), opt_state


def assert_close(actual: Any, expected: Any, tolerance: float = 1e-12) -> None:
    assert pytree.paths(actual) == pytree.paths(expected)
    for path, a, e in zip(pytree.paths(actual), pytree.leaves(actual), pytree.leaves(expected), strict=True):
        torch.testing.assert_close(a, e, rtol=tolerance, atol=tolerance, msg=lambda text, path=path: f"{path}: {text}")


def like(tree: Any) -> list[tuple[str, Any, Any]]:
    return [(path, x.shape, x.dtype) for path, x in zip(pytree.paths(tree), pytree.leaves(tree), strict=True)]


@pytest.mark.parametrize("key", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_an_optimizer_changes_no_argument_and_keeps_every_shape_and_dtype(key: str, dtype: torch.dtype) -> None:
    transform, params = table.optimizer(key), params_for(key, dtype)
    opt_state, grads = transform.init(params), grads_for(params)
    before = pytree.map(torch.clone, (grads, opt_state, params))
    updates, new_state = transform.update(grads, opt_state, params, context(0))
    assert_close((grads, opt_state, params), before, 0)
    assert like(updates) == like(params)
    assert like(new_state) == like(opt_state)
    assert pytree.structure(new_state) == pytree.structure(opt_state)
    assert all(bool(torch.isfinite(x).all()) for x in pytree.leaves(updates))


@pytest.mark.parametrize("key", OPTIMIZERS)
def test_an_optimizer_does_the_same_twice(key: str) -> None:
    transform, params = table.optimizer(key), params_for(key)
    assert_close(step(transform, params, transform.init(params)), step(transform, params, transform.init(params)), 0)


@pytest.mark.parametrize("key", OPTIMIZERS)
def test_an_optimizer_traced_with_fake_tensors_is_the_eager_one(key: str) -> None:
    transform, params = table.optimizer(key), params_for(key)
    opt_state = transform.init(params)
    traced = traced_flat(lambda p, s, count: step(transform, p, s, count), (params, opt_state, torch.tensor(0)))
    for count in range(3):
        expected = step(transform, params, opt_state, count)
        assert_close(traced((params, opt_state, torch.tensor(count))), expected)
        params, opt_state = expected


@pytest.mark.parametrize("key", OPTIMIZERS)
def test_a_member_under_vmap_is_its_solo_run(key: str) -> None:
    transform, params = table.optimizer(key), params_for(key)
    members = [pytree.map(lambda p, k=k: p + 0.1 * k, params) for k in range(2)]
    hyper = {
        name: torch.tensor([value, 0.5 * value], dtype=torch.float64) for name, value in numbers(transform).items()
    }

    def run(params: Any, hyper: dict[str, Tensor]) -> Any:
        swept = with_numbers(transform, hyper)
        moved, state = step(swept, params, swept.init(params), 0)
        return step(swept, moved, state, 1)

    stacked = pytree.map(lambda *xs: torch.stack(xs), *members)
    batched = torch.vmap(run)(stacked, hyper)
    for i, member in enumerate(members):
        solo = run(member, {name: values[i].item() for name, values in hyper.items()})
        assert_close(pytree.map(lambda x, i=i: x[i], batched), solo)
    single = torch.vmap(run)(pytree.map(lambda p: p.to(torch.float32), stacked), hyper)
    assert like(single[0]) == [(path, shape, torch.float32) for path, shape, _ in like(batched[0])]


@pytest.mark.parametrize("key", SCHEDULES)
def test_a_schedule_traced_or_under_vmap_is_the_eager_one(key: str) -> None:
    schedule = table.schedule(key)
    optimizer = table.OPTIMIZERS["optim.adamw"](lr=0.01)

    def moved(at: Tensor) -> tuple[Tensor, Tensor]:
        adjusted = schedule.adjust(optimizer, context(at, at // 4, 0.5))
        return adjusted.lr, torch.as_tensor(adjusted.betas[0], dtype=torch.float64)

    steps = torch.arange(table.TOTAL_STEPS + 5)
    eager = [moved(at) for at in steps]
    traced = traced_flat(lambda at: moved(at), (torch.tensor(0),))
    assert_close([traced((at,)) for at in steps], eager)
    members = torch.vmap(moved)(steps)
    assert_close([(members[0][i], members[1][i]) for i in range(len(steps))], eager)
    assert all(lr.dtype == torch.float64 and lr.shape == () for lr, _ in eager)


@pytest.mark.parametrize("key", SCHEDULES)
def test_a_schedules_numbers_can_be_swept(key: str) -> None:
    schedule = table.schedule(key)
    values = {
        name: torch.tensor([value, 0.5 * value], dtype=torch.float64) for name, value in numbers(schedule).items()
    }
    if not values:
        return

    def lr(hyper: dict[str, Tensor]) -> Tensor:
        return with_numbers(schedule, hyper).adjust(table.OPTIMIZERS["optim.sgd"](lr=1.0), context(3)).lr

    members = torch.vmap(lr)(values)
    for i in range(2):
        assert_close(members[i], lr({name: value[i].item() for name, value in values.items()}))


@pytest.mark.parametrize("key", LOSSES)
def test_a_loss_is_scalar_pure_traceable_and_the_same_under_vmap(key: str) -> None:
    loss, (outputs, targets) = table.loss(key), table.loss_inputs(key)
    mask = torch.tensor([True, True, False, True, False, True])
    before = pytree.map(torch.clone, (outputs, targets))
    eager = loss(outputs, targets, mask)
    assert_close((outputs, targets), before, 0)
    assert eager.shape == ()
    assert eager.dtype == outputs.dtype
    assert_close(traced_flat(loss, (outputs, targets, mask))((outputs, targets, mask)), eager)
    assert_close(
        torch.vmap(loss, in_dims=(0, None, None))(torch.stack([outputs, 2 * outputs]), targets, mask)[0], eager
    )


@pytest.mark.parametrize("key", LOSSES)
def test_a_loss_leaves_masked_rows_out(key: str) -> None:
    loss, (outputs, targets) = table.loss(key), table.loss_inputs(key)
    mask = torch.tensor([True, True, False, True, False, True])
    kept = loss(outputs[mask], {name: target[mask] for name, target in targets.items()})
    assert_close(loss(outputs, targets, mask), kept)
    assert_close(loss(outputs, targets, torch.ones_like(mask)), loss(outputs, targets))


@pytest.mark.parametrize("key", LOSSES)
def test_a_losss_numbers_can_be_swept(key: str) -> None:
    loss, (outputs, targets) = table.loss(key), table.loss_inputs(key)
    values = {name: torch.tensor([value, 0.5 * value], dtype=torch.float64) for name, value in numbers(loss).items()}
    if not values:
        return
    members = torch.vmap(lambda hyper: with_numbers(loss, hyper)(outputs, targets))(values)
    for i in range(2):
        solo = with_numbers(loss, {name: value[i].item() for name, value in values.items()})(outputs, targets)
        assert_close(members[i], solo)


def traced_flat(fn: Callable[..., Any], example: tuple[Any, ...]) -> Callable[[tuple[Any, ...]], Any]:
    """`fn` as a graph of flat fake tensors, replayed on any arguments of the same structure."""
    treedef, out = pytree.structure(example), []

    def flat(*leaves: Tensor) -> list[Tensor]:
        results, structure = pytree.flatten(fn(*pytree.unflatten(treedef, leaves)))
        out.append(structure)
        return results

    graph = make_fx(flat, tracing_mode="fake")(*pytree.leaves(example))
    return lambda args: pytree.unflatten(out[0], graph(*pytree.leaves(args)))


def numbers(spec: Any) -> dict[str, float]:
    """A component's own traceable numbers by path, those inside tuples too."""
    found = {}
    for field in filter(is_traceable, attrs.fields(type(spec))):
        value = getattr(spec, field.name)
        entries = (
            {f"{field.name}.{i}": item for i, item in enumerate(value)}
            if isinstance(value, tuple)
            else {field.name: value}
        )
        found |= {path: item for path, item in entries.items() if isinstance(item, (int, float))}
    return found


def with_numbers(spec: Any, hyper: dict[str, Any]) -> Any:
    """`spec` with swept numbers in it, as the step sees it."""
    holder = attrs.make_class("Holder", {"optimizer": attrs.field(default=spec)}, frozen=True)()
    for path, value in hyper.items():
        holder = evolve_at(holder, f"optimizer.{path}", value)
    return holder.optimizer
