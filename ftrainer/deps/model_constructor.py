"""The `model_constructor` package, where it is installed."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from pathlib import Path
from typing import Any

from registry.issue import invalid

PACKAGE = "model_constructor"


def build(config_path: str, digest: str = "") -> Any:
    """The `nn.Module` that the package builds from one of its own YAML files.

    Args:
        config_path: relative to where you start.
        digest: of the file; it tells two versions of a file apart where calls are compared.

    Raises:
        ConfigError: the package is not installed, or refuses the file.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        hint = "install it, or paste the file's `model:` section here: it is read as it stands"
        raise invalid(f"needs the package {PACKAGE}, which cannot be imported here", hint=hint)
    del digest
    try:
        package = importlib.import_module(PACKAGE)
        refusal = importlib.import_module(f"{PACKAGE}.errors").ModelConstructorError
    except ImportError as error:
        raise invalid(f"{PACKAGE} cannot be imported: {error}") from error
    try:
        return package.build_model(config_path)
    except (refusal, ImportError) as error:
        raise invalid(f"{PACKAGE} refuses the file: {error}", "config_path", found=config_path) from error


def digest_of(config_path: str) -> str:
    """The SHA-256 of a file.

    Raises:
        ConfigError: there is no such file.
    """
    path = Path(config_path)
    if not path.is_file():
        raise invalid("there is no such file", "config_path", found=config_path)
    return hashlib.sha256(path.read_bytes()).hexdigest()
