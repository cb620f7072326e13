"""Trees of specs to components: what is checked before a call, what a call may return."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import attrs
import numpy as np
import pytest
import torch
from frozendict import frozendict
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from registry import ConfigError, Deferred, Issue, Plain, Registry, Settings, check, component, instantiate, invalid


class Schedule(Protocol):
    """What has a rate."""

    name: str

    def rate(self, step: int) -> float: ...


@component
class Constant:
    """A schedule."""

    value: float = 1.0
    name: str = "constant"

    def rate(self, step: int) -> float:
        del step
        return self.value


@component
class Wheel:
    """Has a check of its own."""

    radius: float

    def __attrs_post_init__(self) -> None:
        if self.radius <= 0:
            raise invalid("must be positive", "radius", found=str(self.radius))


@component
class Cart:
    """Has every kind of field."""

    wheel: Wheel | None = None
    wheels: tuple[Wheel, ...] = ()
    spare: Mapping[str, Wheel] = frozendict()
    load: int = 0
    speed: float = 1.0
    name: str = "cart"
    brakes: bool = True
    mode: Literal["fast", "slow", 3] = "fast"
    size: tuple[int, float] = (1, 1.0)
    limit: int | tuple[int, int] | None = None
    home: Path | None = None
    schedule: Schedule | None = None
    notes: Plain = None
    anything: Any = None


@component
class Holder:
    """Holds what is built later."""

    fn: Deferred
    layers: tuple[Deferred, ...] = ()
    named: Mapping[str, Deferred] = frozendict()
    rate: float | Deferred = 1.0


@component
class Student:
    """Is handed parts."""

    model: Any
    optimizer: Wheel
    steps: int = 1


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass(frozen=True)
class FrozenData:
    values: Any


@dataclasses.dataclass
class LooseData:
    values: int = 1


@attrs.define
class Loose:
    values: int = 1


@attrs.define(eq=False)
class Box:
    values: Any


class Bare:
    """Keeps its state in a dictionary."""

    def method(self) -> None:
        """Bound to what can be changed."""


@component
class Keeps:
    value: Any


def failing(kind: str) -> Any:
    """Raise what a factory may raise."""
    raise {"value": ValueError, "type": TypeError, "os": FileNotFoundError}[kind]("out of cheese")


def collect(*items: int, **named: float) -> Any:
    """Take anything."""
    return (items, frozendict(named))


REGISTRY = Registry().register_all(
    {
        "constant": Constant,
        "wheel": Wheel,
        "cart": Cart,
        "holder": Holder,
        "student": Student,
        "failing": failing,
        "collect": collect,
        "nn.Linear": nn.Linear,
        "nn.MSELoss": nn.MSELoss,
        "nn.Sequential": nn.Sequential,
        "keeps": Keeps,
    }
)


def refused(tree: Any, *messages: str, registry: Registry = REGISTRY, **kwargs: Any) -> None:
    """The tree gives exactly these issues, in this order, each beginning so."""
    with pytest.raises(ConfigError) as caught:
        instantiate(registry, tree, **kwargs)
    found = [str(issue) for issue in caught.value.issues]
    assert [text[: len(message)] for text, message in zip(found, messages, strict=False)] == list(messages), found
    assert len(found) == len(messages), found


WHEEL = {"_type_": "wheel", "radius": 2}


def cart(**fields: Any) -> Any:
    return instantiate(REGISTRY, {"_type_": "cart", **fields})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"wheel": WHEEL}, Wheel(radius=2.0)),
        ({"wheel": {"radius": 2}}, Wheel(radius=2.0)),
        ({"wheels": [WHEEL, WHEEL]}, (Wheel(radius=2.0), Wheel(radius=2.0))),
        ({"spare": {"left": WHEEL}}, frozendict(left=Wheel(radius=2.0))),
        ({"speed": 3}, 3.0),
        ({"mode": 3}, 3),
        ({"size": [1, 2]}, (1, 2.0)),
        ({"limit": [1, 2]}, (1, 2)),
        ({"limit": None}, None),
        ({"home": "a/b"}, Path("a/b")),
        ({"schedule": {"_type_": "constant"}}, Constant()),
        ({"notes": {"_type_": "nobody", "list": [1]}}, frozendict({"_type_": "nobody", "list": (1,)})),
        (
            {"anything": [WHEEL, {"a": {"b": WHEEL}}]},
            (Wheel(radius=2.0), frozendict(a=frozendict(b=Wheel(radius=2.0)))),
        ),
    ],
)
def test_a_field_gets_what_its_annotation_asks_for(fields: dict[str, Any], expected: Any) -> None:
    (name,) = fields
    value = getattr(cart(**fields), name)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"load": 10.7}, "load: has the wrong type; found 10.7; expected an integer"),
        ({"load": True}, "load: has the wrong type; found True; expected an integer"),
        ({"load": None}, "load: has the wrong type; found null; expected an integer"),
        ({"speed": True}, "speed: has the wrong type; found True; expected a number"),
        ({"speed": "1"}, "speed: has the wrong type; found '1'; expected a number"),
        ({"speed": 2**60}, "speed: has the wrong type; found 1152921504606846976; expected a number"),
        ({"speed": [1]}, "speed: has the wrong type; found a list; expected a number"),
        ({"name": 3}, "name: has the wrong type; found 3; expected text"),
        ({"brakes": 1}, "brakes: has the wrong type; found 1; expected true or false"),
        (
            {"mode": "fats"},
            "mode: is none of the choices; found 'fats'; expected 'fast' or 'slow' or 3; did you mean 'fast'?",
        ),
        ({"mode": 3.0}, "mode: is none of the choices; found 3.0"),
        ({"size": [1]}, "size: has the wrong length; found a list of 1; expected a list of an integer, a number"),
        ({"size": [1.5, 1]}, "size[0]: has the wrong type; found 1.5; expected an integer"),
        (
            {"limit": 1.5},
            "limit: has the wrong type; found 1.5; expected an integer or a list of 2 integers or null",
        ),
        ({"limit": {"a": 1}}, "limit: has the wrong type; found a mapping; expected an integer or a list"),
        ({"wheels": WHEEL}, "wheels._type_: Wheel is no tuple; expected a list of Wheel (a spec with _type_)"),
        ({"wheels": [3]}, "wheels[0]: has the wrong type; found 3; expected Wheel (a spec with _type_)"),
        ({"spare": [WHEEL]}, "spare: has the wrong type; found a list; expected a mapping"),
        (
            {"wheel": {"_type_": "constant"}},
            "wheel._type_: Constant is no Wheel; expected Wheel (a spec with _type_) or null",
        ),
        ({"schedule": WHEEL}, "schedule._type_: Wheel is no Schedule: it has no `name`, `rate`"),
        (
            {"schedule": "cosine"},
            "schedule: has the wrong type; found 'cosine'; expected Schedule (a spec with _type_) or null",
        ),
        ({"schedule": {"value": 1}}, "schedule: has the wrong type; found a mapping; expected Schedule"),
        ({"load": WHEEL}, "load._type_: Wheel is not an integer; expected an integer"),
        ({"lod": 1}, "lod: unknown key; found 'lod'; expected anything, brakes"),
        ({"_kwargs_": {"speed": 1}, "speed": 2}, "_kwargs_.speed: 'speed' is given twice, beside _kwargs_ too"),
        ({"_kwargs_": [1]}, "_kwargs_: must be a mapping; found a list; expected a mapping"),
        ({"_args_": 3}, "_args_: must be a list; found 3; expected a list"),
        ({"_args_": [3]}, "_args_: too many positional arguments; found 1; expected none: give its parameters by name"),
        ({"_note_": 3}, "_note_: unknown reserved key; found '_note_'; expected _type_, _target_, _args_, _kwargs_"),
        ({"_target_": "os.system"}, "_target_: a spec has _type_ or _target_, not both"),
        ({"wheel": {"radius": -1}}, "wheel.radius: must be positive; found -1"),
        ({"wheel": {}}, "wheel.radius: is required and missing"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], message: str) -> None:
    refused({"_type_": "cart", **fields}, message)


def test_every_issue_is_found_at_once_and_nothing_is_called() -> None:
    calls: list[int] = []
    registry = REGISTRY.register("counted", lambda: calls.append(1))
    tree = [{"_type_": "counted"}, {"_type_": "whel"}, {"_type_": "cart", "load": 1.5, "sped": 2}]
    refused(
        tree,
        "x[1]._type_: unknown registry key; found 'whel'; did you mean 'wheel'?",
        "x[2].sped: unknown key; found 'sped'",
        "x[2].load: has the wrong type",
        registry=registry,
        path=("x",),
    )
    assert calls == []


def test_errors_of_factories_come_together_under_their_paths() -> None:
    tree = [{"_type_": "wheel", "radius": -1}, {"a": {"_type_": "failing", "kind": "value"}}]
    refused(tree, "x[0].radius: must be positive; found -1", "x[1].a: ValueError: out of cheese", path=("x",))


@pytest.mark.parametrize(
    ("kind", "name"), [("value", "ValueError"), ("type", "TypeError"), ("os", "FileNotFoundError")]
)
def test_what_a_factory_raises_becomes_an_issue(kind: str, name: str) -> None:
    refused({"_type_": "failing", "kind": kind}, f"data: {name}: out of cheese", path=("data",))


@pytest.mark.parametrize("name", [3, None, ["wheel"]])
def test_a_type_is_a_name(name: Any) -> None:
    refused({"_type_": name}, f"_type_: must be a name; found {name!r}; expected text")


def test_arguments_by_position_and_the_rest() -> None:
    assert instantiate(REGISTRY, {"_type_": "collect", "_args_": [1, 2], "k": 3}) == ((1, 2), frozendict(k=3.0))
    refused({"_type_": "collect", "_args_": [1.5], "k": "x"}, "_args_[0]: has the wrong type", "k: has the wrong type")


def test_notes_are_allowed_where_nobody_is_strict() -> None:
    registry = REGISTRY.under(Settings(strict=False))
    assert instantiate(registry, {**WHEEL, "_note_": 1}) == Wheel(radius=2.0)


def test_parts_are_handed_in_where_the_factory_declares_them() -> None:
    parts = {"model": 1, "optimizer": Wheel(radius=1.0), "nobody": 3}
    assert instantiate(REGISTRY, {"_type_": "student"}, inject=parts) == Student(model=1, optimizer=Wheel(radius=1.0))
    assert instantiate(REGISTRY, {"_type_": "student", "optimizer": WHEEL}, inject=parts).optimizer.radius == 2.0
    assert check(REGISTRY, {"_type_": "student"}, inject=("model", "optimizer")) == ()
    refused({"_type_": "student"}, "optimizer: is required and missing", inject={"model": 1})


def test_the_whole_tree_may_be_asked_to_suit_an_annotation() -> None:
    assert instantiate(REGISTRY, {"radius": 1}, expected=Wheel) == Wheel(radius=1.0)
    refused([1], "run: has the wrong type; found a list; expected Wheel", path=("run",), expected=Wheel)


def test_deferred_specs_are_checked_and_not_built() -> None:
    layer = {"_type_": "nn.Linear", "_args_": [2, 3]}
    tree = {
        "_type_": "holder",
        "fn": {"_type_": "nn.Sequential", "_args_": [layer, layer]},
        "layers": [layer],
        "named": {"a": layer},
    }
    holder = instantiate(REGISTRY, tree, path=("loss",))
    assert isinstance(hash(holder), int)
    assert holder == instantiate(REGISTRY, tree, path=("elsewhere",))
    assert holder.fn.path == ("loss", "fn")
    first, second = holder.fn.build(), holder.fn.build()
    assert isinstance(first[0], nn.Linear)
    assert first[0] is not first[1]
    assert first[0] is not second[0]
    refused(
        {"_type_": "holder", "fn": {"_type_": "nn.Sequential", "_args_": [{"_type_": "nn.Linear", "in_features": 2}]}},
        "fn._args_[0].out_features: is required and missing",
    )


def test_what_a_deferred_call_raises_has_its_path() -> None:
    tree = {"_type_": "holder", "fn": {"_type_": "nn.Linear", "in_features": 2, "out_features": 3, "dtype": 7}}
    holder = instantiate(REGISTRY, tree, path=("loss",))
    with pytest.raises(ConfigError, match=r"loss.fn: TypeError"):
        holder.fn.build()


def test_a_number_may_be_asked_for_beside_a_spec() -> None:
    assert instantiate(REGISTRY, {"_type_": "holder", "fn": {"_type_": "nn.MSELoss"}, "rate": 2}).rate == 2.0
    refused({"_type_": "holder", "fn": 3}, "fn: has the wrong type; found 3; expected a spec with _type_")


@pytest.mark.parametrize(
    ("value", "obstacle"),
    [
        ([1], "value is a list, which can be changed"),
        ({1}, "value is a set, which can be changed"),
        ({"a": 1}, "value is a dict, which can be changed"),
        ((1, frozendict(a=[1])), "value[1]['a'] is a list, which can be changed"),
        (frozenset([Box([1])]), "value[0] is a Box, whose class is not frozen"),
        (torch.zeros(()), "value is a Tensor, which can be changed"),
        (np.zeros(2), "value is a ndarray, which can be changed"),
        (nn.Linear(1, 1), "value is a Linear, which can be changed"),
        (Bare(), "value is a Bare, which can be changed"),
        (Loose(), "value is a Loose, whose class is not frozen"),
        (LooseData(), "value is a LooseData, whose class is not frozen"),
        (FrozenData([1]), "value.values is a list, which can be changed"),
        (Bare().method, "value is a Bare, which can be changed"),
    ],
)
def test_what_is_not_frozen_is_refused_by_field(value: Any, obstacle: str) -> None:
    def make() -> Any:
        kept = Keeps(value=None)
        object.__setattr__(kept, "value", value)
        return kept

    with pytest.raises(ConfigError) as caught:
        instantiate(Registry().register("made", make), {"_type_": "made"}, ("model",))
    assert f"model: 'made' returned what is no frozen, hashable component: {obstacle}" in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        1,
        "a",
        None,
        1.5,
        (1, "a"),
        frozendict(a=1),
        Colour.RED,
        torch.float32,
        torch.device("cpu"),
        min,
        Bare,
        Path("a"),
        FrozenData((1, 2)),
        frozenset([1]),
        Wheel(radius=1.0),
        Wheel(radius=1.0).__attrs_post_init__,
    ],
)
def test_what_is_frozen_passes(value: Any) -> None:
    registry = Registry().register("made", lambda: Keeps(value=value))
    assert instantiate(registry, {"_type_": "made"}) == Keeps(value=value)


def test_a_function_that_returns_the_wrong_thing_is_found_when_it_has() -> None:
    registry = REGISTRY.register("text", lambda: "x")
    refused(
        {"_type_": "cart", "wheel": {"_type_": "text"}},
        "wheel: has the wrong type; found a str from 'text'; expected Wheel (a spec with _type_) or null",
        registry=registry,
    )


def test_how_much_is_checked_before_the_call_is_the_entrys_choice() -> None:
    loose = Registry().register("wheel", Wheel, check="runtime_only")
    refused({"_type_": "wheel", "radus": 1}, "a: TypeError: ", registry=loose, path=("a",))
    assert check(loose, {"_type_": "wheel", "radus": 1}) == ()
    assert len(check(Registry().register("wheel", Wheel, check="best_effort"), {"_type_": "wheel", "radus": 1})) == 2


@component
class Odd:
    """Annotations that a configuration rarely meets."""

    items: Sequence[int] = ()
    call: Callable[[], int] | None = None
    table: dict[str, int] = frozendict()  # type: ignore[assignment]
    bare: tuple = ()  # type: ignore[type-arg]
    device: torch.device | None = None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"items": [1, "a"]}, "items[1]: has the wrong type; found 'a'; expected an integer"),
        ({"call": 3}, "call: has the wrong type; found 3; expected a function (a spec with _type_) or null"),
        ({"table": {"a": "b"}}, "table.a: has the wrong type; found 'b'; expected an integer"),
        ({"bare": 3}, "bare: has the wrong type; found 3; expected a list"),
        ({"device": "cpu"}, "device: has the wrong type; found 'cpu'; expected device (a spec with _type_) or null"),
    ],
)
def test_rarer_annotations(fields: dict[str, Any], message: str) -> None:
    registry = Registry().register_all({"odd": Odd, "min": lambda: min})
    refused({"_type_": "odd", **fields}, message, registry=registry)
    assert instantiate(registry, {"_type_": "odd", "call": {"_type_": "min"}, "bare": [1]}).call is min


yaml_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["_type_", "_args_", "_kwargs_", "_target_", "a", "wheel", "radius", "fn"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(
    yaml_data, st.sampled_from([Any, Wheel, Cart, Holder, tuple[Deferred, ...], Mapping[str, int | float], Schedule])
)
def test_arbitrary_data_gives_a_value_or_issues(tree: Any, expected: Any) -> None:
    issues = check(REGISTRY, tree, expected=expected)
    raised: tuple[Issue, ...] = ()
    try:
        instantiate(REGISTRY, tree, expected=expected)
    except ConfigError as error:
        raised = error.issues
    assert bool(issues) <= bool(raised)
