"""Arbitrary input to the whole of resolution: a configuration, or a `ConfigError`, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ftrainer.builtins import builtin_registry
from ftrainer.config import ResolvedConfig, preflight_issues, render, resolve_config
from ftrainer.config.node import Source, plain
from ftrainer.config.parse import parse
from ftrainer.examine import examine
from registry import ConfigError, Issue

REGISTRY = builtin_registry()
ENVIRON = {"A": " 1 ", "B": "text", "C": "[1, {}]", "D": "1e999"}

SECTIONS = "run model data io loss optimizer trainer callbacks settings imports evaluators templates defaults params"
INNER = (
    "a b c name seed key layers sequential graph kwargs _merge_ _value_ _template_ _type_ _target_ _args_ _kwargs_ _x_"
)
EXPRESSIONS = (
    "${a} ${a.b} ${run.name} x${b}y ${ $${a} ${a[0]} ${templates.a} ${} ${env:A} ${env:int:A} ${env:json:C} "
    "${env:float:D} ${env:Z,1} ${env:bool:B} ${env:} ${a${b}}"
)
WORDS = (
    "append prepend keyed replace a b name mlp nn.Linear optim.sgd trainer.default gone.yaml os.system extensions = ~ #"
)

keys = st.sampled_from([*SECTIONS.split(), *INNER.split(), "<<", "a.b", "0", ""])
texts = st.sampled_from([*EXPRESSIONS.split(), *WORDS.split(), "\x00", "\ud800", "\u2028", ": "])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.text(max_size=6)
data = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=25
)
mappings = st.dictionaries(keys, data, max_size=5)
paths = st.lists(keys.filter(bool), min_size=1, max_size=4).map(".".join) | st.text(max_size=8)
overrides = st.lists(
    st.tuples(paths, texts | st.text(max_size=8)).map("=".join) | st.text(max_size=8), max_size=2
) | st.dictionaries(paths, data, max_size=2)


def resolved_or_refused(source: Any, overrides: Mapping[str, Any] | Sequence[str] = ()) -> ResolvedConfig | None:
    """The configuration; None after checking that what was raised can be shown."""
    try:
        return resolve_config(source, overrides, environ=ENVIRON)
    except ConfigError as error:
        shown = render(error)
    assert shown
    return None


@given(mappings, overrides)
@settings(max_examples=400)
def test_arbitrary_data_resolves_or_is_refused(source: dict[str, Any], given_overrides: Any) -> None:
    config = resolved_or_refused(source, given_overrides)
    if config is None:
        return
    issues = preflight_issues(config)
    assert render(config.located(ConfigError(issues)))
    assert isinstance(config.digest, str)
    again = read_back(config)
    assert again is None or again.to_yaml() == config.to_yaml()


def read_back(config: ResolvedConfig) -> ResolvedConfig | None:
    """What was written, resolved once more; None where it holds a value from the environment or no longer resolves."""
    if config.secrets:
        return None
    issues: list[Issue] = []
    node = parse(Source("again", config.to_yaml(origin=True)), issues)
    assert not issues
    source = plain(node)
    reserved = ("defaults", "templates", "_merge_", "_value_", "_template_")
    return None if any(word in config.to_yaml() for word in reserved) else resolve_config(source, environ=ENVIRON)


@given(mappings)
@settings(max_examples=150)
def test_arbitrary_data_is_examined_or_refused(source: dict[str, Any]) -> None:
    good = {"run": {"name": "a"}, "trainer": {"_type_": "trainer.default", "max_epochs": 1}}
    shown = "valid"
    try:
        examine({**good, **source}, registry=REGISTRY)
    except ConfigError as error:
        shown = render(error)
    assert shown


@given(mappings)
def test_resolution_is_deterministic_and_leaves_its_input_alone(source: dict[str, Any]) -> None:
    before = repr(source)
    one, two = resolved_or_refused(source), resolved_or_refused(source)
    assert repr(source) == before
    assert (one is None) == (two is None)
    assert one is None or two is None or one.to_yaml() == two.to_yaml()
