"""The tensors of a checkpoint: one safetensors file, one entry for each leaf of a pytree.

The file is laid out here, and not by the safetensors package, so that bytes go from the tensors' own memory to the disk
and into the digest in one pass that leaves the interpreter free (a background save must not hold up the loop). The
package reads it back.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import safetensors
import torch
from safetensors.torch import load
from torch import Tensor

from ftrainer.functional import pytree
from registry.issue import ConfigError, Issue

CHUNK = 1 << 22
CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class CheckpointError(ConfigError):
    """A checkpoint that cannot be written, cannot be trusted, or does not fit."""


def refuse(problem: str, **details: Any) -> CheckpointError:
    """The error with one issue."""
    return CheckpointError([Issue(problem=problem, **details)])


@attrs.frozen
class Leaf:
    """What the manifest says of one tensor: its pytree path, dtype and shape.

    >>> str(Leaf("params/model/0.weight", "float32", (64, 8)))
    'float32 (64, 8)'
    """

    path: str
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


def leaves_of(tree: Any) -> dict[str, Tensor]:
    """A pytree's tensors by path, as they stand.

    Raises:
        CheckpointError: a leaf is no dense tensor, has a dtype that safetensors lacks, or shares its path with another.
    """
    paths, leaves = pytree.paths(tree), pytree.leaves(tree)
    found: dict[str, Tensor] = {}
    for path, leaf in zip(paths, leaves, strict=True):
        if not isinstance(leaf, Tensor) or leaf.layout is not torch.strided:
            raise refuse(f"{path}: a checkpoint holds dense tensors", found=type(leaf).__name__)
        if leaf.dtype not in CODES and not leaf.is_complex():
            raise refuse(f"{path}: a checkpoint cannot hold this dtype", found=str(leaf.dtype))
        if path in found:
            raise refuse(f"{path}: two leaves have this path", hint="rename one; a name may not contain a slash")
        found[path] = leaf
    return found


def describe(leaves: Mapping[str, Tensor]) -> tuple[Leaf, ...]:
    """Path, dtype and shape of each."""
    return tuple(Leaf(path, _name(leaf.dtype), tuple(leaf.shape)) for path, leaf in leaves.items())


def misfits(saved: Iterable[Leaf], wanted: Iterable[Leaf]) -> tuple[Issue, ...]:
    """One issue for each leaf that a checkpoint and a program do not share, by path."""
    theirs, ours = {leaf.path: leaf for leaf in saved}, {leaf.path: leaf for leaf in wanted}
    issues = []
    for path in sorted(theirs.keys() | ours.keys()):
        found, expected = theirs.get(path), ours.get(path)
        if found is None:
            issues.append(Issue(problem=f"{path}: missing from the checkpoint", expected=str(expected)))
        elif expected is None:
            issues.append(Issue(problem=f"{path}: unknown to this program", found=str(found)))
        elif found != expected:
            what = "dtype" if found.shape == expected.shape else "shape"
            issues.append(Issue(problem=f"{path}: another {what}", found=str(found), expected=str(expected)))
    return tuple(issues)


def write_tensors(path: Path, leaves: Mapping[str, Tensor]) -> str:
    """Write dense tensors and sync the file.

    Args:
        path: the file, made anew.
        leaves: by pytree path, as `leaves_of` gives them, on any device, with any strides.

    Returns:
        The sha256 of the file's bytes.

    Raises:
        OSError: the disk is full, or the file cannot be made.
    """
    # Widest first, so that every tensor starts at a multiple of its element size.
    stored = dict(sorted(((n, _stored(t)) for n, t in leaves.items()), key=lambda item: -item[1].element_size()))
    digest = hashlib.sha256()
    with path.open("wb", buffering=0) as file:
        for view in (_header(stored), *(_bytes(tensor) for tensor in stored.values())):
            for chunk in _chunks(memoryview(view)):
                digest.update(chunk)
                _write_all(file.fileno(), chunk)
        os.fsync(file.fileno())
    return digest.hexdigest()


def read_tensors(raw: bytes, leaves: Iterable[Leaf]) -> dict[str, Tensor]:
    """The tensors in a file that `write_tensors` wrote, in host memory at any alignment: copy them before computing.

    Args:
        raw: the file's bytes.
        leaves: what it must hold.

    Raises:
        CheckpointError: it is no safetensors file, or does not hold exactly these leaves.
    """
    try:
        stored = load(raw)
    except safetensors.SafetensorError as error:
        raise refuse("not a readable safetensors file", found=str(error)) from error
    expected = tuple(leaves)
    found = {leaf.path: _restored(stored.pop(leaf.path), leaf) for leaf in expected if leaf.path in stored}
    if stored or describe(found) != expected:
        raise refuse("the file holds other tensors than the manifest says")
    return found


def sha256_of(path: Path) -> str:
    """The digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _stored(tensor: Tensor) -> Tensor:
    """On the host, contiguous; complex numbers as pairs, since safetensors lacks complex128."""
    plain = tensor.detach()
    return (torch.view_as_real(plain.resolve_conj()) if plain.is_complex() else plain).cpu().contiguous()


def _restored(tensor: Tensor, leaf: Leaf) -> Tensor:
    is_pair = leaf.dtype.startswith("complex") and tensor.dim() and tensor.shape[-1] == 2
    # Pairs may lie at any multiple of 8 in the file, and torch crashes on complex128 that is not at one of 16: copy.
    return torch.view_as_complex(tensor.clone()) if is_pair else tensor


def _header(stored: Mapping[str, Tensor]) -> bytes:
    entries: dict[str, Any] = {}
    at = 0
    for name, tensor in stored.items():
        end = at + tensor.nbytes
        entries[name] = {"dtype": CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes(tensor: Tensor) -> Any:
    return tensor.reshape(-1).view(torch.uint8).numpy()


def _chunks(view: memoryview) -> Iterable[memoryview]:
    return (view[start : start + CHUNK] for start in range(0, len(view), CHUNK))


def _write_all(descriptor: int, chunk: memoryview) -> None:
    while chunk:
        chunk = chunk[os.write(descriptor, chunk) :]
