"""Which parts of a batch the model takes, and which the loss compares with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.issue import ConfigPath, dotted, invalid, nearest
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
            ConfigError: a path leads nowhere in this batch.
        """
        return {name: pick(batch, path, ("io", "model_kwargs", name)) for name, path in self.input_paths.items()}

    def targets(self, batch: Any) -> dict[str, Any]:
        """The targets.

        Raises:
            ConfigError: a path leads nowhere in this batch.
        """
        return {name: pick(batch, path, ("io", "targets", name)) for name, path in self.target_paths.items()}


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


def pick(batch: Any, path: Path, asked: ConfigPath) -> Any:
    """The part of a batch at the end of a path.

    Args:
        batch: nested mappings and sequences of tensors.
        path: keys and indices from the outside in; plain text is one key.
        asked: the config path of `path`.

    Raises:
        ConfigError: the path leads nowhere; the message names it and what is there instead.

    >>> pick({"obs": [10, 20]}, ("obs", 1), ("io", "model_kwargs", "x"))
    20
    """
    parts = (path,) if isinstance(path, str) else path
    node = batch
    for depth, part in enumerate(parts):
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError) as error:
            names = list(map(str, node)) if isinstance(node, Mapping) else []
            raise invalid(
                f"the batch has no {part!r}{_place(parts[:depth])}",
                *asked,
                found=_contents(node),
                nearest=nearest(part, names),
            ) from error
    return node


def _place(parts: tuple[str | int, ...]) -> str:
    return f" under {dotted(parts)!r}" if parts else ""


def _contents(node: Any) -> str:
    if isinstance(node, Mapping):
        return ", ".join(map(repr, node)) or "no keys"
    return f"{len(node)} items" if isinstance(node, (list, tuple)) else f"a {type(node).__name__}"
