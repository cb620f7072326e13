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
from .skeleton import arguments, takes

FORMATS = (".safetensors", ".pt", ".pt2")


def export(
    model: Model, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], out: Path, example: Mapping[str, Any]
) -> Path:
    """`write` for `model.to_module(params, buffers)`; `example` is one batch's model inputs."""
    check_format(out)
    return write(model.to_module(params, buffers), out, {name: example[name] for name in model.inputs})


def write(module: nn.Module, out: Path, example: Mapping[str, Any]) -> Path:
    """Write a module's weights, or the module itself, in a form that `torch` alone can read.

    Args:
        module: in evaluation mode, its normaliser inside.
        out: `.safetensors` and `.pt` are its state dict; `.pt2` is a `torch.export` program for any number of examples.
        example: inputs by name, with at least two examples; they go to `forward` by name where it has parameters of
            these names, else by position. Only `.pt2` looks at them.

    Returns:
        `out`.

    Raises:
        ConfigError: another suffix, or `torch.export` cannot capture the module.
    """
    check_format(out)
    module = module.cpu()
    if out.suffix == ".pt2":
        torch.export.save(program(module, example), out)
        return out
    return write_tensors(module.state_dict(), out)


def write_tensors(tensors: Mapping[str, Tensor], out: Path) -> Path:
    """Write tensors by name, as `.pt` or `.safetensors`; returns `out`."""
    if out.suffix == ".pt":
        torch.save(tensors, out)
    else:
        save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, out)
    return out


def check_format(out: Path) -> None:
    """See that a file's suffix names a format.

    Raises:
        ConfigError: it does not.
    """
    if out.suffix not in FORMATS:
        raise invalid("unknown format", "out", found=repr(out.suffix), expected=", ".join(FORMATS))


def program(module: nn.Module, example: Mapping[str, Any]) -> torch.export.ExportedProgram:
    """A module as `torch.export` captures it, the leading dimension of every input left open where the code allows.

    Raises:
        ConfigError: it cannot be captured.
    """
    cpu = {name: value.cpu() if isinstance(value, Tensor) else value for name, value in example.items()}
    args, kwargs = arguments(takes(module, tuple(cpu)), tuple(cpu), cpu)
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
