"""Every random draw that unmodified torch code makes, taken from a key instead of torch's hidden generator."""

from __future__ import annotations

import functools
import random as python
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import _VF, Tensor, fx
from torch.nn import functional as F

from ftrainer.deps import functorch

from . import draws, samplers
from .draws import Call, Draw, DrawError
from .random import fold_in

__all__ = ["DrawError", "drawing_functions", "nondeterministic_ops", "patched", "redirect"]

FUNCTIONAL: Mapping[str, Draw] = MappingProxyType(
    {
        "dropout": draws.dropout,
        "dropout1d": draws.dropout1d,
        "dropout2d": draws.channel_dropout,
        "dropout3d": draws.channel_dropout,
        "alpha_dropout": draws.alpha_dropout,
        "feature_alpha_dropout": draws.feature_alpha_dropout,
        "scaled_dot_product_attention": draws.attention,
        "rrelu": draws.rrelu,
        "gumbel_softmax": draws.gumbel_softmax,
    }
)
TORCH: Mapping[str, Draw] = MappingProxyType(
    {
        name: getattr(samplers, name)
        for name in (
            "rand", "randn", "rand_like", "randn_like", "randint", "randint_like", "randperm", "bernoulli", "normal",
            "multinomial",
        )
    }
    | dict.fromkeys(("poisson", "binomial", "_standard_gamma", "_sample_dirichlet"), samplers.unsupported)
    | {
        "native_dropout": draws.native_dropout,
        "dropout": draws.positional(draws.dropout),
        "dropout_": draws.positional(draws.dropout, inplace=True),
        "feature_dropout": draws.positional(draws.channel_dropout),
        "feature_dropout_": draws.positional(draws.channel_dropout, inplace=True),
        "alpha_dropout": draws.positional(draws.alpha_dropout),
        "alpha_dropout_": draws.positional(draws.alpha_dropout, inplace=True),
        "feature_alpha_dropout": draws.positional(draws.feature_alpha_dropout),
        "feature_alpha_dropout_": draws.positional(draws.feature_alpha_dropout, inplace=True),
    }
)  # fmt: skip
METHODS: Mapping[str, Draw] = MappingProxyType(
    {
        name: getattr(samplers, name)
        for name in (
            "bernoulli", "bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "multinomial", "normal_",
            "random_", "uniform_",
        )
    }
)  # fmt: skip
NUMPY = (
    "beta", "binomial", "bytes", "chisquare", "choice", "dirichlet", "exponential", "f", "gamma", "geometric", "gumbel",
    "hypergeometric", "laplace", "logistic", "lognormal", "logseries", "multinomial", "multivariate_normal",
    "negative_binomial", "noncentral_chisquare", "noncentral_f", "normal", "pareto", "permutation", "poisson", "power",
    "rand", "randint", "randn", "random", "random_integers", "random_sample", "ranf", "rayleigh", "sample", "shuffle",
    "standard_cauchy", "standard_exponential", "standard_gamma", "standard_normal", "standard_t", "triangular",
    "uniform", "vonmises", "wald", "weibull", "zipf",
)  # fmt: skip
PYTHON = (
    "betavariate", "binomialvariate", "choice", "choices", "expovariate", "gammavariate", "gauss", "getrandbits",
    "lognormvariate", "normalvariate", "paretovariate", "randbytes", "randint", "random", "randrange", "sample",
    "shuffle", "triangular", "uniform", "vonmisesvariate", "weibullvariate",
)  # fmt: skip
"""Draws on the host: a trace would keep the one number that it saw."""
PATCHES: tuple[tuple[Any, str, Mapping[str, Draw]], ...] = (
    (F, "F", FUNCTIONAL),
    (torch, "torch", TORCH),
    (Tensor, "Tensor", METHODS),
    (_VF, "torch", MappingProxyType(dict.fromkeys(draws.RECURRENT, draws.recurrent))),
    (np.random, "numpy.random", MappingProxyType(dict.fromkeys(NUMPY, samplers.unsupported))),
    (python, "random", MappingProxyType(dict.fromkeys(PYTHON, samplers.unsupported))),
)
"""Where code looks its drawing functions up, how messages name the place, and what stands there instead."""


class Source:
    """A key that is folded with 0, 1, 2, … as draws ask for theirs, in the order of the calls."""

    def __init__(self, key: Tensor | None):
        self.key = key
        self.count = 0

    def next(self, name: str) -> Tensor:
        """The key of the next draw, which `name` makes."""
        if self.key is None:
            raise DrawError(
                f"{name} draws random numbers where none may be drawn; in evaluation call .eval(), pass "
                "training=False, or draw with ftrainer's random functions from a key of your own"
            )
        self.count += 1
        return fold_in(self.key, self.count - 1)


class Threads(threading.local):
    """The source that this thread's draws come from; None leaves them to torch."""

    source: Source | None = None


class Patches:
    """Torch's namespaces with every drawing function wrapped, while anyone is inside a `redirect`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.undo: list[Callable[[], None]] = []

    def acquire(self) -> None:
        """Wrap the functions, unless someone did already."""
        with self.lock:
            self.users += 1
            if self.users == 1:
                self.undo = [
                    replace(owner, name, wrapped(getattr(owner, name), f"{place}.{name}", draw))
                    for owner, place, table in PATCHES
                    for name, draw in table.items()
                    if hasattr(owner, name)
                ]
                self.undo.append(replace(Tensor, "numpy", functorch.numpy))

    def release(self) -> None:
        """Put the functions back, if nobody else needs the wrapped ones."""
        with self.lock:
            self.users -= 1
            if self.users == 0:
                while self.undo:
                    self.undo.pop()()


# Torch's namespaces are the process's, so what wraps them is too; which source applies is each thread's own.
_threads = Threads()
_patches = Patches()


@contextmanager
def patched() -> Iterator[None]:
    """Torch's drawing functions wrapped, without a source: around a capture whose graph shall draw when it is run."""
    _patches.acquire()
    try:
        yield
    finally:
        _patches.release()


@contextmanager
def redirect(key: Tensor | None) -> Iterator[None]:
    """Inside, draws by `F.dropout` and kin, `torch.rand` and kin and in-place forms come from `key`.

    The n-th draw uses `fold_in(key, n)`, counted anew at each entry, so a step that is wrapped so is a pure function.
    Other threads draw as ever. Blocks nest: the innermost one counts. Functions that were imported by name before the
    block, as `from torch import rand` does, are out of reach; `nondeterministic_ops` finds what they left in a graph.
    Out of reach too is a generator object of NumPy's or Python's; `generators` finds it where it drew during a trace.
    `Tensor.numpy` works inside on tensors that `torch.func.grad` looks at, as it does on any that want no gradient.
    Under `vmap` over keys, what is drawn in place into a tensor that all members share is an error of `vmap`'s.

    Args:
        key: 0-d int64; None makes every draw an error.

    Raises:
        DrawError: from within, by a draw that cannot be taken from a key (fused RNN dropout, `generator=`, NumPy's and
            Python's), or by any where `key` is None.

    >>> import torch
    >>> from ftrainer.functional.random import key
    >>> def noisy():
    ...     with redirect(key(0)):
    ...         return torch.rand(3)
    >>> bool((noisy() == noisy()).all())
    True
    """
    outer = _threads.source
    with patched():
        _threads.source = Source(key)
        try:
            yield
        finally:
            _threads.source = outer


def drawing_functions() -> list[Callable[..., Any]]:
    """The functions that stand in torch's namespaces, wrapped inside `patched`; methods of tensors left out."""
    owners = [(owner, table) for owner, _, table in PATCHES if owner in (F, torch, _VF)]
    return [getattr(owner, name) for owner, table in owners for name in table if hasattr(owner, name)]


def replace(owner: Any, name: str, new: Callable[..., Any]) -> Callable[[], None]:
    """Put something else in an attribute's place, and return what puts it back."""
    original, is_own = getattr(owner, name), name in vars(owner)
    setattr(owner, name, new)
    return (lambda: setattr(owner, name, original)) if is_own else (lambda: delattr(owner, name))


@functools.cache
def wrapped(original: Callable[..., Any], title: str, draw: Draw) -> Callable[..., Any]:
    """`original` where this thread has no source, else `draw`."""

    @functools.wraps(original)
    def drawn(*args: Any, **kwargs: Any) -> Any:
        source = _threads.source
        if source is None:
            return original(*args, **kwargs)
        if kwargs.pop("generator", None) is not None:
            raise DrawError(f"{title}(generator=…) keeps hidden state; leave the argument out and the key decides")
        return draw(Call(title, original, lambda: source.next(title)), *args, **kwargs)

    return drawn


INERT: Mapping[str, Any] = MappingProxyType({"dropout_p": 0.0, "dropout": 0.0, "train": False, "training": False})
"""Arguments with which an operator that can draw draws nothing."""


def nondeterministic_ops(graph_module: fx.GraphModule) -> list[str]:
    """Every call left in a traced graph that draws from torch's own generator, with the user's line if it is known."""
    modules = [module for module in graph_module.modules() if isinstance(module, fx.GraphModule)]
    return [describe(node) for module in modules for node in module.graph.nodes if is_draw(node)]


def is_draw(node: fx.Node) -> bool:
    """Whether a call draws: fused attention carries the tag even where it drops nothing."""
    operator: Any = node.target
    if torch.Tag.nondeterministic_seeded not in getattr(operator, "tags", ()):
        return False
    given = zip((argument.name for argument in operator._schema.arguments), node.args, strict=False)
    arguments = {a.name: a.default_value for a in operator._schema.arguments if a.has_default_value()}
    arguments |= dict(given) | node.kwargs
    return all(arguments.get(name, True) != value for name, value in INERT.items())


def describe(node: fx.Node) -> str:
    """An operator, and the last line outside of torch that led to it."""
    lines = iter((node.meta.get("stack_trace") or "").splitlines())
    frames = [(line.strip(), next(lines, "").strip()) for line in lines if line.lstrip().startswith("File ")]
    users = [frame for frame in frames if str(Path(torch.__file__).parent) not in frame[0]]
    return f"{node.target} ({': '.join(users[-1])})" if users else str(node.target)
