"""Code that Inductor wrote for the CPU, kept on disk as one Python function with its shared libraries.

Loading it needs none of Inductor, whose imports alone take a second; nor does calling it pass through AOTAutograd.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib.util
import json
import os
import shutil
import symtable
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from .preallocate import preallocated

Call = Callable[[list[Tensor]], Sequence[Tensor]]
"""Takes the inputs in a list, which it empties."""

INDUCTOR = "torch._inductor"
SOURCE, OPERATORS, CONTENTS, LIBRARY = "call.py", "operators.json", "contents.json", ".so"
EXTERN = "extern_kernels"
"""The name under which generated code reaches operators that are not generated."""


class NotStorableError(ValueError):
    """Generated code that needs more than its own libraries and torch's operators."""


def store(call: Call, source: str, folder: Path) -> None:
    """Write a folder from which `load` gives the same function.

    Args:
        call: the function, as Inductor returned it.
        source: the text of the module that defines it.
        folder: made whole or not at all; if another process made it meanwhile, that one stays.

    Raises:
        NotStorableError: the code reads a name that cannot be had without Inductor.
    """
    namespace = function_of(call).__globals__
    libraries = {name: library(value) for name, value in namespace.items() if is_kernel(value)}
    module, names = reachable(ast.parse(source), {EXTERN, *libraries})
    if strange := {name for name in names if name not in namespace} | set(imports(module, INDUCTOR)):
        raise NotStorableError(f"the generated code reads {', '.join(sorted(strange))}")
    operators = {name: address(getattr(namespace[EXTERN], name)) for name in members(module, EXTERN)}
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent))
    for name in names & libraries.keys():
        shutil.copyfile(libraries[name], unfinished / f"{name}{LIBRARY}")
    (unfinished / SOURCE).write_text(ast.unparse(module))
    (unfinished / OPERATORS).write_text(json.dumps(operators))
    written = {path.name: digest(path) for path in unfinished.iterdir()}
    (unfinished / CONTENTS).write_text(json.dumps(written))
    place(unfinished, folder)


def load(folder: Path) -> Call:
    """The function that was stored there.

    Raises:
        OSError, ValueError: files are missing or are not what was written.
    """
    check(folder)
    operators = json.loads((folder / OPERATORS).read_text())
    given: dict[str, Any] = {path.stem: kernel(path) for path in folder.glob(f"*{LIBRARY}")}
    given[EXTERN] = SimpleNamespace(**{name: find(*where) for name, where in operators.items()})
    source = (folder / SOURCE).read_text()
    return exclusive(executed(preallocated(ast.parse(source)), given), lambda: executed(ast.parse(source), given))


def executed(module: ast.Module, given: Mapping[str, Any]) -> Call:
    """The function `call` of a module, run where these names are given."""
    namespace = dict(given)
    exec(compile(module, SOURCE, "exec"), namespace)
    call: Call = namespace["call"]
    return call


def exclusive(call: Call, another: Callable[[], Call]) -> Call:
    """A function that one caller at a time may use; a second one meanwhile, in another thread, gets one of its own."""
    lock = threading.Lock()

    def chosen(inputs: list[Tensor]) -> Sequence[Tensor]:
        if not lock.acquire(blocking=False):
            return another()(inputs)
        try:
            return call(inputs)
        finally:
            lock.release()

    return chosen


def check(folder: Path) -> None:
    """Compare the files with what was written.

    Raises:
        OSError, ValueError: one is missing, or another.
    """
    written = json.loads((folder / CONTENTS).read_text())
    found = {path.name: digest(path) for path in folder.iterdir() if path.name != CONTENTS}
    if written != found:
        listed = written if isinstance(written, dict) else {}
        name = next((name for name in {**listed, **found} if listed.get(name) != found.get(name)), CONTENTS)
        raise ValueError(f"{name} is not what was written")


def place(unfinished: Path, folder: Path) -> None:
    """Rename a finished folder; a sound one that another process finished first stays."""
    try:
        os.replace(unfinished, folder)
    except OSError:
        try:
            check(folder)
        except (OSError, ValueError):
            os.replace(folder, aside := Path(tempfile.mkdtemp(dir=folder.parent)))
            os.replace(unfinished, folder)
            shutil.rmtree(aside)
        else:
            shutil.rmtree(unfinished)


def digest(path: Path) -> str:
    """A file's content in short."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


# What a generated module consists of.


def reachable(module: ast.Module, given: set[str]) -> tuple[ast.Module, set[str]]:
    """The statements of a module that `call` depends on, and every global name that those read.

    Args:
        module: the whole of it.
        given: names that will have their values without a statement of the module.
    """
    names, kept = {"call"}, dict[int, ast.stmt]()
    while True:
        new = {n: part for n, part in enumerate(module.body) if n not in kept and (names - given) & defined(part)}
        if not new:
            break
        kept |= new
        names |= {name for part in new.values() for name in read(part)} - vars(builtins).keys()
    return ast.Module(body=[part for _, part in sorted(kept.items())], type_ignores=[]), names


def defined(statement: ast.stmt) -> set[str]:
    """The names that a top-level statement gives a value."""
    match statement:
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return {(alias.asname or alias.name).split(".")[0] for alias in names}
        case ast.Assign(targets=targets):
            return {target.id for target in targets if isinstance(target, ast.Name)}
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
    return set()


def read(statement: ast.stmt) -> set[str]:
    """The global names that a statement reads, also inside of functions."""
    return set(globals_of(symtable.symtable(ast.unparse(statement), SOURCE, "exec")))


def globals_of(scope: symtable.SymbolTable) -> Iterator[str]:
    """The global names that a scope and those inside it read."""
    for symbol in scope.get_symbols():
        if symbol.is_referenced() and (scope.get_type() == "module" or symbol.is_global()):
            yield symbol.get_name()
    for inner in scope.get_children():
        yield from globals_of(inner)


def members(module: ast.Module, owner: str) -> set[str]:
    """The attributes that a module reads of one name."""
    return {
        node.attr
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == owner
    }


def imports(module: ast.Module, package: str) -> Iterator[str]:
    """The names that a module imports from a package."""
    for statement in module.body:
        if isinstance(statement, ast.ImportFrom) and str(statement.module).startswith(package):
            yield from defined(statement)


# Kernels and operators.


def function_of(call: Call) -> FunctionType:
    """The Python function behind a function or method."""
    function = getattr(call, "__func__", call)
    if not isinstance(function, FunctionType):
        raise NotStorableError(f"the generated code is called through {function}")
    return function


def is_kernel(value: Any) -> bool:
    """Whether a value is a function of a shared library that was compiled for it."""
    owner = getattr(value, "__self__", None)
    return isinstance(value, BuiltinFunctionType) and isinstance(owner, ModuleType) and hasattr(owner, "__file__")


def library(function: Any) -> Path:
    """The shared library that a compiled function comes from."""
    return Path(function.__self__.__file__)


def kernel(path: Path) -> Callable[..., None]:
    """The one function of a shared library; it finds out about tensors through an address in the environment."""
    os.environ["_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR"] = str(
        torch._C._dynamo.guards._torchinductor_pyobject_tensor_data_ptr  # type: ignore[attr-defined]
    )
    spec = importlib.util.spec_from_file_location("kernel", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path.name} is no shared library")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Callable[..., None] = module.kernel
    return function


def address(function: Any) -> tuple[str, str]:
    """Where to find an operator: module and name."""
    for where in candidates(function):
        try:
            if find(*where) is function:
                return where
        except (ImportError, AttributeError):
            continue
    raise NotStorableError(f"the generated code calls {function}")


def candidates(function: Any) -> Iterator[tuple[str, str]]:
    """Places where an operator may stand."""
    name = getattr(function, "__name__", "")
    yield "torch", name
    yield "torch", f"ops.{function}"
    if module := getattr(function, "__module__", None):
        yield module, name


def find(module: str, name: str) -> Any:
    """The value at an address."""
    value: Any = importlib.import_module(module)
    for part in name.split("."):
        value = getattr(value, part)
    return value
