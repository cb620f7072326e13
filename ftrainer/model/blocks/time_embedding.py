"""A time, as features that a network can tell apart."""

from __future__ import annotations

from torch import Tensor, nn

from registry.issue import invalid

from .sinusoid import sinusoid


class TimeEmbedding(nn.Module):
    """Sinusoidal features of a time (`time_embedding`), as in diffusion and flow models.

    Args:
        dim: even number of features.
        max_period: of the slowest wave.
        scale: times are multiplied by it first; 1000 suits times on [0, 1].

    Raises:
        ConfigError: `dim` is odd.

    >>> import torch
    >>> TimeEmbedding(dim=8)(torch.zeros(3)).shape
    torch.Size([3, 8])
    """

    def __init__(self, dim: int, max_period: float = 10_000.0, scale: float = 1.0) -> None:
        super().__init__()
        if dim < 2 or dim % 2:
            raise invalid("must be even and positive", "dim", found=repr(dim))
        self.dim, self.max_period, self.scale = dim, max_period, scale

    def forward(self, t: Tensor) -> Tensor:
        """(B,) or (B, 1) to (B, dim)."""
        t = t.squeeze(-1) if t.dim() > 1 else t
        return sinusoid(t * self.scale, self.dim, self.max_period)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"dim={self.dim}, max_period={self.max_period}, scale={self.scale}"
