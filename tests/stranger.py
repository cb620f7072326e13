"""A plugin that registers nothing, as a stranger's configuration may name one."""

from registry import Registry


def register(registry: Registry) -> Registry:
    """Nothing."""
    return registry
