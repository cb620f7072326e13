"""The step: gradients of phases, updates, followers and a guard, as one pure function of (state, batch)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.func import grad_and_value

from registry import invalid

from . import augment, pytree, scaling
from .accumulation import Gradients, add, cleared, empty, total, working
from .phases import Aux, Composed, Context, Phase, Track, Transform
from .precision import autocast
from .random import fold_in
from .rates import learning_rates
from .redirect import redirect
from .state import Program, StepPolicy, TrainState, Tree, with_hyper


def init_state(learner: Composed, key: Tensor, params: Tree, buffers: Tree) -> TrainState:
    """Step zero: fresh optimizer states, slots that equal what they follow."""
    zero = torch.zeros((), dtype=torch.int64)
    slots: dict[str, Any] = {t.slot: pytree.map(torch.clone, params[t.source]) for t in learner.tracks()}
    slots["epoch"], slots["lr_scale"] = zero.clone(), torch.ones((), dtype=torch.float64)
    opt_state = {phase.name: phase.transform.init(phase.select(params)) for phase in learner.phases()}
    return TrainState(
        step=zero.clone(), tick=zero.clone(), key=key, params=params, buffers=buffers, opt_state=opt_state, slots=slots,
        program=Program(learner=learner),
    )  # fmt: skip


def update(learner: Composed, state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Tensor]]:
    """One optimizer step: every phase in order, then the tracks; all of it or, where the guard says so, none of it.

    Returns:
        The new state, and 0-d metrics: the phases' own, their learning rates, `grad_norm` where one was needed,
        `param_norm` where it is asked for, `skipped` (0.0 or 1.0).
    """
    learner, policy = with_hyper(learner, state.hyper), state.program.policy
    key, new = fold_in(state.key, state.tick), working(state)
    batch = augment.apply(policy.transforms, batch, fold_in(key, AUGMENT))
    judged: list[Tensor] = []
    metrics: dict[str, Tensor] = {}
    for index, phase in enumerate(learner.phases()):
        fires = due(state, phase.every)
        if fires is False:
            continue
        out = total(new, gradients(phase, new, batch, fold_in(key, index), policy))
        out, norm = condition(policy, out)
        transform, ctx = scheduled(phase, new)
        new = choose(fires, apply_phase(phase, transform, ctx, new, out), new)
        judged += [counted(fires, figure) for figure in [out.loss, *norm.values()][: GUARDED[policy.guard]]]
        told = out.metrics | norm | learning_rates(transform, ctx)
        metrics |= {metric_name(learner, phase, name): value for name, value in told.items()}
    new = attrs.evolve(follow(learner.tracks(), new), step=state.step + 1)
    ok = all_finite(judged, state.step)
    new, bad = scaling.adapt(cleared(select(ok, new, state)) if judged else cleared(new), ok)
    metrics |= size(policy, new) | {"skipped": bad.to(torch.float32)}
    return attrs.evolve(new, tick=state.tick + 1), metrics


def accumulate(learner: Composed, state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Tensor]]:
    """One micro-batch that moves nothing: its gradients, weighted by its examples, go to `slots["accum"]`."""
    learner, policy = with_hyper(learner, state.hyper), state.program.policy
    (phase,) = learner.phases()
    key, view = fold_in(state.key, state.tick), working(state)
    batch = augment.apply(policy.transforms, batch, fold_in(key, AUGMENT))
    out = gradients(phase, view, batch, fold_in(key, 0), policy)
    accum = add(view.slots["accum"], out) | {"buffers": {**view.buffers, **out.buffers}}
    return attrs.evolve(state, slots={**state.slots, "accum": accum}, tick=state.tick + 1), {}


def with_accumulator(state: TrainState, example: Any) -> TrainState:
    """A state whose step may be split over micro-batches; the example batch tells which metrics its phase logs.

    Raises:
        ValueError: the learner has several phases, of which later ones read what earlier ones moved.
    """
    phases = state.program.learner.phases()
    if len(phases) != 1:
        names = ", ".join(phase.name for phase in phases)
        raise ValueError(f"gradients accumulate over micro-batches for learners of one phase; this one has {names}")
    out = gradients(phases[0], state, example, state.key, state.program.policy)
    return attrs.evolve(state, slots={**state.slots, "accum": empty(state, out)})


AUGMENT = -1
"""What the step's key is folded with for augmentations; phases, which count from 0, never are -1."""
BACK = -2
"""What a phase's key is folded with for draws on the way back, which gradients of the user's own may make."""
GUARDED: Mapping[str, int] = {"grads": 2, "loss": 1, "off": 0}
"""How many of a phase's (loss, gradient norm) the guard reads."""


def gradients(phase: Phase, state: TrainState, batch: Any, key: Tensor, policy: StepPolicy) -> Gradients:
    """Differentiate one phase's loss by the roles it moves; every draw inside comes from `key`."""

    def loss_fn(moved: Tree) -> tuple[Tensor, Aux]:
        return objective(phase, moved, state, batch, key, policy)

    # Else the way back from a GPU's tensors runs on a thread of its own, where draws do not know their key.
    with torch.autograd.set_multithreading_enabled(False), redirect(fold_in(key, BACK)):
        grads, (_, aux) = grad_and_value(loss_fn, has_aux=True)(phase.select(state.params))
    loss = aux["metrics"]["loss"]
    count = aux["count"] if "count" in aux else torch.full_like(state.slots["lr_scale"], batch_size(batch))
    return Gradients(scaling.down(state, grads), loss, dict(aux["metrics"]), dict(aux.get("buffers", {})), count)


def objective(
    phase: Phase, moved: Tree, state: TrainState, batch: Any, key: Tensor, policy: StepPolicy
) -> tuple[Tensor, Aux]:
    """What is differentiated by the roles that a phase moves: its loss, scaled up where losses are."""
    with redirect(key), autocast(policy.precision, state.step.device.type):
        loss, aux = phase.loss({**state.params, **moved}, state, batch, key)
        check_scalar(phase, loss)
        return scaling.up(state, loss), {**aux, "metrics": {"loss": loss, **aux.get("metrics", {})}}


def check_scalar(phase: Phase, loss: Any) -> None:
    """Refuse a loss that gradients cannot be taken of.

    Raises:
        ConfigError: it is no 0-d tensor.
    """
    if not isinstance(loss, Tensor) or loss.dim():
        found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        hint = "reduce it, for instance by its mean"
        raise invalid(f"the loss of phase {phase.name!r} must be one number", "loss", found=found, hint=hint)


def condition(policy: StepPolicy, out: Gradients) -> tuple[Gradients, dict[str, Tensor]]:
    """Gradients clipped as `torch.nn.utils.clip_grad_norm_` clips them, and their global norm where it is needed."""
    if policy.guard != "grads" and policy.clip_norm is None and not policy.log_norms:
        return out, {}
    norm = global_norm(out.grads)
    if policy.clip_norm is None:
        return out, {"grad_norm": norm}
    scale = (policy.clip_norm / (norm + 1e-6)).clamp(max=1.0)
    return out._replace(grads=pytree.map(lambda g: g * scale.to(g.dtype), out.grads)), {"grad_norm": norm}


def scheduled(phase: Phase, state: TrainState) -> tuple[Transform, Context]:
    """The phase's transform as its schedule makes it now, and what else it may know: the loop's scale, if not spent."""
    ctx = context(state, phase.every)
    if not hasattr(phase.transform, "at"):
        return phase.transform, ctx
    return phase.transform.at(ctx), ctx._replace(lr_scale=torch.ones_like(ctx.lr_scale))


def apply_phase(phase: Phase, transform: Transform, ctx: Context, state: TrainState, out: Gradients) -> TrainState:
    """Move the phase's roles."""
    params = phase.select(state.params)
    updates, opt_state = transform.update(out.grads, state.opt_state[phase.name], params, ctx)
    return attrs.evolve(
        state,
        params={**state.params, **pytree.map(torch.add, params, updates)},
        opt_state={**state.opt_state, phase.name: opt_state},
        buffers={**state.buffers, **out.buffers},
    )


def size(policy: StepPolicy, state: TrainState) -> dict[str, Tensor]:
    """The global norm of the parameters, where it is asked for."""
    return {"param_norm": global_norm(state.params)} if policy.log_norms else {}


def follow(tracks: tuple[Track, ...], state: TrainState) -> TrainState:
    """Move every slot towards the role it follows."""
    slots = dict(state.slots)
    for track in tracks:
        fires = due(state, track.every)
        if fires is False:
            continue
        moved = pytree.map(lambda s, p, tau=track.tau: s + tau * (p - s), slots[track.slot], state.params[track.source])
        slots[track.slot] = choose(fires, moved, slots[track.slot])
    return attrs.evolve(state, slots=slots)


# Small parts.


def context(state: TrainState, every: int = 1) -> Context:
    """What the step tells a transform. A phase that moves on every k-th step has moved `step // k` times."""
    count = state.step if every == 1 else state.step // every
    return Context(state.step, state.slots["epoch"], count, state.slots["lr_scale"])


def intervals(learner: Any) -> tuple[int, ...]:
    """The different `every` of a learner's phases and tracks besides 1; none where it is not made of these."""
    if not hasattr(learner, "phases") or not hasattr(learner, "tracks"):
        return ()
    return tuple(sorted({part.every for part in (*learner.phases(), *learner.tracks())} - {1}))


def due(state: TrainState, every: int) -> Tensor | bool:
    """Whether the step about to be made is an `every`-th one: a tensor, unless the host knows."""
    if every == 1:
        return True
    known = state.program.due
    return (state.step + 1) % every == 0 if known is None else every in known


def choose(fires: Tensor | bool, new: Tree, old: Tree) -> Tree:
    """`new` where `fires`, else `old`, leaf by leaf; leaves that did not move cost nothing."""
    if isinstance(fires, bool):
        return new if fires else old
    return pytree.map(lambda n, o: o if n is o else torch.where(fires, n, o), new, old)


def counted(fires: Tensor | bool, figure: Tensor) -> Tensor:
    """A figure that the guard reads; zero where its phase rests."""
    return figure if isinstance(fires, bool) else torch.where(fires, figure, torch.zeros_like(figure))


def select(ok: Tensor, new: TrainState, old: TrainState) -> TrainState:
    """The new state if `ok`, else the old one, without a branch."""
    return choose(ok, new, old)


def all_finite(values: list[Tensor], like: Tensor) -> Tensor:
    """0-d bool: whether every 0-d tensor is finite. In float64 their sum is finite exactly when they all are."""
    total = torch.zeros_like(like, dtype=torch.float64)
    for value in values:
        total = total + value
    return total.abs() < math.inf


def global_norm(tree: Tree) -> Tensor:
    """The 2-norm of all leaves together, 0-d."""
    squares = [leaf.square().sum() for leaf in pytree.leaves(tree)]
    return torch.stack(squares).sum().sqrt()


def batch_size(batch: Any) -> int:
    """The leading dimension of a batch's tensors."""
    return next(leaf.shape[0] for leaf in pytree.leaves(batch) if isinstance(leaf, Tensor) and leaf.dim())


def metric_name(learner: Composed, phase: Phase, name: str) -> str:
    """`loss` where there is one phase, `critic/loss` where there are several."""
    return name if len(learner.phases()) == 1 else f"{phase.name}/{name}"
