"""Where the first number that is not finite arises while modules run forward and backward."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from ftrainer.functional import pytree

Loss = Callable[[Any], Tensor]
"""From parameters, a pytree, to a 0-d loss."""


@attrs.frozen(kw_only=True)
class Finding:
    """One place where numbers are not finite.

    Attributes:
        place: a module with its path, a parameter, or the loss.
        what: which of its tensors, and how it failed.
        line: the user's line behind it, where autograd knows it.
    """

    place: str
    what: str
    line: str | None = None

    def __str__(self) -> str:
        return f"{self.place}: {self.what}" + (f"\n  {self.line}" if self.line else "")


@attrs.frozen(kw_only=True)
class Passage:
    """A tensor on its way between modules, inner ones listed first; it is held, so that its identity stays its own."""

    tensor: Tensor
    takers: list[str] = attrs.field(factory=list)
    givers: list[str] = attrs.field(factory=list)

    def finding(self, grad: Tensor) -> Finding:
        """What a bad gradient here tells: a module that took the tensor made it, or else the code after the givers."""
        if self.takers:
            return Finding(
                place=self.takers[0], what=f"the gradient that it hands to its input holds {count_text(grad)}"
            )
        return Finding(place=self.givers[-1], what=f"the gradient that reaches its output holds {count_text(grad)}")


class Watch:
    """Notes, in the order of computation, which modules gave or were given what is not finite."""

    def __init__(self) -> None:
        self.found: list[Finding] = []
        self._running: list[tuple[str, nn.Module]] = []
        self._passages: dict[int, Passage] = {}

    def enter(self, module: nn.Module, args: Any) -> None:
        """A module is called."""
        del args
        self._running.append((self._path_of(module), module))

    def leave(self, module: nn.Module, args: Any, outputs: Any) -> None:
        """A module returns: look at what it gave, and ask to be shown the gradients that will pass it."""
        path, _ = self._running.pop()
        label = f"{path} ({type(module).__name__})" if path else type(module).__name__
        bad = [tensor for tensor in tensors(outputs) if not is_finite(tensor)]
        if bad:
            came = "from inputs that were not finite either" if any(not is_finite(t) for t in tensors(args)) else ""
            self.found.append(Finding(place=label, what=f"its output holds {count_text(bad[0])} {came}".rstrip()))
        handed_through = {id(tensor) for tensor in tensors(outputs)}
        for tensor in tensors(args):
            self._show(tensor).takers.extend([] if id(tensor) in handed_through else [label])
        for tensor in tensors(outputs):
            self._show(tensor).givers.append(label)

    def _show(self, tensor: Tensor) -> Passage:
        passage = self._passages.get(id(tensor))
        if passage is None:
            passage = self._passages[id(tensor)] = Passage(tensor=tensor)
            if tensor.requires_grad and not tensor.is_leaf:
                tensor.register_hook(lambda grad: self._note(grad, passage))
        return passage

    def _note(self, grad: Tensor, passage: Passage) -> None:
        if not is_finite(grad):
            self.found.append(passage.finding(grad))

    def _path_of(self, module: nn.Module) -> str:
        """The dotted path of a module below the outermost one that is running."""
        if not self._running:
            return ""
        outer, parent = self._running[-1]
        name = next((name for name, inner in parent.named_modules() if inner is module), type(module).__name__)
        return f"{outer}.{name}" if outer and name else outer or name


@contextmanager
def watched() -> Iterator[Watch]:
    """Within, every module that runs is watched."""
    watch = Watch()
    hooks = (register_module_forward_pre_hook(watch.enter), register_module_forward_hook(watch.leave))
    try:
        yield watch
    finally:
        for hook in hooks:
            hook.remove()


def first_finding(loss: Loss, params: Any) -> Finding | None:
    """Differentiate a loss and say where the first number arises that is not finite; None where all are finite.

    Args:
        loss: of the parameters; it runs modules.
        params: a pytree of finite tensors, which stay as they are.
    """
    leaves = [leaf.detach().clone().requires_grad_(leaf.is_floating_point()) for leaf in pytree.leaves(params)]
    moved = pytree.unflatten(pytree.structure(params), leaves)
    with torch.enable_grad(), watched() as watch:
        value = loss(moved)
        if not watch.found and not is_finite(value):
            return Finding(
                place="the loss", what=f"it is {float(value.detach())}, though all that modules gave is finite"
            )
        grads = [] if watch.found else gradients(value, leaves)
    for path, grad in zip(pytree.paths(params), grads, strict=False):
        if grad is not None and not is_finite(grad):
            watch.found.append(Finding(place=f"parameter {path}", what=f"its gradient holds {count_text(grad)}"))
    if not watch.found:
        return None
    return attrs.evolve(watch.found[0], line=line_behind(loss, moved) if grads else None)


def gradients(loss: Tensor, leaves: Sequence[Tensor]) -> list[Tensor | None]:
    """The loss differentiated by those leaves that it may depend on."""
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    found = iter(torch.autograd.grad(loss, wanted, allow_unused=True))
    return [next(found) if leaf.requires_grad else None for leaf in leaves]


def line_behind(loss: Loss, params: Any) -> str | None:
    """The line whose derivative first is nan, by torch's anomaly detection; it does not look for infinities."""
    with warnings.catch_warnings(record=True) as caught, torch.enable_grad():
        warnings.simplefilter("always")
        with torch.autograd.set_detect_anomaly(True):
            try:
                gradients(loss(params), pytree.leaves(params))
            except RuntimeError as error:
                return users_line("".join(str(warning.message) for warning in caught), str(error))
    return None


FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in [^\n]*\n\s+(?P<code>[^\n]+)')
OURS = (str(Path(torch.__file__).parent), str(Path(__file__).parent.parent))


def users_line(traceback: str, error: str) -> str:
    """The innermost line of a traceback that is neither torch's nor ours, and what autograd says of it.

    >>> users_line('  File "a.py", line 3, in forward\\n    return x.sqrt()\\n', "SqrtBackward0 returned nan")
    'a.py:3: return x.sqrt() (SqrtBackward0 returned nan)'
    """
    frames = [frame for frame in FRAME.finditer(traceback) if not frame["file"].startswith(OURS)]
    said = error.splitlines()[0]
    return f"{frames[-1]['file']}:{frames[-1]['line']}: {frames[-1]['code']} ({said})" if frames else said


def tensors(tree: Any) -> list[Tensor]:
    """The tensors among a pytree's leaves."""
    return [leaf for leaf in pytree.leaves(tree) if isinstance(leaf, Tensor)]


def is_finite(tensor: Tensor) -> bool:
    """Whether all numbers are."""
    return bool(tensor.isfinite().all())


def count_text(tensor: Tensor) -> str:
    """How many numbers are not finite.

    >>> count_text(torch.tensor([1.0, float("nan"), float("inf")]))
    '1 nan and 1 inf among 3 numbers'
    """
    counts = {"nan": int(tensor.isnan().sum()), "inf": int(tensor.isinf().sum())}
    found = " and ".join(f"{n} {name}" for name, n in counts.items() if n)
    return f"{found} among {tensor.numel()} numbers"
