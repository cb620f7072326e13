"""Inductor called on a finished graph: semi-public APIs of torch that move between releases."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx

from . import generated

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


CACHE = "TORCHINDUCTOR_CACHE_DIR"
GCC = 11
"""The first one that knows AMX, the youngest of the instruction sets that Inductor asks for unconditionally."""
FORMAT = "4"
"""Changes whenever code that was stored before must not be loaded again."""


class NoCompilerError(RuntimeError):
    """This machine cannot compile; the message says why."""


def check_compiler(device_type: str) -> None:
    """Raise where Inductor cannot work.

    Raises:
        NoCompilerError: something that it needs is missing.
    """
    if reason := why_not(device_type):
        raise NoCompilerError(reason)


@functools.cache
def why_not(device_type: str) -> str | None:
    """What keeps Inductor from working on this machine; None where nothing does."""
    if device_type == "cuda" and not _has_triton():
        return "triton is not installed"
    from torch._inductor import cpp_builder, exc  # noqa: PLC0415  (heavy, and needed by compiled runs alone)

    try:
        cpp_builder.get_cpp_compiler()
    except (exc.InvalidCxxCompiler, OSError):  # the latter where `CXX` names what cannot be executed
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

    Raises:
        NoCompilerError: it must be compiled, and cannot be on this machine.
    """
    held = lift_constants(graph)
    inputs: list[Tensor] = [*tensors, *held]
    call = _stored(graph, inputs) if is_plain(inputs) else None
    if call is not None:
        return lambda *given: call([*given, *held])
    check_compiler(next((x.device.type for x in inputs if x.device.type != "cpu"), "cpu"))
    with torch.no_grad(), settings():
        compiled = torch._inductor.compile(graph, list[Any](inputs))
    return (lambda *given: compiled(*given, *held)) if held else compiled


def cache_dir() -> Path:
    """Where compiled code stays between processes: `$FTRAINER_CACHE`, else under the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FTRAINER_CACHE") or Path(base) / "ftrainer")


def is_writable(folder: Path) -> bool:
    """Whether files can be written to a folder, which is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def is_plain(tensors: Sequence[Tensor]) -> bool:
    """Whether tensors lie on the CPU, each in memory of its own: what writes to one is seen through none other."""
    storages = {tensor.untyped_storage()._cdata for tensor in tensors}
    return len(storages) == len(tensors) and all(tensor.device.type == "cpu" for tensor in tensors)


def _stored(graph: fx.GraphModule, tensors: Sequence[Tensor]) -> generated.Call | None:
    """The generated function for a graph, from the disk where it is there; None for code that cannot be stored."""
    folder = cache_dir() / "graphs" / fingerprint(graph, tensors)
    if folder.is_dir():
        try:
            return generated.load(folder)
        except (OSError, ValueError, KeyError, SyntaxError, ImportError, AttributeError) as error:
            log.warning("%s cannot be used (%s) and is compiled anew", folder, error)
    check_compiler("cpu")
    try:
        generated.store(*_generate(graph, tensors), folder)
    except generated.NotStorableError as reason:
        log.info("the compiled code is not stored: %s", reason)
        return None
    except OSError as error:
        log.warning("the compiled code cannot be stored: %s", error)
        return None
    return generated.load(folder)


def _generate(graph: fx.GraphModule, tensors: Sequence[Tensor]) -> tuple[generated.Call, str]:
    """The function that Inductor makes of a graph, without what AOTAutograd puts around it, and its source.

    Raises:
        NotStorableError: what is around it is needed.
    """
    from torch._functorch import config as functorch  # noqa: PLC0415
    from torch._inductor.compile_fx import compile_fx, compile_fx_inner  # noqa: PLC0415

    made: list[Any] = []

    def inner(module: fx.GraphModule, examples: Sequence[Any], **options: Any) -> Any:
        around = torch._guards.TracingContext.get().fw_metadata
        made[:] = [compile_fx_inner(module, examples, **options), around, len(examples)]
        return made[0]

    with torch.no_grad(), settings(), functorch.patch(enable_autograd_cache=False):
        compile_fx(graph, list(tensors), inner_compile=inner)
    output, around, n_inputs = made
    if not hasattr(output, "current_callable"):
        raise generated.NotStorableError("there is nothing to compute")
    if n_inputs != len(tensors) or not needs_nothing_around(around):
        raise generated.NotStorableError("a result is, or is a view of, an argument")
    return output.current_callable, output.source_code


def needs_nothing_around(around: Any) -> bool:
    """Whether the generated function alone does all that the graph does."""
    from torch._functorch._aot_autograd.schemas import OutputType  # noqa: PLC0415

    fresh = all(output.output_type is OutputType.non_alias for output in around.output_info)
    return fresh and around.num_mutated_inp_runtime_indices == 0 and not around.tokens


@contextmanager
def settings() -> Iterator[None]:
    """Inductor set as steps want it, with its own cache in a place that stays unless the user chose one."""
    import torch._inductor.config as inductor  # noqa: PLC0415
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir  # noqa: PLC0415

    given, place = inductor.cpp.vec_isa_ok, os.environ.get(CACHE)
    is_default = place in (None, default_cache_dir())  # torch writes it down itself, as early as Dynamo's import
    if is_default and is_writable(cache_dir()):
        os.environ[CACHE] = str(cache_dir() / "kernels")
    try:
        with inductor.patch({**OPTIONS, "cpp.vec_isa_ok": knows_vectors() if given is None else given}):
            yield
    finally:
        os.environ.pop(CACHE, None)
        os.environ.update({CACHE: place} if place else {})


@functools.cache
def knows_vectors() -> bool | None:
    """True for a compiler that knows the vector instructions of every processor that Inductor does.

    Inductor otherwise compiles and starts a program for each instruction set, 6 s on a new machine. None: let it try.
    """
    from torch._inductor import cpp_builder, exc  # noqa: PLC0415

    try:
        command = [cpp_builder.get_cpp_compiler(), "--version"]
    except exc.InvalidCxxCompiler:
        return None
    told = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, check=False
    ).stdout
    version = re.search(r"\) (\d+)\.", told) if "Free Software Foundation" in told else None
    return True if version and int(version[1]) >= GCC else None


def fingerprint(graph: fx.GraphModule, tensors: Iterable[Tensor]) -> str:
    """What compiled code depends on, as a file name: the graph, its inputs, versions and the machine."""
    parts = [FORMAT, torch.__version__, platform.machine(), platform.processor()]
    parts += [
        torch.backends.cpu.get_cpu_capability(),
        str(torch.get_num_threads()),
        str(torch.are_deterministic_algorithms_enabled()),
        torch.get_float32_matmul_precision(),
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
