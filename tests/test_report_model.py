"""Pictures of models: every part and every connection is there, and nothing lies on anything else."""

from __future__ import annotations

import itertools
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from ftrainer.report.diagram import HEIGHT, diagram, drawn, write_diagram
from ftrainer.report.layering import layout, ranked
from ftrainer.run import main
from registry import ConfigError
from tests.models import graph, sequential
from tests.test_experiment import config

SVG = "{http://www.w3.org/2000/svg}"
SECTION = {
    "inputs": ("obs", "time"),
    "modules": {
        "body": {"_type_": "mlp", "dims": [4, 8]},
        "clock": {"_type_": "nn.Linear", "in_features": 1, "out_features": 8},
    },
    "steps": (
        {"call": "module:body", "args": ("$obs",), "out": "deep"},
        {"call": "module:clock", "args": ("$time",), "out": "when"},
        {"call": "op:add", "args": ("$deep", "$when"), "out": "sum"},
        {"call": "op:cat", "args": (("$sum", "$obs"),), "kwargs": {"dim": -1}, "out": "all"},
    ),
    "outputs": {"y": "$all", "deep": "$deep"},
}


def test_a_graph_is_drawn_with_all_its_connections() -> None:
    boxes, edges = drawn(graph(SECTION))
    assert [(box.kind, box.title) for box in boxes.values()] == [
        ("input", "obs"), ("input", "time"), ("module", "body"), ("module", "clock"), ("op", "add"), ("op", "cat"),
        ("output", "y"), ("output", "deep"),
    ]  # fmt: skip
    assert boxes["step 0"].detail == "mlp dims=[4, 8]"
    assert boxes["step 3"].detail == "dim=-1"
    assert edges == [
        ("in obs", "step 0"), ("in time", "step 1"), ("step 0", "step 2"), ("step 1", "step 2"), ("step 2", "step 3"),
        ("in obs", "step 3"), ("step 3", "out y"), ("step 0", "out deep"),
    ]  # fmt: skip
    root = ElementTree.fromstring(diagram(graph(SECTION)))
    assert len(root.findall(f"{SVG}g")) == len(boxes)
    assert len(root.findall(f"{SVG}path")) == len(edges)
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert "nn.Linear in_features=1, out_features=8" in texts


def test_layers_one_after_another_are_a_chain() -> None:
    layers = ({"_type_": "mlp", "dims": [4, 8]}, {"_type_": "nn.ReLU"})
    boxes, edges = drawn(sequential(*layers))
    assert [box.detail for box in boxes.values()] == ["", "mlp dims=[4, 8]", "nn.ReLU", ""]
    assert len(edges) == 3


def test_what_is_opaque_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is one module whose inside the configuration does not tell"):
        drawn(object())
    for name, message in (("x.png", "a name ending in .svg"), ("gone/x.svg", "no such directory")):
        with pytest.raises(ConfigError, match=message):
            write_diagram(tmp_path / name, graph(SECTION))


@given(st.data(), st.integers(1, 12))
def test_no_box_lies_on_another_and_lines_lead_down(data: st.DataObject, n: int) -> None:
    names = [str(index) for index in range(n)]
    pairs = list(itertools.combinations(names, 2))
    edges = data.draw(st.lists(st.sampled_from(pairs), unique=True, max_size=20)) if pairs else []
    widths = {name: data.draw(st.floats(40, 300)) for name in names}
    found = layout(widths, edges)
    ranks = ranked(names, edges)
    for a, b in pairs:
        (ax, ay), (bx, by) = found.centres[a], found.centres[b]
        assert ay != by or abs(ax - bx) >= (widths[a] + widths[b]) / 2
    for source, target in edges:
        ys = [y for _, y in found.ways[source, target]]
        assert ys == sorted(set(ys))
        assert len(ys) == ranks[target] - ranks[source] + 1
    for name, (x, y) in found.centres.items():
        assert widths[name] / 2 <= x <= found.width - widths[name] / 2
        assert HEIGHT / 2 <= y <= found.height - HEIGHT / 2


def test_the_command_draws_the_model_of_a_configuration(tmp_path: Path) -> None:
    path, out = tmp_path / "mine.yaml", tmp_path / "model.svg"
    path.write_text(yaml.safe_dump(config()))
    result = CliRunner().invoke(main, ["show", str(path), "--model", "--svg", str(out)])
    assert (result.exit_code, result.stdout) == (0, f"{out}\n"), result.output
    assert "mlp dims=[·, 16, 2]" in out.read_text()
    refused = CliRunner().invoke(main, ["show", str(path), "--svg", str(out)])
    assert refused.exit_code == 2
    assert "give --model too" in refused.stderr


def test_training_ends_by_naming_the_next_command(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(config(run={"name": "a", "out_dir": str(tmp_path / "the run"), "compile": "eager"})))
    result = CliRunner().invoke(main, ["train", str(path), "trainer.max_steps=2"])
    assert result.exit_code == 0, result.output
    assert result.stderr.endswith(f"Look at it with:\n  ftrainer report '{tmp_path}/the run'\n")
