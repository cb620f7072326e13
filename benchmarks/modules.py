"""How much of `torch.nn` runs in a pure step? Torch's own table of sample modules, each through the bridge.

    python -m benchmarks.modules

Every sample is built in float64, run by the bridge and by itself, differentiated by `torch.func` and by autograd, in
evaluation and (unless it draws random numbers) in training mode, and traced; a class passes if all its samples agree to
1e-12. Prints how many classes pass and why the others do not, and writes `benchmarks/results/modules.json`.
Needs the package `expecttest`, which torch's tables import.
"""

from __future__ import annotations

import argparse
import copy
import inspect
import json
import warnings
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ftrainer.deps.make_fx import trace
from ftrainer.functional import pytree
from ftrainer.functional.random import key
from ftrainer.functional.redirect import nondeterministic_ops
from ftrainer.model import Model, from_module

RESULT = Path(__file__).parent / "results" / "modules.json"
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


class Sample(NamedTuple):
    """A module with inputs by the names of its `forward`."""

    module: nn.Module
    inputs: dict[str, Any]


def table() -> list[Any]:
    """Torch's table, one entry a class."""
    from torch.testing._internal.common_modules import module_db  # noqa: PLC0415 (needs a package of its own)

    return list(module_db)


def samples(entry: Any) -> Iterator[Sample]:
    """The samples that torch tests a class with."""
    for sample in entry.module_inputs_func(
        entry, device="cpu", dtype=torch.float64, requires_grad=False, training=True
    ):
        torch.manual_seed(0)
        made = sample.constructor_input
        module = entry.module_cls(*made.args, **made.kwargs).double()
        given = sample.forward_input
        yield Sample(module, named(module, given.args, given.kwargs))


def named(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments under the names of the parameters that take them."""
    parameters = inspect.signature(module.forward).parameters.values()
    if any(p.kind in (p.VAR_POSITIONAL, p.POSITIONAL_ONLY) for p in parameters):
        return {f"x{index}": value for index, value in enumerate(args)} | dict(kwargs)
    return dict(zip((p.name for p in parameters), args, strict=False)) | dict(kwargs)


def verdict(entry: Any, limit: int | None = None) -> str:
    """`ok`, or why the first sample of a class (of the first `limit`) that disagrees does."""
    for index, sample in enumerate(islice(samples(entry), limit)):
        try:
            agree(sample)
        except Exception as error:
            return f"sample {index}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return "ok"


def agree(sample: Sample) -> None:
    """Compare the bridge with the plain module, and the traced graph with both.

    Raises:
        AssertionError: they disagree, or the graph draws what no key governs.
    """
    model = from_module(sample.module, inputs=tuple(sample.inputs))
    params, buffers = model.init(key(0), sample.inputs)
    for train in (False, *([] if draws(model, sample) else [True])):
        check(
            differentiate(model, params, buffers, sample.inputs, train), by_hand(model, params, buffers, sample, train)
        )
    leaves, treedef = pytree.flatten((params, buffers, sample.inputs, key(1)))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def flat(*given: Tensor) -> list[Tensor]:
        rest = iter(given)
        filled = [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        p, b, inputs, k = pytree.unflatten(treedef, filled)
        return [x for x in pytree.leaves(differentiate(model, p, b, inputs, True, k)) if isinstance(x, Tensor)]

    graph = trace(flat, tensors)
    if found := nondeterministic_ops(graph):
        raise AssertionError(f"draws what no key governs: {', '.join(found)}")
    with torch.no_grad():
        check(list(graph(*tensors)), flat(*tensors))


def loss_of(outputs: Any) -> Tensor:
    """Half of the sum of squares of all floating leaves."""
    leaves = [x for x in pytree.leaves(outputs) if isinstance(x, Tensor) and x.is_floating_point()]
    return torch.stack([x.square().sum() for x in leaves]).sum() / 2


def differentiate(
    model: Model, params: Any, buffers: Any, inputs: Mapping[str, Any], train: bool, k: Tensor | None = None
) -> Any:
    """Gradients, outputs and new buffers by the bridge."""

    def loss(p: Any) -> Any:
        outputs, new = model.apply(p, buffers, inputs, k, train=train)
        return loss_of(outputs), (outputs, new)

    return torch.func.grad(loss, has_aux=True)(params)


def by_hand(model: Model, params: Any, buffers: Any, sample: Sample, train: bool) -> Any:
    """The same by the plain module and autograd."""
    module = model.to_module(params, buffers).train(train)
    args, kwargs = model.arguments(module, sample.inputs)
    outputs = module(*args, **kwargs)
    loss = loss_of(outputs)
    if loss.requires_grad:
        loss.backward()
    moved = dict(module.named_parameters())
    grads = {name: torch.zeros_like(p) if moved[name].grad is None else moved[name].grad for name, p in params.items()}
    return grads, (outputs, {name: {**moved, **dict(module.named_buffers())}[name] for name in buffers})


def draws(model: Model, sample: Sample) -> bool:
    """Whether the module draws random numbers in training."""
    before = torch.get_rng_state()
    module = copy.deepcopy(sample.module).train()
    args, kwargs = model.arguments(module, sample.inputs)
    module(*args, **kwargs)
    return not torch.equal(before, torch.get_rng_state())


def check(ours: Any, theirs: Any) -> None:
    """Compare two trees leaf by leaf."""
    pairs = zip(pytree.leaves(ours), pytree.leaves(theirs), strict=True)
    for one, two in pairs:
        torch.testing.assert_close(one, two, equal_nan=True, **CLOSE)


def main() -> None:
    """Sweep the table, or some classes of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="classes, for instance nn.Linear; all without any")
    parser.add_argument("--limit", type=int, help="samples of each class")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    entries = [entry for entry in table() if not options.names or entry.name in options.names]
    verdicts = {entry.name: verdict(entry, options.limit) for entry in entries}
    failed = {name: reason for name, reason in verdicts.items() if reason != "ok"}
    for name, reason in failed.items():
        print(f"{name:28} {reason}")
    print(f"{len(verdicts) - len(failed)} of {len(verdicts)} classes pass (torch {torch.__version__})")
    if not options.names:
        record = {
            "torch": torch.__version__,
            "passed": len(verdicts) - len(failed),
            "of": len(verdicts),
            "failed": failed,
        }
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
