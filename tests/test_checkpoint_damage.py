"""Damaged, half-written and forged checkpoints: every one is noticed, none is loaded, nothing is executed."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftrainer.engine import checkpoint
from ftrainer.engine.manifest import sealed
from ftrainer.engine.tensors import CheckpointError, sha256_of
from tests.saved_states import flip, save, small_state

FILES = (checkpoint.TENSORS, checkpoint.MANIFEST)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """An older and a newer checkpoint."""
    return save(tmp_path, "older", step=1, callbacks=[{"best": 0.5}]), save(tmp_path, "newer", step=2)


def assert_passed_over(older: Path, newer: Path, damage: str) -> None:
    with pytest.raises(CheckpointError, match="newer: "):
        checkpoint.read(newer, small_state())
    found, skipped = checkpoint.latest(newer.parent)
    assert found == older, damage
    assert len(skipped) == 1, damage
    assert "damaged checkpoint" in str(skipped[0]), damage


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_noticed(pair: tuple[Path, Path], name: str) -> None:
    older, newer = pair
    file = newer / name
    whole = file.read_bytes()
    for bit in random.Random(0).sample(range(8 * len(whole)), 400):
        flip(file, bit)
        assert_passed_over(older, newer, f"{name}, bit {bit}")
        file.write_bytes(whole)
    assert checkpoint.latest(newer.parent) == (newer, ())


@pytest.mark.parametrize("name", FILES)
def test_every_truncation_and_every_appended_byte_is_noticed(pair: tuple[Path, Path], name: str) -> None:
    older, newer = pair
    file = newer / name
    whole = file.read_bytes()
    lengths = {0, len(whole) - 1, *random.Random(0).sample(range(len(whole)), 100)}
    for torn in (*(whole[:length] for length in lengths), whole + b"\n", whole + b"\0"):
        file.write_bytes(torn)
        assert_passed_over(older, newer, f"{name}, {len(torn)} bytes of {len(whole)}")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_noticed(pair: tuple[Path, Path], name: str) -> None:
    older, newer = pair
    (newer / name).unlink()
    assert_passed_over(older, newer, f"no {name}")


def test_a_checkpoint_made_of_two_is_noticed(pair: tuple[Path, Path]) -> None:
    older, newer = pair
    (newer / checkpoint.TENSORS).write_bytes((older / checkpoint.TENSORS).read_bytes())
    assert_passed_over(older, newer, "the tensors of another checkpoint")


def forge(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a manifest and seal it again, as one with ill intent could."""
    content = checkpoint.load_manifest(path)
    change(content)
    content["tensors"] = {**content["tensors"], "sha256": sha256_of(path / checkpoint.TENSORS)}
    (path / checkpoint.MANIFEST).write_bytes(sealed(content))


class Bomb:
    """Writes a file when unpickled."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


def test_a_pickle_in_place_of_the_tensors_is_never_run(tmp_path: Path) -> None:
    path, target = save(tmp_path), tmp_path / "executed"
    bomb = pickle.dumps(Bomb(target))
    (path / checkpoint.TENSORS).write_bytes(bomb)
    forge(path, lambda content: None)
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        checkpoint.read(path, small_state())
    (path / checkpoint.MANIFEST).write_bytes(bomb)
    with pytest.raises(CheckpointError, match=r"damaged checkpoint: manifest\.json is not JSON"):
        checkpoint.read(path, small_state())
    assert not target.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("leaves"), "manifest.json lacks an entry"),
        (lambda m: m.update(leaves=[3]), "manifest.json lists no leaves"),
        (
            lambda m: m.update(leaves=[{"path": "a", "dtype": "float32", "shape": ["x"]}]),
            "manifest.json lists no leaves",
        ),
        (lambda m: m["leaves"].pop(), "leaves of the checkpoint do not fit"),
        (lambda m: m.update(format=99), "another kind of file; found 'ftrainer checkpoint', format 99"),
        (lambda m: m.update(kind="recipe"), "another kind of file; found 'recipe', format 1"),
    ],
)
def test_a_forged_manifest_is_an_error_like_any_other(tmp_path: Path, change: Any, message: str) -> None:
    path = save(tmp_path)
    forge(path, change)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.read(path, small_state())


def test_tensors_that_differ_from_the_sealed_list_are_refused(tmp_path: Path) -> None:
    path, other = save(tmp_path), checkpoint.write(tmp_path, "other", small_state(width=5), {})
    (path / checkpoint.TENSORS).write_bytes((other / checkpoint.TENSORS).read_bytes())
    forge(path, lambda content: None)
    with pytest.raises(CheckpointError, match="holds other tensors than the manifest says"):
        checkpoint.read(path, small_state())


@pytest.mark.parametrize("text", [b"", b"[" * 100_000, b"9" * 10_000, b"[1]", b"null", b"\xff\xfe", b'{"kind": 1}'])
def test_a_manifest_of_any_text_is_an_error_like_any_other(tmp_path: Path, text: bytes) -> None:
    path = save(tmp_path)
    (path / checkpoint.MANIFEST).write_bytes(text)
    with pytest.raises(CheckpointError, match=r"manifest.json (is not JSON|bears no digest)"):
        checkpoint.load_manifest(path)


def test_json_that_means_the_same_in_other_bytes_is_refused(tmp_path: Path) -> None:
    file = save(tmp_path) / checkpoint.MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text())))
    with pytest.raises(CheckpointError, match="does not match its own digest"):
        checkpoint.load_manifest(tmp_path / "last")


def test_a_file_that_cannot_be_read_counts_as_damaged(pair: tuple[Path, Path]) -> None:
    older, newer = pair
    (newer / checkpoint.TENSORS).unlink()
    (newer / checkpoint.TENSORS).mkdir()
    assert_passed_over(older, newer, "a directory in place of the tensors")
