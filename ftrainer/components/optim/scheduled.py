"""A transform whose learning rate follows a schedule."""

from __future__ import annotations

import torch

from ftrainer.components.base import Schedule
from ftrainer.functional.phases import Context, Transform
from ftrainer.functional.state import Tree
from registry.spec import component

from .averaged import eval_params


@component
class Scheduled:
    """A transform, adjusted by a schedule before every update; its state is the transform's own.

    Attributes:
        transform: what is scheduled, at any depth.
        schedule: what replaces its hyperparameters, from the step or epoch and the loop's `lr_scale`.

    >>> from ftrainer.components.schedules.constant import Constant
    >>> from .sgd import SGD
    >>> zero, one = torch.tensor(0), torch.tensor(1.0, dtype=torch.float64)
    >>> grads = {"model": {"w": torch.ones(2)}}
    >>> optimizer = Scheduled(transform=SGD(lr=1.0), schedule=Constant(value=0.5))
    >>> optimizer.update(grads, {}, grads, Context(step=zero, epoch=zero, count=zero, lr_scale=one))[0]["model"]["w"]
    tensor([-0.5000, -0.5000])
    """

    transform: Transform
    schedule: Schedule

    def init(self, params: Tree) -> Tree:
        """The transform's own state."""
        return self.transform.init(params)

    def at(self, ctx: Context) -> Transform:
        """The transform as the schedule makes it now."""
        return self.schedule.adjust(self.transform, ctx)

    def update(self, grads: Tree, opt_state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        """Adjust, then update; the loop's scale is spent here and no deeper schedule applies it again."""
        inner = ctx._replace(lr_scale=torch.ones_like(ctx.lr_scale))
        return self.at(ctx).update(grads, opt_state, params, inner)

    def eval_params(self, opt_state: Tree, params: Tree) -> Tree:
        """The transform's own."""
        return eval_params(self.transform, opt_state, params)


def scheduled(transform: Transform, schedule: Schedule | None) -> Transform:
    """The transform under a schedule, or the transform itself where there is none."""
    return transform if schedule is None else Scheduled(transform=transform, schedule=schedule)
