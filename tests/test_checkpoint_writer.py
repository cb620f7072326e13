"""Saving beside the loop: a snapshot, one write for many names, failures told and survived."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from ftrainer.engine import checkpoint
from ftrainer.engine.tensors import CheckpointError
from ftrainer.engine.writer import BackgroundWriter, finish_group
from ftrainer.functional import pytree
from ftrainer.functional.events import Save
from tests.saved_states import assert_same, small_state, with_params


def asked(directory: Path, *names: str, drop: tuple[str, ...] = ()) -> list[Save]:
    return [Save(directory=str(directory), name=name, drop=drop) for name in names]


def test_a_save_holds_the_state_as_it_was_though_the_loop_goes_on(tmp_path: Path) -> None:
    state = small_state(5)
    with BackgroundWriter() as writer:
        for step in range(10):
            expected = pytree.map(torch.clone, state)
            writer.save(asked(tmp_path, f"step-{step}"), state, {})
            pytree.map(torch.Tensor.zero_ if step == 0 else lambda leaf: leaf.add_(1), state)
            writer.flush()
            assert_same(checkpoint.read(tmp_path / f"step-{step}", state)[0], expected)


def test_saves_of_one_moment_share_their_bytes(tmp_path: Path) -> None:
    with BackgroundWriter() as writer:
        writer.save(asked(tmp_path, "step-1", "last"), small_state(1), {"cursor": {"step": 7}})
        done = writer.flush()
    assert [(written.path, written.step) for written in done] == [(tmp_path / "step-1", 7), (tmp_path / "last", 7)]
    assert len({(written.path / checkpoint.TENSORS).stat().st_ino for written in done}) == 1
    assert checkpoint.verify(tmp_path / "last")["cursor"] == {"step": 7}


def test_leaving_waits_for_the_disk(tmp_path: Path) -> None:
    with BackgroundWriter() as writer:
        writer.save(asked(tmp_path, "last"), with_params({"model": torch.zeros(1_000_000)}), {})
    assert checkpoint.verify(tmp_path / "last")
    assert [written.path for written in writer.poll()] == [tmp_path / "last"]
    assert writer.poll() == []


def test_what_is_dropped_goes_once_the_new_one_stands(tmp_path: Path) -> None:
    with BackgroundWriter() as writer:
        writer.save(asked(tmp_path, "a"), small_state(), {})
        writer.save(asked(tmp_path, "b", drop=("a",)), small_state(), {})
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_group_of_saves_that_a_crash_cut_short_is_finished(tmp_path: Path) -> None:
    with BackgroundWriter() as writer:
        writer.save(asked(tmp_path, "old"), small_state(1), {})
        writer.flush()
        checkpoint.duplicate(tmp_path / "old", tmp_path, "last")
        writer.save([*asked(tmp_path, "new", drop=("old",)), *asked(tmp_path, "last")], small_state(2), {})
        writer.flush()
        new = checkpoint.load_manifest(tmp_path / "new")
        writer.save(asked(tmp_path, "old", "other"), small_state(1), {})
    with (tmp_path / "other" / checkpoint.MANIFEST).open("ab") as file:
        file.write(b"torn")
    shutil.rmtree(tmp_path / "last")
    assert finish_group(tmp_path / "new", new) == (tmp_path / "last",)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "new", "other"]
    assert checkpoint.verify(tmp_path / "last")["step"] == 2
    assert finish_group(tmp_path / "new", new) == ()


def test_finishing_a_group_leaves_newer_siblings_and_other_places_alone(tmp_path: Path) -> None:
    with BackgroundWriter() as writer:
        writer.save(asked(tmp_path, "step-1", "last"), small_state(1), {})
        writer.save(asked(tmp_path, "last"), small_state(2), {})
    manifest = checkpoint.load_manifest(tmp_path / "step-1")
    assert finish_group(tmp_path / "step-1", manifest) == ()
    assert checkpoint.load_manifest(tmp_path / "last")["step"] == 2
    moved = (tmp_path / "step-1").rename(tmp_path / "mine")
    shutil.rmtree(tmp_path / "last")
    assert finish_group(moved, manifest) == ()


def test_a_save_that_fails_is_told_and_the_next_succeeds(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with BackgroundWriter() as writer:
        writer.save([*asked(tmp_path / "file", "last"), *asked(tmp_path, "last")], small_state(3), {})
        failed, written = writer.flush()
    assert failed.path is None
    assert "file" in str(failed.failure)
    assert written.path == tmp_path / "last"


def test_states_of_any_structure_may_follow_each_other(tmp_path: Path) -> None:
    with BackgroundWriter() as writer:
        for width in (4, 6):
            writer.save(asked(tmp_path, "last"), small_state(1, width), {})
            writer.flush()
            assert_same(checkpoint.read(tmp_path / "last", small_state(0, width))[0], small_state(1, width))


def test_what_cannot_be_kept_is_refused_where_it_is_asked_for(tmp_path: Path) -> None:
    with (
        BackgroundWriter() as writer,
        pytest.raises(CheckpointError, match="params/a: a checkpoint holds dense tensors"),
    ):
        writer.save(asked(tmp_path, "last"), with_params({"a": 1.0}), {})
