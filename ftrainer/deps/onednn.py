"""oneDNN's matrix product, which torch ships beside MKL's and calls by a private name."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import Tensor

LARGE = 2**27
"""Multiplications from which oneDNN's product is worth calling: below, its set-up costs more than it gains."""


@functools.cache
def is_faster() -> bool:
    """Whether this processor is one on which MKL, torch's default, falls behind: those that Intel did not make.

    On an EPYC, 1024 wide and float32: 90 to 96 GFLOP/s against 71 to 81.
    """
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkl.is_available():
        return False
    info = Path("/proc/cpuinfo")
    return info.is_file() and "AuthenticAMD" in info.read_text()


@torch.library.custom_op("ftrainer::matmul", mutates_args=())
def _matmul(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(a, b.t(), bias, "none", [], "")


@_matmul.register_fake
def _(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


matmul = torch.ops.ftrainer.matmul.default
"""`a @ b + bias` for (M, K) and (K, N) of any strides, float32 on the CPU."""
