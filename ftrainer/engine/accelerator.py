"""The one device of a run and how it computes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ftrainer.functional import pytree
from registry.issue import invalid


def pick_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one.

    Raises:
        ConfigError: `cuda` was asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise invalid("this machine has no usable GPU", "run", "device", found="cuda", hint="set `run.device: auto`")
    return torch.device(name)


def check_precision(precision: str, guard: str, device: torch.device) -> None:
    """Refuse an arithmetic that the device does not have, or that cannot work.

    Raises:
        ConfigError: `tf32` or `fp16-mixed` without a GPU; `fp16-mixed` without the guard that sees overflows.
    """
    if precision == "fp16-mixed" and guard != "grads":
        raise invalid("fp16-mixed finds its loss scale by watching gradients overflow", "trainer", "guard",
                      found=guard, expected="grads")  # fmt: skip
    if precision in ("tf32", "fp16-mixed") and device.type != "cuda":
        raise invalid(f"{precision} needs a GPU; this run is on the CPU", "run", "precision", found=precision,
                      hint="use fp32, bf16-mixed or fp64")  # fmt: skip


def check_backend(backend: str, device: torch.device) -> None:
    """Refuse a way to execute the step that the device does not have.

    Raises:
        ConfigError: `cuda_graphs` without a GPU.
    """
    if backend == "cuda_graphs" and device.type != "cuda":
        raise invalid("cuda_graphs needs a GPU; this run is on the CPU", "run", "compile", found=backend,
                      hint="use auto, inductor, trace or eager")  # fmt: skip


@contextmanager
def numerics(precision: str, deterministic: bool) -> Iterator[None]:
    """Torch's global switches for the time of a run, put back afterwards.

    By default torch's convolutions on a GPU round to tf32 even where its matrix products do not; here they go together.
    Deterministic matrix products on a GPU want a variable of the environment, which is set unless it is.
    """
    matmul, algorithms = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    convolutions = torch.backends.cudnn.allow_tf32
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.use_deterministic_algorithms(deterministic or algorithms, warn_only=warn_only)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)


def to_device(tree: Any, device: torch.device, precision: str = "fp32") -> Any:
    """Tensors moved (and floats widened under `fp64`); a tensor that is right already is not copied.

    The host waits for what comes from a GPU, and for nothing that goes there.
    """

    def move(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        widen = precision == "fp64" and leaf.is_floating_point()
        dtype = torch.float64 if widen else leaf.dtype
        return leaf.to(device=device, dtype=dtype, non_blocking=device.type != "cpu")

    return pytree.map(move, tree)
