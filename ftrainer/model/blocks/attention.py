"""Multi-head attention as plain tensor arithmetic, so that it traces, differentiates and maps like everything else."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from registry.issue import invalid

from .dropout import Dropout


class Attention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` (batch first) with the same tensors under the same names, and a forward of its own.

    Torch's forward takes fused shortcuts in evaluation mode that neither map nor trace, and rounds otherwise there.

    Args:
        embed_dim: width of queries, keys and values.
        num_heads: must divide it.
        dropout: probability with which an attention weight is dropped.

    Raises:
        ConfigError: the heads do not divide the width.
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        if embed_dim % num_heads:
            raise invalid("must divide d_model", "nhead", found=f"{num_heads} heads for {embed_dim} features")
        super().__init__(embed_dim, num_heads, batch_first=True)
        self.drop = Dropout(dropout)

    def forward(self, query: Tensor, memory: Tensor, causal: bool = False, mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Attend from `query` (B, T, D) to `memory` (B, S, D).

        Args:
            query: what asks.
            memory: what is asked.
            causal: position t sees positions 0 … t only; needs T = S.
            mask: (B, S) bool, True where `memory` is real.
        """
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            self.heads(F.linear(x, weight, bias))
            for x, weight, bias in zip((query, memory, memory), weights, biases, strict=True)
        )
        allowed = None if mask is None else mask[..., None, None, :]
        if causal:
            earlier = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
            allowed = earlier if allowed is None else allowed & earlier
        return self.out_proj(self.mix(q, k, v, allowed).transpose(-3, -2).flatten(-2))

    def mix(self, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
        """Attention of each head, (B, heads, T, D / heads); written out where weights are dropped."""
        if not self.drop.active:
            return F.scaled_dot_product_attention(q, k, v, allowed)
        scores = q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -math.inf)
        return self.drop(scores.softmax(-1)) @ v

    def heads(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, heads, T, D / heads)."""
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(-3, -2)
