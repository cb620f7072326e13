"""Modules of others inside a step: called, or, where `make_fx` cannot trace them, captured by Dynamo and replayed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from ftrainer.deps import dynamo
from ftrainer.functional import pytree
from ftrainer.functional.redirect import drawing_functions, patched

CONSTANTS = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)
"""What a module may return besides tensors where it is captured."""
Graph = Callable[[list[Tensor]], tuple[Any, dict[str, Tensor]]]
"""Takes the tensors among (tensors, args, kwargs); gives what the module returned, and its tensors after that."""


class Like(NamedTuple):
    """All of a tensor that a capture may depend on."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    requires_grad: bool

    def make(self) -> Tensor:
        """A plain tensor like it, of no particular values."""
        x = torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)
        return x.requires_grad_(self.requires_grad)


class Surroundings(NamedTuple):
    """What code can ask torch about the place that it is called from."""

    grad: bool
    autocast: tuple[tuple[str, torch.dtype, bool], ...]

    def call(self, make: Callable[[], Any]) -> Any:
        """Call a function in such a place."""
        with ExitStack() as place:
            place.enter_context(torch.set_grad_enabled(self.grad))
            for device, dtype, enabled in self.autocast:
                place.enter_context(torch.autocast(device, dtype=dtype, enabled=enabled))
            return make()


def call(
    module: nn.Module,
    tensors: dict[str, Tensor],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    kept: MutableMapping[Any, Graph],
) -> Any:
    """`functional_call`; where Dynamo was asked for (`dynamo.asked_for`), by the graph that it captured.

    A module that Dynamo refuses, or whose graph cannot be replayed, is called itself: what is wrong with it is then
    said by its own lines.

    Args:
        module: a module that changes nothing but its buffers.
        tensors: its parameters and buffers by dotted name, to which its writing goes.
        args, kwargs: what it is called with.
        kept: the graphs of this module in this mode so far.
    """
    refusals = dynamo.refusals()
    if refusals is None:
        return functional_call(module, tensors, args, dict(kwargs), tie_weights=False)
    leaves, treedef = pytree.flatten((tensors, args, dict(kwargs)))
    try:
        graph = graph_of(module, leaves, treedef, kept)
    except dynamo.Refused as refused:
        refusals.append(str(refused))
        return functional_call(module, tensors, args, dict(kwargs), tie_weights=False)
    try:
        outputs, new = graph([leaf for leaf in leaves if isinstance(leaf, Tensor)])
    except RuntimeError as error:
        refusals.append(f"what it captured cannot be run here ({str(error).splitlines()[0]})")
        functional_call(module, tensors, args, dict(kwargs), tie_weights=False)
        raise
    tensors.update(new)
    return outputs


def graph_of(module: nn.Module, leaves: list[Any], treedef: pytree.TreeDef, kept: MutableMapping[Any, Graph]) -> Graph:
    """The captured graph of a module for arguments of this kind, captured now if it is new."""
    alike = [like(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    around = surroundings()
    key = (treedef, tuple((type(leaf), leaf) for leaf in alike), around)
    if key not in kept:
        with patched():  # so that the graph calls the wrapped functions, which ask for the step's key when it is run
            kept[key] = dynamo.aside(lambda: around.call(lambda: captured(module, alike, treedef)))
    return kept[key]


def captured(module: nn.Module, alike: list[Any], treedef: pytree.TreeDef) -> Graph:
    """Capture a module on examples.

    Raises:
        Refused: Dynamo refuses, or the module returns what is neither a tensor nor a constant.
    """
    leaves = [leaf.make() if isinstance(leaf, Like) else leaf for leaf in alike]
    examples = [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def run(tensors: dict[str, Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        held = dict(tensors)
        return functional_call(module, held, args, kwargs, tie_weights=False), held

    found = dynamo.capture(run, pytree.unflatten(treedef, leaves), examples, drawing_functions())
    result, structure = pytree.flatten(plain(found.result))
    constants = [x for x in found.inputs if isinstance(x, Tensor)]
    places = {id(x): place for place, x in enumerate([*examples, *constants, *found.outputs])}
    refuse_unknown(result, places)

    def replay(tensors: list[Tensor]) -> tuple[Any, dict[str, Tensor]]:
        # Not the graph's own code, which looks functions up by torch's names for them and so misses some wrapped ones.
        made = fx.Interpreter(found.graph).run(*(tensors[x] if isinstance(x, int) else x for x in found.inputs))
        pool = [*tensors, *constants, *made]
        return pytree.unflatten(structure, [pool[places[id(x)]] if id(x) in places else x for x in result])

    return replay


def refuse_unknown(result: list[Any], places: Mapping[int, int]) -> None:
    """Raise where a result is neither what the graph makes nor a constant.

    Raises:
        Refused: it is a NumPy array, for instance.
    """
    for leaf in result:
        if id(leaf) not in places and not isinstance(leaf, CONSTANTS):
            raise dynamo.Refused(f"the module returns a {type(leaf).__name__}")


def plain(outputs: Any) -> Any:
    """Outputs with every mapping a dict: libraries have classes of their own for them, which pytrees do not know."""
    if isinstance(outputs, Mapping):
        return {name: plain(value) for name, value in outputs.items()}
    return type(outputs)(map(plain, outputs)) if type(outputs) in (tuple, list) else outputs


def like(x: Tensor) -> Like:
    """What a capture may depend on of a tensor."""
    return Like(tuple(x.shape), x.stride(), x.dtype, x.device, x.requires_grad)


def surroundings() -> Surroundings:
    """What torch would say to code that was called here."""
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    modes = tuple((d, torch.get_autocast_dtype(d), torch.is_autocast_enabled(d)) for d in devices)
    return Surroundings(torch.is_grad_enabled(), modes)
