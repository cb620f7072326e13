"""One self-contained page about one or many runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from ftrainer.components.data.extras import require
from ftrainer.components.loggers.drawing import smoothing_text
from registry import ConfigError, Issue

from . import sections
from .groups import Group, group_runs, lacking, title_of
from .markup import Markup, html, joined, sample, section, tag
from .panels import Line, lines_of, panels
from .plots import BAND, look_of
from .runs import Run

_HEADING = re.compile(r'<section id="([^"]+)"><h2>([^<]+)</h2>')


def write_report(path: Path, runs: Sequence[Run], figures: Sequence[str]) -> None:
    """Write the page.

    Args:
        path: an HTML file.
        runs: at least one.
        figures: `split/name`, as `chosen_figures` gives them; none where nothing was logged yet.

    Raises:
        ConfigError: the path is no HTML file's, or leads into no directory.
        ModuleNotFoundError: the library that draws is not installed.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(
            [Issue(problem="is no page's name", found=repr(str(path)), expected="a name ending in .html")]
        )
    if not path.parent.is_dir():
        raise ConfigError([Issue(problem="no such directory", found=repr(str(path.parent)))])
    path.write_text(page(runs, figures), encoding="utf-8")


def page(runs: Sequence[Run], figures: Sequence[str]) -> str:
    """The page's text. It asks for nothing from anywhere, and its policy forbids it to."""
    groups = group_runs(runs)
    curves, library = curve_section(groups, figures)
    parts = [
        sections.overview(runs), curves, sections.finals(groups, figures), sections.estimates(groups, figures),
        sections.differences(runs), sections.machines(runs), sections.notes(runs), sections.configurations(runs),
    ]  # fmt: skip
    body = joined(parts, "\n")
    links = sections.navigation(_HEADING.findall(body))
    count = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    subtitle = f"{count} · written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by ftrainer"
    return Template(asset("page.html")).substitute(
        title=html(title_of(groups)), subtitle=html(subtitle), nav=joined(links), sections=body,
        css=asset("page.css"), js=asset("page.js"), library=library,
    )  # fmt: skip


def curve_section(groups: Sequence[Group], figures: Sequence[str]) -> tuple[Markup, Markup]:
    """The curves with their switches, and the scripts that draw them."""
    if not figures:
        return section("curves", "Curves", tag("p", "Nothing was logged yet.")), Markup()
    lines = {figure: lines_of(groups, figure) for figure in figures}
    plots, limit, n_thinned = panels(lines)
    embed = require("bokeh.embed", extra="report", by="ftrainer report")
    resources = require("bokeh.resources", extra="report", by="ftrainer report")
    script, places = embed.components(plots)
    shown = [tag("figure", tag("h3", name), caption(lines[name]), Markup(place)) for name, place in places.items()]
    missing = "; ".join(lacking(groups, figures))
    said = [what_is_left_out(limit, n_thinned), *([f"{missing}."] if missing else [])]
    inner = [switches(groups), *(tag("p", line, class_="soft") for line in said), tag("div", *shown, class_="grid")]
    library: Any = resources.Resources(mode="inline", components=["bokeh"], log_level="warn")
    return section("curves", "Curves", *inner), Markup(library.render_js() + script)


def switches(groups: Sequence[Group]) -> Markup:
    """A box for each group, and one for the raw values."""
    boxes = [
        tag("label", Markup(f'<input type="checkbox" checked value="group-{index}">'),
            sample(look_of(index)["color"], look_of(index)["linestyle"]), group.label)
        for index, group in enumerate(groups)
    ]  # fmt: skip
    raw = tag("label", Markup('<input type="checkbox" checked value="raw">'), "raw values")
    all_or_none = (
        [tag("button", name, type="button", value=name) for name in ("all", "none")] if len(groups) > 2 else []
    )
    return tag("div", *boxes, raw, *all_or_none, class_="bar")


def caption(lines: Sequence[Line]) -> Markup:
    """What was done to a figure's curves before they were drawn."""
    reaches = sorted({line.reach for line in lines if line.reach})
    said = [smoothing_text(reach) for reach in reaches[-1:]] + [BAND for line in lines if line.low is not None][:1]
    return tag("small", "; ".join(said) if said else "every value as it was logged")


def what_is_left_out(limit: int, n_thinned: int) -> str:
    """What the reader must know about the number of points."""
    zoom = "Drag over a plot to zoom; all plots zoom along."
    if not n_thinned:
        return f"{zoom} Every logged row is drawn."
    return (
        f"{zoom} {n_thinned} curves have more rows than a plot has pixels: of those at most {limit} points each are "
        f"kept, the lowest and highest of every stretch, so that no peak is lost; of means over seeds, {limit} even "
        "steps. The tables use every row."
    )


def asset(name: str) -> str:
    """A file that belongs to the page."""
    return (files("ftrainer.report") / "assets" / name).read_text(encoding="utf-8")
