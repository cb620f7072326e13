"""Checkpoints: everything comes back to the bit, and what does not fit is named."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from ftrainer.engine import checkpoint
from ftrainer.engine.environment import drift
from ftrainer.engine.tensors import CODES, CheckpointError
from ftrainer.functional.state import Program, TrainState
from registry import component
from tests.saved_states import assert_same, save, small_state, with_params

DTYPES = (*CODES, torch.complex64, torch.complex128)
SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@component
class OtherLearner:
    """Another program."""


def tensor(shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> Tensor:
    values = torch.arange(math.prod(shape), dtype=torch.float64).reshape(shape)
    made = torch.complex(values, -values).to(dtype) if dtype.is_complex else values.to(dtype)
    if layout == "conjugated" and dtype.is_complex:
        return made.conj()
    return made.mT if layout == "transposed" and made.dim() > 1 else made


def round_trip(state: TrainState, directory: Path, **manifest: Any) -> tuple[TrainState, dict[str, Any]]:
    return checkpoint.read(checkpoint.write(directory, "last", state, manifest), state)


LEAF = st.builds(tensor, SHAPES, st.sampled_from(DTYPES), st.sampled_from(["plain", "transposed", "conjugated"]))
TREE = st.recursive(
    LEAF, lambda inner: st.dictionaries(st.text(min_size=1).filter(lambda s: "/" not in s), inner) | st.lists(inner)
)


@settings(max_examples=50)
@given(tree=TREE)
def test_every_tree_comes_back_to_the_bit(tmp_path_factory: pytest.TempPathFactory, tree: Any) -> None:
    state = with_params({"model": tree})
    restored, _ = round_trip(state, tmp_path_factory.mktemp("checkpoint"))
    assert_same(restored, state)
    assert restored.program is state.program


def test_leaves_that_share_storage_come_back_apart(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    state = with_params({"a": shared, "b": shared[2:], "c": shared.expand(2, 6)})
    restored, _ = round_trip(state, tmp_path)
    assert_same(restored, state)
    restored.params["a"].zero_()
    assert restored.params["b"].tolist() == [2, 3, 4, 5]


def test_a_restored_state_does_not_hang_on_its_file(tmp_path: Path) -> None:
    path = save(tmp_path)
    restored, _ = checkpoint.read(path, small_state())
    restored.params["model"]["0.weight"].fill_(9)
    (path / checkpoint.TENSORS).write_bytes(b"")
    assert restored.params["model"]["0.weight"].eq(9).all()


def test_the_file_is_ordinary_safetensors(tmp_path: Path) -> None:
    path = save(tmp_path, step=3)
    with safe_open(path / checkpoint.TENSORS, framework="numpy") as file:
        assert file.get_tensor("params/model/0.weight")[0, 0] == 3
        assert set(file.keys()) == set(map(str, (leaf["path"] for leaf in checkpoint.load_manifest(path)["leaves"])))


def test_the_manifest_comes_back_with_what_surrounded_the_state(tmp_path: Path) -> None:
    given = {"cursor": {"step": 3}, "callbacks": [{"best": math.inf, "bad": 0}], "config": {"betas": (0.9, 0.99)}}
    _, manifest = round_trip(small_state(3), tmp_path, **given)
    assert manifest["cursor"] == {"step": 3}
    assert manifest["callbacks"] == [{"best": math.inf, "bad": 0}]
    assert manifest["config"] == {"betas": [0.9, 0.99]}
    assert (manifest["step"], manifest["tick"]) == (3, 6)
    assert manifest["learner"] == "tests.saved_states.Learner"
    assert manifest["environment"]["torch"] == torch.__version__
    assert json.loads((tmp_path / "last" / checkpoint.MANIFEST).read_text())["digest"]


def test_a_second_save_replaces_the_first_and_leaves_nothing_behind(tmp_path: Path) -> None:
    save(tmp_path, step=1)
    save(tmp_path, step=2)
    assert checkpoint.load_manifest(tmp_path / "last")["step"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_a_duplicate_is_a_checkpoint_of_its_own(tmp_path: Path) -> None:
    first = save(tmp_path, "step-1", step=1)
    second = checkpoint.duplicate(first, tmp_path / "elsewhere", "last")
    checkpoint.prune(tmp_path, ["step-1"])
    assert checkpoint.verify(second)["step"] == 1


def test_reading_is_steady_while_a_run_replaces_the_checkpoint(tmp_path: Path) -> None:
    save(tmp_path)
    done = threading.Event()

    def keep_replacing() -> None:
        step = 0
        while not done.is_set():
            save(tmp_path, step=(step := step + 1))

    writer = threading.Thread(target=keep_replacing)
    writer.start()
    try:
        for _ in range(100):
            state, manifest = checkpoint.read(tmp_path / "last", small_state())
            assert int(state.step) == manifest["step"]
    finally:
        done.set()
        writer.join()


def test_looking_for_the_newest_is_steady_while_a_run_saves_and_prunes(tmp_path: Path) -> None:
    save(tmp_path)
    done = threading.Event()

    def keep_saving() -> None:
        step = 0
        while not done.is_set():
            save(tmp_path, f"step-{(step := step + 1)}", step=step)
            checkpoint.prune(tmp_path, [f"step-{step - 1}"])
            save(tmp_path, step=step)

    writer = threading.Thread(target=keep_saving)
    writer.start()
    try:
        for _ in range(60):
            path, skipped = checkpoint.latest(tmp_path)
            assert path is not None
            assert not skipped
            assert checkpoint.verify(tmp_path / "last")["step"] >= 0
    finally:
        done.set()
        writer.join()


def test_leaves_that_do_not_fit_are_a_table_by_path(tmp_path: Path) -> None:
    wider = with_params({"model": {"0.weight": torch.zeros(5, 3), "0.bias": torch.zeros(5)}})
    wider.opt_state["model"]["mu"] = torch.zeros(4, 3, dtype=torch.float64)
    del wider.opt_state["model"]["count"]
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read(save(tmp_path), wider)
    headline, *table = map(str, caught.value.issues)
    assert headline.endswith("last: 4 leaves of the checkpoint do not fit this program")
    assert table == [
        "opt_state/model/count: unknown to this program; found int64 ()",
        "opt_state/model/mu: another dtype; found float32 (4, 3); expected float64 (4, 3)",
        "params/model/0.bias: missing from the checkpoint; expected float32 (5,)",
        "params/model/0.weight: another shape; found float32 (4, 3); expected float32 (5, 3)",
    ]


def test_a_checkpoint_of_another_program_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"a checkpoint of another program; found tests.saved_states.Learner; exp.*Other"
    ):
        checkpoint.read(save(tmp_path), small_state(width=8, learner=OtherLearner()))


def test_what_surrounds_the_step_may_change(tmp_path: Path) -> None:
    later = attrs.evolve(small_state(), program=Program(learner=OtherLearner(), loggers=(OtherLearner(),)))
    restored, _ = checkpoint.read(save(tmp_path, step=4), later)
    assert int(restored.step) == 4
    assert restored.program.loggers == (OtherLearner(),)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"a": 1.0}, "params/a: a checkpoint holds dense tensors; found float"),
        ({"a": torch.zeros(2).to_sparse()}, "params/a: a checkpoint holds dense tensors; found Tensor"),
        ({"a": torch.zeros(1, dtype=torch.float8_e8m0fnu)}, "params/a: a checkpoint cannot hold this dtype"),
        ({"a/b": torch.zeros(1), "a": {"b": torch.zeros(1)}}, "params/a/b: two leaves have this path"),
    ],
)
def test_what_a_checkpoint_cannot_hold_is_refused_by_path(tmp_path: Path, params: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        checkpoint.write(tmp_path, "last", with_params(params), {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"step": 3}, "fills these manifest entries itself; found step"),
        ({"callbacks": [{"seen": {1, 2}}]}, "cannot: /callbacks/0/seen: set is no JSON data"),
    ],
)
def test_a_manifest_entry_that_cannot_be_kept_is_refused(tmp_path: Path, manifest: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        checkpoint.write(tmp_path, "last", small_state(), manifest)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden"])
def test_a_name_that_is_no_plain_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="must be a plain file name"):
        checkpoint.write(tmp_path, name, small_state(), {})


def test_no_checkpoint_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: no checkpoint there"):
        checkpoint.read(tmp_path / "nowhere", small_state())
    assert checkpoint.latest(tmp_path / "nowhere") == (None, ())


def test_latest_is_the_one_written_last_in_any_directory(tmp_path: Path) -> None:
    save(tmp_path / "a", "z", step=9)
    newest = save(tmp_path / "b", "a", step=1)
    assert checkpoint.latest(tmp_path / "a", tmp_path / "b") == (newest, ())


def test_prune_removes_by_name_and_spares_strangers(tmp_path: Path) -> None:
    for name in ("one", "two", "mine"):
        save(tmp_path, name)
    assert checkpoint.prune(tmp_path, ["one", "two", "never-was"]) == ("one", "two")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_prune_never_removes_the_last_intact_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, "old", step=1)
    save(tmp_path, "good", step=2)
    (save(tmp_path, "new", step=3) / checkpoint.TENSORS).write_bytes(b"torn")
    assert checkpoint.prune(tmp_path, ["old", "good"]) == ("old",)
    assert checkpoint.latest(tmp_path)[0] == tmp_path / "good"


def test_drift_names_what_changed_about_the_machine(tmp_path: Path) -> None:
    manifest = checkpoint.load_manifest(save(tmp_path))
    assert drift(manifest) == ()
    manifest["environment"]["torch"] = "1.13.0"
    assert drift(manifest) == (f"torch: 1.13.0 -> {torch.__version__}",)
