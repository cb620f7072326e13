"""The workloads in JAX, with the torch modules' own weights, as functions of a flat dict of arrays."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax, nn

from .workloads import LR, WEIGHT_DECAY, Workload

Arrays = dict[str, jax.Array]
HEADS = 4


def step_of(workload: Workload) -> tuple[Callable[..., Any], Any]:
    """A jitted `(state, batch) -> (state, loss)` that donates its state, and the state to begin with.

    A state is parameters, statistics of BatchNorm (unused by the training loss, as torch's are), optax's state and the
    number of the step, from which the dropout key is folded.
    """
    module = workload.module()
    params = {name: jnp.asarray(value.detach().numpy()) for name, value in module.named_parameters()}
    running = {name: jnp.asarray(b.numpy()) for name, b in module.named_buffers() if name.endswith(("mean", "var"))}
    optimizer = optax.adamw(LR, weight_decay=WEIGHT_DECAY)
    apply = {"mlp": mlp, "conv_net": conv_net, "transformer": transformer}[workload.kind]
    dropout = float(workload.sizes.get("dropout", 0.0))

    @partial(jax.jit, donate_argnums=0)
    def advance(state: Any, batch: Arrays) -> Any:
        params, running, moments, count = state

        def loss_of(params: Arrays) -> Any:
            key = jax.random.fold_in(jax.random.key(0), count)
            out, new = apply(params, running, batch["x"], key, dropout)
            return jnp.mean((out - batch["y"]) ** 2), new

        (loss, running), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, moments = optimizer.update(grads, moments, params)
        return (optax.apply_updates(params, updates), running, moments, count + 1), loss

    return advance, (params, running, optimizer.init(params), jnp.zeros((), jnp.int32))


def dropped(x: jax.Array, key: jax.Array, index: int, p: float) -> jax.Array:
    """Dropout number `index` of a step."""
    if not p:
        return x
    return jnp.where(jax.random.bernoulli(jax.random.fold_in(key, index), 1 - p, x.shape), x / (1 - p), 0)


def dense(params: Arrays, name: str, x: jax.Array) -> jax.Array:
    """A linear layer with torch's weights (out, in)."""
    return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]


def mlp(params: Arrays, running: Arrays, x: jax.Array, key: jax.Array, p: float) -> tuple[jax.Array, Arrays]:
    """As `workloads.mlp`."""
    first, second, last = sorted({int(name.partition(".")[0]) for name in params})
    x = dropped(nn.relu(dense(params, str(first), x)), key, 0, p)
    x = dropped(nn.relu(dense(params, str(second), x)), key, 1, p)
    return dense(params, str(last), x), running


def conv_net(params: Arrays, running: Arrays, x: jax.Array, key: jax.Array, p: float) -> tuple[jax.Array, Arrays]:
    """As `workloads.conv_net`."""
    new = {}
    names = sorted({name.partition(".")[0] for name in params}, key=int)
    for conv, norm in zip(names[:-1:2], names[1:-1:2], strict=True):
        x = lax.conv_general_dilated(
            x, params[f"{conv}.weight"], (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NCHW", "OIHW", "NCHW")
        )
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
        unbiased = var * (x.size / mean.size) / (x.size / mean.size - 1)
        new[f"{norm}.running_mean"] = 0.9 * running[f"{norm}.running_mean"] + 0.1 * mean
        new[f"{norm}.running_var"] = 0.9 * running[f"{norm}.running_var"] + 0.1 * unbiased
        scale = params[f"{norm}.weight"] * lax.rsqrt(var + 1e-5)
        x = nn.relu((x - mean[:, None, None]) * scale[:, None, None] + params[f"{norm}.bias"][:, None, None])
    return dense(params, names[-1], dropped(x.mean((2, 3)), key, 0, p)), new


def transformer(params: Arrays, running: Arrays, x: jax.Array, key: jax.Array, p: float) -> tuple[jax.Array, Arrays]:
    """As `workloads.Transformer`."""
    x = dense(params, "embed", x)
    n_layers = len({name.split(".")[2] for name in params if name.startswith("encoder.layers.")})
    for index in range(n_layers):
        own = f"encoder.layers.{index}."
        layer = {name.removeprefix(own): value for name, value in params.items() if name.startswith(own)}
        x = encoder_layer(layer, x, jax.random.fold_in(key, index), p)
    return dense(params, "head", x.mean(1)), running


def encoder_layer(layer: Arrays, x: jax.Array, key: jax.Array, p: float) -> jax.Array:
    """A pre-norm layer as torch's."""
    x = x + dropped(attention(layer, layer_norm(layer, "norm1", x), key, p), key, 1, p)
    hidden = dropped(nn.relu(dense(layer, "linear1", layer_norm(layer, "norm2", x))), key, 2, p)
    return x + dropped(dense(layer, "linear2", hidden), key, 3, p)


def attention(layer: Arrays, x: jax.Array, key: jax.Array, p: float) -> jax.Array:
    """Self-attention with torch's packed projection."""
    packed = x @ layer["self_attn.in_proj_weight"].T + layer["self_attn.in_proj_bias"]
    q, k, v = (part.reshape(*part.shape[:2], HEADS, -1) for part in jnp.split(packed, 3, axis=-1))
    weights = nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5, axis=-1)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", dropped(weights, key, 0, p), v)
    return dense(layer, "self_attn.out_proj", mixed.reshape(x.shape))


def layer_norm(layer: Arrays, name: str, x: jax.Array) -> jax.Array:
    """Over the last dimension."""
    centred = x - x.mean(-1, keepdims=True)
    scale = lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-5)
    return centred * scale * layer[f"{name}.weight"] + layer[f"{name}.bias"]
