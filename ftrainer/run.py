"""The command line. What a command needs is imported when it runs, so that `--help` answers at once."""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from ftrainer.report.commands import COMMANDS as ABOUT_RUNS
from ftrainer.report.terminal import colours, needing_extras
from ftrainer.revisit.commands import COMMANDS as WITH_CHECKPOINTS

if TYPE_CHECKING:
    from ftrainer.config import ResolvedConfig
    from registry import Registry

FAILED, BAD_CONFIG = 1, 2
"""The exit codes of a run that failed, and where the configuration is at fault."""


class Commands(click.Group):
    """A group whose commands may raise `ConfigError` or be interrupted: that is told without a traceback.

    The exit code is 2 for the one, and for the other 130, as shells know it.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return self._invoke(ctx)
        except KeyboardInterrupt as interrupt:
            click.echo(str(interrupt) or "stopped by SIGINT", err=True)
            return ctx.exit(128 + signal.SIGINT)

    def _invoke(self, ctx: click.Context) -> Any:
        from ftrainer.config import render
        from registry import ConfigError

        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # a plugin may lie where the command runs, as with `python -m`
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            click.echo(render(error, color=colours()), err=True)
            return ctx.exit(BAD_CONFIG)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("ftrainer")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from ftrainer.completion import complete_override

    def registry_of(resolved: ResolvedConfig) -> Registry:
        from ftrainer.stages import build_registry  # loads torch: seconds, where the rest takes a moment

        return build_registry(resolved)

    return [CompletionItem(text) for text in complete_override(ctx.params.get("config"), incomplete, registry_of)]


config = click.argument("config", type=click.Path())
overrides = click.argument("overrides", nargs=-1, metavar="[KEY.PATH=VALUE]…", shell_complete=_complete)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ftrainer")
def main() -> None:
    """Train PyTorch models from one YAML file."""


for command in (*ABOUT_RUNS, *WITH_CHECKPOINTS):
    main.add_command(command)


@main.command()
@config
@overrides
@click.option("--resume", metavar="auto|PATH", help="Go on from a checkpoint; auto takes the newest of this run.")
@click.option("--overwrite", is_flag=True, help="Delete an earlier run in the same directory.")
def train(config: str, overrides: tuple[str, ...], resume: str | None, overwrite: bool) -> None:
    """Train what CONFIG describes.

    The exit code is 0 where the run finished, 1 where it failed (too many bad steps, an end that could not be saved),
    2 where CONFIG is wrong, 128 and its number where a signal stopped it.
    """
    from ftrainer.engine.interrupt import interrupts
    from ftrainer.sweep import train_all

    _log_to_stderr()
    with interrupts() as interrupted:
        failed = train_all(config, overrides, resume=resume, overwrite=overwrite, interrupted=interrupted)
    if interrupted.number is not None and not failed:
        again = shlex.join(["ftrainer", "train", config, *overrides, "--resume", "auto"])
        click.echo(f"{interrupted()}; the run is saved. Go on with:\n  {again}", err=True)
        sys.exit(128 + interrupted.number)
    _say_what_next(config, overrides)
    if failed:
        sys.exit(FAILED)


def _say_what_next(config: str, overrides: tuple[str, ...]) -> None:
    from ftrainer.config import resolve_config

    out_dir = resolve_config(config, overrides).get("run", "out_dir")
    click.echo(f"Look at it with:\n  {shlex.join(['ftrainer', 'report', str(out_dir)])}", err=True)


@main.command()
@config
@overrides
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Here, one after another, or on a Ray cluster.",
)
@click.option("--resume", type=click.Choice(["auto"]), help="Go on with what an earlier sweep left.")
@click.option("--overwrite", is_flag=True, help="Delete an earlier sweep in the same directory.")
def sweep(config: str, overrides: tuple[str, ...], engine: str, resume: str | None, overwrite: bool) -> None:
    """Train the members of CONFIG's section `replicate:` as several runs, and gather their results."""
    from ftrainer.engine.interrupt import interrupts
    from ftrainer.sweep import has_failed
    from ftrainer.sweep import sweep as run_sweep

    _log_to_stderr()
    with interrupts() as interrupted, needing_extras():
        done = run_sweep(config, overrides, engine=engine, resume=resume, overwrite=overwrite, interrupted=interrupted)
    if interrupted.number is not None:
        again = shlex.join(["ftrainer", "sweep", config, *overrides, "--engine", engine, "--resume", "auto"])
        click.echo(f"{interrupted()}; what was trained is saved. Go on with:\n  {again}", err=True)
        sys.exit(128 + interrupted.number)
    if has_failed(done):
        sys.exit(FAILED)


@main.command()
@click.argument("checkpoint", type=click.Path(path_type=Path), metavar="CHECKPOINT|RUN")
@click.argument("out", type=click.Path(path_type=Path), metavar="OUT")
@overrides
@click.option("--member", type=int, help="Which one of a replicated run's, counted from 0.")
@click.option("--weights", type=click.Choice(["ema", "trained"]), help="Default: those that evaluation uses.")
@click.option("--network", metavar="NAME", help="The bare tensors of one of the learner's networks.")
def export(
    checkpoint: Path, out: Path, overrides: tuple[str, ...], member: int | None, weights: Any, network: str | None
) -> None:
    """Write a checkpoint's weights to OUT: .safetensors, .pt, or .pt2 for a program that needs torch alone.

    With --member, an OUT without a suffix becomes a checkpoint of that member as a plain run. Modules outside
    `extensions`, and `_target_`, want settings.allowed_import_prefixes or settings.allow_target among the overrides,
    since a checkpoint may be a stranger's.
    """
    from ftrainer.exporting import export_checkpoint

    click.echo(export_checkpoint(checkpoint, out, member, weights=weights, network=network, overrides=overrides))


@main.command()
@config
@overrides
def check(config: str, overrides: tuple[str, ...]) -> None:
    """Say whether CONFIG is valid, or all that is wrong with it."""
    from ftrainer.examine import examine

    resolved, _ = examine(config, overrides)
    click.echo(f"{config} is valid (digest {resolved.digest[:12]})")


@main.command()
@config
@overrides
@click.option("--origin", is_flag=True, help="Add each value's file and line.")
@click.option("--model", is_flag=True, help="Print the model's layers instead, with shapes and parameter counts.")
@click.option("--svg", type=click.Path(path_type=Path), metavar="FILE", help="With --model, a picture of it.")
def show(config: str, overrides: tuple[str, ...], origin: bool, model: bool, svg: Path | None) -> None:
    """Print CONFIG with everything resolved, or the architecture of its model."""
    if svg is not None:
        if not model:
            raise click.UsageError("--svg draws the model: give --model too")
        _draw_model(config, overrides, svg)
        return
    if model:
        from ftrainer.experiment import architecture

        click.echo(architecture(config, overrides))
        return
    from ftrainer.config import resolve_config

    click.echo(resolve_config(config, overrides).to_yaml(origin=origin), nl=False)


def _draw_model(config: str, overrides: tuple[str, ...], path: Path) -> None:
    from ftrainer.config import resolve_config, validate_preflight
    from ftrainer.model import build_model
    from ftrainer.report.diagram import write_diagram
    from ftrainer.stages import build_registry, located

    resolved = resolve_config(config, overrides)
    validate_preflight(resolved)
    with located(resolved):
        write_diagram(path, build_model(build_registry(resolved), resolved.data["model"]))
    click.echo(path)


@main.command()
@config
@click.argument("key")
@overrides
def explain(config: str, key: str, overrides: tuple[str, ...]) -> None:
    """Print the files, templates, interpolations and overrides that made the value at KEY."""
    from ftrainer.config import resolve_config

    click.echo(resolve_config(config, overrides).explain(key))


@main.command()
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path())
def diff(a: str, b: str) -> None:
    """Compare the meaning of two configurations."""
    from ftrainer.config import resolve_config
    from ftrainer.config.diff import diff as compare

    changes = list(compare(resolve_config(a).root, resolve_config(b).root))
    click.echo("\n".join(map(str, changes)) if changes else "no differences")


@main.command()
@config
@overrides
@click.option("--backend", "backends", multiple=True, help="As `run.compile`; again for more (default: all).")
@click.option("--steps", default=100, show_default=True, help="Steps in each round.")
@click.option("--rounds", default=7, show_default=True, help="Rounds, each with a turn for every backend.")
def bench(config: str, overrides: tuple[str, ...], backends: tuple[str, ...], steps: int, rounds: int) -> None:
    """Time one step of CONFIG by each backend, and the fetching of a batch."""
    import torch
    from rich.console import Console

    from ftrainer.engine.accelerator import check_backend
    from ftrainer.engine.timing import as_table, backends_of, time_backends, time_data
    from ftrainer.experiment import build

    state, data = build(config, overrides)
    for backend in backends:
        check_backend(backend, state.step.device)
    timings = time_backends(state, data, backends or backends_of(state.step.device), steps, rounds)
    Console().print(as_table(timings, time_data(data, steps)))
    click.echo(f"torch {torch.__version__}, {torch.get_num_threads()} threads, on {state.step.device}")


plugins = click.option(
    "--config", type=click.Path(), help="Include the plugins that this configuration imports.", metavar="CONFIG"
)


@main.command()
@click.argument("key", required=False)
@plugins
def components(key: str | None, config: str | None) -> None:
    """List what _type_ may name, or print everything about one KEY."""
    from ftrainer.config.catalogue import describe_component, list_components

    registry = _registry(config)
    click.echo(describe_component(registry, key) if key else list_components(registry))


@main.command()
@plugins
def schema(config: str | None) -> None:
    """Print a JSON Schema of configurations, for completion and checks in editors."""
    from ftrainer.config.schema import json_schema

    click.echo(json.dumps(json_schema(_registry(config)), indent=1))


def _registry(config: str | None) -> Registry:
    if config is None:
        from ftrainer.builtins import builtin_registry

        return builtin_registry()
    from ftrainer.config import resolve_config
    from ftrainer.stages import build_registry, located

    resolved = resolve_config(config)
    with located(resolved):
        return build_registry(resolved)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what SHELL must read to complete commands and overrides.

    \b
    bash: eval "$(ftrainer completion bash)"            in ~/.bashrc
    zsh:  eval "$(ftrainer completion zsh)"             in ~/.zshrc
    fish: ftrainer completion fish > ~/.config/fish/completions/ftrainer.fish
    """
    from ftrainer.completion import script

    click.echo(script(main, shell))
