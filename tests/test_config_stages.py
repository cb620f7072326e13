"""The stages of resolution, one by one: defaults, merge, overrides, templates, interpolation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ftrainer.config import resolve_config
from registry import ConfigError, thaw


def resolved(source: Any, overrides: Mapping[str, Any] | Sequence[str] = (), **environ: str) -> Any:
    return thaw(resolve_config(source, overrides, environ=environ).data)


def refused(source: Any, *messages: str, overrides: Any = (), **environ: str) -> None:
    """Exactly these issues, each ending (after its place) as said."""
    with pytest.raises(ConfigError) as caught:
        resolve_config(source, overrides, environ=environ)
    found = [str(issue) for issue in caught.value.issues]
    assert len(found) == len(messages), found
    for text, message in zip(found, messages, strict=True):
        assert message in text, found


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


# Defaults


def test_defaults_are_relative_to_the_file_that_names_them_and_later_ones_win(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep", one="a: 1\nb: 1\nc: 1\n", two="defaults: [../zero.yaml]\nb: 2\n")
    write(tmp_path, zero="b: 0\nd: 0\n", main="defaults:\n  - deep/one.yaml\n  - deep/two.yaml\nc: 3\n")
    assert resolved(tmp_path / "main.yaml") == {"a": 1, "b": 2, "c": 3, "d": 0}


def test_a_file_named_twice_is_merged_once_where_it_is_first_named(tmp_path: Path) -> None:
    write(tmp_path, base="x: 0\nl: [1]\n", a="defaults: [base.yaml]\nx: 1\n", b="defaults: [base.yaml]\ny: 2\n")
    write(tmp_path, main="defaults: [a.yaml, b.yaml]\nl: {_merge_: append, _value_: [2]}\n")
    assert resolved(tmp_path / "main.yaml") == {"x": 1, "y": 2, "l": [1, 2]}


def test_one_default_needs_no_list_and_none_is_none(tmp_path: Path) -> None:
    write(tmp_path, base="x: 0\n", main="defaults: base.yaml\n", none="defaults:\nx: 1\n")
    assert resolved(tmp_path / "main.yaml") == {"x": 0}
    assert resolved(tmp_path / "none.yaml") == {"x": 1}


def test_defaults_of_a_mapping_are_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, base="x: 0\ny: 0\n")
    monkeypatch.chdir(tmp_path)
    assert resolved({"defaults": ["base.yaml"], "y": 1}) == {"x": 0, "y": 1}
    refused({"defaults": [3]}, "defaults: defaults is a path or a list of paths; found an integer")


def test_wrong_defaults_are_all_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, base="a: 1\na: 2\n", main="defaults:\n  - bsae.yaml\n  - 3\n  - base.yaml\n  - .\n")
    (tmp_path / "bytes.yaml").write_bytes(b"a: \xff")
    refused(
        "main.yaml",
        "base.yaml:2:1: a: duplicate key",
        "main.yaml:2:5: defaults[0]: no such file; found 'bsae.yaml'; did you mean 'base.yaml'?",
        "main.yaml:3:5: defaults[1]: defaults is a path or a list of paths, relative to the file that names them",
        "main.yaml:5:5: defaults[3]: cannot be read: is a directory; found '.'",
    )
    refused("bytes.yaml", "bytes.yaml:1:4: is no UTF-8 text: byte 3 is 0xff")
    refused("gone/away.yaml", "no such file; found 'gone/away.yaml'")
    refused("a\0b.yaml", "cannot be read: embedded null byte")


def test_a_circle_of_defaults_is_shown_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, a="defaults: [b.yaml]\n", b="defaults: [c.yaml]\n", c="defaults: [b.yaml]\n")
    refused("a.yaml", "c.yaml:1:12: defaults[0]: defaults go in a circle: b.yaml → c.yaml → b.yaml")


def test_a_configuration_is_a_mapping(tmp_path: Path) -> None:
    write(tmp_path, a="[1]\n", b="_merge_: replace\n_value_: {a: 1}\n")
    refused(tmp_path / "a.yaml", "a.yaml:1:1: a configuration is a mapping; found a list")
    refused(tmp_path / "b.yaml", "b.yaml:1:1: _merge_: _merge_ belongs below a key")


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("\ufeffa: 1\n", encoding="utf-8")
    assert resolved(tmp_path / "a.yaml") == {"a": 1}


# Merge


def layered(tmp_path: Path, base: str, over: str) -> Any:
    write(tmp_path, base=base, main=f"defaults: [base.yaml]\n{over}")
    return resolved(tmp_path / "main.yaml")


@pytest.mark.parametrize(
    ("base", "over", "expected"),
    [
        ("a: {x: 1, y: {z: 2}}", "a: {y: {w: 3}}", {"x": 1, "y": {"z": 2, "w": 3}}),
        ("a: [1, 2]", "a: [3]", [3]),
        ("a: {x: 1}", "a: 2", 2),
        ("a: 1", "a: {x: 1}", {"x": 1}),
        ("a: {x: 1}", "a: null", None),
        ("a: [1]", "a: {_merge_: append, _value_: [2]}", [1, 2]),
        ("a: [1]", "a: {_merge_: prepend, _value_: [2]}", [2, 1]),
        ("a: [1]", "a: {_merge_: replace, _value_: [2]}", [2]),
        ("a: {x: 1}", "a: {_merge_: replace, _value_: {y: 1}}", {"y": 1}),
        ("a: {b: {x: 1}, c: 2}", "a: {b: {_merge_: replace, _value_: {y: 1}}}", {"b": {"y": 1}, "c": 2}),
        ("a: null", "a: {_merge_: append, _value_: [2]}", [2]),
        ("b: 1", "a: {_merge_: append, _value_: [2]}", [2]),
        (
            "a: [{name: p, v: 1}, {name: q}]",
            "a: {_merge_: keyed, _value_: [{name: p, w: 2}, {name: r}]}",
            [{"name": "p", "v": 1, "w": 2}, {"name": "q"}, {"name": "r"}],
        ),
        ("a: [{id: 1, v: 1}]", "a: {_merge_: keyed, key: id, _value_: [{id: 1, v: 2}]}", [{"id": 1, "v": 2}]),
        ("a: {_merge_: append, _value_: [1]}", "a: {_merge_: append, _value_: [2]}", [1, 2]),
        ("a: {_merge_: append, _value_: [1]}", "a: [2]", [2]),
        ("a: {_merge_: replace, _value_: {x: 1}}", "a: {y: 2}", {"x": 1, "y": 2}),
        ("a: [{b: {_merge_: replace, _value_: 1}}]", "c: 1", [{"b": 1}]),
    ],
)
def test_laying_one_file_over_another(tmp_path: Path, base: str, over: str, expected: Any) -> None:
    assert layered(tmp_path, base + "\n", over + "\n")["a"] == expected


@pytest.mark.parametrize(
    ("over", "place", "message"),
    [
        (
            "{_merge_: apend, _value_: [1]}",
            (2, 14),
            "unknown merge mode; found 'apend'; expected append, prepend, replace, keyed; did you mean 'append'",
        ),
        ("{_merge_: 3, _value_: [1]}", (2, 14), "a._merge_: unknown merge mode; found 3"),
        ("{_merge_: append}", (2, 5), "a._value_: _merge_ needs a _value_"),
        ("{_value_: [1]}", (2, 5), "a._value_: _value_ stands without _merge_"),
        (
            "{_mrege_: append, _value_: [1]}",
            (2, 5),
            "a._mrege_: is no _merge_, which _value_ needs; did you mean '_merge_'",
        ),
        ("{_merge_: append, _value_: 3}", (2, 31), "a._value_: append takes a list; found an integer"),
        (
            "{_merge_: append, _value_: [1], kee: b}",
            (2, 36),
            "a.kee: unknown key beside _merge_; expected _merge_, _value_, key; did you mean 'key'",
        ),
        ("{_merge_: append, _value_: [1], key: b}", (2, 41), "a.key: key is the name of a field, for mode keyed"),
        ("{_merge_: keyed, _value_: [{name: a}], key: 3}", (2, 48), "a.key: key is the name of a field"),
    ],
)
def test_a_wrong_directive_is_shown_where_it_stands(
    tmp_path: Path, over: str, place: tuple[int, int], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        layered(tmp_path, "a: [1]\n", f"a: {over}\n")
    (issue,) = caught.value.issues
    assert issue.where is not None
    assert (issue.where.line, issue.where.column) == place
    assert message in str(issue)


@pytest.mark.parametrize(
    ("base", "over", "message"),
    [
        (
            "a: 3",
            "a: {_merge_: append, _value_: [1]}",
            "main.yaml:2:14: a: append needs a list to work on, and below stands an integer",
        ),
        (
            "a: [1]",
            "a: {_merge_: keyed, _value_: [{name: x}]}",
            "base.yaml:1:5: a[0]: a list merged by key needs mappings that each have 'name'",
        ),
        (
            "a: [{name: x}, {name: x}]",
            "a: {_merge_: keyed, _value_: []}",
            "base.yaml:1:16: a[1]: two items have 'name' 'x'",
        ),
        ("a: [{name: [x]}]", "a: {_merge_: keyed, _value_: []}", "a[0]: a list merged by key needs mappings"),
    ],
)
def test_a_directive_that_meets_the_wrong_thing(tmp_path: Path, base: str, over: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        layered(tmp_path, base + "\n", over + "\n")
    assert message in str(caught.value)


# Overrides


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a.b=1e-3", {"a": {"b": 0.001, "l": [1, {"k": 2}]}}),
        ("a.new.deep=x", {"a": {"b": 1, "l": [1, {"k": 2}], "new": {"deep": "x"}}}),
        ("a.l[1].k=true", {"a": {"b": 1, "l": [1, {"k": True}]}}),
        ("a.l.0=", {"a": {"b": 1, "l": [None, {"k": 2}]}}),
        ("a.l=[5, {x: 1}]", {"a": {"b": 1, "l": [5, {"x": 1}]}}),
        ("a.l={_merge_: append, _value_: [3]}", {"a": {"b": 1, "l": [1, {"k": 2}, 3]}}),
        ("a={c: 2}", {"a": {"b": 1, "l": [1, {"k": 2}], "c": 2}}),
        ('a."x.y"=1', {"a": {"b": 1, "l": [1, {"k": 2}], "x.y": 1}}),
        ("a.b='on'", {"a": {"b": "on", "l": [1, {"k": 2}]}}),
        ("a.b=x=y", {"a": {"b": "x=y", "l": [1, {"k": 2}]}}),
    ],
)
def test_an_override_is_laid_over_the_files(override: str, expected: Any) -> None:
    assert resolved({"a": {"b": 1, "l": [1, {"k": 2}]}}, [override]) == expected


def test_overrides_from_python_are_data() -> None:
    assert resolved({"a": {"b": 1}}, {"a.b": "1e-3", "c.d": [1]}) == {"a": {"b": "1e-3"}, "c": {"d": [1]}}


def test_later_overrides_win_and_reach_every_interpolation() -> None:
    config = {"run": {"name": "a"}, "x": "${run.out_dir}/x"}
    assert resolved(config, ["run.out_dir=p", "run.out_dir=q"])["x"] == "q/x"


def test_an_override_reaches_inside_a_directive(tmp_path: Path) -> None:
    write(tmp_path, main="a: {_merge_: append, _value_: [{k: 1}]}\n")
    assert resolved(tmp_path / "main.yaml", ["a[0].k=2"]) == {"a": [{"k": 2}]}


@pytest.mark.parametrize(
    ("override", "column", "message"),
    [
        ("a.b", 1, "an override has no =; found 'a.b' (write key.path=value)"),
        ("=3", 1, "the override is no path: it is empty"),
        ("a._merge_=append", 1, "the override leads into a directive; give it as the value: key={_merge_: append"),
        ("a..b=3", 1, "the override is no path of keys joined by dots: 'a..b'"),
        (".a=3", 1, "the override is no path"),
        ("a[x]=3", 1, "the override is no path"),
        ("a.b.c=3", 5, "a.b.c: the path runs through what is no mapping; found a.b is an integer"),
        ("l[7]=3", 3, "l[7]: is no index of the list; found '7', for a list of 1"),
        ("l.x=3", 3, "l.x: is no index of the list; found 'x'"),
        ("a.b=[1", 5, "a.b: is no YAML"),
        ("a.b={x: 1, x: 2}", 12, "a.b.x: duplicate key"),
        ("a.b={_merge_: nope, _value_: 1}", 15, "a.b._merge_: unknown merge mode"),
        (".".join("a" * 200) + "=1", 1, "is nested more than 100 levels deep"),
        ("a.b=${c}", 7, "a.b: ${c} leads nowhere"),
    ],
)
def test_a_wrong_override_is_shown_in_its_own_text(override: str, column: int, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_config({"a": {"b": 1}, "l": [1]}, [override])
    issue = caught.value.issues[0]
    assert message in str(issue)
    assert issue.where is not None
    assert (issue.where.file, issue.where.column) == ("<override>", column)
    assert issue.where.text == override


def test_wrong_overrides_are_told_together() -> None:
    refused(
        {"a": {"b": "${c}"}, "l": [1]},
        "an override has no =",
        "l[7]: is no index of the list",
        "a.b: ${c} leads nowhere",
        overrides=["oops", "l[7]=3", "d=1"],
    )


def test_a_missing_name_is_told_once() -> None:
    refused({"run": {"seed": 0}, "a": "${run.out_dir}/x"}, "run.name: is required and missing")


def test_wrong_overrides_from_python_are_named() -> None:
    refused({}, "the override's name is no path", overrides={"a..b": 1})
    refused({}, "a.b: is no YAML data; found a set", overrides={"a.b": {1}})
    refused({}, "a.b[0]: holds half a surrogate pair", overrides={"a.b": ["\ud800"]})
    refused({}, "a: keys are text; found 1", overrides={"a": {1: 2}})


def test_data_from_python_has_a_depth() -> None:
    deep: Any = 1
    for _ in range(2000):
        deep = [deep]
    refused({"a": deep}, "is nested more than 100 levels deep")


# Templates


def test_a_template_lies_under_its_node_and_is_gone() -> None:
    config = {
        "templates": {"small": {"_template_": "any", "width": 8}, "any": {"_type_": "t", "width": 1, "deep": {"a": 1}}},
        "one": {"_template_": "small", "deep": {"b": 2}},
        "two": [{"_template_": "any", "width": "${params.w}"}],
        "params": {"w": 3},
    }
    data = resolved(config)
    assert data["one"] == {"_type_": "t", "width": 8, "deep": {"a": 1, "b": 2}}
    assert data["two"] == [{"_type_": "t", "width": 3, "deep": {"a": 1}}]
    assert "templates" not in data


def test_overrides_come_before_templates_and_directives_work_on_them() -> None:
    config = {
        "templates": {"t": {"layers": [1], "lr": 1}},
        "a": {"_template_": "t", "layers": {"_merge_": "append", "_value_": [2]}},
    }
    assert resolved(config, ["a.lr=5"])["a"] == {"layers": [1, 2], "lr": 5}
    assert resolved(config, ["templates.t.lr=7"])["a"]["lr"] == 7


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"a": {"_template_": "smal"}, "templates": {"small": {}}},
            "a._template_: unknown template; found 'smal'; expected small; did you mean 'small'",
        ),
        ({"a": {"_template_": "t"}}, "a._template_: unknown template; found 't'; expected no templates"),
        (
            {"a": {"_template_": ["t"]}, "templates": {"t": {}}},
            "a._template_: _template_ takes a template's name; found a list",
        ),
        ({"a": {"_template_": "t"}, "templates": {"t": 3}}, "templates.t: a template is a mapping; found an integer"),
        ({"templates": [1]}, "templates: templates is a mapping from names to mappings; found a list"),
    ],
)
def test_a_wrong_template_is_named(config: Any, message: str) -> None:
    refused(config, message)


def test_a_circle_of_templates_is_shown_whole() -> None:
    templates = {"a": {"x": {"_template_": "b"}}, "b": {"_template_": "c"}, "c": {"_template_": "a"}}
    with pytest.raises(ConfigError, match="templates go in a circle: a → b → c → a"):
        resolve_config({"templates": templates})


def test_templates_cannot_fill_the_memory_nor_the_stack() -> None:
    wide: dict[str, Any] = {"t0": {"x": 1}}
    wide |= {f"t{i}": {str(k): {"_template_": f"t{i - 1}"} for k in range(8)} for i in range(1, 8)}
    with pytest.raises(ConfigError, match="expand to more than 200000 values"):
        resolve_config({"templates": wide, "a": {"_template_": "t7"}})
    deep: dict[str, Any] = {"t0": {"x": 1}}
    deep |= {f"t{i}": {"x": {"_template_": f"t{i - 1}"}} for i in range(1, 300)}
    with pytest.raises(ConfigError, match=r"nest more than 100 levels deep|nested more than 100 levels deep"):
        resolve_config({"templates": dict(reversed(deep.items())), "a": {"_template_": "t299"}})


# Interpolation


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${p.int}", 3),
        ("${ p.int }", 3),
        ("${p.map}", {"k": [1, 3]}),
        ("${p.map.k[1]}", 3),
        ("${p.map.k.0}", 1),
        ("${p.indirect.k}", [1, 3]),
        ("a${p.int}b${p.true}c${p.null}", "a3btruecnull"),
        ("${p.float}x", "0.001x"),
        ("$${p.int}", "${p.int}"),
        ("$${a} ${p.int}", "${a} 3"),
        ("costs 5$", "costs 5$"),
        ("$x", "$x"),
        ("$$x", "$$x"),
        ("${env:RAW}", " 08 "),
        ("${env:int:RAW}", 8),
        ("${env:float:RAW}", 8.0),
        ("${env:json:JSON}", {"a": [1, None]}),
        ("${env:bool:YES}", True),
        ("${env:bool:NONE, off}", False),
        ("${env:NONE,}", ""),
        ("${env:NONE, x }", " x "),
        ("${env:int:NONE,32}", 32),
        ('${env:json:NONE,{"a": {"b": 1}}}', {"a": {"b": 1}}),
        ("[${env:RAW}]", "[ 08 ]"),
        ('${p."d.k"}', 9),
    ],
)
def test_an_interpolation_is_replaced(text: str, expected: Any) -> None:
    parts = {"int": 3, "true": True, "null": None, "float": 1e-3, "map": {"k": [1, "${p.int}"]}, "d.k": 9}
    environ = {"RAW": " 08 ", "JSON": ' {"a": [1, null]} ', "YES": " Yes "}
    found = resolved({"p": {**parts, "indirect": "${p.map}"}, "x": text}, **environ)["x"]
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${p.itn}", "x: ${p.itn} leads nowhere: p has no 'itn'; did you mean 'p.int'?"),
        ("${zzz}", "x: ${zzz} leads nowhere: the configuration has no 'zzz'"),
        ("${p.int.deep}", "x: ${p.int.deep} leads nowhere: p.int has no 'deep'"),
        ("${p.list[3]}", "x: ${p.list[3]} leads nowhere: p.list has no '3'"),
        ("a ${p.list}", "x: ${p.list} stands inside text, and is a list"),
        ("a ${b", "x: an interpolation is not closed: no } follows ${"),
        ("${a${b}}", "x: an interpolation holds another one"),
        ("${}", "x: ${} is no path: it is empty"),
        ("${a..b}", "x: ${a..b} is no path of keys"),
        ("${env:NONE}", "x: the environment variable 'NONE' is not set (set it, or give a default: ${env:NONE,…})"),
        ("${env:TOKE}", "did you mean 'TOKEN'?"),
        ("${env:}", "x: ${env:…} names no variable"),
        (
            "${env:itn:TOKEN}",
            "x: unknown type 'itn' in ${env:…}; expected env:VAR, or env:int:VAR with int, float, bool or json;",
        ),
        ("${env:int:TOKEN}", "x: the environment variable 'TOKEN' holds no int"),
        ("${env:float:TOKEN}", "x: the environment variable 'TOKEN' holds no float"),
        ("${env:float:HUGE}", "x: the environment variable 'HUGE' holds no float"),
        ("${env:bool:TOKEN}", "x: the environment variable 'TOKEN' holds no bool"),
        ("${env:json:TOKEN}", "x: the environment variable 'TOKEN' holds no json"),
        ("${env:json:SURROGATE}", "x: holds half a surrogate pair"),
        ("${env:int:NONE,eight}", "x: the default of 'NONE' holds no int"),
        ("${env:int:NONE,1e3}", "x: the default of 'NONE' holds no int"),
    ],
)
def test_a_wrong_interpolation_is_named(text: str, message: str) -> None:
    environ = {"TOKEN": "hunter2", "HUGE": "1e999", "SURROGATE": '"\\ud800"'}
    refused({"p": {"int": 3, "list": [1]}, "x": text}, message, **environ)


@pytest.mark.parametrize(
    ("config", "circle"),
    [
        ({"a": "${a}"}, "a → a"),
        ({"a": "${b}", "b": "x${c}", "c": "${a}"}, "a → b → c → a"),
        ({"a": {"b": "${a}"}}, "a → a.b → a"),
        ({"a": "${b.x}", "b": {"x": "${a}"}}, "a → b.x → a"),
    ],
)
def test_a_circle_of_interpolations_is_shown_whole(config: Any, circle: str) -> None:
    with pytest.raises(ConfigError, match=f"interpolations go in a circle: {circle}"):
        resolve_config(config)


def test_a_sibling_is_no_circle() -> None:
    assert resolved({"a": {"b": 1, "c": "${a.b}"}}) == {"a": {"b": 1, "c": 1}}


def test_a_broken_reference_is_reported_once_and_the_rest_is_checked() -> None:
    refused({"a": "${b}", "b": "${gone}", "c": "${lost}"}, "b: ${gone} leads nowhere", "c: ${lost} leads nowhere")


def test_interpolations_cannot_fill_the_memory_nor_the_stack() -> None:
    wide: dict[str, Any] = {"a0": list(range(10))}
    wide |= {f"a{i}": [f"${{a{i - 1}}}"] * 10 for i in range(1, 7)}
    with pytest.raises(ConfigError, match="expand to more than 200000 values"):
        resolve_config(wide)
    texts: dict[str, Any] = {"a0": "x" * 100}
    texts |= {f"a{i}": f"${{a{i - 1}}}" * 10 for i in range(1, 7)}
    with pytest.raises(ConfigError, match="make a text of more than 100000 characters"):
        resolve_config(texts)
    chain: dict[str, Any] = {f"a{i}": f"${{a{i + 1}}}" for i in range(500)}
    with pytest.raises(ConfigError, match="lead on through too many others"):
        resolve_config({**chain, "a500": 1})
    nested: dict[str, Any] = {"a0": 1}
    nested |= {f"a{i}": {"x": {"y": {"z": f"${{a{i - 1}}}"}}} for i in range(1, 38)}
    with pytest.raises(ConfigError, match="nested more than 100 levels deep"):
        resolve_config(dict(reversed(nested.items())))


def test_what_is_wrong_points_into_the_text(tmp_path: Path) -> None:
    write(tmp_path, main="a: x/${b.c}\nd: 'it''s ${e}'\nf: \"${env:GONE}\"\ng: >\n  folded ${h}\n")
    with pytest.raises(ConfigError) as caught:
        resolve_config(tmp_path / "main.yaml", environ={})
    marks = [(issue.where.line, issue.where.column) for issue in caught.value.issues if issue.where]
    assert marks == [(1, 8), (2, 4), (3, 5), (4, 4)]


def test_the_output_directory_follows_the_name() -> None:
    assert resolved({"run": {"name": "a"}})["run"]["out_dir"] == "runs/a"
    assert resolved({"run": {"_template_": "r"}, "templates": {"r": {"name": "b"}}})["run"]["out_dir"] == "runs/b"
    assert resolved({"run": {"name": "a", "out_dir": "x"}})["run"]["out_dir"] == "x"


def test_a_missing_name_is_what_is_said_about_it(tmp_path: Path) -> None:
    write(tmp_path, main="run:\n  out_dir: runs/${run.name}\n  seed: 1\nx: ${run.name}\n")
    refused(tmp_path / "main.yaml", "main.yaml:1:1: run.name: is required and missing")
