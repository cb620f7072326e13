"""Donated arguments: what reads them reads what they were, and they stay what they are."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ftrainer.functional import pytree, random
from ftrainer.functional.jit import jit

Leaves = dict[str, Tensor]
COMPILER = shutil.which("g++") or shutil.which("clang++")


def start() -> Leaves:
    return {"a": torch.arange(4.0), "b": torch.arange(4.0) + 10, "ok": torch.tensor(True)}


def remembered(s: Leaves) -> tuple[Leaves]:
    """`b` is what `a` was, under a guard: the order of the leaves is not that in which they may be written."""
    new = {"a": s["a"] * 2, "b": s["a"]}
    return ({**s, **{name: torch.where(s["ok"], leaf, s[name]) for name, leaf in new.items()}},)


STEPS: dict[str, Callable[[Leaves], tuple[Any, ...]]] = {
    "trade": lambda s: ({**s, "a": s["b"], "b": s["a"]},),
    "trade views": lambda s: ({**s, "a": s["b"].view(-1), "b": s["a"].view(2, 2).view(-1)},),
    "clone": lambda s: ({**s, "a": s["a"] + 1, "b": s["a"].clone()},),
    "reverse": lambda s: ({**s, "a": s["a"].flip(0), "b": s["b"].view(2, 2).t().reshape(4)},),
    "guard": remembered,
    "return": lambda s: ({**s, "a": s["a"] + 1}, s["a"]),
    "return a part": lambda s: ({**s, "a": s["a"] + 1}, {"part": s["a"][1:3], "kept": s["b"]}),
}


def assert_as_called(step: Any, backend: str) -> None:
    expected, given = step(start()), start()
    found = jit(step, backend=backend, donate=[0])(given)
    assert found[0] is given
    for a, b in zip(pytree.leaves(expected), pytree.leaves(found), strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["eager", "trace"])
@pytest.mark.parametrize("name", STEPS)
def test_what_reads_a_donated_leaf_reads_what_it_was(name: str, backend: str) -> None:
    assert_as_called(STEPS[name], backend)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # by torch's own imports
@pytest.mark.skipif(not COMPILER, reason="needs a C++ compiler")
def test_compiled_code_does_so_too_and_reads_parts_where_they_are() -> None:
    def all_of_them(states: dict[str, Leaves], key: Tensor, rates: Tensor) -> tuple[Any, ...]:
        done = {name: STEPS[name](state) for name, state in states.items()}
        first, second = random.split(key)
        draws = random.uniform(first, (20,)), random.uniform(second, (20,)), random.fold_in(second, 1)
        rate = (rates * 2)[1]
        new = {name: result[0] for name, result in done.items()}
        return new, [result[1:] for result in done.values()], draws, torch.arange(64.0) * rate

    def arguments() -> tuple[Any, ...]:
        return {name: start() for name in STEPS}, random.key(3), torch.tensor([2.0, 3.0], dtype=torch.float64)

    expected = all_of_them(*arguments())
    found = jit(all_of_them, backend="inductor", donate=[0])(*arguments())
    for a, b in zip(pytree.leaves(expected), pytree.leaves(found), strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=0)


def test_what_is_returned_shares_no_memory_with_what_was_donated() -> None:
    state = start()
    _, kept = jit(lambda s: (s, s["a"]), backend="eager", donate=[0])(state)
    state["a"].zero_()
    assert kept.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda s: ({**s, "a": s["a"].sum()},), r"0/a was float32\[4\] on cpu, is float32\[\] on cpu"),
        (lambda s: ({**s, "a": s["a"].double()},), r"0/a was float32\[4\] on cpu, is float64\[4\] on cpu"),
        (lambda s: ({**s, "n": s["n"] + 1},), r"0/n was int 1, is int 2"),
        (lambda s: ({**s, "c": s["a"]},), r"keeps its structure; 0/c changed"),
    ],
)
def test_what_a_donated_argument_cannot_become_is_refused(step: Any, message: str) -> None:
    for backend in ("eager", "trace"):
        with pytest.raises(ValueError, match=message):
            jit(step, backend=backend, donate=[0])({**start(), "n": 1})
