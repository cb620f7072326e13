"""A compiled graph that holds tensors of its own computes with them, in every process that finds it compiled."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ftrainer.functional.jit import jit

TABLE = torch.arange(6.0).reshape(2, 3)
FACTOR = torch.tensor(0.5)


def scaled(x: Tensor) -> Tensor:
    return x * TABLE + FACTOR + TABLE.sum()


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_a_second_compilation_computes_with_the_constants_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTRAINER_CACHE", str(tmp_path))
    x = torch.ones(2, 3)
    for _ in range(2):
        assert torch.equal(jit(scaled, backend="inductor")(x), scaled(x))


def writing(x: Tensor) -> tuple[Tensor, ...]:
    unused = x * torch.nn.Parameter(torch.ones(3)) + FACTOR
    del unused
    return 2 * x, x.sum()


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_what_a_trace_met_and_did_not_use_is_no_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTRAINER_CACHE", str(tmp_path))
    for _ in range(2):
        x = torch.ones(2, 3)
        assert torch.equal(jit(writing, backend="inductor", donate=(0,))(x)[0], 2 * torch.ones(2, 3))
