"""Every random draw that unmodified torch code makes, taken from a key instead of torch's hidden generator."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx

from . import draws
from .random import fold_in


class DrawError(RuntimeError):
    """Torch code wanted a random number where no key governs it."""


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


class _Current(threading.local):
    """The sources that this thread is inside of, innermost last."""

    def __init__(self) -> None:
        self.sources: list[Source] = []


class _Patches:
    """Torch's namespaces with every drawing function wrapped, while any thread is inside a `redirect`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.undo: list[Callable[[], None]] = []

    def acquire(self) -> None:
        with self.lock:
            self.users += 1
            if self.users == 1:
                self.undo = [_patch(owner, name, draw) for owner, name, draw in draws.table()]

    def release(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                while self.undo:
                    self.undo.pop()()


# Torch's namespaces are the process's, so what wraps them is too; which source applies is each thread's own.
_current = _Current()
_patches = _Patches()


@contextmanager
def redirect(key: Tensor | None) -> Iterator[None]:
    """Inside, draws by `F.dropout` and kin, `torch.rand` and kin and in-place forms come from `key`.

    The n-th draw uses `fold_in(key, n)`, counted anew at each entry, so a step that is wrapped so is a pure function.
    Other threads draw as ever. Blocks nest: the innermost one counts.

    Args:
        key: 0-d int64; None makes every draw an error.

    Raises:
        DrawError: from within, by a draw that cannot be taken from a key (fused RNN dropout, `generator=`), or by any
            where `key` is None.

    >>> import torch
    >>> from ftrainer.functional.random import key
    >>> def noisy():
    ...     with redirect(key(0)):
    ...         return torch.rand(3)
    >>> bool((noisy() == noisy()).all())
    True
    """
    _patches.acquire()
    _current.sources.append(Source(key))
    try:
        yield
    finally:
        _current.sources.pop()
        _patches.release()


def nondeterministic_ops(graph_module: fx.GraphModule) -> list[str]:
    """Every call left in a traced graph that draws from torch's own generator, with the user's line if it is known."""
    found = []
    for module in graph_module.modules():
        if isinstance(module, fx.GraphModule):
            found += [_describe(node) for node in module.graph.nodes if _draws(node)]
    return found


def _draws(node: fx.Node) -> bool:
    """Whether a call draws: fused attention carries the tag even where it drops nothing."""
    tagged = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    return tagged and _argument(node, "dropout_p") != 0.0


def _argument(node: fx.Node, name: str) -> Any:
    """The value of an operator's argument; None where it has none of this name."""
    operator: Any = node.target
    for index, argument in enumerate(operator._schema.arguments):
        if argument.name == name:
            return node.args[index] if index < len(node.args) else node.kwargs.get(name, argument.default_value)
    return None


def _describe(node: fx.Node) -> str:
    trace = node.meta.get("stack_trace")
    lines = [line.strip() for line in trace.splitlines() if line.strip()] if trace else []
    return f"{node.target} ({' '.join(lines[-2:])})" if lines else str(node.target)


def _patch(owner: Any, name: str, draw: draws.Draw) -> Callable[[], None]:
    """Wrap one attribute, and return what puts it back."""
    original, own = getattr(owner, name), name in vars(owner)
    setattr(owner, name, _wrap(original, draws.title(owner, name), draw))
    return (lambda: setattr(owner, name, original)) if own else (lambda: delattr(owner, name))


def _wrap(original: Callable[..., Any], title: str, draw: draws.Draw) -> Callable[..., Any]:
    def drawn(*args: Any, **kwargs: Any) -> Any:
        if not _current.sources:
            return original(*args, **kwargs)
        source = _current.sources[-1]
        if kwargs.get("generator") is not None:
            raise DrawError(f"{title}(generator=…) keeps hidden state; leave the argument out and the key decides")
        return draw(draws.Call(title, original, lambda: source.next(title)), *args, **kwargs)

    drawn.__name__ = getattr(original, "__name__", title)
    return drawn
