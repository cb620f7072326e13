"""Every shipped configuration, broken one place at a time: the error must name the place, and the right word first."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import yaml

from ftrainer.builtins import builtin_registry
from ftrainer.config import ResolvedConfig, resolve_config
from ftrainer.config.node import Node, descend
from ftrainer.config.sections import REQUIRED, SUPERVISED
from ftrainer.examine import examine
from ftrainer.stages import build_registry
from registry import ConfigError, Issue, Registry
from tests.mutants import WAYS, ConfigPath, Mutant, drop_required, mutants

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = sorted(str(file.relative_to(CONFIGS)) for file in CONFIGS.rglob("*.yaml"))
BUILTINS = builtin_registry()


@attrs.frozen(kw_only=True)
class Case:
    """A file to break, and an experiment that reads it."""

    file: Path
    experiment: Path
    resolved: ResolvedConfig
    registry: Registry


def included(file: Path) -> list[Path]:
    """The files that a configuration is composed of, itself included."""
    defaults = yaml.safe_load(file.read_text(encoding="utf-8")).get("defaults", [])
    return [file.resolve(), *(deep for name in defaults for deep in included(file.parent / name))]


def case(root: Path, name: str) -> Case:
    """A file in a copy of `configs/`, with the first experiment that it is part of."""
    file = root / name
    experiments = [file, *sorted((root / "experiments").glob("*.yaml"))]
    reading = [e for e in experiments if "experiments" in e.parts and file.resolve() in included(e)]
    resolved = resolve_config(reading[0])
    return Case(file=file, experiment=reading[0], resolved=resolved, registry=build_registry(resolved, BUILTINS))


def required_fields(registry: Registry) -> dict[str, set[str]]:
    """By registry key, what its factory cannot do without."""
    signatures = {key: registry.entry(key).signature for key in registry}
    return {key: {p.name for p in s.parameters if p.required} for key, s in signatures.items() if s is not None}


def required_in(case: Case, path: ConfigPath, mapping: yaml.MappingNode) -> set[str]:
    """The keys of a mapping that nothing else in the configuration supplies."""
    values = {key.value: value.value for key, value in mapping.value}
    if path == ():
        return {*REQUIRED, *SUPERVISED}
    return {"name"} if path == ("run",) else required_fields(case.registry).get(values.get("_type_", ""), set())


def counts(case: Case, mutant: Mutant) -> bool:
    """Whether what was broken takes part in the experiment: what a later file replaces is nobody's mistake."""
    if mutant.way in ("tab_indentation", "duplicate_key", "python_tag", "bad_merge_mode"):
        return True
    path = tuple(part for part in mutant.path if part not in ("_value_", "_merge_"))
    if mutant.way == "bad_import" and case.file != case.experiment:
        return case.resolved.get("imports") is None
    nodes, rest = descend(case.resolved.root, path)
    if mutant.way == "drop_required" and any(node.history for node in nodes):
        return False
    if path[:1] in (("defaults",), ("templates",)) or rest:
        return mutant.way != "drop_required"
    return from_file(nodes[-1], case.file, whole=mutant.way in ("list_for_mapping", "drop_required"))


def from_file(node: Node, file: Path, whole: bool) -> bool:
    """Whether a node was written in a file; `whole`: and everything below it."""
    here = node.place is not None and Path(node.place.source.name).resolve() == file.resolve()
    return here and (not whole or all(from_file(child, file, whole) for _, child in node.children()))


def all_mutants(case: Case) -> Iterator[Mutant]:
    dropping = {"drop_required": drop_required(lambda path, mapping: required_in(case, path, mapping))}
    text = case.file.read_text(encoding="utf-8")
    return (mutant for mutant in mutants(text, dropping) if counts(case, mutant))


def issues_of(case: Case, mutant: Mutant) -> tuple[Issue, ...]:
    case.file.write_text(mutant.text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        examine(case.experiment, registry=BUILTINS)
    return caught.value.issues


def points_at(issue: Issue, case: Case, mutant: Mutant) -> bool:
    where = issue.where
    if where is None:
        return False
    if mutant.way == "drop_required" and len(mutant.path) == 1:  # a whole section is missed by the experiment itself
        first = yaml.compose(case.experiment.read_text(encoding="utf-8")).start_mark
        return (Path(where.file), where.line, where.column) == (case.experiment, first.line + 1, first.column + 1)
    return Path(where.file).resolve() == case.file.resolve() and any(
        where.line == line and first <= where.column <= last for line, first, last in mutant.places
    )


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CONFIGS, tmp_path / "configs"))


@pytest.mark.filterwarnings("ignore::ftrainer.model.nodes.GraphWarning")
@pytest.mark.parametrize("name", FILES)
def test_a_broken_configuration_is_refused_at_the_place_that_is_broken(configs: Path, name: str) -> None:
    chosen = case(configs, name)
    found = [(mutant, issues_of(chosen, mutant)) for mutant in list(all_mutants(chosen))]
    astray = [
        f"{mutant.way} {mutant.path}: {[str(issue) for issue in issues]}"
        for mutant, issues in found
        if not any(points_at(issue, chosen, mutant) for issue in issues)
    ]
    assert len(astray) <= 0.02 * len(found), "\n".join(astray)
    unhelpful = [
        f"{mutant.way} {mutant.path}: {[str(issue) for issue in issues]}"
        for mutant, issues in found
        if mutant.right and not any(issue.nearest[:1] == (mutant.right,) for issue in issues)
    ]
    assert not unhelpful, "\n".join(unhelpful)


def test_there_are_enough_ways_and_files() -> None:
    assert len({*WAYS, "drop_required"}) >= 12
    assert len(FILES) >= 7
