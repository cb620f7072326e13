"""Layers that attend to a sequence and to a memory."""

from __future__ import annotations

from torch import Tensor, nn

from .activations import Activation
from .attention import Attention
from .transformer_encoder import EncoderLayer


class DecoderLayer(EncoderLayer):
    """One layer of `TransformerDecoder`; its tensors are named as those of `nn.TransformerDecoderLayer`."""

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int, dropout: float, activation: Activation, norm_first: bool
    ) -> None:
        super().__init__(d_model, nhead, dim_feedforward, dropout, activation, norm_first)
        self.multihead_attn = Attention(d_model, nhead, dropout)
        self.norm3 = nn.LayerNorm(d_model)

    def forward(self, x: Tensor, memory: Tensor, causal: bool) -> Tensor:  # type: ignore[override]
        """(B, T, D) and (B, S, D) to (B, T, D)."""
        if self.norm_first:
            x = x + self.attend(self.norm1(x), causal, None)
            x = x + self.ask(self.norm2(x), memory)
            return x + self.feed_forward(self.norm3(x))
        x = self.norm1(x + self.attend(x, causal, None))
        x = self.norm2(x + self.ask(x, memory))
        return self.norm3(x + self.feed_forward(x))

    def ask(self, x: Tensor, memory: Tensor) -> Tensor:
        """The half that attends to the memory."""
        return self.dropout(self.multihead_attn(x, memory))


class TransformerDecoder(nn.Module):
    """A stack of layers that attend to their sequence and to a memory (`transformer_decoder`; Vaswani et al., 2017).

    Weights of `nn.TransformerDecoder` load into it and the other way round.

    Args:
        d_model: width of the elements of both sequences.
        nhead: attention heads.
        num_layers: depth.
        dim_feedforward: width of the position-wise layers.
        dropout: probability, on attention weights, on activations and in front of each sum.
        activation: of the position-wise layers.
        causal: position t of the sequence sees positions 0 … t only; the memory is seen whole.
        norm_first: normalise in front of each part and once at the end, instead of after each sum.

    Raises:
        ConfigError: the heads do not divide the width, or an unknown activation.

    >>> import torch
    >>> TransformerDecoder(d_model=8, nhead=2, num_layers=1)(torch.zeros(2, 5, 8), torch.zeros(2, 3, 8)).shape
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
        self.layers = nn.ModuleList(DecoderLayer(*layer) for _ in range(num_layers))
        self.norm = nn.LayerNorm(d_model) if norm_first else nn.Identity()
        self.causal = causal

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """Decode `x` (B, T, d_model) given `memory` (B, S, d_model)."""
        for layer in self.layers:
            x = layer(x, memory, self.causal)
        return self.norm(x)
