"""Text to a resolved configuration, and errors that point at the line."""

from .render import render
from .resolve import resolve_config
from .resolved import ResolvedConfig
from .sections import RunSettings, Settings
from .validate import post_model_issues, preflight_issues, validate_post_model, validate_preflight

__all__ = [
    "ResolvedConfig",
    "RunSettings",
    "Settings",
    "post_model_issues",
    "preflight_issues",
    "render",
    "resolve_config",
    "validate_post_model",
    "validate_preflight",
]
