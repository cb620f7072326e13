"""What a resolved configuration can say: places, origins, differences, YAML; and what it must keep to itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftrainer.config import ResolvedConfig, RunSettings, render, resolve_config
from ftrainer.config.diff import diff
from ftrainer.config.dump import to_yaml
from ftrainer.config.node import Source, from_python, plain
from ftrainer.config.parse import parse
from ftrainer.config.resolved import HIDDEN
from registry import ConfigError, Issue, thaw

BASE = """\
run:
  out_dir: runs/${run.name}
  seed: 0
optimizer:
  _type_: optim.adamw
  lr: 1e-3
  _kwargs_: {eps: 1e-8}
list: [1, {k: v}]
"""
MAIN = """\
defaults: [base.yaml]
run: {name: demo}
optimizer: {_template_: quick, weight_decay: 0}
templates:
  quick: {betas: [0.9, 0.99], lr: 9}
copy: ${optimizer.betas}
text: in ${run.out_dir}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ResolvedConfig:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(BASE, encoding="utf-8")
    (tmp_path / "main.yaml").write_text(MAIN, encoding="utf-8")
    return resolve_config("main.yaml", ["run.seed=7"])


def place(config: ResolvedConfig, *path: str | int, at: Any = "value") -> str:
    return str(config.locate(Issue(path=path, problem="is wrong", at=at)).where)


def test_data_is_frozen_and_resolved(config: ResolvedConfig) -> None:
    assert config.data["copy"] == (0.9, 0.99)
    assert config.data["text"] == "in runs/demo"
    assert isinstance(hash(config.data), int)
    assert config.get("list", 1, "k") == "v"
    assert config.get("list", 7) is None is config.get("run", "name", "deeper")


def test_an_issue_gets_its_place(config: ResolvedConfig) -> None:
    assert place(config, "optimizer", "lr") == "base.yaml:6:7"
    assert place(config, "optimizer", "lr", at="key") == "base.yaml:6:3"
    assert place(config, "optimizer", "weight_decay") == "main.yaml:3:46"
    assert place(config, "run", "seed") == "<override>:1:10"
    assert place(config, "list", 1, "k") == "base.yaml:8:15"
    assert place(config, "copy", 1) == "main.yaml:5:24"
    assert place(config, "text") == "main.yaml:7:7"


def test_an_issue_about_what_is_not_there_gets_the_place_of_what_demands_it(config: ResolvedConfig) -> None:
    assert place(config, "optimizer", "gamma") == "base.yaml:5:11"
    assert place(config, "run", "gone", "deeper") == "main.yaml:2:1"
    assert place(config, "loss") == "main.yaml:1:1"
    assert place(config, "params/model/weight") == place(config) == "None"  # about no section
    assert place(config, "optimizer", "eps") == "base.yaml:7:19"


def test_a_place_that_is_known_already_stays(config: ResolvedConfig) -> None:
    issue = config.locate(Issue(path=("list",), problem="is wrong"))
    assert config.locate(issue) == issue


def test_a_section_becomes_its_component(config: ResolvedConfig) -> None:
    assert config.section("run", RunSettings) == RunSettings(name="demo", out_dir="runs/demo", seed=7)
    broken = resolve_config({"run": {"name": "a/b"}})
    with pytest.raises(ConfigError, match=r"run.name: must be a name without slashes; found 'a/b'"):
        broken.section("run", RunSettings)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_fits_into_an_int64(seed: int) -> None:
    with pytest.raises(ConfigError, match=r"seed: must lie between 0 and 2\*\*63 - 1"):
        RunSettings(name="a", seed=seed)


def test_explain_tells_the_whole_way(config: ResolvedConfig) -> None:
    assert config.explain("run.seed") == "run.seed = 7\n  base.yaml:3:9: written 0\n  <override>:1:10: overridden 7"
    assert config.explain("run.out_dir").splitlines()[1:] == [
        "  base.yaml:2:12: interpolated from runs/${run.name}",
        "  main.yaml:2:13: written demo",
    ]
    assert config.explain("optimizer.lr").splitlines() == [
        "optimizer.lr = 0.001",
        "  main.yaml:3:25: taken from template quick",
        "  main.yaml:5:35: written 9",
        "  base.yaml:6:7: written 0.001",
    ]
    assert "interpolated from ${optimizer.betas}" in config.explain("copy")
    assert config.explain("list") == "list = a list of 2\n  base.yaml:8:7: written a list of 2"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("run.sede", "run.sede: no such key; expected out_dir, seed, name; did you mean 'seed'"),
        ("run.seed.x", "run.seed.x: no such key; expected nothing below it"),
        ("a..b", "the path is no path of keys joined by dots"),
    ],
)
def test_explain_says_what_is_not_there(config: ResolvedConfig, path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.explain(path)


def test_yaml_comes_back_the_same_and_names_origins(config: ResolvedConfig) -> None:
    again = resolve_config({**parsed(config.to_yaml())})
    assert again.data == config.data
    assert again.digest == config.digest
    lines = config.to_yaml(origin=True).splitlines()
    assert "  seed: 7  # override" in lines
    assert "  lr: 0.001  # base.yaml:6" in lines
    assert parsed(config.to_yaml(origin=True)) == thaw(config.data)


def parsed(text: str) -> Any:
    issues: list[Issue] = []
    node = parse(Source("x", text), issues)
    assert not issues
    return plain(node)


yaml_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=6).filter(lambda key: key != "defaults"), yaml_data, max_size=4))
def test_any_data_survives_being_written(data: dict[str, Any]) -> None:
    text = to_yaml(from_python(data))
    assert plain(resolve_text(text)) == data


def resolve_text(text: str) -> Any:
    """Read back, `$${` as the resolver reads it."""
    return from_python(unescaped(parsed(text)))


def unescaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: unescaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unescaped(item) for item in value]
    return value.replace("$${", "${") if isinstance(value, str) else value


def test_the_digest_is_of_the_meaning() -> None:
    one = resolve_config({"a": {"x": 1, "y": [2]}, "b": "${a.x}"})
    two = resolve_config({"b": 1, "a": {"y": [2], "x": 1}})
    assert one.digest == two.digest
    assert one.digest != resolve_config({"b": 2, "a": {"y": [2], "x": 1}}).digest


# Differences


def differences(old: Any, new: Any) -> list[str]:
    return [str(change) for change in diff(from_python(old), from_python(new))]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 2, "b": 1}}, []),
        ({"a": float("nan")}, {"a": float("nan")}, []),
        ({"a": 1}, {"a": True}, ["~ a: 1 → true"]),
        ({"a": {"b": 1}}, {"a": {"b": 2, "c": 3}}, ["~ a.b: 1 → 2", "+ a.c: 3"]),
        ({"a": [1, 2]}, {"a": [1]}, ["- a[1]: 2"]),
        ({"a": {"b": 1}}, {"a": None}, ["~ a: a mapping of 1 → null"]),
        ({"a": "1"}, {"a": 1}, ["~ a: 1 → 1"]),
    ],
)
def test_differences_of_meaning(old: Any, new: Any, expected: list[str]) -> None:
    assert differences(old, new) == expected


def test_a_difference_names_both_places(config: ResolvedConfig) -> None:
    other = resolve_config("main.yaml")
    assert [str(change) for change in diff(other.root, config.root)] == [
        "~ run.seed: 0 (base.yaml:3) → 7 (<override>:1)"
    ]


# Secrets

TOKEN = "hunter2-secret"
ENVIRON = {"TOKEN": TOKEN, "PIN": "7", "JSON": '{"user": "me", "password": "hunter3-secret"}', "SEED": "424242"}
SECRET = {
    "run": {"name": "a", "seed": "${env:int:SEED}"},
    "url": "https://${env:TOKEN}@host",
    "raw": "${env:TOKEN}",
    "again": "${raw}",
    "deep": "${env:json:JSON}",
    "user": "${deep.password}",
    "pin": "${env:PIN}",
    "open": "${env:NONE,default}",
}


@pytest.fixture
def secret() -> ResolvedConfig:
    return resolve_config(SECRET, ["late=${env:TOKEN}"], environ=ENVIRON)


def test_the_program_sees_values_from_the_environment(secret: ResolvedConfig) -> None:
    assert secret.data["url"] == f"https://{TOKEN}@host"
    assert secret.data["user"] == "hunter3-secret"


def test_nothing_that_is_printed_or_stored_shows_them(secret: ResolvedConfig) -> None:
    other = resolve_config({**SECRET, "raw": "x", "deep": {"password": "y", "user": "z"}}, environ=ENVIRON)
    explained = "\n".join(secret.explain(name) for name in [*SECRET, "late", "deep.password", "run.seed"])
    compared = "\n".join(map(str, [*diff(secret.root, other.root), *diff(other.root, secret.root)]))
    for text in (secret.to_yaml(), secret.to_yaml(origin=True), explained, compared, str(secret.public)):
        assert "hunter" not in text
        assert "424242" not in text
    assert "open: default" in secret.to_yaml()
    assert secret.public["url"] == "https://${env:TOKEN}@host"


def test_what_is_stored_resolves_again_to_the_same(secret: ResolvedConfig) -> None:
    again = resolve_config(parsed(secret.to_yaml()), environ=ENVIRON)
    assert again.data == secret.data


@pytest.mark.parametrize(
    ("issue", "shown"),
    [
        (Issue(path=("raw",), problem="is wrong", found=repr(TOKEN)), f"raw: is wrong; found {HIDDEN}"),
        (
            Issue(path=("x",), problem=f"ValueError: {TOKEN} is wrong", hint=f"not {TOKEN}"),
            "x: ValueError: *** is wrong (not ***)",
        ),
        (Issue(path=("pin",), problem="is wrong", found="7"), f"pin: is wrong; found {HIDDEN}"),
        (Issue(path=("x",), problem="is 7", found="7"), "x: is 7; found 7"),
        (
            Issue(path=("x",), problem="a", nearest=(TOKEN, "b"), expected=TOKEN),
            "x: a; expected ***; did you mean 'b'?",
        ),
    ],
)
def test_no_error_shows_them(secret: ResolvedConfig, issue: Issue, shown: str) -> None:
    located = secret.located(ConfigError([issue]))
    assert shown in str(located)
    assert "hunter" not in render(located)


def test_a_wrong_value_from_the_environment_is_not_shown() -> None:
    config = resolve_config({"run": {"name": "a", "seed": "${env:TOKEN}"}}, environ=ENVIRON)
    with pytest.raises(ConfigError) as caught:
        config.section("run", RunSettings)
    assert "hunter" not in render(caught.value)
    assert HIDDEN in render(caught.value)
