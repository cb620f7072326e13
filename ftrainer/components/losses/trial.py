"""One trial of loss and metrics before training: do they take the model's outputs and the data's targets?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from ftrainer.components.base import Batch, Loss, Metric
from ftrainer.functional import step
from ftrainer.functional.phases import Phase
from ftrainer.functional.random import fold_in
from ftrainer.functional.state import TrainState
from ftrainer.model.blame import FAILURES, describe, first_line
from ftrainer.model.bridge import blamed, under
from registry.issue import ConfigError, Issue

AT = ("loss",)
"""Where the configuration describes the loss."""


def try_loss(loss: Loss, outputs: Any, targets: Mapping[str, Any], mask: Tensor | None = None) -> Tensor:
    """The loss of a batch, 0-d.

    Args:
        loss, outputs, targets, mask: what is tried, and on what.

    Raises:
        ConfigError: the loss raised; the message has what it said, and the dtypes and shapes of what it was given.

    >>> import torch
    >>> from ftrainer.components.losses.mse import MSE
    >>> try_loss(MSE(), torch.zeros(2, 3), {"y": torch.zeros(2)})
    Traceback (most recent call last):
    registry.issue.ConfigError: loss.pred_path: shapes differ; found prediction (2, 3), target (2,) (reshape one of \
them in the model or the data)
    """
    try:
        return loss(outputs, targets, mask)
    except ConfigError as error:
        raise ConfigError(issue.under(AT) for issue in error.issues) from error
    except FAILURES as error:
        given = [f"outputs {_told(outputs)}", *(f"target {name!r} {_told(part)}" for name, part in targets.items())]
        issue = Issue(path=AT, problem=f"the loss fails: {first_line(error)}", found=", ".join(given))
        raise ConfigError([issue]) from error


def try_phases(phases: Sequence[Phase], state: TrainState, batch: Batch) -> None:
    """Compute the loss of every phase once, forward only.

    Args:
        phases: of a learner.
        state: at step zero, with its program.
        batch: as the step will see it.

    Raises:
        ConfigError: a loss raised, or is not one number. The message names the layer that was running, or else the
            phase, and the dtypes and shapes of the batch.
    """
    for index, phase in enumerate(phases):
        try:
            with torch.no_grad():
                step.objective(phase, {}, state, batch, fold_in(state.key, index), state.program.policy)
        except ConfigError:
            raise
        except FAILURES as error:
            problem = f"the loss of phase {phase.name!r} fails: {first_line(error)}"
            issue = Issue(path=("learner",), problem=problem, found=_told(batch))
            raise (blamed(error) or ConfigError([issue])) from error


def try_metrics(metrics: Sequence[Metric], outputs: Any, targets: Mapping[str, Any]) -> None:
    """Compute metrics of one batch. What else than a ConfigError one raises may be for want of examples, and passes.

    Raises:
        ConfigError: a metric refuses what it was given.
    """
    for index, metric in enumerate(metrics):
        with under(("metrics", index)), suppress(*FAILURES):
            metric.compute(outputs, targets)


def _told(part: Any) -> str:
    if isinstance(part, Mapping):
        return f"{{{', '.join(f'{name}: {_told(value)}' for name, value in part.items())}}}"
    return describe(part)
