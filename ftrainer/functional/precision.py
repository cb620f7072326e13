"""Arithmetic of the losses: which casts surround them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

AUTOCAST = {"bf16-mixed": torch.bfloat16, "fp16-mixed": torch.float16}
PRECISIONS = ("fp32", "tf32", "bf16-mixed", "fp16-mixed", "fp64")


def autocast(precision: str, device_type: str) -> AbstractContextManager[object]:
    """The context in which a loss runs: mixed precisions cast matrix products down, the others leave all as it is."""
    if precision not in AUTOCAST:
        return nullcontext()
    return torch.autocast(device_type, dtype=AUTOCAST[precision])
