"""Self-attention layers over a sequence."""

from __future__ import annotations

from torch import Tensor, nn

from .activations import Activation, make_activation
from .attention import Attention
from .dropout import Dropout


class EncoderLayer(nn.Module):
    """One layer of `TransformerEncoder`; its tensors are named as those of `nn.TransformerEncoderLayer`."""

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int, dropout: float, activation: Activation, norm_first: bool
    ) -> None:
        super().__init__()
        self.self_attn = Attention(d_model, nhead, dropout)
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.activation = make_activation(activation, "activation")
        self.dropout, self.norm_first = Dropout(dropout), norm_first

    def forward(self, x: Tensor, causal: bool, mask: Tensor | None) -> Tensor:
        """(B, T, D) to the same."""
        if self.norm_first:
            x = x + self.attend(self.norm1(x), causal, mask)
            return x + self.feed_forward(self.norm2(x))
        x = self.norm1(x + self.attend(x, causal, mask))
        return self.norm2(x + self.feed_forward(x))

    def attend(self, x: Tensor, causal: bool, mask: Tensor | None) -> Tensor:
        """The attention half."""
        return self.dropout(self.self_attn(x, x, causal, mask))

    def feed_forward(self, x: Tensor) -> Tensor:
        """The position-wise half."""
        return self.dropout(self.linear2(self.dropout(self.activation(self.linear1(x)))))


class TransformerEncoder(nn.Module):
    """A stack of self-attention layers, causal or not (`transformer_encoder`; Vaswani et al., 2017).

    Weights of `nn.TransformerEncoder` load into it and the other way round.

    Args:
        d_model: width of the sequence's elements.
        nhead: attention heads.
        num_layers: depth.
        dim_feedforward: width of the position-wise layers.
        dropout: probability, on attention weights, on activations and in front of each sum.
        activation: of the position-wise layers.
        causal: position t sees positions 0 … t only.
        norm_first: normalise in front of each half and once at the end, instead of after each sum.

    Raises:
        ConfigError: the heads do not divide the width, or an unknown activation.

    >>> import torch
    >>> TransformerEncoder(d_model=8, nhead=2, num_layers=1)(torch.zeros(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        num_layers: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        causal: bool = False,
        norm_first: bool = False,
    ) -> None:
        super().__init__()
        layer = (d_model, nhead, dim_feedforward, dropout, activation, norm_first)
        self.layers = nn.ModuleList(EncoderLayer(*layer) for _ in range(num_layers))
        self.norm = nn.LayerNorm(d_model) if norm_first else nn.Identity()
        self.causal = causal

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode a sequence.

        Args:
            x: (B, T, d_model).
            mask: (B, T) bool, True where an element is real.
        """
        for layer in self.layers:
            x = layer(x, self.causal, mask)
        return self.norm(x)
