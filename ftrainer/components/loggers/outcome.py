"""What became of the members of a stack: final figures, estimates over seeds, the best one, effects of values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from .estimates import Estimate, estimate
from .rows import Row

SEED = "run.seed"
LESS_IS_BETTER = ("loss", "error", "mse", "mae", "rmse", "nll", "perplexity", "norm", "std")
"""Parts of names of figures that should be small; others should be large."""
SPLITS = ("eval", "val", "train")
"""Where to look for the figure that members are ranked by, first choice first."""

Values = Mapping[str, Any]


@attrs.frozen
class Outcome:
    """The last value of every figure of every member.

    Attributes:
        members: what sets each apart, by config path.
        final: `split/name` to the last value by member.
        ended: why members ended before the run did.
    """

    members: tuple[Values, ...]
    final: dict[str, dict[int, float]] = attrs.field(factory=dict)
    ended: dict[int, str] = attrs.field(factory=dict)

    def add(self, row: Row) -> None:
        """Take in a row of one member.

        >>> outcome = Outcome(({"run.seed": 0}, {"run.seed": 1}))
        >>> outcome.add({"step": 5, "epoch": 0, "split": "val", "member": 1, "metrics": {"loss": 0.5}})
        >>> outcome.final
        {'val/loss': {1: 0.5}}
        """
        who = row["member"]
        if "ended" in row:
            self.ended[who] = row["ended"]
        for name, value in row["metrics"].items():
            self.final.setdefault(f"{row['split']}/{name}", {})[who] = float(value)

    def figures(self) -> list[str]:
        """All figures, judgements before training's, losses first."""
        return sorted(self.final, key=lambda name: (SPLITS.index(name.partition("/")[0]), not name.endswith("loss")))

    def headline(self) -> str | None:
        """The figure that members are ranked by: the first of evaluation's, else validation's, else training's."""
        for split in SPLITS:
            found = [name for name in self.final if name.startswith(f"{split}/")]
            if found:
                return found[0]
        return None

    def values(self, figure: str, members: Sequence[int]) -> list[float]:
        """The figure's final values of some members, those that have one."""
        final = self.final[figure]
        return [final[who] for who in members if who in final]

    def swept(self) -> list[str]:
        """The paths that are swept besides the seed."""
        return [path for path in (self.members[0] if self.members else {}) if path != SEED]

    def rows(self) -> dict[tuple[Any, ...], list[int]]:
        """Members by their row of swept values."""
        return self._by(self.swept(), range(len(self.members)))

    def over(self, figure: str, members: Sequence[int] | None = None) -> Estimate:
        """What members say about a figure; rows of swept values are strata of the bootstrap."""
        chosen = range(len(self.members)) if members is None else members
        return estimate([self.values(figure, who) for who in self._by(self.swept(), chosen).values()])

    def effects(self, figure: str) -> Iterator[tuple[str, Any, Estimate]]:
        """Path, value, and what all members with this value say."""
        for path in self.swept():
            for (value,), who in self._by([path], range(len(self.members))).items():
                yield path, value, self.over(figure, who)

    def best(self, figure: str) -> int | None:
        """The member with the best final value."""
        finite = {who: value for who, value in self.final[figure].items() if math.isfinite(value)}
        if not finite:
            return None
        return (min if less_is_better(figure) else max)(finite, key=lambda who: finite[who])

    def _by(self, paths: Sequence[str], members: Sequence[int]) -> dict[tuple[Any, ...], list[int]]:
        found: dict[tuple[Any, ...], list[int]] = {}
        for who in members:
            found.setdefault(tuple(_hashable(self.members[who][path]) for path in paths), []).append(who)
        return found

    def as_json(self) -> dict[str, Any]:
        """Everything, as data."""
        rows = [
            {"values": dict(zip(self.swept(), key, strict=True)), "members": who,
             "figures": {name: attrs.asdict(self.over(name, who)) for name in self.figures()}}
            for key, who in self.rows().items()
        ]  # fmt: skip
        effects = [
            {"figure": name, "path": path, "value": value, **attrs.asdict(found)}
            for name in self.figures()
            for path, value, found in self.effects(name)
        ]
        members = [
            {"member": who, "values": dict(values), "ended": self.ended.get(who),
             "final": {name: final[who] for name, final in self.final.items() if who in final}}
            for who, values in enumerate(self.members)
        ]  # fmt: skip
        figures = {name: {**attrs.asdict(self.over(name)), "best_member": self.best(name)} for name in self.figures()}
        return {"members": members, "figures": figures, "rows": rows, "effects": effects}


def less_is_better(figure: str) -> bool:
    """Whether a figure is one that should be small.

    >>> less_is_better("val/loss"), less_is_better("eval/return")
    (True, False)
    """
    name = figure.rpartition("/")[2].lower()
    return any(part in name for part in LESS_IS_BETTER)


def values_text(values: Values) -> str:
    """A member's values as a person reads them, paths cut to their last part.

    >>> values_text({"run.seed": 3, "optimizer.lr": 0.001})
    'seed=3 lr=0.001'
    """
    return " ".join(f"{path.rpartition('.')[2]}={value_text(value)}" for path, value in values.items())


def value_text(value: Any) -> str:
    """A swept value; numbers to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, (list, tuple)) else value
