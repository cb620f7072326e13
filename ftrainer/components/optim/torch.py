"""Optimizers under their `torch.optim` names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from frozendict import frozendict

from ftrainer.functional.phases import Transform
from registry.arguments import argument_issues
from registry.issue import ConfigError, Issue, invalid, nearest
from registry.spec import Plain

from .adadelta import Adadelta
from .adafactor import Adafactor
from .adagrad import Adagrad
from .adam import Adam
from .adamax import Adamax
from .adamw import AdamW
from .muon import Muon
from .nadam import NAdam
from .radam import RAdam
from .rmsprop import RMSprop
from .sgd import SGD

NATIVE: Mapping[str, Any] = frozendict(
    {
        "Adadelta": Adadelta,
        "Adafactor": Adafactor,
        "Adagrad": Adagrad,
        "Adam": Adam,
        "AdamW": AdamW,
        "Adamax": Adamax,
        "Muon": Muon,
        "NAdam": NAdam,
        "RAdam": RAdam,
        "RMSprop": RMSprop,
        "SGD": SGD,
    }
)
"""The transform that computes what a class of `torch.optim` does, with the same names for its numbers."""

DECOUPLED: Mapping[str, Any] = frozendict({"Adam": AdamW})
"""What stands for a class under `decoupled_weight_decay: true` where that is another transform."""

REFUSED: Mapping[str, str] = frozendict(
    {
        "ASGD": "its average would be kept and never used; use optim.sgd with the learner's ema_decay",
        "LBFGS": "it evaluates the loss several times a step; use optim.adamw",
        "Rprop": "its rule is for whole-data gradients; use optim.lion or optim.rmsprop",
        "SparseAdam": "gradients here are dense; optim.adam computes the same on them",
    }
)
"""Classes without a native equal: why, and what to use."""

HOW = ("foreach", "fused", "capturable")
"""Arguments that choose an implementation and change no result: the step is compiled as a whole here."""


def torch_optimizer(
    *, type: str, args: tuple[Plain, ...] = (), kwargs: Mapping[str, Plain] = frozendict(), groups: Plain = ()
) -> Transform:
    """`optim_factory.torch`: the native transform that equals a `torch.optim` class.

    Args:
        type: `optim_cls.<Name>`.
        args: the class's positional arguments after `params`.
        kwargs: its keyword arguments; torch's own defaults hold for the rest. `foreach`, `fused` and `capturable` are
            accepted and change nothing, as in torch.
        groups: other values for parameters chosen by name, `[{match: "*.bias", weight_decay: 0}]`.

    Raises:
        ConfigError: no such class, an argument that it does not take, or one that has no equivalent here.

    >>> torch_optimizer(type="optim_cls.AdamW", kwargs={"lr": 3e-4}).weight_decay
    0.01
    """
    name, cls = optimizer_class(type)
    given = bound(cls, args, kwargs)
    native = DECOUPLED.get(name, NATIVE[name]) if given.get("decoupled_weight_decay") else NATIVE[name]
    fields = {field.name for field in attrs.fields(native)}
    refuse_untranslated(given, fields, cls)
    try:
        return native(**{key: value for key, value in given.items() if key in fields}, groups=groups)
    except ConfigError as error:
        raise ConfigError(_relocated(issue, kwargs, list(given)) for issue in error.issues) from None


def optimizer_class(type: str) -> tuple[str, Callable[..., Any]]:
    """The name and class behind `optim_cls.<Name>`.

    Raises:
        ConfigError: there is none, or it has no native equivalent.
    """
    known = {f"optim_cls.{name}": name for name in (*NATIVE, *REFUSED)}
    if type not in known:
        expected = "optim_cls.<class of torch.optim>"
        near = nearest(type if type.startswith("optim_cls.") else f"optim_cls.{type}", known)
        raise invalid("unknown optimizer", "type", found=repr(type), expected=expected, nearest=near)
    name = known[type]
    if name in REFUSED:
        raise invalid(f"torch.optim.{name} has no equal here: {REFUSED[name]}", "type", found=repr(type))
    return name, getattr(torch.optim, name)


def bound(cls: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments by name, torch's defaults for the rest, in the class's own order.

    Raises:
        ConfigError: too many positional ones, an unknown one, or one given twice.
    """
    parameters = {k: p for k, p in inspect.signature(cls).parameters.items() if k != "params"}
    places = [name for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    if len(args) > len(places):
        raise invalid("too many arguments", "args", found=str(len(args)), expected=f"at most {len(places)}")
    taken = dict(zip(places, args, strict=False))
    issues = [
        Issue(path=("kwargs", k), at="key", problem=f"not an argument of {_title(cls)}", nearest=nearest(k, parameters))
        for k in kwargs
        if k not in parameters
    ]
    issues += [Issue(path=("kwargs", k), at="key", problem="given in args too") for k in kwargs if k in taken]
    issues = issues or [_in_numbers(issue) for issue in argument_issues(cls, args, kwargs, supplied=("params",))]
    if issues:
        raise ConfigError(issues)
    return {**{k: p.default for k, p in parameters.items()}, **taken, **kwargs}


def _in_numbers(issue: Issue) -> Issue:
    """The issue without the tensors that torch's annotations allow and a configuration cannot hold."""
    return attrs.evolve(
        issue, expected=issue.expected and issue.expected.replace(" or Tensor (a spec with _type_)", "")
    )


def refuse_untranslated(given: Mapping[str, Any], fields: set[str], cls: Callable[..., Any]) -> None:
    """Raise for every argument that changes the result and that the native transform does not have."""
    hints = {"maximize": "negate the loss", "differentiable": "updates here are pure functions: differentiate them"}
    defaults = {k: p.default for k, p in inspect.signature(cls).parameters.items()}
    issues = [
        Issue(path=("kwargs", k), problem=f"{k} has no equivalent here", found=repr(value), hint=hints.get(k))
        for k, value in given.items()
        if k not in fields and k not in (*HOW, "decoupled_weight_decay") and value != defaults[k]
    ]
    if issues:
        raise ConfigError(issues)


def _relocated(issue: Issue, kwargs: Any, order: list[str]) -> Issue:
    head, *_ = (*issue.path, "")
    if head == "groups" or head not in order:
        return issue
    return (
        issue.under(("kwargs",))
        if head in kwargs
        else attrs.evolve(issue, path=("args", order.index(str(head)), *issue.path[1:]))
    )


def _title(cls: Any) -> str:
    return f"torch.optim.{cls.__name__}"
