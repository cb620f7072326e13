"""Schedules under their `torch.optim.lr_scheduler` names, as tables of what torch's own class writes."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from frozendict import frozendict
from torch import Tensor
from torch.optim import lr_scheduler

from ftrainer.components.base import Schedule
from ftrainer.components.fields import count, one_of
from ftrainer.functional.phases import Context, Transform
from registry.arguments import argument_issues
from registry.issue import ConfigError, Issue, invalid, nearest
from registry.spec import Plain, component, replace

from .base import known, planned, rewrite
from .plateau import Plateau

REFUSED: Mapping[str, str] = frozendict(
    {
        "LambdaLR": "it takes a function; write a schedule component of your own",
        "MultiplicativeLR": "it takes a function; write a schedule component of your own",
        "SequentialLR": "it takes schedulers; use schedule.piecewise or schedule.warmup",
        "ChainedScheduler": "it takes schedulers; use schedule.piecewise or schedule.warmup",
    }
)
"""Schedulers that numbers cannot make, and what to use."""

DIVISORS: Mapping[str, tuple[str, ...]] = frozendict(
    {
        "StepLR": ("step_size",),
        "CosineAnnealingLR": ("T_max",),
        "CyclicLR": ("step_size_up",),
        "OneCycleLR": ("div_factor", "final_div_factor"),
    }
)
"""Arguments by which a scheduler divides without a look, some at its first step only."""

BASES = (2.0**-10, 2.0**-9, 2.0**-8)
"""Learning rates that torch's scheduler is driven at. Two show how its values depend on the rate, the third proves it.
Powers of two, so that differences do not round, and of the size of usual rates, so that `eta_min` keeps its digits."""


@component
class TorchSchedule:
    """A metric-free scheduler of `torch.optim.lr_scheduler`, read off a table.

    At step or epoch `t` the learning rate is `a[t] * lr + b[t]`; a momentum or first beta that the scheduler moves is
    `m[t]`, whatever the optimizer's own.

    Attributes:
        name: the class in `torch.optim.lr_scheduler`.
        kwargs: its arguments after `optimizer`.
        interval: `step` or `epoch`.
        frequency: the scheduler steps on every n-th one.
        entries: how many entries the run needs; `resolve` fills it.
    """

    name: str
    kwargs: Plain = frozendict()
    interval: str = attrs.field(default="epoch", validator=one_of("step", "epoch"))
    frequency: int = attrs.field(default=1, validator=count())
    entries: int | None = None

    def __attrs_post_init__(self) -> None:
        for argument in DIVISORS.get(self.name, ()):
            if self.kwargs.get(argument) == 0:
                raise invalid(f"{self.name} divides by it", "kwargs", argument, found="0", expected="above 0")
        table(self.name, self.kwargs, self.entries or 1)

    def adjust(self, transform: Transform, ctx: Context) -> Transform:
        """`transform` with its learning rates, and momentum or first betas, as the table has them now."""
        columns = table(self.name, self.kwargs, known(self.entries, "entries"))
        index = (ctx.epoch if self.interval == "epoch" else ctx.step) // self.frequency
        slope, offset = at(columns.slope, index), at(columns.offset, index)
        transform = rewrite(transform, "lr", lambda lr: (slope * lr + offset) * ctx.lr_scale)
        return transform if columns.momentum is None else with_momentum(transform, at(columns.momentum, index))

    def resolve(self, total_steps: int | None, steps_per_epoch: int | None) -> TorchSchedule:
        """This schedule with a table as long as the run."""
        units = planned(self.interval, total_steps, steps_per_epoch)
        return replace(self, entries=max(1, -(-units // self.frequency)))


@attrs.frozen
class Table:
    """What a scheduler writes, entry by entry; constants have one entry."""

    slope: tuple[float, ...]
    offset: tuple[float, ...]
    momentum: tuple[float, ...] | None


@functools.lru_cache(maxsize=32)
def table(name: str, kwargs: Mapping[str, Any], entries: int) -> Table:
    """Drive torch's scheduler over `entries` steps at several base rates and keep what it writes.

    Raises:
        ConfigError: torch refuses the arguments, the schedule ends before the run, or its rates do not depend on the
            optimizer's by `a * lr + b`.

    >>> table("StepLR", frozendict(step_size=2, gamma=0.5), 5).slope
    (1.0, 1.0, 0.5, 0.5, 0.25)
    """
    groups = [{"params": [torch.nn.Parameter(torch.zeros(()))], "lr": base} for base in BASES]
    optimizer = torch.optim.SGD(groups)
    try:
        scheduler = getattr(lr_scheduler, name)(optimizer, **dict(kwargs))
    except (ValueError, TypeError, AttributeError) as error:
        raise invalid(f"{name} refuses its arguments: {error}", "kwargs") from error
    rows = [_written(optimizer)]
    for done in range(1, entries):
        optimizer.step()  # nothing moves; torch warns about a scheduler that steps first
        try:
            scheduler.step()
        except ValueError as error:
            found = f"{done} steps of the schedule, {entries} of the run"
            raise invalid(f"{name} ends before the run does: {error}", "kwargs", found=found) from error
        rows.append(_written(optimizer))
    return _solve(name, rows)


def _written(optimizer: torch.optim.Optimizer) -> tuple[float, ...]:
    return (*(float(group["lr"]) for group in optimizer.param_groups), float(optimizer.param_groups[0]["momentum"]))


def _solve(name: str, rows: list[tuple[float, ...]]) -> Table:
    slope = tuple((second - first) / BASES[0] for first, second, _, _ in rows)
    offset = tuple(2 * first - second for first, second, _, _ in rows)
    for a, b, row in zip(slope, offset, rows, strict=True):
        if not math.isclose(BASES[2] * a + b, row[2], rel_tol=1e-9, abs_tol=1e-12):
            raise invalid(f"{name} depends on the learning rate in a way that no table can hold", "type")
    momentum = tuple(row[3] for row in rows)
    return Table(_short(slope), _short(offset), _short(momentum) if any(momentum) else None)


def _short(column: tuple[float, ...]) -> tuple[float, ...]:
    return column[:1] if len(set(column)) == 1 else column


def at(column: tuple[float, ...], index: Tensor) -> Tensor:
    """The entry at a 0-d int64 index, or the last one past the end, 0-d float64."""
    values = torch.tensor(column, dtype=torch.float64, device=index.device)
    return torch.index_select(values, 0, torch.clamp(index, max=len(column) - 1).reshape(1)).reshape(())


def with_momentum(transform: Transform, value: Tensor) -> Transform:
    """`transform` with every first beta, or momentum, replaced.

    Raises:
        ConfigError: it has neither.
    """
    touched: list[Any] = []

    def moved(old: Any) -> Any:
        touched.append(old)
        return (value, *old[1:]) if isinstance(old, tuple) else value

    transform = rewrite(rewrite(transform, "betas", moved), "momentum", moved)
    if not touched:
        hint = "set cycle_momentum: false"
        raise invalid("moves a momentum or beta that the optimizer does not have", "kwargs", hint=hint)
    return transform


def torch_schedule(
    *,
    type: str,
    kwargs: Mapping[str, Plain] = frozendict(),
    interval: str = "epoch",
    frequency: int = 1,
    monitor: str | None = None,
) -> Schedule:
    """`sched_factory.torch`: a scheduler of `torch.optim.lr_scheduler` as a function of the step or epoch tensor.

    Args:
        type: `sched_cls.<Name>`.
        kwargs: its arguments after `optimizer`.
        interval: what it steps on: `step`, `epoch`, or `metric` for ReduceLROnPlateau.
        frequency: it steps on every n-th one.
        monitor: with `metric`, the validation metric that it watches.

    Raises:
        ConfigError: no such class, arguments that it refuses, or an interval that does not suit it.

    >>> torch_schedule(type="sched_cls.StepLR", kwargs={"step_size": 2}).name
    'StepLR'
    """
    name = scheduler_name(type)
    check_names(name, kwargs)
    on_metric = name == "ReduceLROnPlateau"
    if (interval == "metric") != on_metric:
        expected = "metric" if on_metric else "step or epoch"
        raise invalid(f"the wrong interval for {name}", "interval", found=repr(interval), expected=expected)
    if not on_metric and monitor is not None:
        raise invalid(f"{name} watches no metric", "monitor", found=repr(monitor), at="key")
    if on_metric:
        return _plateau(kwargs, frequency, monitor)
    return TorchSchedule(name=name, kwargs=kwargs, interval=interval, frequency=frequency)


def scheduler_name(type: str) -> str:
    """The class name behind `sched_cls.<Name>`.

    Raises:
        ConfigError: there is none, or numbers cannot make it.
    """
    bases = (lr_scheduler.LRScheduler, lr_scheduler.ReduceLROnPlateau)
    classes = {n: c for n, c in vars(lr_scheduler).items() if inspect.isclass(c) and issubclass(c, bases)}
    valid = {f"sched_cls.{name}": name for name in classes if not name.startswith("_") and name != "LRScheduler"}
    if type not in valid:
        expected = "sched_cls.<class of torch.optim.lr_scheduler>"
        raise invalid("unknown scheduler", "type", found=repr(type), expected=expected, nearest=nearest(type, valid))
    if valid[type] in REFUSED:
        problem = f"{valid[type]} cannot come from a configuration: {REFUSED[valid[type]]}"
        raise invalid(problem, "type", found=repr(type))
    return valid[type]


def check_names(name: str, kwargs: Mapping[str, Any]) -> None:
    """Raise for every argument that the class does not take, or that a resumed run fills by itself."""
    taken = [
        n for n in inspect.signature(getattr(lr_scheduler, name)).parameters if n not in ("optimizer", "last_epoch")
    ]
    issues = [
        Issue(path=("kwargs", key), at="key", problem=f"not an argument of {name}", nearest=nearest(key, taken))
        for key in kwargs
        if key not in taken
    ]
    cls = getattr(lr_scheduler, name)
    issues = issues or [*argument_issues(cls, kwargs=kwargs, supplied=("optimizer", "last_epoch"))]
    if issues:
        raise ConfigError(issues)


def _plateau(kwargs: Mapping[str, Any], frequency: int, monitor: str | None) -> Plateau:
    if monitor is None:
        raise invalid("ReduceLROnPlateau watches a metric", "monitor", expected="the name of a validation metric")
    given = dict(kwargs)
    if given.pop("eps", 1e-8) != 1e-8:
        raise invalid("has no equivalent here", "kwargs", "eps", hint="set min_lr")
    try:
        return Plateau(**given, monitor=monitor, frequency=frequency)
    except ConfigError as error:
        raise ConfigError(issue.under(("kwargs",)) for issue in error.issues) from None
