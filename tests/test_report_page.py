"""The page about runs, read as text and opened in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ftrainer.report.groups import chosen_figures, group_runs
from ftrainer.report.page import write_report
from ftrainer.report.panels import limit_for
from ftrainer.report.runs import gather
from ftrainer.run import main
from registry import ConfigError
from tests.written_runs import falling, replicated, row, write_run

pytest.importorskip("bokeh", reason="needs bokeh")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs the program chromium")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--enable-logging=stderr", "--virtual-time-budget=20000",
)  # fmt: skip


def report(out: Path, *paths: Path) -> str:
    runs, _ = gather(paths)
    write_report(out, runs, chosen_figures(group_runs(runs), []))
    return out.read_text()


def section(text: str, anchor: str) -> str:
    found = re.search(rf'<section id="{anchor}">(.*?)</section>', text, re.DOTALL)
    assert found, anchor
    return unescape(re.sub(r"<[^>]+>", " ", found[1]))


def several(root: Path) -> list[Path]:
    """Four plain runs of two configurations, a replicated one, and one with a bad past."""
    moment = {"time": 1.7e9, "level": "warning"}
    notes = [{**moment, "message": "step 7 was skipped", "kind": "bad step", "step": 7, "member": None},
             {**moment, "message": "retrace of update: a became b", "kind": "retrace"}]  # fmt: skip
    noise = [row(k, loss=1 + (k % 2) / 2, grad_norm=1 / k) for k in range(1, 3001)]
    paths = [
        write_run(root / f"lr{lr}-{seed}", falling(scale=1 + seed), lr=lr, seed=seed)
        for lr in (0.1, 0.2) for seed in (0, 1)
    ]  # fmt: skip
    rows, members = replicated(seeds=[0, 1, 2], lrs=[0.3])
    many = write_run(root / "many", rows, lr=0.3, members=members)
    return [*paths, many, write_run(root / "noisy <&>", noise, lr=0.4, notes=notes)]


def test_the_page_tells_everything_about_its_runs(tmp_path: Path) -> None:
    text = report(tmp_path / "report.html", *several(tmp_path / "runs"))
    assert "noisy <&>" in section(text, "runs")
    assert "noisy <&>" not in text.split("<script")[0]
    assert "finished" in section(text, "runs")
    assert "3000 points" not in text
    assert re.search(r"2 curves have more rows than a plot has pixels: of those at most 1000 points", text)
    assert "lr=0.1 (2 seeds)" in section(text, "curves")
    estimates = section(text, "estimates")
    assert "0.15 ± 0.0707" in estimates
    assert "0.1 … 0.2" in estimates
    assert "95% interval of the IQM" in estimates
    assert "optimizer.lr" in section(text, "differences")
    assert "torch" in section(text, "machine")
    notes = section(text, "notes")
    assert "1: 7" in notes
    assert "retrace of update: a became b" in notes
    assert "# mine.yaml:2" in section(text, "configuration")
    assert "# override" in section(text, "configuration")


def test_the_page_asks_for_nothing_from_anywhere(tmp_path: Path) -> None:
    text = report(tmp_path / "report.html", *several(tmp_path / "runs"))
    assert not re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(?!data:)', text)
    assert "default-src 'none'" in text
    assert len(text.encode()) < 2_500_000


def test_runs_without_origins_notes_or_rows_are_shown_as_they_are(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a")
    for name in ("status.json", "notes.jsonl", "config.origin.yaml", "metrics.jsonl"):
        (path / name).unlink()
    result = CliRunner().invoke(main, ["report", str(path), "--out", str(tmp_path / "r.html")])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "r.html").read_text()
    assert "Nothing was logged yet." in section(text, "curves")
    assert "where its values came from was not recorded" in section(text, "configuration")
    assert "an earlier version wrote them" in section(text, "machine")


def test_a_running_run_with_a_torn_line_and_another_metric_is_shown(tmp_path: Path) -> None:
    write_run(tmp_path / "a", falling())
    write_run(tmp_path / "b", [row(1, accuracy=0.5)], lr=0.2)
    with (tmp_path / "a" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 110, "ep')
    text = report(tmp_path / "r.html", tmp_path)
    assert "1 lines of its metrics cannot be read" in section(text, "runs")
    assert "b has no val/loss, train/loss" in section(text, "curves")


@pytest.mark.parametrize(
    ("out", "message"), [("x.png", "a name ending in .html"), ("gone/x.html", "no such directory")]
)
def test_a_place_where_no_page_can_go_is_refused(tmp_path: Path, out: str, message: str) -> None:
    runs, _ = gather([write_run(tmp_path / "a", falling())])
    with pytest.raises(ConfigError, match=message):
        write_report(tmp_path / out, runs, [])


def test_a_missing_library_is_an_error_of_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bokeh.plotting", None)
    write_run(tmp_path / "a", falling())
    result = CliRunner().invoke(main, ["report", str(tmp_path / "a"), "--out", str(tmp_path / "r.html")])
    assert result.exit_code == 2
    assert "ftrainer report needs the package 'bokeh.plotting': pip install 'ftrainer[report]'" in result.stderr


def test_twenty_runs_of_ten_thousand_rows_are_quick_and_small(tmp_path: Path) -> None:
    for index in range(20):
        rows = [row(k, loss=1 / k + (k * index % 7) / 9, grad_norm=(k % 5) + 1.0) for k in range(1, 10_001)]
        write_run(tmp_path / "runs" / f"r{index}", rows, lr=0.1 + index)
    began = time.process_time()
    text = report(tmp_path / "report.html", tmp_path / "runs")
    assert time.process_time() - began < 5
    assert len(text.encode()) < 5_000_000
    assert f"at most {limit_for(80)} points" in text


PROBE = """<script>
const problems = [];
addEventListener("error", (event) => { if (!/ResizeObserver/.test(event.message)) problems.push(event.message); });
addEventListener("securitypolicyviolation", (event) => problems.push(event.violatedDirective + " " + event.blockedURI));
console.error = (...words) => problems.push(words.join(" "));
addEventListener("load", () => setTimeout(() => {
  const plots = () => Bokeh.documents.flatMap((each) => each.roots());
  const lines = () => plots().flatMap((plot) => plot.renderers.filter((drawn) => drawn.tags.includes("line")));
  const facts = { plots: plots().map((plot) => plot.name) };
  facts.lines = lines().map((line) => [line.name, line.data_source.get_length()]);
  const boxes = [...document.querySelectorAll(".grid figure")].map((each) => each.getBoundingClientRect());
  facts.drawn = boxes.map((box) => [box.width, box.height]);
  facts.overflow = document.documentElement.scrollWidth - innerWidth;
  facts.width = innerWidth;
  const box = document.querySelector('.bar input[value="group-0"]');
  box.click();
  facts.hidden = lines().filter((line) => !line.visible).map((line) => line.name);
  box.click();
  facts.back = lines().every((line) => line.visible);
  const [first] = plots();
  const before = [first.x_range.start, first.x_range.end];
  facts.range = before;
  facts.shared = plots().every((plot) => plot.x_range === first.x_range);
  facts.hover = plots().every((plot) => plot.toolbar.tools.some((tool) => tool.type === "HoverTool"));
  facts.problems = problems;
  parent.postMessage(JSON.stringify(facts), "*");
}, 3000));
</script>"""
FRAME = """<!doctype html><body style="margin:0">
<script>
addEventListener("message", (event) => {
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = event.data;
  document.body.append(out);
});
</script>
<iframe src="probed.html" width="{width}" height="1500" style="border:0"></iframe>"""
"""A window of the browser is at least 500 pixels wide, a frame in it as wide as it is told to be."""


def browse(page: Path, *more: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [CHROMIUM, *QUIET, f"--user-data-dir={profile}", *more, page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def probed(page: Path, width: int) -> tuple[dict[str, Any], Sequence[str]]:
    """What a script inside the opened page finds, and the browser's own complaints."""
    copy = page.with_name("probed.html")
    copy.write_text(page.read_text().replace("<head>", f"<head>{PROBE}", 1))
    frame = page.with_name("frame.html")
    frame.write_text(FRAME.replace("{width}", str(width)))
    done = browse(frame, "--dump-dom", "--window-size=1400,1500")
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    complaints = [
        line for line in done.stderr.splitlines() if "CONSOLE" in line and re.search(r"Uncaught|Refused|rror:", line)
    ]
    return json.loads(unescape(found[1])), complaints


@needs_browser
@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_shows_all_curves_and_complains_of_nothing(tmp_path: Path, width: int) -> None:
    pages = tmp_path / "page"
    pages.mkdir()
    report(pages / "report.html", *several(tmp_path / "runs"))
    facts, complaints = probed(pages / "report.html", width)
    assert facts["problems"] == []
    assert complaints == []
    assert facts["plots"] == ["val/loss", "train/loss", "train/grad_norm"]
    names = [name for name, _ in facts["lines"]]
    labels = ["lr=0.1 (2 seeds)", "lr=0.2 (2 seeds)", "lr=0.3 (3 seeds)"]
    assert names == [*labels, *labels, "lr=0.4", "lr=0.4"]
    assert all(0 < points <= 1000 for _, points in facts["lines"])
    assert all(box[0] <= facts["width"] and box[1] > 300 for box in facts["drawn"])
    assert facts["overflow"] <= 0
    assert facts["width"] == width
    assert facts["hidden"] == [labels[0]] * 2
    assert facts["back"]
    assert facts["shared"]
    assert facts["hover"]
    assert facts["range"][0] < facts["range"][1]


@needs_browser
def test_a_screenshot_shows_the_colours_of_the_curves(tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image", reason="needs matplotlib")
    report(tmp_path / "report.html", *several(tmp_path / "runs"))
    shot = tmp_path / "shot.png"
    browse(tmp_path / "report.html", f"--screenshot={shot}", "--window-size=1280,1600")
    pixels = (image.imread(shot)[..., :3] * 255).round().astype(int).reshape(-1, 3)
    for wanted in ([0, 114, 178], [213, 94, 0], [0, 158, 115], [204, 121, 167]):
        assert (pixels == wanted).all(axis=1).sum() > 30, wanted
