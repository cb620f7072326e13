"""The architecture as a table: layers, the shapes that pass through them, parameter counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ftrainer.functional.random import key

from .bridge import Model


class Layer(NamedTuple):
    """One row.

    Attributes:
        path: dotted name, empty for the whole model.
        kind: class name.
        inputs, outputs: shapes at the last call, empty where the layer was not called.
        n_params: trainable numbers of the layer itself and of everything in it; a tied tensor counts where it is first.
        n_frozen: likewise, those that training does not move.
    """

    path: str
    kind: str
    inputs: str
    outputs: str
    n_params: int
    n_frozen: int


def table(model: Model, example: Mapping[str, Any], statistics: Mapping[str, Any] | None = None) -> list[Layer]:
    """The layers of a model, outermost first, with the shapes that an example's journey shows.

    Args:
        model: what to look at.
        example: one batch's model inputs.
        statistics: as of `Model.init`.

    Raises:
        ConfigError: as `Model.init`.

    >>> from ftrainer.model import from_module
    >>> [tuple(row) for row in table(from_module(nn.Sequential(nn.Linear(3, 2))), {"x": torch.zeros(4, 3)})]
    [('', 'Sequential', '(4, 3)', '(4, 2)', 8, 0), ('0', 'Linear', '(4, 3)', '(4, 2)', 8, 0)]
    """
    params, buffers = model.init(key(0), example, statistics)
    module = model.to_module(params, buffers)
    args, kwargs = model.arguments(module, example)
    shapes = observed(module, lambda: module(*args, **kwargs))
    first = {id(p): name for name, p in module.named_parameters()}
    return [
        Layer(
            name,
            type(layer).__name__,
            *shapes.get(name, ("", "")),
            count(name, layer, first, trainable=True),
            count(name, layer, first, trainable=False),
        )
        for name, layer in module.named_modules()
    ]


HEADER = ("layer", "class", "in", "out", "parameters", "frozen")


def render(rows: list[Layer]) -> str:
    """The table as text, the whole model last.

    >>> whole = Layer("", "Sequential", "(4, 3)", "(4, 2)", 8, 0)
    >>> print(render([whole, Layer("0", "Linear", "(4, 3)", "(4, 2)", 8, 0)]))
    layer  class       in      out     parameters  frozen
    0      Linear      (4, 3)  (4, 2)           8       0
    model  Sequential  (4, 3)  (4, 2)           8       0
    """
    whole, *layers = rows
    cells = [
        HEADER,
        *((*row[:4], f"{row.n_params:,}", f"{row.n_frozen:,}") for row in (*layers, whole._replace(path="model"))),
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADER))]
    aligned = [
        [
            text.rjust(width) if column > 3 else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in cells
    ]
    return "\n".join("  ".join(row).rstrip() for row in aligned)


def observed(module: nn.Module, run: Callable[[], Any]) -> dict[str, tuple[str, str]]:
    """The shapes that went into and came out of each layer while `run` ran."""
    shapes: dict[str, tuple[str, str]] = {}

    def hook(name: str) -> Callable[..., None]:
        def note(layer: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            del layer
            shapes[name] = (shape((*args, *kwargs.values())), shape((output,)))

        return note

    for name, layer in module.named_modules():
        layer.register_forward_hook(hook(name), with_kwargs=True)
    with torch.no_grad():
        run()
    return shapes


def shape(values: tuple[Any, ...]) -> str:
    """The shapes of all tensors in some values."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(str(tuple(value.shape)))
        elif isinstance(value, Mapping):
            found.append("{" + ", ".join(f"{name}: {shape((item,))}" for name, item in value.items()) + "}")
        elif isinstance(value, (tuple, list)):
            found.append("[" + shape(tuple(value)) + "]")
    return ", ".join(found)


def count(name: str, layer: nn.Module, first: Mapping[int, str], trainable: bool) -> int:
    """Numbers in the parameters below a layer, tied ones only where they are first."""
    inside = [(f"{name}.{own}".lstrip("."), p) for own, p in layer.named_parameters()]
    return sum(p.numel() for full, p in inside if p.requires_grad is trainable and first[id(p)] == full)
