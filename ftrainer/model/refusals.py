"""What `torch.func` cannot differentiate, recognised, with the cure."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import torch
from torch import nn

from ftrainer.deps.module_internals import has_hooks
from registry.issue import ConfigError, ConfigPath, Issue

SETUP_CONTEXT = (
    "move what `forward(ctx, …)` saves into a static `setup_context(ctx, inputs, output)` and drop `ctx` from "
    "`forward`; add `generate_vmap_rule = True` for runs with replicas"
)
CHECKPOINT = (
    "turn checkpointing off (for transformers models `gradient_checkpointing_disable()`); the compiled step recomputes "
    "what is cheap by itself"
)
HOOK = (
    "to see or change a gradient, hook a tensor inside `forward`: `output.register_hook(function)`, or "
    "`self.weight.register_hook(function)` there"
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
    if function is not None and function.__name__ == "BackwardHookFunction":
        return f"{layer} has a backward hook, which torch.func cannot differentiate", HOOK
    if function is not None:
        kind = f"{function.__qualname__}, an autograd.Function of the old style"
        return f"{layer} uses {kind}, which torch.func cannot differentiate", SETUP_CONTEXT
    return None, None


def refuse_hooks(module: nn.Module, place: Callable[[str], ConfigPath]) -> None:
    """See that no parameter has a hook for its gradient: a step differentiates by tensors that take its place.

    Args:
        module: as its factory made it.
        place: the config path of a parameter, by dotted name.

    Raises:
        ConfigError: parameters have hooks; with their names.
    """
    issues = [
        Issue(path=place(name), problem=f"parameter {name!r} has a hook, which would never be called", hint=HOOK)
        for name, parameter in module.named_parameters()
        if has_hooks(parameter)
    ]
    if issues:
        raise ConfigError(issues)


def autograd_function(error: BaseException) -> type | None:
    """The old-style `autograd.Function` that functorch refused, if that is what the error says."""
    if "setup_context" not in str(error):
        return None
    classes = [frame.f_locals.get("cls") for frame, _ in traceback.walk_tb(error.__traceback__)]
    found = [cls for cls in classes if isinstance(cls, type) and issubclass(cls, torch.autograd.Function)]
    return found[-1] if found else None
