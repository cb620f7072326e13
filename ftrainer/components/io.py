"""Which parts of a batch the model takes, and which the loss compares with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.issue import dotted, invalid
from registry.spec import component

Path = str | tuple[str | int, ...]


@component
class IOMapping:
    """Names for parts of a batch, each part found by a path of keys and indices; plain text is one key.

    Attributes:
        input_paths: `{model input: path}`.
        target_paths: `{target: path}`.
    """

    input_paths: Mapping[str, Path]
    target_paths: Mapping[str, Path]

    def inputs(self, batch: Any) -> dict[str, Any]:
        """The model's inputs.

        Raises:
            KeyError: a path leads nowhere in this batch.
        """
        return {name: pick(batch, path, f"io.model_kwargs.{name}") for name, path in self.input_paths.items()}

    def targets(self, batch: Any) -> dict[str, Any]:
        """The targets.

        Raises:
            KeyError: a path leads nowhere in this batch.
        """
        return {name: pick(batch, path, f"io.targets.{name}") for name, path in self.target_paths.items()}


def mapping(*, model_kwargs: Mapping[str, Path], targets: Mapping[str, Path] | None = None) -> IOMapping:
    """`io.mapping`, under the names that YAML uses.

    Args:
        model_kwargs: `{model input: path}`.
        targets: `{target: path}`; none for learners that need none.

    Raises:
        ConfigError: a path is empty.

    >>> io = mapping(model_kwargs={"x": ["x"]}, targets={"y": "label"})
    >>> io.inputs({"x": 1, "label": 2}), io.targets({"x": 1, "label": 2})
    ({'x': 1}, {'y': 2})
    """
    for section, paths in (("model_kwargs", model_kwargs), ("targets", targets or {})):
        for name, path in paths.items():
            if not path:
                raise invalid("an empty path", section, name, expected="keys and indices")
    return IOMapping(input_paths=model_kwargs, target_paths=targets or {})


def pick(batch: Any, path: Path, role: str) -> Any:
    """The part of a batch at the end of a path.

    Args:
        batch: nested mappings and sequences of tensors.
        path: keys and indices from the outside in; plain text is one key.
        role: who asks, for the error.

    Raises:
        KeyError: the path leads nowhere; the message names it and what is there instead.

    >>> pick({"obs": [10, 20]}, ("obs", 1), "io.model_kwargs.x")
    20
    """
    parts = (path,) if isinstance(path, str) else path
    node = batch
    for depth, part in enumerate(parts):
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError) as error:
            problem = f"{role}: no {part!r} in the batch{_place(parts[:depth])} (path {list(parts)}); {_contents(node)}"
            raise KeyError(problem) from error
    return node


def _place(parts: tuple[str | int, ...]) -> str:
    return f" under {dotted(parts)!r}" if parts else ""


def _contents(node: Any) -> str:
    if isinstance(node, Mapping):
        return f"it has {', '.join(map(repr, node)) or 'no keys'}"
    if isinstance(node, (list, tuple)):
        return f"it has {len(node)} items"
    return f"what is there is a {type(node).__name__}"
