"""Small intermediates of generated code made once, when it is loaded, instead of in every call.

A step of a small model spends a tenth of its time on making tensors that it throws away.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Iterator

import torch

MAKE, VIEW = "empty_strided_cpu", "reinterpret_tensor"
"""What generated code calls to make a tensor, and to look at one in another shape."""

LARGEST, TOTAL = 2**18, 2**22
"""Bytes that a kept tensor, and all of them, may have: larger ones cost little to make, and much to keep."""


def preallocated(module: ast.Module) -> ast.Module:
    """A module whose `call` finds its small tensors among the module's own names.

    Straight-line code only, as Inductor writes it. What is returned, or given to an operator that may hand it on, is
    still made in every call. The function that results is not reentrant.
    """
    for function in [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef) and node.name == "call"]:
        module.body[:] = after_assignments(module, hoist(function))
    return ast.fix_missing_locations(module)


def after_assignments(module: ast.Module, kept: list[ast.stmt]) -> list[ast.stmt]:
    """A module's statements with others inserted after the imports and plain assignments that it begins with."""
    begins = (ast.Import, ast.ImportFrom, ast.Assign)
    first = next(n for n, statement in enumerate(module.body) if not isinstance(statement, begins))
    return [*module.body[:first], *kept, *module.body[first:]]


def hoist(function: ast.FunctionDef) -> list[ast.stmt]:
    """Take the statements that make and rename small tensors out of a function, and return them in order."""
    if not all(isinstance(part, (ast.Assign, ast.Expr, ast.Delete, ast.Return)) for part in function.body):
        return []
    roots = roots_of(function.body)
    kept_roots = within(TOTAL, small(function.body), handed_on(function.body, roots))
    names = {name for name, root in roots.items() if root in kept_roots}
    kept = [part for part in function.body if target(part) in names]
    views = Views(names)
    function.body = [
        views.visit(part) for part in function.body if target(part) not in names and not is_deletion(part, names)
    ]
    return [*kept, *views.made]


def roots_of(body: Iterable[ast.stmt]) -> dict[str, str]:
    """For each name of a tensor that the code makes, the name under which it was made."""
    roots: dict[str, str] = {}
    for part in body:
        name = target(part)
        if name is None or not isinstance(part, ast.Assign):
            continue
        source = viewed(part.value)
        if called(part.value) == MAKE:
            roots[name] = name
        elif source in roots:
            roots[name] = roots[source]
    return roots


def handed_on(body: Iterable[ast.stmt], roots: dict[str, str]) -> set[str]:
    """Tensors that are returned, or read by an expression whose value is kept and might be one of them."""
    results = [
        part.value for part in body if isinstance(part, (ast.Return, ast.Assign)) and target(part) not in roots
    ]  # fmt: skip
    return {roots[name] for value in results if value is not None for name in loaded(value) if name in roots}


def small(body: Iterable[ast.stmt]) -> Iterator[tuple[str, int]]:
    """Names and bytes of the tensors made that are small."""
    for part in body:
        name = target(part)
        if name is not None and isinstance(part, ast.Assign) and called(part.value) == MAKE:
            size = n_bytes(part.value)
            if size is not None and size <= LARGEST:
                yield name, size


def within(total: int, sizes: Iterable[tuple[str, int]], without: set[str]) -> set[str]:
    """As many names, in order, as fit into so many bytes."""
    chosen: set[str] = set()
    for name, size in sizes:
        if name not in without and size <= total:
            chosen.add(name)
            total -= size
    return chosen


class Views(ast.NodeTransformer):
    """Replaces views of kept tensors by names; `made` has the statements that make them."""

    def __init__(self, kept: set[str]):
        self.kept, self.made = kept, list[ast.stmt]()

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """A call; its arguments first."""
        self.generic_visit(node)
        if called(node) != VIEW or viewed(node) not in self.kept:
            return node
        name = f"view_{len(self.made)}"
        self.made.append(ast.Assign(targets=[ast.Name(name, ast.Store())], value=node))
        return ast.Name(name, ast.Load())


# What a statement or expression is.


def target(part: ast.stmt) -> str | None:
    """The one name that a statement assigns."""
    match part:
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name
    return None


def is_deletion(part: ast.stmt, names: set[str]) -> bool:
    """Whether a statement deletes one of these names and no other."""
    match part:
        case ast.Delete(targets=[ast.Name(id=name)]):
            return name in names
    return False


def called(value: ast.expr) -> str | None:
    """The name of the function that an expression calls."""
    match value:
        case ast.Call(func=ast.Name(id=name)):
            return name
    return None


def viewed(value: ast.expr) -> str | None:
    """The name of the tensor that an expression is, or is a fixed view of."""
    match value:
        case ast.Name(id=name):
            return name
        case ast.Call(func=ast.Name(id=function), args=[ast.Name(id=name), *rest], keywords=[]):
            return name if function == VIEW and not any(loaded(argument) for argument in rest) else None
    return None


def loaded(value: ast.expr) -> set[str]:
    """The names that an expression reads."""
    return {node.id for node in ast.walk(value) if isinstance(node, ast.Name)}


def n_bytes(make: ast.expr) -> int | None:
    """What a made tensor takes; None where its shape is not written down."""
    match make:
        case ast.Call(args=[shape, _, ast.Attribute(value=ast.Name(id="torch"), attr=dtype)]) if not loaded(shape):
            element: torch.dtype = getattr(torch, dtype)
            return math.prod(ast.literal_eval(shape)) * element.itemsize
    return None
