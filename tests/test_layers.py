"""Who may import whom: each layer only what stands left of it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS: tuple[tuple[str, ...], ...] = (
    ("registry",),
    ("ftrainer.deps",),
    ("ftrainer.config", "ftrainer.functional"),
    ("ftrainer.model",),
    ("ftrainer.components",),
    ("ftrainer.engine", "ftrainer.builtins"),
    ("ftrainer.report", "ftrainer.replication"),
    ("ftrainer.stages",),
    ("ftrainer.examine",),
    ("ftrainer.experiment",),
    ("ftrainer.revisit",),
    ("ftrainer.sweep", "ftrainer.exporting", "ftrainer.completion"),
    ("ftrainer.run",),
    ("ftrainer.__main__",),
    ("ftrainer", "ftrainer.api"),
    ("extensions",),
)
"""From left to right. `ftrainer` itself is the public surface, which extensions alone import from."""

LAZY = {"ftrainer.run", "ftrainer.report.commands", "ftrainer.report.terminal", "ftrainer.revisit.commands"}
"""Modules that import inside functions, so that `--help` does not load torch."""
HEAVY = {
    "torch._dynamo",
    "torch._functorch",
    "torch._inductor",
    "torch._subclasses",
    "torch.fx.experimental",
    "torch.utils._triton",
    "bokeh",
    "matplotlib",
    "tensorboard",
    "torchmetrics",
    "PIL",
    "wandb",
    "mlflow",
    "ray",
}
"""What may be imported where it is needed: optional, or slow to load and needed by few."""


def modules() -> dict[str, Path]:
    found = {}
    for top in ("registry", "ftrainer", "extensions"):
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def layer_of(module: str) -> int:
    names = [(name, index) for index, layer in enumerate(LAYERS) for name in layer]
    fits = [(name, index) for name, index in names if module == name or module.startswith(name + ".")]
    if not fits:
        raise AssertionError(f"{module} belongs to no layer")
    name, index = max(fits)
    if name == "ftrainer" and module != "ftrainer":
        raise AssertionError(f"{module} belongs to no layer")
    return index


def imports(module: str, node: ast.AST) -> list[str]:
    """The modules that an import statement names, relative ones resolved."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    if not node.level:
        base = node.module or ""
    else:
        package = module.split(".") if MODULES[module].name == "__init__.py" else module.split(".")[:-1]
        base = ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
    return [f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names]


def ours(name: str) -> bool:
    return name.split(".")[0] in ("registry", "ftrainer", "extensions")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_what_stands_left_of_it(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    typing_only = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.If) and is_type_checking(node.test)
                   for inner in ast.walk(node)}  # fmt: skip
    own = layer_of(module)
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        for name in imports(module, node):
            if ours(name):
                assert layer_of(name) <= own, f"{module}:{node.lineno} imports {name}"
                neighbour = layer_of(name) == own and package(name) != package(module)
                assert not neighbour, f"{module}:{node.lineno} imports its neighbour {name}"


def package(module: str) -> str:
    """What a layer's members are told apart by: `registry`, `extensions`, `ftrainer.config`."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "ftrainer" else parts[0]


def is_type_checking(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


@pytest.mark.parametrize("module", sorted(set(MODULES) - LAZY))
def test_imports_stand_at_the_top(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    for inner in (node for function in functions for node in ast.walk(function)):
        for name in imports(module, inner):
            assert any(name == heavy or name.startswith(heavy + ".") for heavy in HEAVY), (
                f"{module}:{inner.lineno} {name}"
            )


def test_the_mechanism_knows_neither_torch_nor_the_trainer() -> None:
    for module in (name for name in MODULES if name.split(".")[0] == "registry"):
        for node in ast.walk(ast.parse(MODULES[module].read_text())):
            assert not {name.split(".")[0] for name in imports(module, node)} & {"torch", "ftrainer"}, module


def test_one_module_knows_optree() -> None:
    knowing = {
        module for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text())) for name in imports(module, node)
        if name.split(".")[0] == "optree"
    }  # fmt: skip
    assert knowing == {"ftrainer.functional.pytree"}


def test_extensions_use_the_public_surface_alone() -> None:
    for module in (name for name in MODULES if name.split(".")[0] == "extensions"):
        for node in ast.walk(ast.parse(MODULES[module].read_text())):
            for name in filter(ours, imports(module, node)):
                public = name in ("ftrainer", "ftrainer.api", "registry") or name.startswith(
                    ("registry.", "extensions")
                )
                assert public, f"{module}:{node.lineno} imports {name}"
