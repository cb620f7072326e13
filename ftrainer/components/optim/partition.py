"""Different transforms for different parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftrainer.functional.phases import Context
from ftrainer.functional.state import Tree
from registry.issue import invalid, nearest
from registry.spec import component

from .averaged import eval_params
from .groups import Leaf, assign, matching, merge, select

KEYS = ("match", "transform")


@component
class Partition:
    """Each parameter goes through the first transform whose pattern fits its name, as `optax.partition`.

    Attributes:
        parts: `({"match": "*.bias", "transform": …}, …)`; every pattern must match something, and every parameter one.

    >>> import torch
    >>> from .adamw import AdamW
    >>> from .muon import Muon
    >>> parts = [{"match": "*.weight", "transform": Muon()}, {"match": "*", "transform": AdamW()}]
    >>> sorted(Partition(parts=parts).init({"model": {"0.weight": torch.ones(2, 2), "0.bias": torch.ones(2)}}))
    ['0', '1']
    """

    parts: tuple[Mapping[str, Any], ...]

    def __attrs_post_init__(self) -> None:
        if not self.parts:
            raise invalid("no parts", "parts", expected="a list of mappings with `match` and `transform`")
        for i, part in enumerate(self.parts):
            for key in part.keys() - set(KEYS):
                raise invalid("unknown key", "parts", i, key, nearest=nearest(key, KEYS), at="key")
            if not isinstance(part.get("match"), str) or not hasattr(part.get("transform"), "update"):
                raise invalid("incomplete", "parts", i, expected="`match: <pattern>` and `transform: <optimizer>`")

    def init(self, params: Tree) -> Tree:
        """One state for each part, by its position.

        Raises:
            ConfigError: a pattern matches nothing, or a parameter no pattern.
        """
        chosen = self._chosen(params)
        return {key: part["transform"].init(select(params, leaves)) for key, part, leaves in chosen}

    def update(self, grads: Tree, opt_state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        """Every part by itself."""
        updates, states = [], {}
        for key, part, leaves in self._chosen(params):
            args = select(grads, leaves), opt_state[key], select(params, leaves), ctx
            update, states[key] = part["transform"].update(*args)
            updates.append(update)
        return merge(params, updates), states

    def eval_params(self, opt_state: Tree, params: Tree) -> Tree:
        """Every part's own."""
        chosen = self._chosen(params)
        parts = [eval_params(part["transform"], opt_state[key], select(params, leaves)) for key, part, leaves in chosen]
        return merge(params, parts)

    def _chosen(self, params: Tree) -> list[tuple[str, Mapping[str, Any], list[Leaf]]]:
        wanted = [matching(part["match"], params, "parts", i, "match") for i, part in enumerate(self.parts)]
        taken, left = assign(wanted, params)
        if left:
            names = ", ".join(name for _, name in left[:6])
            raise invalid("parameters without a transform", "parts", found=names, hint='add a part with `match: "*"`')
        return [
            (str(i), part, leaves) for i, (part, leaves) in enumerate(zip(self.parts, taken, strict=True)) if leaves
        ]
