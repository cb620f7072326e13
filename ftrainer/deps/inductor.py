"""Inductor called on a finished graph: semi-public APIs of torch that move between releases."""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx

log = logging.getLogger("ftrainer.jit")

OPTIONS: Mapping[str, Any] = MappingProxyType(
    {
        "size_asserts": False,
        "alignment_asserts": False,
        "nan_asserts": False,
        "cpp.enable_floating_point_contract_flag": "off -fwrapv",
    }
)
"""The flat function checks its own signature, so the generated code need not check it again. Torch's integers wrap, but
C++ takes a signed overflow for impossible and gave wrong random words; no setting passes a flag to the compiler alone.
"""


VECTORS = "vectors.txt"
FORMAT = "2"
"""Changes whenever code that was stored before must not be loaded again."""


@functools.cache
def why_not(device_type: str) -> str | None:
    """What keeps Inductor from working on this machine; None where nothing does."""
    if device_type == "cuda":
        return None if _has_triton() else "triton is not installed"
    from torch._inductor import cpp_builder, exc  # noqa: PLC0415  (heavy, and needed by compiled runs alone)

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return "no C++ compiler was found"
    return None


def _has_triton() -> bool:
    from torch.utils._triton import has_triton  # noqa: PLC0415

    return bool(has_triton())


def compile_graph(graph: fx.GraphModule, tensors: Sequence[Tensor]) -> Callable[..., Sequence[Tensor]]:
    """Machine code for an ATen graph, from the disk where an earlier process left it there.

    Args:
        graph: a graph of flat tensors; it may write to its inputs.
        tensors: inputs of the shapes, dtypes and devices to compile for.
    """
    import torch._inductor.config as settings  # noqa: PLC0415

    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir() / "kernels"))
    held = lift_constants(graph)
    inputs: list[Any] = [*tensors, *held]
    with torch.no_grad(), settings.patch(dict(OPTIONS)):
        # A stored graph that was given constants comes back with a parameter too many (torch 2.13).
        storable = _can_store() and not held
        compiled = _stored(graph, inputs) if storable else torch._inductor.compile(graph, inputs)
    return (lambda *given: compiled(*given, *held)) if held else compiled


def cache_dir() -> Path:
    """Where compiled code stays between processes: `$FTRAINER_CACHE`, else under the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FTRAINER_CACHE") or Path(base) / "ftrainer")


def _can_store() -> bool:
    """Whether this torch can write a compiled graph to a file (since 2.12 or so)."""
    return "aot" in inspect.signature(torch._inductor.standalone_compile).parameters


def _stored(graph: fx.GraphModule, tensors: Sequence[Tensor]) -> Callable[..., Sequence[Tensor]]:
    from torch._inductor import config as settings  # noqa: PLC0415
    from torch._inductor import cpu_vec_isa  # noqa: PLC0415
    from torch._inductor.standalone_compile import AOTCompiledArtifact  # noqa: PLC0415

    path = cache_dir() / "graphs" / f"{fingerprint(graph, tensors)}.bin"
    if path.is_file():
        try:
            with settings.patch(_known_vectors()):
                return AOTCompiledArtifact.load(path=str(path), format="binary")
        except (RuntimeError, OSError, EOFError, ValueError, AttributeError, ImportError) as error:
            log.warning("%s cannot be used (%s) and is compiled anew", path, error)
    compiled = torch._inductor.standalone_compile(graph, list(tensors), dynamic_shapes="from_example_inputs", aot=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    compiled.save(path=str(unfinished), format="binary")
    os.replace(unfinished, path)
    (cache_dir() / VECTORS).write_text(_names(cpu_vec_isa.valid_vec_isa_list()))
    return compiled


def _known_vectors() -> dict[str, Any]:
    """Settings that spare a start the three processes that try out vector instructions, where that was done before.

    What was found then stands beside the stored code; it must be all that this processor says it can do.
    """
    from torch._inductor import config as settings  # noqa: PLC0415
    from torch._inductor import cpu_vec_isa  # noqa: PLC0415

    found, trusting = cache_dir() / VECTORS, {"cpp.vec_isa_ok": True}
    with settings.patch(trusting):
        claimed = _names(cpu_vec_isa.valid_vec_isa_list.__wrapped__())
    return trusting if found.is_file() and found.read_text() == claimed else {}


def _names(vectors: Iterable[Any]) -> str:
    return "".join(f"{vector}\n" for vector in vectors)


def fingerprint(graph: fx.GraphModule, tensors: Iterable[Tensor]) -> str:
    """What compiled code depends on, as a file name: the graph, its inputs, versions and the machine."""
    parts = [FORMAT, torch.__version__, platform.machine(), platform.processor()]
    parts += [
        torch.backends.cpu.get_cpu_capability(),
        str(torch.get_num_threads()),
        repr(sorted(OPTIONS.items())),
        graph.code,
    ]
    parts += [repr((tuple(t.shape), t.stride(), t.dtype, str(t.device))) for t in tensors]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:40]


def lift_constants(graph: fx.GraphModule) -> list[Tensor]:
    """Turn the tensors that a graph holds into further inputs, in place, and return them: stored code holds none."""
    held = constants(graph)
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1:]
    for name in reversed(held):
        with graph.graph.inserting_after(last[0]) if last else graph.graph.inserting_before():
            place = graph.graph.placeholder(f"held_{name}")
        for node in graph.graph.find_nodes(op="get_attr", target=name):
            place.meta = dict(node.meta)
            node.replace_all_uses_with(place)
            graph.graph.erase_node(node)
        delattr(graph, name)
    graph.recompile()
    return list(held.values())


def constants(graph: fx.GraphModule) -> dict[str, Tensor]:
    """Tensors that the graph holds itself."""
    names = [str(node.target) for node in graph.graph.nodes if node.op == "get_attr"]
    return {name: value for name in names if isinstance(value := getattr(graph, name), Tensor)}
