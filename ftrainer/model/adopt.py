"""A module that exists already, as a Model."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import attrs
from torch import nn

from registry.spec import Deferred

from .bridge import Model
from .refusals import refuse_hooks


@attrs.frozen(eq=False)
class Original:
    """A module that nobody else holds; calling it copies it. Compares by identity."""

    module: nn.Module
    unique: bool = True

    def __call__(self) -> nn.Module:
        return copy.deepcopy(self.module)


def from_module(module: nn.Module, inputs: Sequence[str] = ("x",)) -> Model:
    """A model that starts from a module's present weights, buffers and statistics.

    The module is copied: it never changes, and what happens to it later does not reach the model. Parameters that want
    no gradient stay as they are; tied weights stay tied.

    Args:
        module: any `nn.Module`.
        inputs: names of its inputs. They go to `forward` by name where it has parameters of these names, else by
            position.

    Raises:
        TypeError: the module cannot be copied, for instance because an attribute holds a computed tensor.
        ConfigError: a parameter has a hook for its gradient.

    >>> model = from_module(nn.Linear(3, 2))
    >>> model.inputs
    ('x',)
    """
    refuse_hooks(module, lambda name: ("model",))
    try:
        original = Original(copy.deepcopy(module))
    except RuntimeError as error:
        raise TypeError(f"{type(module).__name__} cannot be copied: {error}") from error
    return Model(factory=Deferred(key=type(module).__name__, factory=original, path=("model",)), inputs=tuple(inputs))
