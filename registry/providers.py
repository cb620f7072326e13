"""Who could provide a name that is not there: found by reading sources, never by running them."""

from __future__ import annotations

import ast
import importlib.machinery
import pkgutil
from collections.abc import Iterator
from pathlib import Path

from .issue import nearest
from .settings import Settings


def provider_hint(key: str, settings: Settings) -> str | None:
    """The import that would provide a key, as a hint; None where no allowed plugin registers it."""
    files = plugin_files(settings.allowed_import_prefixes) if key else ()
    module = next((module for module, file in files if registers(file, key)), None)
    if module is None:
        return None
    permission = "" if settings.allow_imports else " and settings: {allow_imports: true}"
    return f"{module} registers it: add imports: [{module}]{permission}"


def plugin_files(prefixes: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """Modules under some packages, with their files; nothing is imported."""
    for prefix in prefixes:
        for folder in _folders(prefix.rstrip(".").split(".")):
            for file in sorted(folder.rglob("*.py")):
                parts = [*prefix.rstrip(".").split("."), *file.relative_to(folder).with_suffix("").parts]
                yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


def registers(file: Path, key: str) -> bool:
    """Whether a source registers a key, as far as it is written out: `….register("key", …)`."""
    try:
        text = file.read_text(encoding="utf-8")
        is_written = f'"{key}"' in text or f"'{key}'" in text  # tells most files in a fraction of the time
        tree = ast.parse(text) if is_written else ast.Module([], [])
    except (OSError, SyntaxError, ValueError):
        return False
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args)
    firsts = (call.args[0] for call in calls if getattr(call.func, "attr", None) == "register")
    return any(isinstance(first, ast.Constant) and first.value == key for first in firsts)


def modules_near(name: str) -> tuple[str, ...]:
    """Modules whose names resemble one that does not exist, beside its parent package; nothing is imported."""
    *parents, _ = name.split(".")
    for depth in range(len(parents), -1, -1):
        folders = [str(folder) for folder in _folders(parents[:depth])] if depth else None
        siblings = [module.name for module in pkgutil.iter_modules(folders)]
        prefix = ".".join(parents[:depth])
        if folders is None or folders:
            wanted = name.split(".")[depth]
            rest = name.split(".")[depth + 1 :]
            return tuple(".".join(filter(None, [prefix, near, *rest])) for near in nearest(wanted, siblings))
    return ()


def _folders(parts: list[str]) -> list[Path]:
    """The folders of a package, found from `sys.path` without importing its parents."""
    search: list[str] | None = None
    for part in parts:
        spec = importlib.machinery.PathFinder.find_spec(part, search)
        if spec is None or spec.submodule_search_locations is None:
            return []
        search = list(spec.submodule_search_locations)
    return [Path(folder) for folder in search or []]
