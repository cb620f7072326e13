"""Any figure of `torchmetrics.functional`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from frozendict import frozendict
from torch import Tensor

from ftrainer.components.losses.masking import Path, pair
from registry.issue import ConfigError, Issue, invalid, nearest
from registry.spec import Plain, component, thaw


@component
class TorchMetric:
    """A function of `torchmetrics.functional`, called once with the whole split.

    Attributes:
        name: the function, and what it is logged as; several figures are logged as `<name>/<key or number>`.
        kwargs: its arguments besides predictions and targets.
        pred_path: from the model's output to the prediction; empty is the whole output.
        target_path: from the targets to the target; null is the only one.
    """

    name: str
    kwargs: Plain = frozendict()
    pred_path: Path = ()
    target_path: Path | None = None

    def __attrs_post_init__(self) -> None:
        taken = inspect.signature(function(self.name)).parameters
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
            return
        issues = [
            Issue(
                path=("kwargs", key), at="key", problem=f"not an argument of {self.name}", nearest=nearest(key, taken)
            )
            for key in self.kwargs
            if key not in taken
        ]
        if issues:
            raise ConfigError(issues)

    def compute(self, outputs: Any, targets: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """The figures over a whole split, by name.

        Raises:
            ConfigError: the function gives something that is no figure.
        """
        prediction, target = pair(outputs, targets, self.pred_path, self.target_path)
        value = function(self.name)(prediction, target, **thaw(self.kwargs))
        if isinstance(value, Mapping):
            return {f"{self.name}/{key}": item for key, item in value.items()}
        if isinstance(value, Tensor) and value.numel() == 1:
            return {self.name: value.reshape(())}
        if not all(item.numel() == 1 for item in value):
            raise invalid("gives curves or maps, not figures", "name", found=repr(self.name))
        return {f"{self.name}/{i}": item.reshape(()) for i, item in enumerate(value)}


def function(name: str) -> Any:
    """A function of `torchmetrics.functional`, which is loaded only now: it takes a second.

    Raises:
        ConfigError: torchmetrics is not installed, or has no such function.
    """
    try:
        module = importlib.import_module("torchmetrics.functional")
    except ModuleNotFoundError as error:
        raise invalid("needs torchmetrics", hint="pip install 'ftrainer[metrics]'") from error
    functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
    if name not in functions:
        expected = "a function of torchmetrics.functional"
        raise invalid("unknown metric", "name", found=repr(name), expected=expected, nearest=nearest(name, functions))
    return getattr(module, name)
