"""Generators of NumPy's and Python's that a function holds: a trace would keep the numbers that they gave it."""

from __future__ import annotations

import functools
import gc
import pickle
import random as python
from collections.abc import Callable, Iterator
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor

KINDS = (np.random.BitGenerator, python.Random)
"""What holds the state: each of NumPy's generators has one of the former."""
LEAVES = (ModuleType, type, CodeType, FrameType, Tensor, np.ndarray, str, bytes, int, float)
"""What leads nowhere, or everywhere."""
FAR = ("ftrainer", "registry", "torch", "numpy", "optree", "attr", "builtins", "functools", "collections", "typing")
"""Packages whose code draws from what it is handed alone, or where `redirect` sees it."""
MOST = 100_000
"""Objects to look at; a function that holds more than that holds data."""


def states(fn: Callable[..., Any]) -> list[tuple[Any, bytes]]:
    """Every generator that a function can reach, with its state: by closures, attributes, and globals that code names.

    >>> rng = np.random.default_rng(0)
    >>> held = states(lambda x, rng=rng: x * rng.random())
    >>> len(held), moved(held)
    (1, [])
    >>> _ = rng.random()
    >>> moved(held)
    ['numpy.random.PCG64']
    """
    return [(generator, state(generator)) for generator in reachable(fn)]


def moved(known: list[tuple[Any, bytes]]) -> list[str]:
    """The kinds of those generators that drew since."""
    found = {type(generator) for generator, before in known if state(generator) != before}
    return sorted(f"{kind.__module__.split('._')[0]}.{kind.__name__}" for kind in found)


def state(generator: Any) -> bytes:
    """What changes with every draw."""
    return pickle.dumps(generator.state if isinstance(generator, np.random.BitGenerator) else generator.getstate())


def reachable(root: Any) -> Iterator[Any]:
    """Generators that an object leads to."""
    seen: dict[int, Any] = {}  # holds what it has seen, so that no identity is given away twice
    todo = [root]
    while todo and len(seen) < MOST:
        one = todo.pop()
        if id(one) in seen or issubclass(type(one), LEAVES):  # of a dead proxy nothing else can be asked
            continue
        seen[id(one)] = one
        if issubclass(type(one), KINDS):
            if not isinstance(one, python.SystemRandom):  # the operating system's, which has no state
                yield one
        elif not isinstance(one, FunctionType):
            todo += [*gc.get_referents(one), *(each for cls in type(one).__mro__ for each in methods(cls))]
        else:
            todo += [*(one.__closure__ or ()), one.__defaults__, one.__kwdefaults__, vars(one)]
            if is_near(one.__module__):
                todo += [one.__globals__.get(name) for name in names(one.__code__)]


@functools.cache
def methods(cls: type) -> list[FunctionType]:
    """The functions of a class; of one whose code is far none."""
    return [each for each in vars(cls).values() if isinstance(each, FunctionType)] if is_near(cls.__module__) else []


def is_near(module: str | None) -> bool:
    """Whether a module's code is looked into."""
    return (module or "").split(".")[0] not in FAR


@functools.cache
def names(code: CodeType) -> set[str]:
    """The names that code, and the functions inside it, ask for."""
    inner = (each for each in code.co_consts if isinstance(each, CodeType))
    return {*code.co_names}.union(*map(names, inner))
