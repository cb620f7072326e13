"""YAML as this project reads it: 1.2 scalars, places, and everything that is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ftrainer.config import parse as parse_module
from ftrainer.config.node import Node, Source, plain
from ftrainer.config.parse import parse
from ftrainer.config.scalars import read_plain
from registry import ConfigError, Issue


@pytest.fixture(params=["CLoader", "Loader"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The C scanner and the pure one."""
    if not hasattr(yaml, request.param):
        pytest.skip("PyYAML was built without libyaml")
    monkeypatch.setattr(parse_module, "LOADER", getattr(yaml, request.param))


def read(text: str) -> Node:
    issues: list[Issue] = []
    node = parse(Source("a.yaml", text), issues)
    if issues:
        raise ConfigError(issues)
    return node


def refused(text: str) -> list[tuple[int, int, str]]:
    """Line, column and words of every issue."""
    with pytest.raises(ConfigError) as caught:
        read(text)
    marks = [(issue, issue.where) for issue in caught.value.issues]
    return [(w.line, w.column, str(i).removeprefix(f"{w}: ")) for i, w in marks if w is not None]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.0e-3", 0.001),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("+12", 12),
        ("08", 8),
        ("0o17", 15),
        ("0xff", 255),
        ("017", 17),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("No", "No"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("0b1", "0b1"),
        ("1.2.3", "1.2.3"),
        ("=", "="),
        ("-x", "-x"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("!!str 1e3", "1e3"),
        ("!!int 0o17", 15),
        ("!!float 3", 3.0),
        ("!!bool true", True),
        ("!!null null", None),
    ],
)
@pytest.mark.usefixtures("loader")
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = read(f"a: {text}").value["a"].value
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_read() -> None:
    assert math.isnan(read("a: .nan").value["a"].value)


@pytest.mark.usefixtures("loader")
def test_every_node_knows_its_place() -> None:
    root = read("# comment\na: 1\néé:\n  - {ß: 'x y', 😀: 2}\n  - |\n    text\n")
    inner = root.value["éé"].value[0].value
    places = [
        root.value["a"].place,
        root.value["éé"].key,
        inner["ß"].place,
        inner["😀"].key,
        root.value["éé"].value[1].place,
    ]
    assert [(p.line, p.column) for p in places if p] == [(2, 4), (3, 1), (4, 9), (4, 16), (5, 5)]
    assert inner["ß"].place.width == 5
    assert inner["ß"].place.mark().text == "  - {ß: 'x y', 😀: 2}"


@pytest.mark.usefixtures("loader")
def test_an_empty_text_is_an_empty_mapping() -> None:
    assert plain(read("")) == {} == plain(read("# nothing\n"))


@pytest.mark.usefixtures("loader")
def test_anchors_and_merge_keys() -> None:
    text = "base: &b {x: 1, y: 2}\nmore: &m {y: 3, z: 4}\na: {<<: *b, x: 9}\nb: {<<: [*b, *m]}\nc: *b\nd: {'<<': 1}\n"
    data = plain(read(text))
    assert data["a"] == {"x": 9, "y": 2}
    assert data["b"] == {"x": 1, "y": 2, "z": 4}
    assert data["c"] == {"x": 1, "y": 2}
    assert data["d"] == {"<<": 1}


@pytest.mark.usefixtures("loader")
def test_an_alias_stands_where_it_is_used_and_remembers_the_anchor() -> None:
    node = read("a: &x 1\nb: *x\n").value["b"]
    assert (node.place.line, node.place.column) == (2, 4)
    assert [(step.how, step.place.line) for step in node.history if step.place] == [("anchor", 1)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a: 1\nb: 2\na: 3\n",
            [(3, 1, "a: duplicate key: it stands on line 1 and on line 3; found 'a' (keep one of the two)")],
        ),
        ("x: {k: 1, k: 2}\n", [(1, 11, "x.k: duplicate key: it stands on line 1 and on line 1")]),
        ("a: 1\n'a': 2\n", [(2, 1, "a: duplicate key")]),
        ("a: {<<: {}, <<: {}}\n", [(1, 13, "a.<<: duplicate key")]),
        (
            "a: !!python/object:os.system x\n",
            [(1, 4, "a: tags that would construct objects are refused; found tag:yaml.org,2002:python")],
        ),
        ("a: !own {b: 1}\n", [(1, 4, "a: tags that would construct objects are refused; found !own")]),
        ("a: !!set {b, c}\n", [(1, 4, "a: tags that would construct objects are refused")]),
        ("a: !!timestamp 2024-01-01\n", [(1, 4, "a: tags that would construct objects are refused")]),
        ("a: !!int x\n", [(1, 4, "a: is tagged int and is none")]),
        ("a: 1e999\n", [(1, 4, "a: too large for a float; .inf is infinity; found 1e999")]),
        (f"a: {'9' * 500}\n", [(1, 4, "a: an integer of more than 400 digits")]),
        ("1: a\n", [(1, 1, "keys are text; found 1 (write it in quotes)")]),
        ("a: {true: 1, ~: 2}\n", [(1, 5, "a: keys are text; found true"), (1, 14, "a: keys are text; found null")]),
        ("? [a, b]\n: 1\n", [(1, 3, "keys are text; found a list")]),
        ("a: *b\n", [(1, 4, "a: no anchor &b stands before this alias")]),
        ("a: &x [*x]\n", [(1, 8, "a[0]: the alias *x stands inside its own anchor")]),
        ("a: {<<: 3}\n", [(1, 5, "a.<<: a merge key takes a mapping, or a list of them; found an integer")]),
        ("a:\n\tb: 1\n", [(2, 1, "a tab in the indentation (indent with spaces)")]),
        ("a:\n  b: 1\n  \tc: 2\n", [(3, 3, "a tab in the indentation (indent with spaces)")]),
        (
            "a: [1, 2\nb: 3\n",
            [(2, 2, "is no YAML: while parsing a flow sequence, which begins on line 1: did not find")],
        ),
        ("a: 1\nb c\nd: 3\n", [(2, 1, "is no YAML: while scanning a simple key: could not find expected ':'")]),
        ("a: 'x\n", None),
        ("a: b: c\n", [(1, 5, "is no YAML: mapping values are not allowed in this context")]),
        ("a: {b: ${c.d}}\n", None),
        ("a: 1\n---\nb: 2\n", [(2, 1, "a second document begins; a configuration is one")]),
        ("%YAML 9.0\n---\na: 1\n", None),
        ("a: \x00\n", [(1, 4, "holds the character U+0000, which YAML does not allow")]),
        ("a: 1\nb:\x07\n", [(2, 3, "holds the character U+0007, which YAML does not allow")]),
    ],
)
def test_what_is_refused_is_shown_where_it_stands(text: str, expected: Any) -> None:
    found = refused(text)
    if expected is None:
        assert found[0][2].startswith(("is no YAML", "a: is no YAML"))
        assert 1 <= found[0][0] <= text.count("\n") + 1
    else:
        assert [
            (line, column, words[: len(start)])
            for (line, column, words), (_, _, start) in zip(found, expected, strict=True)
        ] == expected


def test_an_interpolation_in_braces_is_told_to_be_quoted() -> None:
    assert 'write "${…}" in quotes' in refused("a: {b: ${c.d}, e: 1}\n")[0][2]


def test_several_mistakes_are_found_together() -> None:
    found = refused("a: 1\na: 2\nb: !x 3\nc: [*no, 1e999]\n")
    assert [(line, column) for line, column, _ in found] == [(2, 1), (3, 4), (4, 5), (4, 10)]


def test_aliases_cannot_fill_the_memory() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(ConfigError, match="expand to more than 200000 values"):
        read("\n".join(lines))


@pytest.mark.parametrize("text", ["[" * 5000, "- " * 5000, "{a: " * 5000, "? " * 5000, "a: " + "[" * 300 + "]" * 300])
def test_deep_nesting_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"nested more than 100 levels deep|is no YAML"):
        read(text)


def test_half_a_surrogate_pair_is_no_text() -> None:
    with pytest.raises(ConfigError, match="half a surrogate pair"):
        read("a: \ud800")


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    issues: list[Issue] = []
    try:
        parse(Source("a.yaml", text), issues)
    except ConfigError as error:
        issues += error.issues
    assert all(str(issue) for issue in issues)


@given(st.text(alphabet="abc:-[]{}&*!|>'\"#%@`,?\t \n<0123456789.eox~", max_size=60))
def test_any_yaml_like_text_is_read_or_refused(text: str) -> None:
    issues: list[Issue] = []
    try:
        parse(Source("a.yaml", text), issues)
    except ConfigError as error:
        issues += error.issues
    assert all(issue.where is None or issue.where.line >= 1 for issue in issues)


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_come_back(number: float) -> None:
    text = str(number)
    assert read_plain(text if "e" not in text or "." in text else text.replace("e", ".0e")) == number
