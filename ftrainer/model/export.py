"""Trained weights for those who do not have this package: a state dict, or a program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from registry.issue import invalid

from .bridge import Model

FORMATS = (".safetensors", ".pt", ".pt2")


def export(
    model: Model, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], out: Path, example: Mapping[str, Any]
) -> Path:
    """Write a model's weights, or the model itself, in a form that `torch` alone can read.

    Args:
        model: the architecture.
        params, buffers: the weights, averaged ones if that is what is wanted.
        out: `.safetensors` and `.pt` are a state dict of `model.to_module(…)`; `.pt2` is a `torch.export` program in
            evaluation mode, its normaliser inside, for any number of examples.
        example: one batch's model inputs with at least two examples; only `.pt2` looks at it.

    Returns:
        `out`.

    Raises:
        ConfigError: another suffix, or `torch.export` cannot capture the model.
    """
    if out.suffix not in FORMATS:
        raise invalid("unknown format", "out", found=repr(out.suffix), expected=", ".join(FORMATS))
    module = model.to_module(params, buffers).cpu()
    if out.suffix == ".pt2":
        torch.export.save(program(model, module, example), out)
    elif out.suffix == ".pt":
        torch.save(module.state_dict(), out)
    else:
        save_file({name: tensor.detach().clone().contiguous() for name, tensor in module.state_dict().items()}, out)
    return out


def program(model: Model, module: nn.Module, example: Mapping[str, Any]) -> torch.export.ExportedProgram:
    """A module as `torch.export` captures it, the leading dimension of every input left open where the code allows.

    Raises:
        ConfigError: it cannot be captured.
    """
    cpu = {name: value.cpu() if isinstance(value, Tensor) else value for name, value in example.items()}
    args, kwargs = model.arguments(module, cpu)
    dynamic: Any = torch.export.ShapesCollection()
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.dim():
            dynamic[value] = {0: torch.export.Dim.AUTO}
    try:
        return torch.export.export(module, args, kwargs, dynamic_shapes=dynamic)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        hint = "export the state dict instead: `.safetensors` or `.pt`"
        raise invalid(f"torch.export cannot capture {type(module).__name__}: {first}", "out", hint=hint) from error
