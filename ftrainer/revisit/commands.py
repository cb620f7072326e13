"""The commands about runs that were trained. What a command needs is imported when it runs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ftrainer.report.terminal import console

DIFFERENT = 1
"""The exit code of a verification that found a difference."""

place = click.argument("checkpoint", type=click.Path(path_type=Path), metavar="CHECKPOINT|RUN")
overrides = click.argument("overrides", nargs=-1, metavar="[KEY.PATH=VALUE]…")
member_option = click.option("--member", type=int, help="Which member of a stack of runs.")


@click.command("eval")
@place
@overrides
@click.option("--split", type=click.Choice(["val", "train"]), default="val", show_default=True)
@click.option("--episodes", type=click.IntRange(min=1), help="How many a simulator flies, if not the configuration's.")
def evaluate(checkpoint: Path, overrides: tuple[str, ...], split: str, episodes: int | None) -> None:
    """Print the figures of a checkpoint: loss and metrics over a split, and what the evaluators say.

    Its configuration is in it. Modules outside `extensions`, and `_target_`, want settings.allowed_import_prefixes or
    settings.allow_target among the overrides, since a checkpoint may be a stranger's.
    """
    from ftrainer.revisit.judge import as_table, judge
    from ftrainer.revisit.revive import revive

    found = revive(checkpoint, overrides)
    click.echo(f"{found.path}, step {found.manifest['cursor']['step']}")
    console().print(as_table(judge(found, split, episodes)))


@click.command("verify-resume")
@click.argument("config", type=click.Path())
@overrides
@click.option("--at", required=True, type=int, help="The step after which the run is stopped.")
@click.option("--steps", type=int, help="How long the run is; twice --at unless given.")
def verify_resume(config: str, overrides: tuple[str, ...], at: int, steps: int | None) -> None:
    """Prove that CONFIG resumes exactly: train it whole, and stopped and resumed, and compare every bit."""
    from ftrainer.revisit.verify import verify_resume

    verdict = verify_resume(config, overrides, at=at, steps=steps)
    click.echo(verdict)
    sys.exit(0 if verdict.is_exact else DIFFERENT)


@click.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
@overrides
@click.option("--step", "attempt", required=True, type=int, help="The step, as it is logged.")
@member_option
def replay(run: Path, overrides: tuple[str, ...], attempt: int, member: int | None) -> None:
    """Execute one step of RUN again and say where the first number arose that is not finite."""
    from ftrainer.revisit.replay import replay

    click.echo(replay(run, attempt, overrides, member=member))


COMMANDS: tuple[click.Command, ...] = (evaluate, verify_resume, replay)
