"""What a configuration may do that came with somebody's checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from frozendict import frozendict

PERMISSIONS: Mapping[str, Any] = frozendict(
    {"allow_imports": True, "allow_target": False, "allowed_import_prefixes": ("extensions", "ftrainer")}
)
"""Shipped plugins may be imported; overrides of `settings` may allow more."""


def permitted(config: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's configuration with the permissions that any checkpoint has, whatever it says itself.

    >>> permitted({"settings": {"strict": False, "allow_target": True}})["settings"]["allow_target"]
    False
    """
    return {**config, "settings": {**(config.get("settings") or {}), **PERMISSIONS}}
