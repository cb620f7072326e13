"""What is trained: plain modules on made-up batches, the same for every contestant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import attrs
import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]
LR = 1e-3
WEIGHT_DECAY = 0.01
OUT = 6
GPU_STEPS = 1000


@attrs.frozen(kw_only=True)
class Workload:
    """A regression with AdamW.

    Attributes:
        name: for tables, and part of the key in the results.
        kind: the factory in `FACTORIES` that makes the module.
        sizes: its arguments.
        shape: of one input.
        batch_size: examples in a batch.
        steps: of one measurement: half a second to one of a hand-written loop.
        device: where it is trained, batches and all.
    """

    name: str
    kind: str
    sizes: Mapping[str, Any]
    shape: tuple[int, ...]
    batch_size: int
    steps: int
    device: str = "cpu"

    def on(self, device: str) -> Workload:
        """The same on a device; for more steps on a GPU, which makes them in less time."""
        steps = max(self.steps, GPU_STEPS) if device == "cuda" else self.steps
        return attrs.evolve(self, device=device, steps=steps)

    def wait(self) -> None:
        """Let the device end what it was given, before a clock is read."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def module(self) -> nn.Module:
        """The module, with the same weights at each call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return FACTORIES[self.kind](**self.sizes).to(self.device)

    def batches(self, n: int = 8) -> list[Batch]:
        """`x` (B, *shape) and `y` (B, 6), standard normal float32, the same at each call."""
        generator = torch.Generator().manual_seed(1)
        return [
            {
                "x": torch.randn(self.batch_size, *self.shape, generator=generator).to(self.device),
                "y": torch.randn(self.batch_size, OUT, generator=generator).to(self.device),
            }
            for _ in range(n)
        ]


def mlp(width: int, dropout: float = 0.0, n_in: int = 17) -> nn.Module:
    """17 → width → width → 6 with ReLU, and dropout behind each activation."""
    drop = [nn.Dropout(dropout)] if dropout else []
    hidden = [nn.Linear(n_in, width), nn.ReLU(), *drop, nn.Linear(width, width), nn.ReLU(), *drop]
    return nn.Sequential(*hidden, nn.Linear(width, OUT))


class Transformer(nn.Module):
    """An encoder over a sequence, and a linear head on the mean of its tokens."""

    def __init__(self, d_model: int, n_layers: int, dropout: float = 0.0, n_in: int = 17):
        super().__init__()
        layer = nn.TransformerEncoderLayer(d_model, 4, 4 * d_model, dropout, batch_first=True, norm_first=True)
        self.embed = nn.Linear(n_in, d_model)
        self.encoder = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)
        self.head = nn.Linear(d_model, OUT)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 17) to (B, 6)."""
        return self.head(self.encoder(self.embed(x)).mean(1))


def conv_net(channels: tuple[int, ...] = (16, 32, 64), dropout: float = 0.0) -> nn.Module:
    """Strided 3×3 convolutions with BatchNorm and ReLU, a global mean, and a linear head."""
    sizes = zip((3, *channels), channels, strict=False)
    layers = [
        layer
        for n_in, n_out in sizes
        for layer in (nn.Conv2d(n_in, n_out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU())
    ]
    drop = [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *drop, nn.Linear(channels[-1], OUT))


def tower(width: int, depth: int) -> nn.Module:
    """So many square layers with ReLU, and a linear head."""
    hidden = [layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(width, OUT))


FACTORIES: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {"mlp": mlp, "tower": tower, "transformer": Transformer, "conv_net": conv_net}
)


def perceptron(width: int, steps: int, dropout: float = 0.0) -> Workload:
    """An MLP on batches of 256."""
    return Workload(
        name=f"mlp {width}" + (f", dropout {dropout}" if dropout else ""),
        kind="mlp",
        sizes={"width": width, "dropout": dropout},
        shape=(17,),
        batch_size=256,
        steps=steps,
    )


def transformer(dropout: float = 0.0) -> Workload:
    """Four layers of width 128 on 32 sequences of 32 tokens."""
    return Workload(
        name="transformer" + (f", dropout {dropout}" if dropout else ""),
        kind="transformer",
        sizes={"d_model": 128, "n_layers": 4, "dropout": dropout},
        shape=(32, 17),
        batch_size=32,
        steps=12,
    )


def images(dropout: float = 0.0) -> Workload:
    """A conv net on 32 images of 64×64."""
    return Workload(
        name="conv net" + (f", dropout {dropout}" if dropout else ""),
        kind="conv_net",
        sizes={"dropout": dropout},
        shape=(3, 64, 64),
        batch_size=32,
        steps=40,
    )


WORKLOADS: tuple[Workload, ...] = (
    perceptron(64, 1500),
    perceptron(64, 1000, dropout=0.1),
    perceptron(256, 200),
    perceptron(256, 150, dropout=0.1),
    perceptron(1024, 30),
    perceptron(1024, 25, dropout=0.1),
    images(),
    images(dropout=0.1),
    transformer(),
    transformer(dropout=0.1),
)
