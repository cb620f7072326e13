"""Starting from weights that exist already: a state dict or a checkpoint of a run."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from frozendict import frozendict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ftrainer.functional.patterns import rename
from registry.issue import invalid, near_files
from registry.spec import component

from .blocks.normalize import statistics_of
from .tensors import aliases, fill, named_tensors

log = logging.getLogger("ftrainer.model")

CHECKPOINT_FILE = "state.safetensors"
PARTS = ("all", "weights", "normalizer")


@component
class InitFrom:
    """The section `init_from:`.

    Attributes:
        path: a `.safetensors` or `.pt` state dict, or the directory of a checkpoint of a run.
        strict: every tensor of the model must be in the file and every tensor of the file in the model; otherwise what
            both have is taken. Shapes must agree in any case.
        rename: pattern to replacement, applied to the names in the file (`{"backbone.*": "0.*"}`).
        part: `weights` leaves out the statistics of `normalize` blocks, `normalizer` takes nothing else.
        role: which network of a checkpoint to take.
        slot: a slot of a checkpoint to take in place of the weights; `ema` is their moving average.
    """

    path: str
    strict: bool = True
    rename: Mapping[str, str] = frozendict()
    part: str = "all"
    role: str = "model"
    slot: str | None = None

    def __attrs_post_init__(self) -> None:
        if self.part not in PARTS:
            raise invalid("unknown part", "part", found=repr(self.part), expected=", ".join(PARTS))
        if not Path(self.path).exists():
            raise invalid(
                "there is no such file",
                "path",
                found=self.path,
                nearest=near_files(self.path),
                hint="paths are relative to where you start",
            )


class Row(NamedTuple):
    """One tensor of the table: its name, what became of it, its shape in the file and in the model."""

    name: str
    status: str
    found: str
    expected: str


def initialize_from(module: nn.Module, source: InitFrom) -> None:
    """Replace a module's tensors by those of a file.

    Args:
        module: changed in place, and only if everything fits.
        source: where the tensors are and how they are called there.

    Raises:
        ConfigError: the file cannot be read, or does not fit; with a table of missing, unexpected and mis-shaped names.
    """
    read = read_tensors(source)
    names = rename(source.rename, read, "init_from", "rename")
    tensors = wanted({names[name]: tensor for name, tensor in read.items()}, module, source.part)
    rows = compare(tensors, module, source.part)
    bad = {"mis-shaped"} | ({"missing", "unexpected"} if source.strict else set())
    if any(row.status in bad for row in rows) or not any(row.status == "matched" for row in rows):
        raise invalid(f"the weights do not fit\n{render(rows)}", "init_from", found=source.path,
                      hint="rename keys with `rename`, or take what fits with `strict: false`")  # fmt: skip
    log.info("%s\n%s", source.path, render(rows))
    carriers = aliases(module)
    fill(module, {carriers.get(row.name, row.name): tensors[row.name] for row in rows if row.status == "matched"})


def read_tensors(source: InitFrom) -> dict[str, Tensor]:
    """The tensors of a state dict or of one role of a checkpoint, by dotted name.

    Raises:
        ConfigError: the file is none of these.
    """
    path = Path(source.path)
    if path.is_dir():
        return of_role(load(path / CHECKPOINT_FILE), source)
    tensors = load(path)
    return of_role(tensors, source) if any(name.startswith("params/") for name in tensors) else tensors


def load(path: Path) -> dict[str, Tensor]:
    """A file's tensors; nothing in it is ever run.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        problem = f"cannot be read as weights: {(str(error).splitlines() or [type(error).__name__])[0]}"
        raise invalid(problem, "init_from", "path", found=str(path)) from error
    if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        expected = "a state dict: a mapping of names to tensors"
        raise invalid("holds no weights", "init_from", "path", found=f"a {type(content).__name__}", expected=expected)
    return dict(content)


def of_role(leaves: Mapping[str, Tensor], source: InitFrom) -> dict[str, Tensor]:
    """One network's tensors among a checkpoint's leaves.

    Raises:
        ConfigError: there is no such network, or no such slot.
    """
    trees = [f"params/{source.role}/", f"buffers/{source.role}/", *([f"slots/{source.slot}/"] if source.slot else [])]
    found = {tree: {n.removeprefix(tree): t for n, t in leaves.items() if n.startswith(tree)} for tree in trees}
    if not found[trees[0]]:
        roles = sorted({name.split("/")[1] for name in leaves if name.startswith("params/")})
        raise invalid(
            "the checkpoint has no such network",
            "init_from",
            "role",
            found=repr(source.role),
            expected=", ".join(roles),
        )
    if not found[trees[-1]] and source.slot:
        raise invalid(
            "the checkpoint has no such slot", "init_from", "slot", found=repr(source.slot), expected=slots(leaves)
        )
    return {name: tensor for tree in trees for name, tensor in found[tree].items()}


def slots(leaves: Mapping[str, Tensor]) -> str:
    """The slots among a checkpoint's leaves that hold trees of weights."""
    return ", ".join(
        sorted({name.split("/")[1] for name in leaves if name.startswith("slots/") and name.count("/") > 1})
    )


def wanted(tensors: Mapping[str, Tensor], module: nn.Module, part: str) -> dict[str, Tensor]:
    """The tensors of the part that is asked for."""
    statistics = statistics_of(module)
    return {name: t for name, t in tensors.items() if part == "all" or (name in statistics) == (part == "normalizer")}


def compare(tensors: Mapping[str, Tensor], module: nn.Module, part: str) -> list[Row]:
    """One row for each name in the file or in the module; a tied tensor is there if any of its names is."""
    held, carriers, statistics = (
        wanted(dict(named_tensors(module)), module, part),
        aliases(module),
        statistics_of(module),
    )
    needed = wanted(module.state_dict(), module, part)
    given = {carriers.get(name, name) for name in tensors}
    rows = []
    for name in dict.fromkeys((*held, *tensors)):
        found, expected = shape_of(tensors.get(name)), shape_of(held.get(name))
        if name in tensors and name in held:
            fits = found == expected or name in statistics
            rows.append(Row(name, "matched" if fits else "mis-shaped", found, expected))
        elif name in tensors:
            rows.append(Row(name, "unexpected", found, ""))
        elif name in needed and carriers.get(name, name) not in given:
            rows.append(Row(name, "missing", "", expected))
    return rows


def shape_of(tensor: Tensor | None) -> str:
    """A shape as text, empty where there is no tensor."""
    return "" if tensor is None else str(tuple(tensor.shape))


def render(rows: list[Row]) -> str:
    """The table as text, what does not fit first.

    >>> print(render([Row("0.bias", "matched", "(2,)", "(2,)"), Row("head", "unexpected", "(3,)", "")]))
    unexpected  head    (3,)  -
    matched     0.bias  (2,)  (2,)
    """
    order = ("mis-shaped", "missing", "unexpected", "matched")
    rows = sorted(rows, key=lambda row: order.index(row.status))
    cells = [(row.status, row.name, row.found or "-", row.expected or "-") for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(4)] if cells else []
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )
