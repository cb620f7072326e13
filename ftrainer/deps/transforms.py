"""Leaving whatever torch is in the middle of: function transforms, fake tensors, tracing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.utils._python_dispatch import _disable_current_modes


@contextmanager
def outside_transforms() -> Iterator[None]:
    """Ordinary tensors, eager execution and no gradient, whatever surrounds the caller."""
    with _disable_current_modes(), temporarily_clear_interpreter_stack(), torch.no_grad():
        yield
