"""CUDA graphs: what a call launches on a GPU, recorded once and launched again whole. Torch calls this API beta."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Flat = Callable[..., Sequence[Any]]


class Recorder:
    """Runs and records calls on a stream beside the one that the caller is on.

    Torch wants a call warmed up on the stream that it is recorded on: libraries allocate their workspaces then. All
    recordings take their memory from one pool, which is safe because whoever plays one copies its results at once.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device):
        self.device, self.stream = device, torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def run(self, fn: Flat, tensors: Sequence[Tensor]) -> Sequence[Any]:
        """Call a function now, in turn with what the caller's stream does before and after."""
        with self.aside():
            return fn(*tensors)

    def record(self, fn: Flat, tensors: Sequence[Tensor]) -> tuple[Callable[[], None], Sequence[Any]]:
        """What calls the function on these very tensors again, and where that leaves its results; computes nothing.

        Raises:
            RuntimeError: the call waits for the GPU or copies from pageable memory.
        """
        graph = torch.cuda.CUDAGraph()
        # By default threads that load and pin the next batches would break a recording that they have no part in.
        kept = torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local")
        with self.aside(), kept:
            results = fn(*tensors)
        return graph.replay, results

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Within, the side stream is the current one; each stream waits for what the other was given before."""
        with torch.cuda.device(self.device):
            outer = torch.cuda.current_stream()
            self.stream.wait_stream(outer)
            with torch.cuda.stream(self.stream):
                yield
            outer.wait_stream(self.stream)


@functools.cache
def recorder(device: torch.device) -> Recorder:
    """The one recorder of a GPU."""
    return Recorder(device)
