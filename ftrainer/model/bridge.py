"""Any `nn.Module` as a pair of pure functions, and back again."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from frozendict import frozendict
from torch import Tensor, nn

from ftrainer.functional.patterns import match
from ftrainer.functional.random import fold_in
from ftrainer.functional.redirect import redirect
from registry.issue import ConfigError, ConfigPath, Issue, invalid, nearest
from registry.spec import Deferred, component, traceable

from . import sweeping
from .assemble import Assembled, assemble, path_of
from .blame import FAILURES, blame, chain, frames
from .blocks.dropout import refuse_share
from .blocks.normalize import Normalize
from .initializers import Initializer, initialize
from .lazy import lazy_layers, redraw, settle
from .probe import differentiate, refuse_mutation
from .skeleton import Shapes, Skeleton, arguments, describe, fresh, hollow_module, skeleton, takes, waits
from .tensors import fill, require_all, split
from .weights import InitFrom, initialize_from

DRAW = 1
"""What `apply` folds into its key, so that a loss that was given the same key draws other numbers."""


@component
class Model:
    """Architecture as pure functions of `{dotted name: tensor}`.

    Attributes:
        factory: the call that makes the `nn.Module`.
        inputs: names of the model's inputs, in the order of the module's positional arguments.
        initializers: initial weights by pattern.
        init_from: weights to start from.
        freeze: patterns for parameters that training shall not move.
        swept: dropout of blocks where it is another than the factory's, by config path below `path`.
        path: where the configuration describes the model.
    """

    factory: Deferred
    inputs: tuple[str, ...] = ("x",)
    initializers: tuple[Initializer, ...] = ()
    init_from: InitFrom | None = None
    freeze: tuple[str, ...] = ()
    swept: Mapping[str, float | Tensor] = traceable(default=frozendict())
    path: ConfigPath = attrs.field(default=("model",), eq=False)

    def init(
        self, key: Tensor, example: Mapping[str, Any], statistics: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Initial parameters and buffers, after one trial run. Torch's own generator is left as it was.

        Args:
            key: 0-d int64; the weights are drawn from it.
            example: one batch's model inputs, from which open dimensions are inferred.
            statistics: by field of a batch, `mean` and `std` for `normalize` blocks.

        Returns:
            What training moves, and everything else that the module holds, on the device of the example. A tied tensor
            appears once.

        Raises:
            ConfigError: a factory refused its arguments; the example does not fit; a pattern matches nothing; weights
                do not fit; the module keeps state outside its buffers, or cannot be differentiated by `torch.func`.
        """
        self._refuse_inputs(example)
        cpu = {name: value.cpu() if isinstance(value, Tensor) else value for name, value in example.items()}
        with torch.random.fork_rng(devices=[]):
            params, buffers = self._start(key, cpu, statistics)
            self._try(params, buffers, cpu, key)
        device = next((x.device for x in example.values() if isinstance(x, Tensor)), torch.device("cpu"))
        return {n: p.to(device) for n, p in params.items()}, {n: b.to(device) for n, b in buffers.items()}

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
            inputs: by name, at least those that `self.inputs` lists; what is no tensor is handed on as it is.
            key: 0-d int64; dropout and its kin draw from it. None leaves draws to what surrounds the call.
            train: training mode.

        Returns:
            What the module returned, and the buffers as it left them.
        """
        code = self._code(train, params, buffers)
        swept = sweeping.replaced(self.factory, self.path, self.swept) if train and self.swept else {}
        if key is None:
            return code.call(params, buffers, self.inputs, inputs, swept)
        with redirect(fold_in(key, DRAW)):
            return code.call(params, buffers, self.inputs, inputs, swept)

    def to_module(self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> nn.Module:
        """The ordinary module with copies of these tensors, in evaluation mode.

        Its normaliser is inside, so that it takes raw inputs. Frozen parameters want no gradient.

        Raises:
            ValueError: the names are not the module's.
        """
        module = fresh(self.factory).module
        require_all(module, {**params, **buffers})
        settle(module, {**params, **buffers})
        fill(module, {**params, **buffers}, frozen=buffers)
        return module.eval()

    def arguments(self, module: nn.Module, inputs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """How to call `to_module`'s module on named inputs: positional and keyword arguments."""
        return arguments(takes(module, self.inputs), self.inputs, inputs)

    def blame(self, error: BaseException) -> ConfigError:
        """The error that names layer, shapes and config path behind what `apply`, or a trace of it, raised."""
        return blame(error, self.factory)

    def check(self) -> Model:
        """The model itself, after its factories were called once.

        Raises:
            ConfigError: one of them refused its arguments.
        """
        hollow_module(self.factory)
        return self

    @functools.cached_property
    def _codes(self) -> dict[tuple[bool, Shapes], Skeleton]:
        """Skeletons met so far, by mode and by the shapes that the spec leaves open: found without hashing the spec."""
        return {}

    @functools.cached_property
    def _open(self) -> bool:
        return waits(self.factory)

    def _code(self, train: bool, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> Skeleton:
        shapes = tuple((name, tuple(t.shape)) for name, t in (*params.items(), *buffers.items())) if self._open else ()
        if (train, shapes) not in self._codes:
            self._codes[train, shapes] = skeleton(self.factory, self.inputs, train, shapes)
        return self._codes[train, shapes]

    def sweep(self, parts: tuple[str, ...], value: float | Tensor) -> Model:
        """The model with another dropout in one block, which is what can be swept of a model.

        Args:
            parts: the config path below the model's, for instance `("sequential", "layers", "1", "dropout")`.
            value: a probability; a 0-d tensor inside a step.

        Raises:
            KeyError: there is no block of ours at this place that drops anything.
            ConfigError: the value is a number, and no probability.
        """
        if not isinstance(value, Tensor):
            refuse_share(value)
        return evolved(self, swept={**self.swept, sweeping.known(self.factory, self.path, ".".join(parts)): value})

    def numbers(self) -> dict[str, float | Tensor]:
        """What can be swept, by config path below the model's, with its present value."""
        return {**sweeping.dropouts(self.factory, self.path), **self.swept}

    def without_numbers(self) -> Model:
        """The model with all that can be swept put to one value: equal for models that differ in nothing else."""
        return evolved(self, factory=sweeping.without(self.factory), swept={})

    def _start(
        self, key: Tensor, example: Mapping[str, Any], statistics: Mapping[str, Any] | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Build, infer shapes, fill; in this order, so that weights from a file win."""
        assembled = assemble(self.factory, key)
        self._materialise(assembled, example, key)
        self._fit(assembled, statistics)
        with under(self.path):
            initialize(assembled.module, self.initializers, key)
            if self.init_from is not None:
                initialize_from(assembled.module, self.init_from)
            self._freeze(assembled.module)
        return split(assembled.module)

    def _materialise(self, assembled: Assembled, example: Mapping[str, Any], key: Tensor) -> None:
        waiting = lazy_layers(assembled.module)
        if waiting:
            assembled.module.eval()
            with self._blaming(), torch.no_grad():
                describe(assembled, self.inputs).call_own(self.inputs, example)
            redraw(assembled, waiting, key)

    def _fit(self, assembled: Assembled, statistics: Mapping[str, Any] | None) -> None:
        for name, layer in assembled.module.named_modules():
            if isinstance(layer, Normalize) and statistics is not None:
                with under(path_of(self.factory, assembled.places(), name)):
                    layer.fit(statistics)

    def _freeze(self, module: nn.Module) -> None:
        parameters = dict(module.named_parameters(remove_duplicate=False))
        for index, pattern in enumerate(self.freeze):
            for name in match(pattern, parameters, "freeze", index):
                parameters[name].requires_grad_(False)
        if self.freeze and not any(parameter.requires_grad for parameter in parameters.values()):
            raise invalid("leaves nothing to train", "freeze", found=", ".join(self.freeze))

    def _try(
        self, params: dict[str, Tensor], buffers: dict[str, Tensor], example: Mapping[str, Any], key: Tensor
    ) -> None:
        """Run once as training will, forward only."""
        code, _ = (self._code(train, params, buffers) for train in (True, False))

        def run() -> None:
            differentiate(lambda moved: self.apply(moved, buffers, example, key, train=True), params)

        with self._blaming():
            refuse_mutation(code, self.factory, run)

    def _refuse_inputs(self, example: Mapping[str, Any]) -> None:
        for name in self.inputs:
            if name not in example:
                found = ", ".join(example) or "no inputs"
                problem = f"the model takes an input {name!r} that `io` does not give it"
                issue = Issue(path=self.path, problem=problem, found=found, nearest=nearest(name, example))
                raise ConfigError([issue])
        if extra := [name for name in example if name not in self.inputs]:
            problem = f"`io` gives the model what it does not take: {', '.join(extra)}"
            raise ConfigError([Issue(path=self.path, problem=problem, expected=", ".join(self.inputs))])

    @contextmanager
    def _blaming(self) -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            raise self.blame(error) from error


def blamed(error: BaseException) -> ConfigError | None:
    """The error that names the layer of whatever model was running when another error arose; None where none was."""
    running = [frame.f_locals.get("self") for origin in chain(error) for frame in frames(origin)]
    models = [owner for owner in running if isinstance(owner, Model)]
    return models[-1].blame(error) if models else None


def evolved(model: Any, **changes: Any) -> Model:
    """`attrs.evolve`, whose types do not know components."""
    return attrs.evolve(model, **changes)


@contextmanager
def under(path: ConfigPath) -> Iterator[None]:
    """Put a path in front of the issues that are raised inside."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(issue.under(path) for issue in error.issues) from error
