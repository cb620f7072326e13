"""Two convolutions and a way around them."""

from __future__ import annotations

from torch import Tensor, nn

from .activations import Activation, make_activation
from .conv_bn_act import ConvBnAct


class Residual(nn.Module):
    """The basic block of a residual network (`residual`; He et al., 2016, "Deep Residual Learning").

    Args:
        in_channels: of the input.
        out_channels: None keeps `in_channels`.
        stride: of the first convolution. Where the shape changes, a 1×1 convolution leads around; else the identity.
        act: a name or a module to copy; after the first convolution and after the sum.

    Raises:
        ConfigError: unknown activation.

    >>> import torch
    >>> Residual(in_channels=4, out_channels=8, stride=2)(torch.zeros(2, 4, 6, 6)).shape
    torch.Size([2, 8, 3, 3])
    """

    def __init__(
        self, in_channels: int, out_channels: int | None = None, stride: int = 1, act: Activation = "relu"
    ) -> None:
        super().__init__()
        width = in_channels if out_channels is None else out_channels
        self.main1 = ConvBnAct(in_channels, width, kernel_size=3, stride=stride, padding=1, act=act)
        self.main2 = ConvBnAct(width, width, kernel_size=3, padding=1, act="identity")
        self.skip: nn.Module = nn.Identity()
        if (width, stride) != (in_channels, 1):
            self.skip = ConvBnAct(in_channels, width, kernel_size=1, stride=stride, act="identity")
        self.act = make_activation(act, "act")

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        return self.act(self.main2(self.main1(x)) + self.skip(x))
