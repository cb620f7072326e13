"""Text to a resolved configuration, and errors that point at the line."""

from .render import render
from .replicate import Group, Replicate
from .resolve import resolve, resolve_again, resolve_config
from .resolved import ResolvedConfig
from .sections import RunSettings, Settings
from .validate import post_model_issues, preflight_issues, settings_of, validate_post_model, validate_preflight

__all__ = [
    "Group",
    "Replicate",
    "ResolvedConfig",
    "RunSettings",
    "Settings",
    "post_model_issues",
    "preflight_issues",
    "render",
    "resolve",
    "resolve_again",
    "resolve_config",
    "settings_of",
    "validate_post_model",
    "validate_preflight",
]
