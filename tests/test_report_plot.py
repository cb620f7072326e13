"""Plots of runs: what is in the picture, not only that there is one."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from ftrainer.components.loggers.drawing import COLOURS, OKABE_ITO, running_mean
from ftrainer.report.groups import chosen_figures, group_runs, title_of
from ftrainer.report.plots import BAND, picture
from ftrainer.report.runs import gather
from ftrainer.run import main
from tests.written_runs import falling, replicated, row, write_run

pytest.importorskip("matplotlib", reason="needs matplotlib")


def noisy(n: int, level: float) -> list[dict[str, object]]:
    return [row(k, loss=level + (k % 2) / 2) for k in range(1, n + 1)]


def test_one_run_shows_its_splits_in_their_colours_and_says_what_was_smoothed(tmp_path: Path) -> None:
    write_run(tmp_path / "one", [*noisy(200, 1.0), row(200, "val", loss=1.0)])
    groups = group_runs(gather([tmp_path])[0])
    figure = picture(groups, chosen_figures(groups, []))
    (loss,) = [axes for axes in figure.axes if axes.axison]
    assert figure.get_suptitle() == "one · optim.sgd · lr 0.1"
    assert loss.get_title() == "loss"
    assert loss.get_title(loc="right") == "line: mean of 9 rows"
    assert {line.get_color() for line in loss.get_lines()} == {COLOURS["train"], COLOURS["val"]}
    smooth = loss.get_lines()[1].get_ydata()
    assert smooth == pytest.approx(running_mean(np.array([1 + (k % 2) / 2 for k in range(1, 201)]), 4))


def test_seeds_are_a_mean_with_a_band(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        for seed in (0, 1):
            write_run(tmp_path / f"{lr}-{seed}", falling(scale=1 + 2 * seed), lr=lr, seed=seed)
    groups = group_runs(gather([tmp_path])[0])
    figure = picture(groups, ["train/loss"])
    (axes,) = figure.axes
    assert [line.get_ydata()[0] for line in axes.get_lines()] == [2.0, 2.0]
    assert len(axes.collections) == 2
    vertices = axes.collections[0].get_paths()[0].vertices
    assert vertices[:, 1].max() == 3.0
    assert math.isclose(vertices[:, 1].min(), 0.1)
    assert BAND in figure.get_suptitle()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["lr=0.1 (2 seeds)", "lr=0.2 (2 seeds)"]
    looks = [(line.get_color(), line.get_linestyle()) for line in axes.get_lines()]
    assert [colour for colour, _ in looks] == list(OKABE_ITO[:2])
    assert looks[0][1] != looks[1][1]


def test_members_of_a_replicated_run_are_seeds(tmp_path: Path) -> None:
    rows, members = replicated(seeds=[0, 1, 2], lrs=[0.1, 0.2])
    write_run(tmp_path / "many", rows, members=members)
    groups = group_runs(gather([tmp_path])[0])
    (axes,) = picture(groups, ["val/loss"]).axes
    assert title_of(groups) == "many · optim.sgd"
    assert [line.get_ydata()[0] for line in axes.get_lines()] == [2.0, 5.0]


def test_an_axis_is_logarithmic_where_the_values_ask_for_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name, [row(k, loss=10.0**-k, flat=1.0 + k) for k in range(1, 5)])
    groups = group_runs(gather([tmp_path])[0])
    scales = {axes.get_title(): axes.get_yscale() for axes in picture(groups, ["train/loss", "train/flat"]).axes}
    assert scales == {"train/loss": "log", "train/flat": "linear"}


def test_a_png_holds_the_curves_colours(tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image", reason="needs matplotlib")
    write_run(tmp_path / "a", falling(), lr=0.1)
    write_run(tmp_path / "b", falling(scale=3), lr=0.2)
    out = tmp_path / "out.png"
    result = CliRunner().invoke(main, ["plot", str(tmp_path), "--metric", "loss", "--out", str(out)])
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    pixels = (image.imread(out)[..., :3] * 255).round().astype(int).reshape(-1, 3)
    for colour in OKABE_ITO[:2]:
        wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        assert (pixels == wanted).all(axis=1).sum() > 50, colour


def test_an_svg_is_drawn_and_runs_without_a_figure_are_named(tmp_path: Path) -> None:
    write_run(tmp_path / "a", falling())
    write_run(tmp_path / "b", [row(1, accuracy=0.5)], lr=0.2)
    out = tmp_path / "out.svg"
    result = CliRunner().invoke(main, ["plot", str(tmp_path), "--out", str(out)])
    assert result.exit_code == 0
    assert "a has no train/accuracy" in result.stderr
    assert "b has no val/loss, train/loss" in result.stderr
    assert ElementTree.parse(out).getroot().tag.endswith("svg")


@pytest.mark.parametrize(
    ("out", "message"), [("x.pdf", "a name ending in .png or .svg"), ("gone/x.png", "no such directory")]
)
def test_a_place_where_no_picture_can_go_is_refused(tmp_path: Path, out: str, message: str) -> None:
    write_run(tmp_path / "a", falling())
    result = CliRunner().invoke(main, ["plot", str(tmp_path / "a"), "--out", str(tmp_path / out)])
    assert result.exit_code == 2
    assert message in result.stderr


def test_many_rows_take_no_long_time_to_draw(tmp_path: Path) -> None:
    write_run(tmp_path / "a", noisy(3000, 1.0))
    write_run(tmp_path / "b", noisy(3000, 2.0), seed=1)
    groups = group_runs(gather([tmp_path])[0])
    (axes,) = picture(groups, ["train/loss"]).axes
    assert len(axes.get_lines()[0].get_ydata()) == 1000
    assert axes.get_title(loc="right") == "line: mean of 121 rows"
