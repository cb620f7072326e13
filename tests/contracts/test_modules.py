"""The contract of every block and of a wide sample of `torch.nn`: pure, and what torch itself computes.

One table; each row holds for all of: arguments unchanged, the same result twice, outputs and gradients those of the
plain module under autograd to 1e-12, traced equal to eager, a member of a `vmap` equal to its solo run.
"""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ftrainer.deps import dynamo
from ftrainer.functional import pytree
from ftrainer.functional.jit import jit
from ftrainer.functional.random import key, split
from ftrainer.model import Model
from tests.models import REGISTRY, graph, scalar, sequential

ROOT = Path(__file__).parents[2]
CLOSE = {"rtol": 1e-12, "atol": 1e-12}
F64 = torch.float64


def spec(kind: str, /, **arguments: Any) -> dict[str, Any]:
    return {"_type_": kind, **arguments}


ATTENTION = {"d_model": 4, "nhead": 2, "num_layers": 1, "dim_feedforward": 6}
CONV = spec("nn.Conv1d", in_channels=2, out_channels=3, kernel_size=2)
UP = spec("nn.LazyConvTranspose2d", out_channels=2, kernel_size=2, stride=2)
POOL = spec("nn.AdaptiveAvgPool2d", output_size=1)
LAYER = spec("nn.TransformerEncoderLayer", d_model=4, nhead=2, dim_feedforward=6, batch_first=True)
BLOCKS: dict[str, tuple[list[dict[str, Any]], tuple[int, ...]]] = {
    "mlp": ([spec("mlp", dims=[None, 6, 3], activation="tanh", dropout=0.3, final_activation="gelu")], (5, 4)),
    "conv_bn_act": ([spec("conv_bn_act", in_channels=None, out_channels=3, padding=1, act="silu")], (3, 2, 4, 4)),
    "residual": ([spec("residual", in_channels=2, out_channels=3, stride=2, act="tanh")], (3, 2, 4, 4)),
    "residual_mlp": ([spec("residual_mlp", in_features=None, width=4, out_features=2, dropout=0.3)], (5, 4)),
    "transformer_encoder": ([spec("transformer_encoder", dropout=0.3, causal=True, **ATTENTION)], (3, 4, 4)),
    "time_embedding": ([spec("time_embedding", dim=4), spec("nn.Linear", in_features=4, out_features=2)], (5,)),
    "positional_encoding": (
        [spec("positional_encoding", d_model=4, kind="learned", max_len=6, dropout=0.2)],
        (3, 5, 4),
    ),
    "gaussian_head": ([spec("gaussian_head", in_features=None, out_features=2, squash=True)], (5, 4)),
    "normalize": ([spec("normalize", field="x"), spec("nn.Linear", in_features=4, out_features=2)], (5, 4)),
}
TORCH: dict[str, tuple[list[dict[str, Any]], tuple[int, ...]]] = {
    "encoder": ([LAYER], (3, 4, 4)),
    "batch norm": ([CONV, spec("nn.BatchNorm1d", num_features=3)], (4, 2, 5)),
    "group norm": ([spec("nn.GroupNorm", num_groups=2, num_channels=4), spec("nn.Mish")], (3, 4, 5)),
    "dropouts": ([spec("nn.Dropout2d", p=0.4), spec("nn.AlphaDropout", p=0.3), spec("nn.RReLU")], (3, 4, 5, 5)),
    "pools": ([spec("nn.MaxPool2d", kernel_size=2), POOL, spec("nn.Flatten")], (3, 2, 4, 4)),
    "transposed": ([UP, spec("nn.Softplus")], (2, 3, 3, 3)),
    "gru cell": ([spec("nn.LayerNorm", normalized_shape=4), spec("nn.GRUCell", input_size=4, hidden_size=3)], (5, 4)),
}  # fmt: skip


def decoder() -> Model:
    """The one block with two inputs."""
    modules = {"d": spec("transformer_decoder", dropout=0.3, causal=True, **ATTENTION)}
    nodes = [{"name": "y", "call": "module:d", "args": ["$x", "$memory"]}]
    return graph({"inputs": ["x", "memory"], "modules": modules, "nodes": nodes, "outputs": ["$y"]})


def attention() -> Model:
    """`nn.MultiheadAttention` with dropout, its weights too."""
    modules = {"a": spec("nn.MultiheadAttention", embed_dim=4, num_heads=2, dropout=0.3, batch_first=True)}
    nodes = [{"name": "y", "call": "module:a", "args": ["$x", "$memory", "$memory"], "out": ["out", "weights"]}]
    return graph({"inputs": ["x", "memory"], "modules": modules, "nodes": nodes, "outputs": ["$out", "$weights"]})


ROWS = {name: (lambda row=row: sequential(*row[0]), {"x": row[1]}) for name, row in (BLOCKS | TORCH).items()}
ROWS |= {"transformer_decoder": (decoder, {"x": (3, 4, 4), "memory": (3, 5, 4)})}
ROWS |= {"attention": (attention, {"x": (3, 4, 4), "memory": (3, 5, 4)})}


def started(name: str) -> tuple[Model, Any, Any, dict[str, Tensor]]:
    """A row's model with its tensors in float64, and inputs."""
    make, shapes = ROWS[name]
    generator = torch.Generator().manual_seed(1)
    inputs = {k: torch.rand(shape, generator=generator, dtype=F64) for k, shape in shapes.items()}
    model = make()
    statistics = {"x": {"mean": inputs["x"].mean(0), "std": inputs["x"].std(0)}}
    params, buffers = model.init(key(0), {k: x.float() for k, x in inputs.items()}, statistics)
    return model, widen(params), widen(buffers), inputs


def widen(tree: Any) -> Any:
    return {name: x.double() if x.is_floating_point() else x for name, x in tree.items()}


def differentiate(model: Model, params: Any, buffers: Any, inputs: Any, k: Tensor | None, train: bool) -> Any:
    """Gradients, outputs and new buffers."""

    def loss(p: Any) -> Any:
        outputs, new = model.apply(p, buffers, inputs, k, train=train)
        return scalar(outputs), (outputs, new)

    return torch.func.grad(loss, has_aux=True)(params)


def same(ours: Any, theirs: Any, **tolerance: float) -> None:
    for one, two in zip(pytree.leaves(ours), pytree.leaves(theirs), strict=True):
        torch.testing.assert_close(one, two, **(tolerance or CLOSE))


def test_every_block_has_a_row() -> None:
    blocks = {name for name in REGISTRY if "." not in name}
    assert blocks <= set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_pure_and_traced_as_eager(name: str) -> None:
    model, params, buffers, inputs = started(name)
    kept = copy.deepcopy((params, buffers, inputs))
    one, two = (differentiate(model, params, buffers, inputs, key(3), True) for _ in range(2))
    same(one, two, rtol=0, atol=0)
    same((params, buffers, inputs), kept, rtol=0, atol=0)
    run = jit(lambda p, b, x, k: differentiate(model, p, b, x, k, True), backend="trace")
    same(run(params, buffers, inputs, key(3)), one)


@pytest.mark.parametrize("name", ROWS)
def test_the_plain_module_and_autograd_say_the_same(name: str) -> None:
    model, params, buffers, inputs = started(name)
    for train in (False, True):
        module = model.to_module(params, buffers).train(train)
        before = torch.get_rng_state()
        outputs = module(*inputs.values())
        if torch.equal(torch.get_rng_state(), before):
            if params:
                scalar(outputs).backward()
            grads, (ours, _) = differentiate(model, params, buffers, inputs, None, train)
            same(ours, outputs)
            same(grads, {n: p.grad for n, p in module.named_parameters() if n in params})
        else:
            assert train


@pytest.mark.parametrize("name", ROWS)
def test_a_member_of_a_vmap_is_its_solo_run(name: str) -> None:
    model, params, buffers, inputs = started(name)
    members = [
        (pytree.map(lambda x, s=s: x * s, params), buffers, k)
        for s, k in zip((1, 0.9, 1.2), split(key(5), 3), strict=True)
    ]
    stacked = pytree.map(lambda *leaves: torch.stack(leaves), *members)

    def run(p: Any, b: Any, k: Tensor) -> Any:
        return differentiate(model, p, b, inputs, k, True)

    together = torch.vmap(run)(*stacked)
    for index, member in enumerate(members):
        same(pytree.map(lambda x, i=index: x[i], together), run(*member), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["mlp", "residual", "transformer_decoder", "normalize", "batch norm", "dropouts"])
def test_what_dynamo_captures_is_the_module_itself(name: str) -> None:
    model, params, buffers, inputs = started(name)
    with dynamo.asked_for() as refusals:
        captured = differentiate(model, params, buffers, inputs, key(3), True)
    assert refusals == []
    same(captured, differentiate(model, params, buffers, inputs, key(3), True), rtol=0, atol=0)


SAMPLED = (
    "nn.Linear", "nn.Conv2d", "nn.Embedding", "nn.MultiheadAttention", "nn.LSTM", "nn.CrossEntropyLoss",
    "nn.LazyConv1d", "nn.GroupNorm", "nn.MaxPool2d",
)  # fmt: skip


def test_torchs_own_samples_pass() -> None:
    """In a process of its own, since torch's tables freeze torch's global flags when they are imported."""
    pytest.importorskip("expecttest", reason="torch's table of sample modules imports it")
    command = [sys.executable, "-m", "benchmarks.modules", "--limit", "1", *SAMPLED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert f"{len(SAMPLED)} of {len(SAMPLED)} classes pass" in done.stdout, done.stdout + done.stderr
