"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator

from ftrainer.builtins import builtin_registry
from ftrainer.config.schema import json_schema
from ftrainer.run import main
from registry import Settings, load_plugins

ROOT = Path(__file__).parents[1]
BASELINE = "configs/experiments/baseline.yaml"
PLUGIN = "configs/experiments/custom_plugin.yaml"


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_check_says_what_is_valid() -> None:
    result = run("check", BASELINE, "optimizer.kwargs.lr=1e-2")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{BASELINE} is valid (digest ")


def test_check_says_all_that_is_wrong_and_no_traceback(tmp_path: Path) -> None:
    result = run("check", BASELINE, "optimzer.lr=1", "run.seed=x", f"run.out_dir={tmp_path}/out")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "<override>:1:1: error: optimzer: unknown section" in result.stderr
    assert "  1 | run.seed=x\n    |          ^" in result.stderr
    assert "did you mean optimizer?" in result.stderr
    assert result.stderr.endswith("2 errors\n")
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", BASELINE, "trainer.max_epoch=1"),
        ("train", "configs/experiments/gone.yaml"),
        ("check", "configs"),
        ("show", BASELINE, "x=${gone}"),
        ("explain", BASELINE, "run.nmae"),
        ("diff", BASELINE, "configs/experiments/gone.yaml"),
        ("components", "optim.adamv"),
        ("schema", "--config", "configs/experiments/gone.yaml"),
    ],
)
def test_every_command_refuses_a_wrong_configuration_alike(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, *rest = (str(ROOT / a) if a.startswith("configs") else a for a in arguments)
    monkeypatch.chdir(tmp_path)
    result = run(command, *rest)
    assert result.exit_code == 2
    assert result.stderr.endswith("1 error\n")
    assert list(tmp_path.iterdir()) == []


def test_train_finds_the_issues_of_all_stages(tmp_path: Path) -> None:
    result = run("train", BASELINE, "optimzer.lr=1", "loss.fn._type_=nn.MSELos", f"run.out_dir={tmp_path}/out")
    assert result.exit_code == 2
    assert result.stderr.endswith("2 errors\n")
    assert not (tmp_path / "out").exists()


def test_show_prints_yaml_and_origins() -> None:
    shown = yaml.safe_load(run("show", BASELINE, "run.name=b").stdout)
    assert shown["run"]["out_dir"] == "runs/b"
    assert "defaults" not in shown
    assert "  seed: 0  # configs/base/runtime.yaml:" in run("show", BASELINE, "--origin").stdout
    assert "  seed: 3  # override" in run("show", "--origin", BASELINE, "run.seed=3").stdout


def test_explain_prints_the_chain() -> None:
    lines = run("explain", BASELINE, "run.seed", "run.seed=4").stdout.splitlines()
    assert lines[0] == "run.seed = 4"
    assert lines[1].startswith("  configs/base/runtime.yaml:")
    assert lines[2] == "  <override>:1:10: overridden 4"


def test_diff_prints_changes_or_none() -> None:
    assert run("diff", BASELINE, BASELINE).stdout == "no differences\n"
    assert "~ optimizer.type: optim_cls.AdamW" in run("diff", BASELINE, "configs/experiments/sgd_step_lr.yaml").stdout


def test_components_lists_keys_and_describes_one() -> None:
    listed = run("components").stdout
    assert any(line.startswith("trainer.default ") and len(line.split()) > 3 for line in listed.splitlines())
    described = run("components", "data.random_regression").stdout
    assert "ftrainer/components/data/random_regression.py:" in described
    assert any(
        line.split()[:3] == ["batch_size", "an", "integer"] and "required" in line for line in described.splitlines()
    )


def test_components_say_what_stands_for_a_tensor() -> None:
    assert "tensors  a list of tensors  required" in run("components", "op.cat").stdout


def test_components_include_plugins_that_a_configuration_names() -> None:
    assert "data.constant_regression" not in run("components").stdout
    assert "extensions/example_plugin.py:" in run("components", "data.constant_regression", "--config", PLUGIN).stdout


def test_the_schema_is_one_and_takes_every_shipped_file() -> None:
    files = sorted((ROOT / "configs").rglob("*.yaml"))
    texts = {file: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}
    named = {name for text in texts.values() for name in text.get("imports", [])}
    registry = load_plugins(builtin_registry(), sorted(named), Settings(allow_imports=True))
    schema = json_schema(registry)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    assert len(files) >= 7
    wrong = {file.name: [error.message for error in validator.iter_errors(text)] for file, text in texts.items()}
    assert {name: errors for name, errors in wrong.items() if errors} == {}


def test_the_schema_is_printed_with_the_plugins_of_a_configuration() -> None:
    assert "key:data.constant_regression" not in json.loads(run("schema").stdout)["$defs"]
    assert "key:data.constant_regression" in json.loads(run("schema", "--config", PLUGIN).stdout)["$defs"]


@pytest.mark.parametrize(
    ("broken", "place"),
    [
        ({"optimzer": {}}, []),
        ({"defaults": 3}, ["defaults"]),
        ({"run": {"sede": 1}}, ["run"]),
        ({"run": {"seed": "x"}}, ["run", "seed"]),
        ({"run": {"device": "gpu"}}, ["run", "device"]),
        ({"trainer": {"_type_": "trainer.defalt"}}, ["trainer"]),
        ({"trainer": {"_type_": "log.stdout"}}, ["trainer"]),
        ({"trainer": {"_type_": "trainer.default", "max_epoch": 1}}, ["trainer"]),
        ({"trainer": {"_type_": "trainer.default", "max_epochs": "x"}}, ["trainer"]),
        ({"callbacks": {"_merge_": "apend", "_value_": []}}, ["callbacks"]),
        ({"model": {"sequential": {"layers": [{"_type_": "mpl"}]}}}, ["model"]),
    ],
)
def test_the_schema_underlines_what_is_wrong(broken: dict[str, Any], place: list[str]) -> None:
    errors = list(Draft202012Validator(json_schema(builtin_registry())).iter_errors(broken))
    assert [list(error.absolute_path)[: len(place)] for error in errors] == [place]


@pytest.mark.parametrize(
    "right",
    [
        {"run": {"seed": "${env:int:SEED}"}},
        {"defaults": "base.yaml"},
        {"defaults": ["base.yaml", "more.yaml"]},
        {"trainer": {"max_epochs": 3}},
        {"callbacks": {"_merge_": "append", "_value_": [{"_type_": "cb.model_checkpoint"}]}},
        {"optimizer": {"_template_": "fast", "lr": 1}, "templates": {"fast": {"_type_": "optim.sgd"}}},
        {"loss": "${params.loss}", "params": {"loss": 1}, "scheduler": None},
        {"data": {"_merge_": "replace", "_value_": {"anything": 1}}},
    ],
)
def test_the_schema_knows_the_language(right: dict[str, Any]) -> None:
    errors = Draft202012Validator(json_schema(builtin_registry())).iter_errors(right)
    assert [error.message for error in errors] == []


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_help_and_the_config_language_do_not_load_torch() -> None:
    script = "import sys, ftrainer.run, ftrainer.config, registry, ftrainer; assert 'torch' not in sys.modules"
    assert python("-c", script).returncode == 0


def test_the_module_runs() -> None:
    result = python("-m", "ftrainer", "--help")
    assert result.returncode == 0
    for command in ("train", "check", "show", "explain", "diff", "components", "schema"):
        assert f"\n  {command} " in result.stdout


def test_a_plugin_may_lie_where_the_command_runs(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def register(registry):\n    return registry.register('data.mine', dict, check='best_effort')\n"
    )
    settings = {"allow_imports": True, "allowed_import_prefixes": ["mine"]}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"settings": settings, "imports": ["mine"]}))
    script = "from ftrainer.run import main; main()"
    command = [sys.executable, "-P", "-c", script, "components", "data.mine", "--config", "a.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert result.stdout.startswith("data.mine\n  builtins.dict"), result.stderr


def test_an_unknown_command_is_a_usage_error() -> None:
    result = run("trian")
    assert result.exit_code == 2
    assert "No such command 'trian'" in result.stderr
