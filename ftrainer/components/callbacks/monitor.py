"""A logged figure by name, and which of two is better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ftrainer.functional.events import Logged, Validated
from registry.issue import invalid, nearest

SPLITS = ("train", "val", "eval")


def split_and_name(monitor: str) -> tuple[str, str]:
    """Where a figure is logged and under what name; without a split it is validation's.

    >>> split_and_name("eval/return"), split_and_name("loss"), split_and_name("sim/return")
    (('eval', 'return'), ('val', 'loss'), ('val', 'sim/return'))
    """
    split, slash, name = monitor.partition("/")
    return (split, name) if slash and split in SPLITS else ("val", monitor)


def reading(monitor: str, event: Any) -> float | None:
    """The monitored figure, or None where this event does not tell of it.

    Raises:
        ConfigError: figures of this kind were told, and this name is not among them.
    """
    split, name = split_and_name(monitor)
    if not isinstance(event, Logged | Validated) or event.split != split:
        return None
    refuse_unknown(monitor, event.metrics)
    return float(event.metrics[name]) if name in event.metrics else None


def refuse_unknown(monitor: str, metrics: Mapping[str, Any]) -> None:
    """Raise where figures were told of the kind that is monitored, and not this one.

    Several evaluators report one by one, each with its own name before the slash.

    Raises:
        ConfigError: the name is not among them.
    """
    split, name = split_and_name(monitor)
    if name in metrics or _group(name) not in {_group(other) for other in metrics}:
        return
    logged = [f"{split}/{other}" for other in metrics]
    raise invalid(
        "no such figure is logged", "monitor", found=repr(monitor), expected="one of " + ", ".join(logged),
        nearest=nearest(f"{split}/{name}", logged),
    )  # fmt: skip


def better(mode: str, new: float, old: float | None, by: float = 0.0) -> bool:
    """Whether a figure beats the best so far by more than `by`; a figure that is not finite beats nothing.

    >>> better("min", 0.4, 0.5), better("max", 0.4, None), better("min", float("nan"), None)
    (True, True, False)
    """
    if not math.isfinite(new):
        return False
    if old is None:
        return True
    return old - new > by if mode == "min" else new - old > by


def _group(name: str) -> str:
    return name.rpartition("/")[0]
