"""The commands that look at runs together. What a command needs is imported when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .terminal import colours, console, needing_extras

if TYPE_CHECKING:
    from .runs import Run

runs_argument = click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN…")
metrics_option = click.option(
    "--metric", "metrics", multiple=True, help="Show this figure only, `loss` or `val/loss`; may be repeated."
)


@click.command("runs")
@click.argument("directory", default="runs", type=click.Path(path_type=Path), metavar="[DIR]")
@click.option("--sort", metavar="KEY", help="A column, a metric (its best value), or a path of the configuration.")
@click.option("--reverse", is_flag=True, help="The largest first.")
@click.option("--where", multiple=True, metavar="KEY=VALUE", help="Only runs of which this holds; may be repeated.")
def list_runs(directory: Path, sort: str | None, reverse: bool, where: tuple[str, ...]) -> None:
    """List the runs below DIR: how they stand, how far they are, how good."""
    from ftrainer.report.table import filter_runs, runs_table, sort_runs

    found = filter_runs(gathered([directory]), where)
    ordered = sort_runs(found, sort, reverse) if sort else found
    asked = [condition.partition("=")[0] for condition in where] + ([sort] if sort else [])
    if not ordered:
        click.echo("no run is like that")
        return
    console().print(runs_table(ordered, asked))


@click.command()
@runs_argument
@metrics_option
@click.option("--out", default="curves.png", type=click.Path(path_type=Path), show_default=True, help="A PNG or SVG.")
def plot(runs: tuple[Path, ...], metrics: tuple[str, ...], out: Path) -> None:
    """Draw the learning curves of runs; seeds of one configuration as a mean with a band."""
    from ftrainer.report.groups import chosen_figures, group_runs, lacking
    from ftrainer.report.plots import write_plot

    groups = group_runs(gathered(runs))
    figures = chosen_figures(groups, metrics)
    with needing_extras():
        write_plot(out, groups, figures)
    for sentence in lacking(groups, figures):
        click.echo(sentence, err=True)
    click.echo(out)


@click.command()
@runs_argument
@metrics_option
@click.option("--out", default="report.html", type=click.Path(path_type=Path), show_default=True, help="An HTML file.")
def report(runs: tuple[Path, ...], metrics: tuple[str, ...], out: Path) -> None:
    """Write one self-contained page about runs: curves, tables, configurations, differences."""
    from ftrainer.report.groups import chosen_figures, group_runs
    from ftrainer.report.page import write_report

    found = gathered(runs)
    anything = metrics or any(run.figures for run in found)
    figures = chosen_figures(group_runs(found), metrics) if anything else []
    with needing_extras():
        write_report(out, found, figures)
    click.echo(out)


def gathered(paths: Sequence[Path]) -> list[Run]:
    """The runs that can be read; of damaged ones beside them it is said what is wrong."""
    from ftrainer.config import render
    from ftrainer.report.runs import gather
    from registry import ConfigError

    found, damaged = gather(paths)
    if damaged:
        told = render(ConfigError(damaged), color=colours())
        click.echo(f"left out, since they are damaged:\n{told}", err=True)
    return found


COMMANDS: tuple[click.Command, ...] = (list_runs, plot, report)
