"""Members of one configuration as several runs: its groups, and chunks of members, here or on a cluster.

Every share is an ordinary run in a directory of its own below the sweep's, with checkpoints, and goes on from its last
one when it is asked for again. Their rows are gathered in the sweep's directory, as if one run had written them.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from frozendict import frozendict

from ftrainer.components.base import LogSink, RunInfo
from ftrainer.components.data.extras import require
from ftrainer.components.loggers.csv import CsvLogger
from ftrainer.components.loggers.jsonl import JsonLines
from ftrainer.components.loggers.members import Members
from ftrainer.components.loggers.rows import from_line, read_lines
from ftrainer.config import Group, Replicate
from ftrainer.config.replicate import SEED
from ftrainer.engine.resume import AUTO
from ftrainer.engine.rundir import claim, describe
from ftrainer.engine.status import FAILED, read_status
from ftrainer.experiment import Config, Overrides, plan, run_experiment, train, watched
from ftrainer.stages import Experiment, located
from registry import Registry, invalid
from registry.spec import thaw

log = logging.getLogger("ftrainer.run")

SHARES = "shares"
"""The directory of the runs below the sweep's own."""
ENGINES = ("local", "ray")
TRIES = 3
"""How often a share is begun again whose worker died."""


@attrs.frozen(kw_only=True)
class Share:
    """Members that one run trains.

    Attributes:
        name: of its directory.
        overrides: what makes the configuration this run's.
        values: what sets each of its members apart, those of its group included.
    """

    name: str
    overrides: Mapping[str, Any]
    values: tuple[Mapping[str, Any], ...]


@attrs.frozen(kw_only=True)
class Task:
    """What a worker needs to train a share: everything is data, relative paths begin at `directory`."""

    name: str
    source: Any
    overrides: Any
    resume: str | None
    directory: str


def train_all(
    source: Config,
    overrides: Overrides = None,
    *,
    resume: str | None = None,
    overwrite: bool = False,
    interrupted: Callable[[], str | None] = lambda: None,
) -> bool:
    """Train what a configuration describes: one run, or a run for each of its groups, one after another.

    Args:
        source, overrides, resume, overwrite, interrupted: as for `run_experiment`.

    Returns:
        Whether it failed, or one of its groups' runs did.
    """
    experiment = watched(plan(source, overrides))
    if not experiment.groups:
        return train(experiment, resume, overwrite=overwrite, interrupted=interrupted).status == FAILED
    return has_failed(sweep(source, overrides, resume=resume, overwrite=overwrite, interrupted=interrupted))


def has_failed(directories: Iterable[Path]) -> bool:
    """Whether one of a sweep's runs failed."""
    return any(read_status(directory).get("status") == FAILED for directory in directories)


def sweep(
    source: Config,
    overrides: Overrides = None,
    *,
    engine: str = "local",
    resume: str | None = None,
    overwrite: bool = False,
    interrupted: Callable[[], str | None] = lambda: None,
    registry: Registry | None = None,
) -> tuple[Path, ...]:
    """Train every share of a configuration's members, and gather their results in `run.out_dir`.

    Args:
        source, overrides: as for `run_experiment`.
        engine: `local` trains one share after another; `ray` hands them to a Ray cluster that sees the same files;
            one on this machine is started where none is running.
        resume: `auto` goes on with what an earlier sweep left.
        overwrite: remove an earlier run in `run.out_dir`.
        interrupted: asked between steps and shares; a reason ends the sweep.
        registry: the built-in components unless given; `ray` takes none.

    Returns:
        The shares' directories.

    Raises:
        ConfigError: the configuration is wrong, has no section `replicate:`, or `resume` is no `auto`.
        ValueError: there is no such engine.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine {engine!r} is none of {', '.join(ENGINES)}")
    experiment = plan(source, overrides, registry=registry)
    with located(experiment.resolved):
        out_dir, settings = directory_of(experiment), settings_of(experiment, resume)
    shares = tuple(shares_of(settings, experiment.program.run, out_dir))
    with claim(out_dir, experiment.resolved.to_yaml(), resume=resume is not None, overwrite=overwrite):
        describe(out_dir, experiment.resolved.to_yaml())
        tasks = [task_of(source, overrides, share) for share in shares]
        if engine == "ray":
            by_ray(tasks, experiment.program.run.device)
        else:
            one_by_one(tasks, interrupted, registry)
        gather(out_dir, shares, experiment)
    return tuple(out_dir / SHARES / share.name for share in shares)


def directory_of(experiment: Experiment) -> Path:
    """Where the sweep writes, whatever directory workers are in."""
    return Path(experiment.program.run.out_dir).absolute()


def settings_of(experiment: Experiment, resume: str | None) -> Replicate:
    """The section `replicate:`.

    Raises:
        ConfigError: there is none, or a checkpoint is to be resumed, which is one share's.
    """
    settings = experiment.program.replicate
    if settings is None:
        raise invalid(
            "nothing is replicated", "replicate", hint="name `seeds` or values of fields `over` which to sweep"
        )
    if resume not in (None, AUTO):
        raise invalid("a sweep goes on with all of its shares", "run", "resume_from", found=str(resume), expected=AUTO)
    return settings


def shares_of(settings: Replicate, run: Any, out_dir: Path) -> Iterator[Share]:
    """Every group, cut into chunks where the settings give a number."""
    for group in settings.split(run.seed):
        n = len(group.members)
        size = n if settings.chunk == "auto" else settings.chunk
        for start in range(0, n, size):
            stop = min(start + size, n)
            name = "_".join([*([group.name] if group.name else []), f"{start}-{stop - 1}"])
            section = {"_merge_": "replace", "_value_": section_of(settings, group, start, stop)}
            place = {"run.out_dir": str(out_dir / SHARES / name), "run.name": f"{run.name} {name}"}
            values = tuple(frozendict({**member, **group.values}) for member in group.members[start:stop])
            yield Share(name=name, overrides={**place, **group.values, "replicate": section}, values=values)


def section_of(settings: Replicate, group: Group, start: int, stop: int) -> dict[str, Any]:
    """The section `replicate:` of one share: the group's rows side by side, each with every seed, and which of them."""
    seeds = list(dict.fromkeys(member[SEED] for member in group.members))
    rows = [member for member in group.members if member[SEED] == seeds[0]]
    over = {path: [thaw(row[path]) for row in rows] for path in rows[0] if path != SEED}
    chosen = {"data_order": settings.data_order, "strategy": settings.strategy}
    return {"seeds": seeds, "over": over, "combine": "zip", "members": [start, stop], **chosen}


def task_of(source: Config, overrides: Overrides, share: Share) -> Task:
    """A share as data that can travel."""
    found = str(Path(source).absolute()) if isinstance(source, str | Path) else thaw(source)
    mine = thaw(share.overrides)
    given: Any = {**overrides, **mine} if isinstance(overrides, Mapping) else [*(overrides or ()), *texts_of(mine)]
    begun = (Path(mine["run.out_dir"]) / "config.yaml").is_file()
    resume = AUTO if begun else None
    return Task(name=share.name, source=found, overrides=given, resume=resume, directory=str(Path.cwd()))


def texts_of(overrides: Mapping[str, Any]) -> list[str]:
    """Overrides as the command line gives them; JSON is YAML.

    >>> texts_of({"model.width": 32, "replicate": {"seeds": [0, 1]}})
    ['model.width=32', 'replicate={"seeds": [0, 1]}']
    """
    return [f"{path}={json.dumps(value)}" for path, value in overrides.items()]


def one_by_one(tasks: Sequence[Task], interrupted: Callable[[], str | None], registry: Registry | None) -> None:
    """Train the shares here, in order, until something interrupts."""
    for number, task in enumerate(tasks, 1):
        if interrupted() is not None:
            return
        log.info("share %s, %d of %d", task.name, number, len(tasks))
        run_experiment(task.source, task.overrides, registry=registry, resume=task.resume, interrupted=interrupted)


def by_ray(tasks: Sequence[Task], device: str) -> None:
    """Hand the shares to a Ray cluster, the one of this environment, or one that Ray starts here.

    A share whose worker dies is begun again elsewhere, from its last checkpoint.

    Raises:
        ModuleNotFoundError: Ray is not installed.
    """
    ray = require("ray", extra="ray", by="ftrainer sweep --engine ray")
    if not ray.is_initialized():
        ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False, include_dashboard=False)
    gpus = 1 if device != "cpu" and ray.cluster_resources().get("GPU") else 0
    remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=TRIES)(on_worker)
    waiting = {remote.remote(task): task for task in tasks}
    while waiting:
        (done,), _ = ray.wait(list(waiting))
        task = waiting.pop(done)
        ray.get(done)
        log.info("share %s is done, %d to go", task.name, len(waiting))


def on_worker(task: Task) -> None:
    """Train a share, or what an earlier try has left of it, in a process of its own."""
    os.chdir(task.directory)
    run_experiment(task.source, task.overrides, resume=AUTO)


def gather(out_dir: Path, shares: Sequence[Share], experiment: Experiment) -> None:
    """The shares' rows as those of one run, with its table, picture and data."""
    program = experiment.program
    members = tuple(values for share in shares for values in share.values)
    info = RunInfo(name=program.run.name, out_dir=out_dir, config=program.config, members=members)
    sinks: list[LogSink] = [logger.open(info) for logger in (JsonLines(), CsvLogger(), Members())]
    for row in rows_of(out_dir, shares):
        for sink in sinks:
            sink.write(row)
    for sink in sinks:
        sink.close()
    for share in shares:
        status = read_status(out_dir / SHARES / share.name).get("status", "not begun")
        if status != "finished":
            log.warning("share %s is %s; `--resume auto` goes on with it", share.name, status)


def rows_of(out_dir: Path, shares: Sequence[Share]) -> Iterator[dict[str, Any]]:
    """Every row of every share, its members counted through all of them."""
    first = 0
    for share in shares:
        for line in read_lines(out_dir / SHARES / share.name / "metrics.jsonl"):
            row = from_line(line)
            if "member" in row:
                who = row["member"]
                yield {**row, "member": first + who, "values": dict(share.values[who])}
        first += len(share.values)
