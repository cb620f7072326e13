"""What may run a captured step: the function itself, its replayed graph, machine code, or recorded launches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor, fx

from ftrainer.deps import cuda_graphs, inductor

from .capture import Flat, capture, without_numbers
from .donation import apart
from .hoist import hoist
from .passes import for_replay
from .products import thin_products
from .recording import Recorded, on_host
from .residence import at_home

log = logging.getLogger("ftrainer.jit")

COMPILING = 10.0
"""Seconds by which compiling must pay. The first time on a machine it takes 11 to 13 for MLPs of width 64 to 1024, 18
for a conv net and 37 for a transformer (`python -m benchmarks.start`); known code takes one."""

SAVED_PER_STEP, SAVED_PER_BYTE = {"cpu": 0.3e-3, "cuda": 10e-3}, {"cpu": 1e-9, "cuda": 0.0}
"""Seconds that a compiled step saves against a replayed one: for its operations, and for each byte of the state, since
wider networks have longer passes between their products. On the CPU the sum fits five policies of this package, 0.06 to
4 MB, within a factor of 1.6, and flatters wider ones. On a GPU nobody has measured: it stands for hundreds of launches.
"""


def choose_backend(planned_steps: int, n_bytes: int, device_type: str) -> tuple[str, str]:
    """What `auto` stands for, and why: `inductor` where that repays itself and a compiler is present, else `trace`.

    Args:
        planned_steps: how often the step will run.
        n_bytes: size of the state.
        device_type: `cpu` or `cuda`.
    """
    saved = planned_steps * (SAVED_PER_STEP[device_type] + n_bytes * SAVED_PER_BYTE[device_type])
    if saved < COMPILING:
        return "trace", f"{planned_steps} steps of this size would not repay compiling"
    if reason := inductor.why_not(device_type):
        return "trace", reason
    return "inductor", f"{planned_steps} steps of this size repay compiling"


class Inputs(NamedTuple):
    """The tensors that a function is captured with, their paths in its arguments, and which of them it overwrites."""

    tensors: Sequence[Tensor]
    paths: Sequence[str]
    donated: frozenset[int]


def lower(flat: Flat, inputs: Inputs, name: str) -> Flat:
    """The captured graph as machine code; replayed where nothing can compile it."""
    graph = without_numbers(capture(flat, inputs.tensors, name), name)
    graph = hoist(thin_products(at_home(apart(graph))))
    try:
        return compiled(graph, inputs.tensors)
    except inductor.NoCompilerError as reason:
        log.warning("%s runs on the backend trace: %s", name, reason)
        return replay(flat, inputs, name)


def replay(flat: Flat, inputs: Inputs, name: str) -> Flat:
    """The captured graph, operation by operation."""
    return for_replay(at_home(capture(flat, inputs.tensors, name)))


def compiled(graph: fx.GraphModule, tensors: Sequence[Tensor]) -> Flat:
    """Machine code for a graph."""
    if not any(tensor.is_conj() or tensor.is_neg() for tensor in tensors):
        return inductor.compile_graph(graph, tensors)
    run = inductor.compile_graph(graph, [*map(resolved, tensors)])
    return lambda *given: run(*map(resolved, given))


def resolved(tensor: Tensor) -> Tensor:
    """A tensor whose memory holds its own numbers: machine code reads that, and knows of no bit that says otherwise."""
    return tensor.resolve_conj().resolve_neg()


def record(flat: Flat, inputs: Inputs, name: str) -> Flat:
    """The same, played from CUDA graphs where every input lies on the GPU."""
    run = lower(flat, inputs, name)
    if not inputs.tensors or on_host(inputs.tensors, inputs.paths, name):
        return run
    return Recorded(run, inputs.tensors, inputs.donated, cuda_graphs.recorder(inputs.tensors[0].device), name)


LOWERINGS: Mapping[str, Callable[[Flat, Inputs, str], Flat]] = MappingProxyType(
    {
        "eager": lambda flat, inputs, name: flat,
        "trace": replay,
        "inductor": lower,
        "cuda_graphs": record,
    }
)
