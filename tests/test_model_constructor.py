"""The other library's YAML: read as it stands, or built by that library where it is installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ftrainer.config import resolve_config
from ftrainer.functional.random import key
from ftrainer.model import build_model
from registry import ConfigError
from tests.models import REGISTRY

SKIP = """\
schema_version: 1
templates:
  conv3x3: {_type_: conv_bn_act, kernel_size: 3, padding: 1}
params: {width: 16}
model:
  graph:
    inputs: [x]
    modules:
      stem: {_template_: conv3x3, in_channels: null, out_channels: "${params.width}"}
      main: {_template_: conv3x3, in_channels: 16, out_channels: 16, act: {_type_: nn.Identity}}
    nodes:
      h1: {call: module:stem, args: [$x]}
      h2: {call: module:main, args: [$h1]}
      h3: {call: op:add, args: [$h1, $h2]}
    order: [h1, h2, h3]
    outputs: [$h3]
    return: single
"""
STACK = """\
schema_version: 1
model:
  sequential:
    inputs: [x]
    layers:
      - {_type_: nn.Flatten}
      - {_type_: mlp, dims: [null, 64, 16], dropout: 0.1, activation: {_type_: nn.GELU}}
      - {_type_: nn.Linear, _args_: [16, 3], _kwargs_: {bias: false}}
    return: single
"""
PACKAGE = """\
import pathlib

import torch


def build_model(path):
    if "bad" in pathlib.Path(path).read_text():
        from .errors import ConfigError
        raise ConfigError("not like this")
    module = torch.nn.Linear(3, 2)
    module.inputs = ["x"]
    return module
"""
ERRORS = """\
class ModelConstructorError(Exception): ...


class ConfigError(ModelConstructorError): ...
"""


@pytest.mark.parametrize(("text", "shape", "n_outputs"), [(SKIP, (2, 3, 5, 5), 16), (STACK, (2, 3, 4), 3)])
def test_its_files_run_unchanged(tmp_path: Path, text: str, shape: tuple[int, ...], n_outputs: int) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(text)
    model = build_model(REGISTRY, resolve_config(path).data["model"])
    x = torch.randn(shape)
    outputs, _ = model.apply(*model.init(key(0), {"x": x}), {"x": x}, key(1), train=True)
    assert outputs.shape[:2] == (2, n_outputs)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of the other library's name, with its one function and its error."""
    package = tmp_path / "site" / "model_constructor"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(PACKAGE)
    (package / "errors.py").write_text(ERRORS)
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield package
    for name in [name for name in sys.modules if name.split(".")[0] == "model_constructor"]:
        del sys.modules[name]


def test_where_it_is_installed_it_builds(tmp_path: Path, installed: Path) -> None:
    del installed
    path = tmp_path / "theirs.yaml"
    path.write_text("model: {}")
    model = build_model(REGISTRY, {"_type_": "model.constructor", "config_path": str(path), "freeze": ["bias"]})
    assert model.inputs == ("x",)
    params, buffers = model.init(key(0), {"x": torch.zeros(2, 3)})
    assert (list(params), list(buffers)) == (["weight"], ["bias"])
    path.write_text("model: {} # changed")
    assert build_model(REGISTRY, {"_type_": "model.constructor", "config_path": str(path), "freeze": ["bias"]}) != model


def test_what_it_refuses_is_an_error_at_the_path(tmp_path: Path, installed: Path) -> None:
    path = tmp_path / "theirs.yaml"
    path.write_text("bad")
    with pytest.raises(ConfigError, match=r"model\.config_path: model_constructor refuses the file: not like this"):
        build_model(REGISTRY, {"_type_": "model.constructor", "config_path": str(path)})
    (installed / "__init__.py").write_text("import nothing_of_this_name")
    for name in [name for name in sys.modules if name.split(".")[0] == "model_constructor"]:
        del sys.modules[name]
    path.write_text("worse")
    with pytest.raises(
        ConfigError, match="model_constructor cannot be imported: No module named 'nothing_of_this_name'"
    ):
        build_model(REGISTRY, {"_type_": "model.constructor", "config_path": str(path)})


def test_where_it_is_missing_the_error_says_so(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("model: {}")
    with pytest.raises(ConfigError, match="model: needs the package model_constructor, which cannot be imported here"):
        build_model(REGISTRY, {"_type_": "model.constructor", "config_path": str(tmp_path / "m.yaml")})
    with pytest.raises(ConfigError, match=r"model\.config_path: there is no such file"):
        build_model(REGISTRY, {"_type_": "model.constructor", "config_path": str(tmp_path / "n.yaml")})
