"""A stack of linear layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from registry.issue import invalid

from .activations import Activation, make_activation
from .dropout import Dropout


class MLP(nn.Sequential):
    """Linear layers with activations, and dropout, between them (`mlp`).

    Args:
        dims: widths from input to output; the first may be None, which takes it from the example.
        activation: after every layer but the last.
        final_activation: after the last layer; None for none.
        dropout: probability, after every activation but the final one.
        bias: whether the layers have biases.

    Raises:
        ConfigError: fewer than two widths, a width that is no positive integer, an unknown activation, or a
            dropout that is no probability.

    >>> MLP([None, 64, 2], activation="tanh")
    MLP(
      (0): LazyLinear(in_features=0, out_features=64, bias=True)
      (1): Tanh()
      (2): Linear(in_features=64, out_features=2, bias=True)
    )
    """

    def __init__(
        self,
        dims: Sequence[int | None],
        activation: Activation = "relu",
        final_activation: Activation | None = None,
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        _refuse(dims)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(dims):
            layers += [] if not layers else _between(activation, dropout)
            layers.append(linear(n_in, n_out or 0, bias))
        if final_activation is not None:
            layers.append(make_activation(final_activation, "final_activation"))
        super().__init__(*layers)


def linear(n_in: int | None, n_out: int, bias: bool = True) -> nn.Module:
    """A linear layer whose input width may be open."""
    return nn.LazyLinear(n_out, bias=bias) if n_in is None else nn.Linear(n_in, n_out, bias=bias)


def _between(activation: Activation, dropout: float) -> list[nn.Module]:
    return [make_activation(activation, "activation"), *([Dropout(dropout)] if dropout else [])]


def _refuse(dims: Sequence[int | None]) -> None:
    if len(dims) < 2:
        raise invalid("needs an input and an output width", "dims", found=repr(list(dims)))
    for index, width in enumerate(dims):
        if (width is None and index) or (width is not None and width < 1):
            raise invalid("a width is a positive integer; only the first may be null", "dims", index, found=repr(width))
