"""Dropout whose probability may be a tensor."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from registry.issue import invalid


class Dropout(nn.Module):
    """`nn.Dropout`, but a step may put a 0-d tensor in the place of its probability.

    That is how members of a stack of runs drop different shares: `nn.Dropout` itself compares its probability with
    numbers, which no trace can do with a tensor.

    Args:
        p: probability of a zero.

    Attributes:
        swept: the probability that counts instead of `p`, for the time of one call.

    Raises:
        ConfigError: `p` is no probability.

    >>> Dropout(0.5).eval()(torch.ones(2))
    tensor([1., 1.])
    """

    swept: Tensor | None

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        refuse_share(p)
        self.p, self.swept = p, None

    @property
    def active(self) -> bool:
        """Whether anything is dropped now."""
        return self.training and (self.swept is not None or self.p > 0)

    def forward(self, x: Tensor) -> Tensor:
        """Zero elements in training, and scale up what is left."""
        if not self.active or self.swept is None:
            return F.dropout(x, self.p, self.training)
        share = 1 - self.swept.to(x.device)
        return x * (torch.bernoulli(share.expand(x.shape)).to(x.dtype) * (1 / share))

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"p={self.p}"


def refuse_share(p: float) -> None:
    """Raise where a number is no probability."""
    if not 0 <= p <= 1:
        raise invalid("must be between 0 and 1", "dropout", found=repr(p))
