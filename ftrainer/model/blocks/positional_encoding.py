"""Where in a sequence an element stands."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from registry.issue import invalid

from .dropout import Dropout
from .sinusoid import sinusoid

KINDS = ("sinusoidal", "learned")


class PositionalEncoding(nn.Module):
    """Adds to each element of a sequence what tells its position (`positional_encoding`).

    Args:
        d_model: even width of the elements.
        kind: `sinusoidal` is computed for any length, `learned` is a table of `max_len` rows.
        max_len: the longest sequence that `learned` takes.
        dropout: probability, after the sum.

    Raises:
        ConfigError: an odd width for waves, an unknown kind, or no length.

    >>> PositionalEncoding(d_model=8)(torch.zeros(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, d_model: int, kind: str = "sinusoidal", max_len: int = 512, dropout: float = 0.0) -> None:
        super().__init__()
        if kind not in KINDS:
            raise invalid("unknown kind", "kind", found=repr(kind), expected=", ".join(KINDS))
        if kind == "sinusoidal" and d_model % 2:
            raise invalid("must be even", "d_model", found=repr(d_model))
        if max_len < 1:
            raise invalid("must be at least 1", "max_len", found=repr(max_len))
        self.table = nn.Parameter(torch.empty(max_len, d_model)) if kind == "learned" else None
        self.dropout = Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the table (Devlin et al., 2019: standard deviation 0.02)."""
        if self.table is not None:
            nn.init.normal_(self.table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, d_model) to the same.

        Raises:
            ValueError: the sequence is longer than the table.
        """
        length = x.shape[-2]
        if self.table is None:
            return self.dropout(x + sinusoid(torch.arange(length, device=x.device, dtype=x.dtype), x.shape[-1]))
        if length > len(self.table):
            raise ValueError(f"a sequence of {length} is longer than max_len={len(self.table)}")
        return self.dropout(x + self.table[:length])
