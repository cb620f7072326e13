"""Mechanism only: errors as data, frozen components, an immutable registry. Imports neither torch nor ftrainer."""

from .arguments import argument_issues
from .instantiate import check, instantiate
from .issue import ConfigError, ConfigPath, Issue, Mark, dotted, invalid, near_files, nearest
from .plugins import installed_plugins, load_plugins
from .registry import Entry, Registry, origin_of
from .settings import Settings
from .signatures import Parameter, Signature, bind, signature_of
from .spec import Deferred, Plain, build_nested, component, freeze, is_traceable, thaw, traceable

__all__ = [
    "ConfigError",
    "ConfigPath",
    "Deferred",
    "Entry",
    "Issue",
    "Mark",
    "Parameter",
    "Plain",
    "Registry",
    "Settings",
    "Signature",
    "argument_issues",
    "bind",
    "build_nested",
    "check",
    "component",
    "dotted",
    "freeze",
    "installed_plugins",
    "instantiate",
    "invalid",
    "is_traceable",
    "load_plugins",
    "near_files",
    "nearest",
    "origin_of",
    "signature_of",
    "thaw",
    "traceable",
]
