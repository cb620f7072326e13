"""What `torch.func` cannot differentiate, recognised, with the cure."""

from __future__ import annotations

import traceback

import torch

SETUP_CONTEXT = (
    "move what `forward(ctx, …)` saves into a static `setup_context(ctx, inputs, output)` and drop `ctx` from "
    "`forward`; add `generate_vmap_rule = True` for runs with replicas"
)
CHECKPOINT = (
    "turn checkpointing off (for transformers models `gradient_checkpointing_disable()`); the compiled step recomputes "
    "what is cheap by itself"
)
CAPTURED = "register the tensor as a buffer: `self.register_buffer(name, tensor)`"


def refusal(error: BaseException, layer: str) -> tuple[str | None, str | None]:
    """What is wrong and what to do about it; (None, None) where an error is of another kind.

    Args:
        error: raised inside a model under `torch.func`.
        layer: the layer that was running, for the message.
    """
    function = autograd_function(error)
    if "saved tensor hooks" in str(error) or function is torch.utils.checkpoint.CheckpointFunction:
        return f"{layer} uses torch.utils.checkpoint, which torch.func cannot differentiate", CHECKPOINT
    if "mutate a captured Tensor" in str(error):
        return f"{layer} writes in place to a tensor that is neither a buffer nor an input", CAPTURED
    if function is not None:
        kind = f"{function.__qualname__}, an autograd.Function of the old style"
        return f"{layer} uses {kind}, which torch.func cannot differentiate", SETUP_CONTEXT
    return None, None


def autograd_function(error: BaseException) -> type | None:
    """The old-style `autograd.Function` that functorch refused, if that is what the error says."""
    if "setup_context" not in str(error):
        return None
    classes = [frame.f_locals.get("cls") for frame, _ in traceback.walk_tb(error.__traceback__)]
    found = [cls for cls in classes if isinstance(cls, type) and issubclass(cls, torch.autograd.Function)]
    return found[-1] if found else None
