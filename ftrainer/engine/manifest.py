"""The manifest's text: JSON in one canonical spelling, sealed with a digest of itself."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

TAG = "__float__"
DIGEST = "digest"


class SealError(ValueError):
    """A text that is not, to the byte, what `sealed` wrote."""


def sealed(content: Mapping[str, Any]) -> bytes:
    """The file's bytes.

    Raises:
        TypeError: something that is no JSON data, named by its path.

    >>> unsealed(sealed({"best": float("inf"), "betas": (0.9, 0.99)}))
    {'best': inf, 'betas': [0.9, 0.99]}
    """
    plain = encode(content)
    return canonical({**plain, DIGEST: digest(plain)}).encode()


def unsealed(raw: bytes) -> dict[str, Any]:
    """The inverse of `sealed`, tuples excepted: believed only if re-writing the content gives the same bytes.

    Raises:
        SealError: damaged, or never sealed.
    """
    try:
        content = json.loads(raw)
        spelled = canonical(content).encode()
    except (ValueError, RecursionError) as error:
        raise SealError("is not JSON") from error
    if not isinstance(content, dict) or DIGEST not in content:
        raise SealError("bears no digest")
    if content.pop(DIGEST) != digest(content) or spelled != raw:
        raise SealError("does not match its own digest")
    return decode(content)


def encode(value: Any, path: str = "") -> Any:
    """Plain JSON data: mappings with text keys, tuples as lists, `{"__float__": "nan"}` for the floats that JSON lacks.

    >>> encode({"best": float("-inf")})
    {'best': {'__float__': '-inf'}}
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
    """The inverse of `encode`."""
    if isinstance(value, dict):
        is_tagged = value.keys() == {TAG} and value[TAG] in ("nan", "inf", "-inf")
        return float(value[TAG]) if is_tagged else {key: decode(item) for key, item in value.items()}
    return [decode(item) for item in value] if isinstance(value, list) else value


def canonical(value: Any) -> str:
    """The one spelling of encoded data: keys sorted, one entry a line, a newline at the end."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"


def digest(plain: Mapping[str, Any]) -> str:
    """The sha256 of encoded data."""
    return hashlib.sha256(canonical(plain).encode()).hexdigest()
