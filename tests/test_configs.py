"""Every shipped configuration is valid and takes two steps."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from ftrainer import build, fit
from ftrainer.config import resolve_config

CONFIGS = Path(__file__).parent.parent / "configs"
EXPERIMENTS = sorted((CONFIGS / "experiments").rglob("*.yaml"))
N_EXPERIMENTS, N_PARTS = 8, 7
EXTRAS = {"lunar_lander": ("gymnasium", "h5py", "Box2D")}


def test_every_yaml_is_an_experiment_or_a_part_of_one() -> None:
    found = sorted(CONFIGS.rglob("*.yaml"))
    assert len(EXPERIMENTS) == N_EXPERIMENTS
    assert len(found) == N_EXPERIMENTS + N_PARTS
    parts = {path.parent.name for path in found} - {"experiments"}
    assert parts == {"base", "models"}


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: p.stem)
def test_the_header_says_how_to_use_it(path: Path) -> None:
    header = path.read_text().split("\n\n")[0]
    command = f"#   ftrainer train configs/{path.relative_to(CONFIGS).as_posix()}"
    assert command in header or "Not a run by itself" in header


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_two_steps(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = [name for prefix, names in EXTRAS.items() if path.stem.startswith(prefix) for name in names
               if importlib.util.find_spec(name) is None]  # fmt: skip
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: pip install 'ftrainer[rl]'")
    monkeypatch.chdir(tmp_path)
    overrides = {"trainer.max_steps": 2, "run.out_dir": str(tmp_path / "run"), "run.compile": "trace"}
    if "episodes" in resolve_config(path).data["data"]:
        overrides |= {"data.episodes": 3}
    overrides |= {f"evaluators.{name}.episodes": 1 for name in resolve_config(path).data.get("evaluators") or {}}
    state, data = build(path, overrides)
    trained = fit(state, data)
    assert int(trained.step) == 2
    assert any(not torch.equal(trained.params["model"][name], w) for name, w in state.params["model"].items())
