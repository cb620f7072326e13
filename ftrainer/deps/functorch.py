"""What lies under the tensors that `torch.func.grad` hands to the function that it differentiates."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch._C import _len_torch_dispatch_stack
from torch._C._functorch import get_unwrapped, is_functorch_wrapped_tensor, is_gradtrackingtensor, maybe_current_level
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

_numpy = Tensor.numpy


def is_tracing() -> bool:
    """Whether this thread is inside a transform of `torch.func`, or traces what it does."""
    return maybe_current_level() is not None or _len_torch_dispatch_stack() > 0


def numpy(x: Tensor, *, force: bool = False) -> Any:
    """`Tensor.numpy`, on tensors that a gradient is not taken by inside `torch.func.grad` too.

    Outside of it the same tensors have arrays, so that code which says `x.detach().numpy()` runs there.

    Args:
        x: any tensor.
        force: as torch's.
    """
    if force:
        x = x.detach()
    while is_gradtrackingtensor(x) and not x.requires_grad:
        x = get_unwrapped(x)
    if is_functorch_wrapped_tensor(x):
        return _numpy(x, force=force)  # raises: the gradient's, or one for each member of a `vmap`
    with temporarily_clear_interpreter_stack():  # inside of which even a plain tensor's array is out of reach
        return _numpy(x, force=force)
