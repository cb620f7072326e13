"""Convolution, normalisation, activation."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from .activations import Activation, make_activation

Size = int | tuple[int, int]


class ConvBnAct(nn.Module):
    """A 2-d convolution, a norm and an activation (`conv_bn_act`).

    Args:
        in_channels: None takes it from the example.
        out_channels: of the convolution.
        kernel_size, stride, padding, dilation, groups: as of `nn.Conv2d`.
        bias: None has one unless a norm follows, which would cancel it.
        norm: a module to copy; None is `nn.BatchNorm2d`, `nn.Identity` is no norm.
        act: a name or a module to copy.

    Raises:
        ConfigError: unknown activation.

    >>> import torch
    >>> block = ConvBnAct(in_channels=3, out_channels=8, kernel_size=3, padding=1)
    >>> block(torch.zeros(2, 3, 5, 5)).shape, block.conv.bias
    (torch.Size([2, 8, 5, 5]), None)
    """

    def __init__(
        self,
        in_channels: int | None,
        out_channels: int,
        kernel_size: Size = 3,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool | None = None,
        norm: nn.Module | None = None,
        act: Activation = "relu",
    ) -> None:
        super().__init__()
        if bias is None:
            bias = isinstance(norm, nn.Identity)
        shape: dict[str, Any] = {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": groups,
            "bias": bias,
        }
        self.conv: nn.Module
        if in_channels is None:
            self.conv = nn.LazyConv2d(out_channels, kernel_size, **shape)
        else:
            self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, **shape)
        self.norm = nn.BatchNorm2d(out_channels) if norm is None else copy.deepcopy(norm)
        self.act = make_activation(act, "act")

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H', W')."""
        return self.act(self.norm(self.conv(x)))
