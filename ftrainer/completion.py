"""Completion of overrides in a shell: `optimizer.l<TAB>` asks the configuration that stands before it on the line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from ftrainer.config import Replicate, ResolvedConfig, RunSettings, Settings, resolve
from ftrainer.config.explain import node_at
from ftrainer.config.node import Node
from registry import ConfigError, Registry, dotted
from registry.signatures import Signature, signature_of

SHELLS = MappingProxyType({"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete})
SETTINGS: Mapping[str, type] = MappingProxyType({"run": RunSettings, "settings": Settings, "replicate": Replicate})
"""Sections that say by themselves what may stand in them."""

NO_SPACE = MappingProxyType(
    {
        "bash": (
            "            COMPREPLY+=($value)\n",
            "            COMPREPLY+=($value)\n            [[ $value == *[=.[] ]] && compopt -o nospace\n",
        ),
        "zsh": (
            "        compadd -U -V unsorted -a completions\n",
            "        compadd -U -V unsorted -a -- ${(M)completions:#*[^=.[]}\n"
            "        compadd -U -V unsorted -S '' -- ${(M)completions:#*[=.[]}\n",
        ),
        "fish": ("", ""),
    }
)
"""What to change in click's scripts so that no space follows `optimizer.lr=`; fish leaves it out by itself."""


def script(command: click.Command, shell: str) -> str:
    """What a shell must read to complete this program's commands."""
    text = SHELLS[shell](command, {}, "ftrainer", "_FTRAINER_COMPLETE").source()
    return text.replace(*NO_SPACE[shell])


RegistryOf = Callable[[ResolvedConfig], Registry]


def complete_override(config: str | None, incomplete: str, registry_of: RegistryOf) -> list[str]:
    """What an override may go on with: the next part of each path in the configuration that begins so.

    Where nothing in the configuration does, or a whole part is still to come, the factory that the section names is
    asked for arguments that are not given yet. A configuration that is at fault completes as far as it can be read.

    Args:
        config: the file; None where none was given yet.
        incomplete: the path so far.
        registry_of: gives the registry with a configuration's plugins; called only where it is needed.
    """
    if config is None or "=" in incomplete:
        return []
    try:
        resolved, _ = resolve(config)
        found = sorted(set(written(resolved.root, incomplete)))
        more = (
            [] if found and not incomplete.endswith(".") else sorted(set(unwritten(resolved, incomplete, registry_of)))
        )
    except ConfigError:
        return []
    return [*found, *(path for path in more if path not in found)]


def written(root: Node, incomplete: str) -> Iterator[str]:
    """The next parts of the paths that are there.

    >>> from ftrainer.config import resolve_config
    >>> root = resolve_config({"run": {"name": "a"}, "optimizer": {"lr": 1, "lower": {"x": 2}}}).root
    >>> sorted(set(written(root, "optimizer.l"))), sorted(set(written(root, "o")))
    (['optimizer.lower.', 'optimizer.lr='], ['optimizer.'])
    """
    for path in leaves(root, ()):
        if path.startswith(incomplete):
            rest = path[len(incomplete) :]
            ends = [at for at in (rest.find(".", 1), rest.find("[", 1)) if at > 0]
            yield path[: len(incomplete) + min(ends) + 1] if ends else f"{path}="


def leaves(node: Node, path: tuple[str | int, ...]) -> Iterator[str]:
    """The dotted paths of all scalars and empty containers."""
    children = list(node.children())
    if not children:
        yield dotted(path)
    for key, child in children:
        yield from leaves(child, (*path, key))


def unwritten(resolved: ResolvedConfig, incomplete: str, registry_of: RegistryOf) -> Iterator[str]:
    """Arguments that the factory of the surrounding section takes and nobody gave."""
    section, _, begun = incomplete.rpartition(".")
    if not section:
        return
    _, node = node_at(resolved.root, section)
    given = {str(key) for key, _ in node.children()}
    signature = signature_in(resolved, section, node, registry_of)
    for parameter in signature.parameters if signature else ():
        if parameter.name.startswith(begun) and parameter.name not in given:
            yield f"{section}.{parameter.name}="


def signature_in(resolved: ResolvedConfig, section: str, node: Node, registry_of: RegistryOf) -> Signature | None:
    """What may stand in a section; None where nothing says that."""
    if section in SETTINGS:
        return signature_of(SETTINGS[section])
    kind: Any = node.value.get("_type_") if isinstance(node.value, dict) else None
    if kind is None:
        return None
    registry = registry_of(resolved)
    return registry.entry(kind.value).signature if kind.value in registry else None
