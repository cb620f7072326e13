"""What the README prints runs as it is printed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ftrainer import TrainState

ROOT = Path(__file__).parent.parent


def test_the_python_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "README.md").read_text()
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "import build" in block]
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)
    trained, loaded = names["trained"], names["state"]
    assert isinstance(names["module"], nn.Module)
    assert isinstance(loaded, TrainState)
    assert int(loaded.step) == int(trained.step) == 200
    for name, weight in trained.params["model"].items():
        assert torch.equal(loaded.params["model"][name], weight), name
