"""Any `nn.Module` as a pair of pure functions, and back again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ftrainer.functional.random import fold_in
from ftrainer.functional.redirect import redirect
from registry.spec import Deferred, component

from .assemble import Assembled, assemble
from .blocks.normalize import Normalize
from .lazy import is_lazy, redraw, waiting
from .skeleton import arguments, fill, fresh, settle, skeleton, takes

DRAW = 1
"""What `apply` folds into its key, so that a loss that was given the same key draws other numbers."""


@component
class Model:
    """Architecture as pure functions of `{dotted name: tensor}`.

    Attributes:
        factory: the call that makes the `nn.Module`.
        inputs: names of the model's inputs, in the order of the module's positional arguments.
    """

    factory: Deferred
    inputs: tuple[str, ...] = ("x",)

    def init(
        self, key: Tensor, example: Mapping[str, Any], statistics: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Initial parameters and buffers. Torch's own generator is left as it was.

        Args:
            key: 0-d int64; the weights are drawn from it.
            example: one batch's model inputs, from which open dimensions are inferred.
            statistics: by field of a batch, `mean` and `std` for `normalize` blocks.

        Returns:
            What training moves, and everything else that the module holds, on the device of the example.

        Raises:
            ConfigError: a factory refused its arguments, or the example does not fit; under the layer's config path.
        """
        device = next((x.device for x in example.values() if isinstance(x, Tensor)), torch.device("cpu"))
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            assembled = assemble(self.factory, key)
            self._materialise(assembled, on_cpu(example), key)
        for layer in assembled.module.modules():
            if isinstance(layer, Normalize) and statistics is not None:
                layer.fit(statistics)
        return split(assembled.module, device)

    def apply(
        self,
        params: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        inputs: Mapping[str, Any],
        key: Tensor | None = None,
        train: bool = False,
    ) -> tuple[Any, dict[str, Tensor]]:
        """Run the module; nothing that was passed in changes.

        Args:
            params, buffers: as `init` returned them, or what training made of them.
            inputs: by name, at least those that `self.inputs` lists.
            key: 0-d int64; dropout and its kin draw from it. None leaves draws to what surrounds the call.
            train: training mode.

        Returns:
            What the module returned, and the buffers as it left them.
        """
        code = skeleton(self.factory, self.inputs, train, {**params, **buffers})
        tensors = code.tensors(params, buffers)
        if key is None:
            outputs = code.call(tensors, self.inputs, inputs)
        else:
            with redirect(fold_in(key, DRAW)):
                outputs = code.call(tensors, self.inputs, inputs)
        return outputs, {name: tensors[name] for name in buffers}

    def to_module(self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> nn.Module:
        """The ordinary module with copies of these weights, in evaluation mode; it knows nothing of this package."""
        tensors = {**params, **buffers}
        module = fresh(self.factory).module
        settle(module, tensors)
        fill(module, tensors, frozenset(buffers))
        return module.eval()

    def _materialise(self, assembled: Assembled, example: Mapping[str, Any], key: Tensor) -> None:
        if is_lazy(assembled.module):
            lazies = waiting(assembled.module)
            args, kwargs = arguments(takes(assembled.module, self.inputs), self.inputs, example)
            assembled.module.eval()(*args, **kwargs)
            redraw(assembled, lazies, key)


def split(module: nn.Module, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A module's tensors as training sees them: what it may move, and the rest."""
    held = {name: (p, p.requires_grad) for name, p in module.named_parameters()}
    held |= {name: (b, False) for name, b in module.named_buffers()}
    tensors = {name: (t.detach().to(device, copy=True), moves) for name, (t, moves) in held.items()}
    return (
        {name: t for name, (t, moves) in tensors.items() if moves},
        {name: t for name, (t, moves) in tensors.items() if not moves},
    )


def on_cpu(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs where modules are built; what is no tensor stays."""
    return {name: value.cpu() if isinstance(value, Tensor) else value for name, value in inputs.items()}
