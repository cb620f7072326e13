"""`ftrainer bench` says how long a configuration's own step takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner

from ftrainer import build
from ftrainer.engine.timing import time_backends
from ftrainer.functional import pytree
from ftrainer.run import main
from tests.test_experiment import config
from tests.test_step import assert_trees_equal


def test_every_backend_has_its_turn_and_the_state_stays_valid() -> None:
    state, data = build(config())
    before = pytree.map(lambda leaf: leaf.clone(), state)
    timings = time_backends(state, data, ("eager", "trace"), n_steps=3, rounds=2)
    assert [(t.backend, len(t.steps)) for t in timings] == [("eager", 2), ("trace", 2)]
    assert all(0 < t.median < 1 for t in timings)
    assert_trees_equal(state, before)


def test_the_command_prints_a_table(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(config()))
    result = CliRunner().invoke(main, ["bench", str(path), "--backend", "trace", "--steps", "2", "--rounds", "1"])
    assert result.exit_code == 0, result.output
    assert "trace" in result.output
    assert "data" in result.output
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_the_command_refuses_what_the_device_does_not_have(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(config()))
    result = CliRunner().invoke(main, ["bench", str(path), "--backend", "cuda_graphs"])
    assert result.exit_code != 0
    assert "run.compile" in result.output
    assert "cuda_graphs needs a GPU" in result.output
