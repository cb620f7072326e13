"""The loop's settings, frozen; `fit` reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from registry.issue import invalid
from registry.spec import component


@component
class DefaultTrainer:
    """How long to train, and what happens how often (`trainer.default`).

    Attributes:
        max_epochs: passes over the training split; this or `max_steps`, the smaller where both are given.
        max_steps: optimizer-step attempts, skipped ones included.
        max_time: wall-clock minutes, those before a resume included, after which the run stops.
        grad_accum_steps: micro-batches behind one optimizer step, weighted by their examples.
        grad_clip_norm: the global gradient norm above which gradients are scaled down.
        guard: `grads` leaves the state as it was unless losses and the global gradient norm are finite, `loss` reads
            the losses alone, `off` never looks.
        log_norms: whether the global norms of gradients and parameters are among training's metrics; that of the
            gradients is anyway where it is needed.
        max_bad_steps: non-finite steps in a row that end the run.
        log_every_n_steps: attempts between two rows of training metrics.
        val_every_n_epochs: epochs between two validations; null never validates by epoch.
        val_every_n_steps: attempts between two validations.
        eval_every_n_epochs: epochs between two calls of the evaluators; they always run at the end.
    """

    max_epochs: int | None = None
    max_steps: int | None = None
    max_time: float | None = None
    grad_accum_steps: int = 1
    grad_clip_norm: float | None = None
    guard: Literal["grads", "loss", "off"] = "grads"
    log_norms: bool = False
    max_bad_steps: int = 10
    log_every_n_steps: int = 10
    val_every_n_epochs: int | None = 1
    val_every_n_steps: int | None = None
    eval_every_n_epochs: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.max_epochs is None and self.max_steps is None:
            raise invalid("needs an end", hint="set `max_epochs` or `max_steps`")
        for name in COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise invalid("must be at least 1", name, found=repr(value))
        for name in ("max_time", "grad_clip_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise invalid("must be positive", name, found=repr(value))

    def total_steps(self, attempts_by: Callable[[int], int]) -> int:
        """Optimizer-step attempts in the whole run; the argument says how many are over after so many epochs."""
        ends = [] if self.max_epochs is None else [attempts_by(self.max_epochs)]
        return min(ends if self.max_steps is None else [*ends, self.max_steps])


COUNTS = (
    "max_epochs",
    "max_steps",
    "grad_accum_steps",
    "max_bad_steps",
    "log_every_n_steps",
    "val_every_n_epochs",
    "val_every_n_steps",
    "eval_every_n_epochs",
)
