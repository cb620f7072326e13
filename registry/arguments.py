"""Plain data that goes to somebody else's callable: checked against its signature, never instantiated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from .instantiate import Walk, read
from .issue import ConfigPath, Issue
from .lookup import is_spec
from .registry import Registry
from .signatures import bind, signature_of


def argument_issues(
    function: Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    supplied: Sequence[str] = (),
) -> tuple[Issue, ...]:
    """What a callable would refuse in plain arguments, as far as its signature tells.

    >>> def step(optimizer, step_size: int, gamma: float = 0.1): ...
    >>> print(*argument_issues(step, kwargs={"step_size": 1.5}, supplied=("optimizer",)))
    kwargs.step_size: has the wrong type; found 1.5; expected an integer

    Args:
        function: what will be called.
        args: its positional arguments, after the supplied ones.
        kwargs: its named arguments.
        supplied: names that the caller fills by itself, and that the data must not.

    Returns:
        Issues under `args` and `kwargs`.
    """
    named = dict(kwargs or {})
    nested = [*_specs(tuple(args), ("args",)), *_specs(named, ("kwargs",))]
    signature = signature_of(function)
    if nested or signature is None:
        return tuple(nested)
    signature = attrs.evolve(signature, parameters=tuple(p for p in signature.parameters if p.name not in supplied))
    places: dict[str, ConfigPath] = {name: ("kwargs", name) for name in named}
    bound = [
        attrs.evolve(i, path=("args",)) if i.path[-1:] == ("_args_",) else i
        for i in bind(signature, len(args), places, ("kwargs",))
    ]
    hints = {parameter.name: parameter.hint for parameter in signature.parameters}
    walk = Walk(registry=Registry(), call=False)
    pairs = zip((p.hint for p in signature.positional()), enumerate(args), strict=False)
    values = [read(walk, value, hint, ("args", i)) for hint, (i, value) in pairs]
    values += [read(walk, value, hints.get(name, Any), places[name]) for name, value in named.items()]
    return (*bound, *(issue for result in values for issue in result.issues))


def _specs(value: Any, path: ConfigPath) -> Iterator[Issue]:
    if is_spec(value):
        yield Issue(path=path, problem="is plain data: nothing is built here", found="a spec with _type_")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _specs(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _specs(item, (*path, index))
