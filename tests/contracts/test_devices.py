"""What must hold on a GPU and can be said without one: a step there reads and writes tensors of the GPU alone.

A tensor of the host inside a step costs a copy at every step, and no CUDA graph can hold it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ftrainer import build
from ftrainer.components.data.transforms import GaussianNoise, RandomFlip, RandomShift
from ftrainer.engine.stepper import accumulate, evaluate, update
from ftrainer.functional import augment, pytree, random
from ftrainer.functional.redirect import FUNCTIONAL, METHODS, TORCH, redirect
from ftrainer.functional.replicate import Own, resting, stack, together
from ftrainer.functional.scaling import with_loss_scale
from tests import offline_runs
from tests.contracts import learners, test_modules
from tests.contracts import transforms as table
from tests.contracts.devices import GPU, check_on_gpu, check_stays, strays, traced
from tests.contracts.test_learners import begin

X = torch.rand(4, 6, 8)
DRAWN = {
    "scaled_dot_product_attention": lambda draw, x: draw(x, x, x, dropout_p=0.3),
    "native_dropout": lambda draw, x: draw(x, 0.3, True),
    **dict.fromkeys(("rand", "randn"), lambda draw, x: draw(6, 8, device=x.device)),
    "randint": lambda draw, x: draw(9, (6,), device=x.device),
    "randint_like": lambda draw, x: draw(x, 9),
    "randperm": lambda draw, x: draw(6, device=x.device),
    "normal": lambda draw, x: draw(x, 0.1),
    "dropout2d": lambda draw, x: draw(x[..., None], 0.3),
    "dropout3d": lambda draw, x: draw(x[..., None, None], 0.3),
    "multinomial": lambda draw, x: draw(x[0], 3),
    "geometric_": lambda draw, x: draw(x.clone(), 0.3),
    **dict.fromkeys(("rand_like", "randn_like", "bernoulli", "gumbel_softmax"), lambda draw, x: draw(x)),
}
"""How a drawing function is called, where it is neither a dropout of `(x, p, training)` nor a method of `(x)`."""
DROPS = [("F", F, name) for name in FUNCTIONAL] + [("torch", torch, name) for name in TORCH]
SAMPLES = [("Tensor", Tensor, name) for name in METHODS]
ALIKE = ("encoder", "transformer_decoder", "residual_mlp", "residual")
"""Blocks that are made of what other rows have."""
REFUSED = ("poisson", "binomial", "_standard_gamma", "_sample_dirichlet")


def drawn(owner: Any, name: str, x: Tensor) -> Any:
    """One call of a drawing function."""
    with redirect(random.key(0, x.device)):
        draw = getattr(owner, name)
        if name in DRAWN:
            return DRAWN[name](draw, x)
        return draw(x.clone()) if owner is Tensor else draw(x.clone(), 0.3, True)


def test_a_tensor_of_the_host_is_found() -> None:
    held = torch.rand(3)
    graph = traced(lambda x: x + torch.arange(3).to(x.device), held)
    assert list(strays(graph)) == ["aten.arange.default (3,) on cpu, read by aten._to_copy.default"]
    with pytest.raises(RuntimeError, match=r"two (different )?devices"):
        traced(lambda x: x + held, held)


def test_numbers_of_the_host_are_taken_to_the_device() -> None:
    half, rows, weights = torch.tensor(0.5), torch.tensor([2, 0]), torch.rand(3)

    graph = check_stays(lambda x: (x * half * torch.tensor(2) + weights.to(x.device))[rows], torch.rand(3))
    fulls = graph.graph.find_nodes(op="call_function", target=torch.ops.aten.full.default)
    assert [(node.args[1], node.kwargs["dtype"]) for node in fulls] == [(0.5, torch.float32), (2, torch.int64)]
    assert {node.kwargs["device"].type for node in fulls} == {"meta"}


@pytest.mark.parametrize("fn", [update, accumulate, evaluate])
@pytest.mark.parametrize("key", learners.ROWS)
def test_a_learner(key: str, fn: Any) -> None:
    state, batches = begin(key)
    check_on_gpu(fn, state, batches[0])


def test_members() -> None:
    state, batches = begin("learner.supervised")
    own = Own(pytree.map(lambda x: x.expand(2, *x.shape), batches[0]))
    check_on_gpu(together(resting(update)), stack([state, state]), own)
    check_stays(together(evaluate), stack([state, state]), own, device=GPU)


@pytest.mark.parametrize("name", ["td3_bc", "iql"])
def test_a_learner_of_several_networks(name: str, tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="needs the extra rl")
    path = offline_runs.write_episodes(tmp_path / "e.hdf5", n=20)
    state, data = build(offline_runs.config(name, path), {"run.compile": "eager"})
    batch = next(iter(data.batches("train", 0)))
    check_stays(update, attrs.evolve(state, program=state.program.step_part()), batch)


def test_a_step_with_all_that_surrounds_it() -> None:
    """Loss scaling without its casts, which torch has for real GPUs alone."""
    state, batches = begin("learner.supervised")
    policy = attrs.evolve(state.program.policy, log_norms=True, transforms=(GaussianNoise(std=0.1),))
    state = attrs.evolve(state, program=state.program.but(policy=policy))
    check_stays(update, with_loss_scale(state), batches[0])


@pytest.mark.parametrize("key", table.OPTIMIZER_ROWS)
def test_an_optimizer(key: str) -> None:
    transform, params = table.optimizer(key), table.params_for(key)
    state, ctx = transform.init(params), table.context(0)
    check_stays(transform.update, table.grads_for(params), state, params, ctx, device=GPU)


@pytest.mark.parametrize("key", table.SCHEDULE_ROWS)
def test_a_schedule(key: str) -> None:
    schedule, optimizer = table.schedule(key), table.OPTIMIZERS["optim.adamw"](lr=0.01)

    def moved(ctx: Any) -> list[Tensor]:
        adjusted = schedule.adjust(optimizer, ctx)
        return [x for x in (adjusted.lr, *adjusted.betas) if isinstance(x, Tensor)]

    check_stays(moved, table.context(0))


@pytest.mark.parametrize("key", table.LOSS_ROWS)
def test_a_loss(key: str) -> None:
    loss, mask = table.loss(key), torch.tensor([True, True, False, True, False, True])
    check_stays(torch.func.grad(loss), *table.loss_inputs(key), mask)


@pytest.mark.parametrize("name", [name for name in test_modules.ROWS if name not in ALIKE])
def test_a_block(name: str) -> None:
    model, params, buffers, inputs = test_modules.started(name)
    check_stays(lambda *args: test_modules.differentiate(model, *args, True), params, buffers, inputs, random.key(3))


def test_random_functions() -> None:
    def draws(key: Tensor, data: Tensor, p: Tensor) -> list[Tensor]:
        return [random.key(data), random.key(7, key.device), random.fold_in(key, 3), random.fold_in(key, data),
                random.split(key, 3), random.bits(key, (5,)), random.uniform(key, (2, 3), torch.float64),
                random.normal(key, (5,)), random.normal(key), random.exponential(key, (5,), torch.float64),
                random.bernoulli(key, 0.3, (5,)), random.bernoulli(key, p, (5,)),
                random.randint(key, (5,), -3, 2**40), random.permutation(key, 7)]  # fmt: skip

    check_stays(draws, random.key(0), torch.tensor(5), torch.tensor(0.5))


@pytest.mark.parametrize(("place", "owner", "name"), DROPS + SAMPLES, ids=[f"{p}.{n}" for p, _, n in DROPS + SAMPLES])
def test_torch_draws(place: str, owner: Any, name: str) -> None:
    if name not in REFUSED and hasattr(owner, name):
        check_stays(lambda x: drawn(owner, name, x), X)


def test_augmentations() -> None:
    every = (RandomShift(pixels=1), RandomShift(pixels=2, fill="zero"), RandomFlip(), GaussianNoise(std=0.1))
    check_stays(lambda x, key: augment.apply(every, {"x": x}, key), torch.rand(4, 3, 6, 6), random.key(0))
