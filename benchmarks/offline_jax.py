"""IQL and TD3+BC in JAX: each update one jitted function of a donated state."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

Layers = list[tuple[jax.Array, jax.Array]]
Batch = Mapping[str, jax.Array]
LR, GAMMA, TAU = 3e-4, 0.99, 0.005
ADAM = optax.adam(LR)


def mlp(key: jax.Array, n_in: int, n_out: int, width: int) -> Layers:
    """Weights of two hidden layers and an output."""
    keys, pairs = jax.random.split(key, 3), itertools.pairwise((n_in, width, width, n_out))
    return [
        (jax.random.uniform(k, (a, b), minval=-(a**-0.5), maxval=a**-0.5), jnp.zeros(b))
        for k, (a, b) in zip(keys, pairs, strict=True)
    ]


def run(layers: Layers, x: jax.Array) -> jax.Array:
    """The network at x."""
    for w, b in layers[:-1]:
        x = jax.nn.relu(x @ w + b)
    w, b = layers[-1]
    return x @ w + b


def both(twin: tuple[Layers, Layers], s: jax.Array, a: jax.Array) -> list[jax.Array]:
    """Two action values."""
    x = jnp.concatenate([s, a], 1)
    return [run(layers, x)[:, 0] for layers in twin]


def follow(target: Any, source: Any) -> Any:
    """Polyak averaging."""
    return jax.tree.map(lambda slow, fast: (1 - TAU) * slow + TAU * fast, target, source)


def moved(grads: Any, moments: Any, params: Any) -> tuple[Any, Any]:
    """One step of Adam."""
    updates, moments = ADAM.update(grads, moments, params)
    return optax.apply_updates(params, updates), moments


def bellman(twin: Any, y: jax.Array, batch: Batch) -> jax.Array:
    """The critics' loss."""
    return sum(jnp.mean((q - y) ** 2) for q in both(twin, batch["obs"], batch["action"]))  # type: ignore[return-value]


def iql(n_obs: int, n_action: int, width: int) -> tuple[Callable[..., Any], Any]:
    """`(state, batch) -> (state, metrics)` of implicit Q-learning, and where to begin."""
    keys = jax.random.split(jax.random.key(0), 4)
    twin = tuple(mlp(k, n_obs + n_action, 1, width) for k in keys[:2])
    actor = (mlp(keys[3], n_obs, n_action, width), jnp.zeros(n_action))
    params = {"q": twin, "v": mlp(keys[2], n_obs, 1, width), "actor": actor}

    def losses(params: Any, old: Any, target: Any, batch: Batch) -> Any:
        s, a = batch["obs"], batch["action"]
        advantage = jnp.minimum(*both(target, s, a)) - run(params["v"], s)[:, 0]
        v_loss = jnp.mean(jnp.abs(0.8 - (advantage < 0)) * advantage**2)
        y = batch["reward"] + (1 - batch["terminal"]) * GAMMA * run(old["v"], batch["next_obs"])[:, 0]
        layers, raw = params["actor"]
        log_std = jnp.clip(raw, -5, 2)
        scaled = (a - jnp.tanh(run(layers, s))) / jnp.exp(log_std)
        log_prob = jnp.sum(-0.5 * scaled**2 - log_std - 0.5 * jnp.log(2 * jnp.pi), -1)
        weight = jnp.minimum(jnp.exp(3.0 * jax.lax.stop_gradient(advantage)), 100.0)
        parts = {"v": v_loss, "q": bellman(params["q"], y, batch), "actor": -jnp.mean(weight * log_prob)}
        return parts["v"] + parts["q"] + parts["actor"], parts

    @partial(jax.jit, donate_argnums=0)
    def advance(state: Any, batch: Batch) -> Any:
        params, moments, target = state
        grads, parts = jax.grad(losses, has_aux=True)(params, params, target, batch)
        params, moments = moved(grads, moments, params)
        return (params, moments, follow(target, params["q"])), parts

    return advance, (params, ADAM.init(params), jax.tree.map(jnp.copy, twin))


def td3_bc(n_obs: int, n_action: int, width: int) -> tuple[Callable[..., Any], Any]:
    """`(state, batch) -> (state, metrics)` of TD3+BC, and where to begin."""
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "q": tuple(mlp(k, n_obs + n_action, 1, width) for k in keys[:2]), "actor": mlp(keys[2], n_obs, n_action, width)
    }  # fmt: skip

    def actor_loss(actor: Any, q: Any, batch: Batch) -> jax.Array:
        pi = jnp.tanh(run(actor, batch["obs"]))
        value = run(q[0], jnp.concatenate([batch["obs"], pi], 1))[:, 0]
        weight = 2.5 / jax.lax.stop_gradient(jnp.mean(jnp.abs(value)))
        return jnp.mean((pi - batch["action"]) ** 2) - weight * jnp.mean(value)

    def policy_step(params: Any, moments: Any, targets: Any, batch: Batch) -> Any:
        loss, grads = jax.value_and_grad(actor_loss)(params["actor"], params["q"], batch)
        actor, own = moved(grads, moments["actor"], params["actor"])
        params = {**params, "actor": actor}
        return params, {**moments, "actor": own}, follow(targets, params), loss

    @partial(jax.jit, donate_argnums=0)
    def advance(state: Any, batch: Batch) -> Any:
        params, moments, targets, count = state
        key = jax.random.fold_in(jax.random.key(1), count)
        noise = jnp.clip(0.2 * jax.random.normal(key, batch["action"].shape), -0.5, 0.5)
        next_action = jnp.clip(jnp.tanh(run(targets["actor"], batch["next_obs"])) + noise, -1, 1)
        next_q = jnp.minimum(*both(targets["q"], batch["next_obs"], next_action))
        y = batch["reward"] + (1 - batch["terminal"]) * GAMMA * next_q
        loss, grads = jax.value_and_grad(bellman)(params["q"], y, batch)
        q, own = moved(grads, moments["q"], params["q"])
        params, moments = {**params, "q": q}, {**moments, "q": own}
        params, moments, targets, pi_loss = jax.lax.cond(
            count % 2 == 1,
            lambda: policy_step(params, moments, targets, batch),
            lambda: (params, moments, targets, jnp.zeros(())),
        )
        return (params, moments, targets, count + 1), {"q": loss, "actor": pi_loss}

    moments = {name: ADAM.init(part) for name, part in params.items()}
    return advance, (params, moments, jax.tree.map(jnp.copy, params), jnp.zeros((), jnp.int32))
