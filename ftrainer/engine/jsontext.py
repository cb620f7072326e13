"""JSON that holds every value a manifest needs, in one canonical spelling."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

TAG = "__float__"


def encode(value: Any, path: str = "") -> Any:
    """Plain JSON data: mappings with text keys, tuples as lists, and `{"__float__": "nan"}` for what JSON lacks.

    Raises:
        TypeError: something that is no JSON data, named by its path.

    >>> encode({"best": float("inf"), "betas": (0.9, 0.99)})
    {'best': {'__float__': 'inf'}, 'betas': [0.9, 0.99]}
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {TAG: str(value)}
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): encode(item, f"{path}/{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item, f"{path}/{index}") for index, item in enumerate(value)]
    raise TypeError(f"{path or '/'}: {type(value).__name__} is no JSON data")


def decode(value: Any) -> Any:
    """The inverse of `encode`, tuples excepted.

    >>> decode({"best": {"__float__": "inf"}})
    {'best': inf}
    """
    if isinstance(value, dict):
        is_tagged = value.keys() == {TAG} and value[TAG] in ("nan", "inf", "-inf")
        return float(value[TAG]) if is_tagged else {key: decode(item) for key, item in value.items()}
    return [decode(item) for item in value] if isinstance(value, list) else value


def canonical(value: Any) -> str:
    """The one spelling of encoded data: keys sorted, one entry a line, a newline at the end."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"
