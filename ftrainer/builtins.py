"""Every built-in key, one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Keys are grouped by the configuration section that they serve.
DATA: dict[str, Callable[..., Any]] = {}

IO: dict[str, Callable[..., Any]] = {}

MODELS: dict[str, Callable[..., Any]] = {}

LOSSES: dict[str, Callable[..., Any]] = {}

OPTIMIZERS: dict[str, Callable[..., Any]] = {}

SCHEDULES: dict[str, Callable[..., Any]] = {}

LEARNERS: dict[str, Callable[..., Any]] = {}

TRAINERS: dict[str, Callable[..., Any]] = {}

METRICS: dict[str, Callable[..., Any]] = {}

EVALUATORS: dict[str, Callable[..., Any]] = {}

CALLBACKS: dict[str, Callable[..., Any]] = {}

LOGGERS: dict[str, Callable[..., Any]] = {}
