"""What schedules share: a factor of the step or epoch, multiplied onto every learning rate that a transform holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import attrs
import torch
from frozendict import frozendict
from torch import Tensor

from ftrainer.components.fields import one_of
from ftrainer.functional.phases import Context, Transform
from registry.issue import invalid
from registry.spec import is_traceable

Interval = Literal["step", "epoch"]


class Factor:
    """A schedule that is a factor: `factor(ctx)` is all that a subclass has to say."""

    def factor(self, ctx: Context) -> Tensor:
        """What every learning rate is multiplied by now, 0-d float64."""
        raise NotImplementedError

    def adjust(self, transform: Transform, ctx: Context) -> Transform:
        """`transform` with every traceable `lr` in it, groups' too, times the factor and the loop's own scale."""
        return scale(transform, "lr", self.factor(ctx) * ctx.lr_scale)

    def resolve(self, total_steps: int | None, steps_per_epoch: int | None) -> Any:
        """This schedule for a run of known length; most need none."""
        del total_steps, steps_per_epoch
        return self


def interval_field() -> Any:
    """The field `interval`: whether a schedule moves with applied updates or with finished epochs."""
    return attrs.field(default="step", validator=one_of("step", "epoch"))


def position(ctx: Context, interval: str) -> Tensor:
    """Where the run is, 0-d float64: updates applied before this one, or epochs finished."""
    return (ctx.epoch if interval == "epoch" else ctx.step).to(torch.float64)


def planned(interval: str, total_steps: int | None, steps_per_epoch: int | None) -> int:
    """The run's length in a schedule's own unit; a started epoch counts whole.

    Raises:
        ConfigError: the run does not know how long it will be.

    >>> planned("step", 1000, None), planned("epoch", 1000, 300)
    (1000, 4)
    """
    if total_steps is None or (interval == "epoch" and not steps_per_epoch):
        hint = "give `steps`, or `trainer.max_steps` or `max_epochs` with data of known length"
        raise invalid("the run's length is not known", "steps", hint=hint)
    return total_steps if interval == "step" else -(-total_steps // int(steps_per_epoch or 1))


def known(value: int | None, field: str = "steps") -> int:
    """A length that the configuration or `resolve` has given.

    Raises:
        ConfigError: neither has.
    """
    if value is None:
        hint = "call `resolve(total_steps, steps_per_epoch)`, as `build` does, or give it"
        raise invalid("the run's length is not known", field, hint=hint)
    return value


def scale(transform: Any, name: str, factor: Tensor) -> Any:
    """`transform` with every traceable field of that name in it times a factor, at any depth."""
    return rewrite(transform, name, lambda value: value * factor)


def rewrite(node: Any, name: str, change: Callable[[Any], Any]) -> Any:
    """`node` with `change` applied to every traceable field `name` of it and of the transforms inside it."""
    if isinstance(node, tuple):
        return tuple(rewrite(item, name, change) for item in node)
    if isinstance(node, Mapping):
        return frozendict({key: rewrite(item, name, change) for key, item in node.items()})
    if not attrs.has(type(node)) or not hasattr(node, "update"):
        return node
    fields = attrs.fields_dict(type(node))
    changed = {key: rewrite(getattr(node, key), name, change) for key in fields if key != "groups"}
    if name in fields and is_traceable(fields[name]):
        changed[name] = change(getattr(node, name))
        if getattr(node, "groups", ()):
            changed["groups"] = tuple(_in_group(group, name, change) for group in node.groups)
    return attrs.evolve(node, **changed)


def _in_group(group: Mapping[str, Any], name: str, change: Callable[[Any], Any]) -> Mapping[str, Any]:
    return frozendict({**group, name: change(group[name])}) if name in group else group


def later(ctx: Context, interval: str, start: int) -> Context:
    """The context of a schedule that began at `start`; the unit that is not `interval` goes on as it was."""
    if interval == "epoch":
        return ctx._replace(epoch=torch.clamp(ctx.epoch - start, min=0))
    return ctx._replace(step=torch.clamp(ctx.step - start, min=0))


def remaining(interval: str, used: int, total_steps: int | None, steps_per_epoch: int | None) -> int | None:
    """What is left of a run, in steps, after `used` steps or epochs; None where that is not known."""
    if total_steps is None or (interval == "epoch" and not steps_per_epoch):
        return None
    return max(1, total_steps - used * (1 if interval == "step" else int(steps_per_epoch or 1)))
