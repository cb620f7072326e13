"""What many runs of one thing say about it: interquartile means and bootstrap intervals, as `rliable` defines them.

Agarwal, Schwarzer, Castro, Courville & Bellemare (2021), "Deep Reinforcement Learning at the Edge of the Statistical
Precipice": the mean of the middle half of all scores, and percentile intervals of a bootstrap that resamples the runs
of each task, here of each row of swept values, by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import numpy as np

from .rows import number_text

LEVEL = 0.95
REPETITIONS = 10_000
Strata = Sequence[Sequence[float]]
"""Scores by stratum: one list for each row of swept values, with a score for each seed."""


@attrs.frozen(kw_only=True)
class Estimate:
    """What is known about one figure.

    Attributes:
        n: runs with a finite value.
        mean, sd: over these; the standard deviation is of a sample, nan for one run.
        iqm: their interquartile mean.
        low, high: ends of its bootstrap interval at `LEVEL`.
    """

    n: int
    mean: float
    sd: float
    iqm: float
    low: float
    high: float


def estimate(strata: Strata, repetitions: int = REPETITIONS) -> Estimate:
    """Mean, deviation, interquartile mean and its interval; values that are not finite are left out.

    >>> e = estimate([[1.0, 2.0, 3.0, 10.0]])
    >>> e.n, e.mean, e.iqm, e.low <= e.iqm <= e.high
    (4, 4.0, 2.5, True)
    """
    finite = [[value for value in stratum if math.isfinite(value)] for stratum in strata]
    pooled = [value for stratum in finite for value in stratum]
    if not pooled:
        return Estimate(n=0, mean=math.nan, sd=math.nan, iqm=math.nan, low=math.nan, high=math.nan)
    with np.errstate(over="ignore"):  # a run that diverged may be so far off that its square is infinite
        low, high = interval([stratum for stratum in finite if stratum], repetitions)
        sd = float(np.std(pooled, ddof=1)) if len(pooled) > 1 else math.nan
        return Estimate(n=len(pooled), mean=float(np.mean(pooled)), sd=sd, iqm=iqm(pooled), low=low, high=high)


def cells(found: Estimate) -> tuple[str, str, str]:
    """An estimate as a table shows it.

    >>> cells(Estimate(n=3, mean=2.0, sd=1.0, iqm=2.0, low=1.0, high=3.0))
    ('2 ± 1', '2', '1 … 3')
    """
    if not found.n:
        return ("–", "–", "–")
    spread = "" if math.isnan(found.sd) else f" ± {found.sd:.3g}"
    return (
        number_text(found.mean) + spread,
        number_text(found.iqm),
        f"{number_text(found.low)} … {number_text(found.high)}",
    )


def iqm(values: Sequence[float]) -> float:
    """The mean without the lowest and the highest quarter, each rounded down to whole values.

    >>> iqm([0.0, 1.0, 2.0, 3.0, 100.0])
    2.0
    """
    return float(_trimmed_means(np.asarray(values, dtype=np.float64)[None])[0])


def interval(strata: Strata, repetitions: int = REPETITIONS) -> tuple[float, float]:
    """The percentile bootstrap interval of the interquartile mean, each stratum resampled by itself.

    Its draws are always the same ones.

    >>> interval([[1.0, 1.0], [3.0, 3.0]])
    (2.0, 2.0)
    """
    draws = np.random.default_rng(0)
    resampled = [
        np.asarray(stratum, dtype=np.float64)[draws.integers(len(stratum), size=(repetitions, len(stratum)))]
        for stratum in strata
    ]
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(_trimmed_means(np.concatenate(resampled, axis=1)), [tail, 100 - tail])
    return float(low), float(high)


def _trimmed_means(rows: np.ndarray) -> np.ndarray:
    """(R, n) to (R,): each row's mean without its outer quarters."""
    n = rows.shape[1]
    cut = n // 4
    return np.sort(rows, axis=1)[:, cut : n - cut].mean(axis=1)
