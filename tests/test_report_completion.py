"""Completion in shells, as the shells ask for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from ftrainer.builtins import builtin_registry
from ftrainer.completion import complete_override
from ftrainer.run import main

CONFIG = """
run: {name: a, out_dir: out}
optimizer: {_type_: optim.adamw, lr: 0.1}
callbacks: [{_type_: cb.model_checkpoint, save_dir: here}]
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(CONFIG)
    return str(path)


def registry_of(resolved: Any) -> Any:
    return builtin_registry()


def refuse(resolved: Any) -> Any:
    raise AssertionError("torch would be loaded")


@pytest.mark.parametrize(
    ("incomplete", "found"),
    [
        ("optimizer.l", ["optimizer.lr="]),
        ("opt", ["optimizer."]),
        ("c", ["callbacks["]),
        ("callbacks[", ["callbacks[0]."]),
        ("callbacks[0].s", ["callbacks[0].save_dir="]),
        ("optimizer.lr=0", []),
        ("run.se", ["run.seed="]),
        ("run.nothing", []),
        ("[", []),
        ("a..b", []),
    ],
)
def test_what_is_written_is_found_without_torch(config: str, incomplete: str, found: list[str]) -> None:
    assert complete_override(config, incomplete, refuse) == found


def test_arguments_that_are_not_given_yet_are_asked_of_the_factory(config: str) -> None:
    assert complete_override(config, "optimizer.w", registry_of) == ["optimizer.weight_decay="]
    found = complete_override(config, "optimizer.", registry_of)
    assert found[:2] == ["optimizer._type_=", "optimizer.lr="]
    assert "optimizer.weight_decay=" in found
    assert len(found) == len(set(found))
    assert complete_override(config, "callbacks[0].every", registry_of)[0].startswith("callbacks[0].every_n_")


@pytest.mark.parametrize("text", ["run: [", "run: {name: a}\noptimizer: {_type_: optim.nope}\n", ""])
def test_a_configuration_at_fault_completes_as_far_as_it_can(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert complete_override(str(path), "optimizer.l", registry_of) == []
    assert complete_override(str(tmp_path / "gone.yaml"), "o", registry_of) == []
    assert complete_override(None, "o", registry_of) == []


def test_click_hands_the_configuration_over(config: str) -> None:
    found = BashComplete(main, {}, "ftrainer", "_FTRAINER_COMPLETE").get_completions(["train", config], "optimizer.l")
    assert [item.value for item in found] == ["optimizer.lr="]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_reads_its_script(shell: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    assert f"_FTRAINER_COMPLETE={shell}_complete" in result.stdout
    no_space = {"bash": "compopt -o nospace", "zsh": "compadd -U -V unsorted -S ''", "fish": ""}
    assert no_space[shell] in result.stdout
    if shutil.which(shell) is None:
        pytest.skip(f"needs the program {shell}")
    path = tmp_path / "script"
    path.write_text(result.stdout)
    subprocess.run([shell, "-n", str(path)], check=True, timeout=60)


def test_bash_completes_an_override(config: str, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "ftrainer"
    program.parent.mkdir()
    call = "from ftrainer.run import main; main(prog_name='ftrainer')"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{call}"\n')
    program.chmod(0o755)
    (tmp_path / "script").write_text(CliRunner().invoke(main, ["completion", "bash"]).stdout)
    lines = f"""
        PATH={program.parent}:$PATH; source {tmp_path}/script
        COMP_WORDS=(ftrainer train {config} optimizer.l); COMP_CWORD=3
        _ftrainer_completion ftrainer 2>/dev/null; echo "${{COMPREPLY[@]}}"
    """
    root = Path(__file__).parents[1]
    done = subprocess.run(["bash", "-c", lines], capture_output=True, text=True, timeout=60, check=True, cwd=root)
    assert done.stdout == "optimizer.lr=\n"
