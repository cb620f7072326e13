"""A stack of linear layers with ways around them."""

from __future__ import annotations

from torch import Tensor, nn

from registry.issue import invalid

from .activations import Activation, make_activation
from .dropout import Dropout
from .mlp import linear


class ResidualMLP(nn.Module):
    """Blocks `x + linear(dropout(act(linear(norm(x)))))` between two linear layers (`residual_mlp`).

    Args:
        in_features: None takes it from the example.
        width: of the blocks.
        out_features: of the last layer.
        depth: number of blocks.
        expansion: width inside a block, as a multiple of `width`.
        activation: inside a block.
        dropout: probability, after the activation.

    Raises:
        ConfigError: a size below one, or an unknown activation.

    >>> import torch
    >>> ResidualMLP(in_features=3, width=8, out_features=2)(torch.zeros(4, 3)).shape
    torch.Size([4, 2])
    """

    def __init__(
        self,
        in_features: int | None,
        width: int,
        out_features: int,
        depth: int = 2,
        expansion: int = 2,
        activation: Activation = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for name, size in {
            "width": width,
            "out_features": out_features,
            "depth": depth,
            "expansion": expansion,
        }.items():
            if size < 1:
                raise invalid("must be at least 1", name, found=repr(size))
        self.first = linear(in_features, width)
        self.blocks = nn.ModuleList(_block(width, width * expansion, activation, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in_features) to (…, out_features)."""
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(self.norm(x))


def _block(width: int, inner: int, activation: Activation, dropout: float) -> nn.Sequential:
    act = make_activation(activation, "activation")
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, inner), act, Dropout(dropout), nn.Linear(inner, width))
