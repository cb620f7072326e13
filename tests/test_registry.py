"""The table of keys, and what a factory takes."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import attrs
import pytest
from torch import nn

from registry import ConfigError, Registry, Settings, argument_issues, component, origin_of, signature_of
from registry.issue import Issue, nearest

if TYPE_CHECKING:
    from decimal import Decimal


@component
class Rate:
    """A number."""

    value: float = 0.1
    shape: tuple[int, ...] = ()


@component
class Other:
    """Another."""


def only_for_type_checkers(amount: Decimal, count: int = 1) -> Rate:
    """Has an annotation that does not resolve at run time, and one that does."""
    return Rate(value=float(amount) * count)


def test_register_returns_a_new_registry_and_leaves_the_old_one_alone() -> None:
    empty = Registry()
    one = empty.register("rate", Rate)
    assert "rate" in one
    assert "rate" not in empty
    assert one.entry("rate").factory is Rate
    assert len(one) == 1


def test_keys_are_sorted_and_filtered_by_prefix() -> None:
    registry = Registry().register_all({"b.y": Rate, "a.z": Rate, "b.x": Rate})
    assert registry.keys() == ("a.z", "b.x", "b.y") == tuple(registry)
    assert registry.keys("b.") == ("b.x", "b.y")


def test_a_key_is_registered_once_unless_replaced() -> None:
    registry = Registry().register("rate", Rate)
    with pytest.raises(
        ConfigError, match=r"'rate' is registered twice: by .*Rate \(.*test_registry.py:\d+\) and by .*Other"
    ):
        registry.register("rate", Other)
    assert registry.register("rate", Other, replace=True).entry("rate").factory is Other


def test_the_factory_of_a_duplicate_in_a_table_is_named_too() -> None:
    with pytest.raises(ConfigError, match="registered twice"):
        Registry().register("rate", Rate).register_all({"rate": Other})


@pytest.mark.parametrize(
    ("key", "factory", "check", "message"),
    [
        ("", Rate, "strict", "a registry key is a non-empty name"),
        ("_type_", Rate, "strict", "does not begin with _ or"),
        (3, Rate, "strict", "a registry key is a non-empty name"),
        ("a", 3, "strict", "the factory of 'a' cannot be called; found 3"),
        (
            "a",
            Rate,
            "sometimes",
            "unknown check for 'a'; found 'sometimes'; expected strict, best_effort, runtime_only",
        ),
        ("a", min, "strict", "the factory of 'a' has no signature that can be read"),
    ],
)
def test_what_cannot_be_registered(key: Any, factory: Any, check: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Registry().register(key, factory, check=check)


def test_a_factory_without_a_signature_is_taken_at_best_effort() -> None:
    assert Registry().register("smallest", min, check="best_effort").entry("smallest").signature is None


def test_an_unknown_key_names_the_nearest() -> None:
    registry = Registry().register_all({"optim.adamw": Rate, "optim.sgd": Other})
    with pytest.raises(ConfigError, match=r"unknown registry key; found 'optim.adamv'; did you mean 'optim.adamw'"):
        registry.entry("optim.adamv")


def test_an_unknown_key_like_no_other_lists_its_family() -> None:
    registry = Registry().register_all({"log.a": Rate, "log.b": Other})
    with pytest.raises(ConfigError, match=r"expected one of log.a, log.b"):
        registry.entry("log.zzzzzzz")
    with pytest.raises(ConfigError, match=r"expected a registered key"):
        registry.entry("zzzzzzz")


def test_settings_travel_with_the_registry() -> None:
    settings = Settings(allow_target=True)
    assert Registry().under(settings).register("rate", Rate).settings == settings


@pytest.mark.parametrize(
    ("module", "allowed"),
    [("extensions", True), ("extensions.a.b", True), ("extensionsb", False), ("os", False), ("", False)],
)
def test_prefixes_end_at_dots(module: str, allowed: bool) -> None:
    assert Settings(allowed_import_prefixes=("extensions.", "")).permits(module) is allowed


def test_an_origin_is_the_place_of_the_source() -> None:
    line = inspect.getsourcelines(Rate)[1]
    assert origin_of(Rate).endswith(f"test_registry.py:{line})")
    assert origin_of(partial(only_for_type_checkers, 3)).startswith("tests.test_registry.only_for_type_checkers (")
    assert origin_of(min) == "builtins.min"


def test_a_component_is_read_from_its_fields_not_its_converters() -> None:
    signature = signature_of(Rate)
    assert signature is not None
    assert [(p.name, p.hint, p.required, p.positional) for p in signature.parameters] == [
        ("value", float, False, False),
        ("shape", tuple[int, ...], False, False),
    ]


def test_private_fields_go_by_their_public_names_and_fixed_ones_are_left_out() -> None:
    @attrs.frozen
    class Hidden:
        _depth: int
        total: int = attrs.field(init=False, default=0)

    signature = signature_of(Hidden)
    assert signature is not None
    assert [(p.name, p.positional) for p in signature.parameters] == [("depth", True)]


def test_one_annotation_that_does_not_resolve_leaves_the_others() -> None:
    signature = signature_of(only_for_type_checkers)
    assert signature is not None
    assert [p.hint for p in signature.parameters] == [Any, int]


def test_a_module_class_is_read_from_its_initialiser() -> None:
    signature = signature_of(nn.Linear)
    assert signature is not None
    assert [p.name for p in signature.parameters if p.required] == ["in_features", "out_features"]
    assert signature.named()["bias"].hint is bool


def scheduler(optimizer: object, step_size: int, gamma: float = 0.1, mode: Literal["min", "max"] = "min") -> None:
    """Stands for a class of torch that takes something the configuration does not hold."""
    del optimizer, step_size, gamma, mode


@pytest.mark.parametrize(
    ("args", "kwargs", "messages"),
    [
        ([2], {"gamma": 1}, []),
        ([], {"step_size": 3, "mode": "max"}, []),
        ([], {}, ["kwargs.step_size: is required and missing"]),
        ([1, 0.5, "min", 4], {}, ["args: too many positional arguments; found 4; expected at most 3"]),
        ([], {"step_size": 1, "gama": 1}, ["kwargs.gama: unknown key; found 'gama'"]),
        ([1.5], {}, ["args[0]: has the wrong type; found 1.5; expected an integer"]),
        ([1], {"step_size": 2}, ["kwargs.step_size: 'step_size' is given twice"]),
        ([], {"step_size": {"_type_": "a"}}, ["kwargs.step_size: is plain data: nothing is built here"]),
        ([[{"_target_": "a"}]], {}, ["args[0][0]: is plain data: nothing is built here"]),
        ([1], {"optimizer": 2}, ["kwargs.optimizer: unknown key"]),
        (
            [1],
            {"mode": "mni"},
            ["kwargs.mode: is none of the choices; found 'mni'; expected 'min' or 'max'; did you mean 'min'?"],
        ),
    ],
)
def test_plain_arguments_are_checked_against_the_callable(args: Any, kwargs: Any, messages: list[str]) -> None:
    issues = argument_issues(scheduler, args, kwargs, supplied=("optimizer",))
    assert [str(issue)[: len(message)] for issue, message in zip(issues, messages, strict=True)] == messages


def test_arguments_of_what_cannot_be_read_are_left_to_the_call() -> None:
    assert argument_issues(min, [1, 2]) == ()


def test_nearest_is_blind_to_case_and_to_what_is_no_text() -> None:
    assert nearest("NN.LINEAR", ["nn.Linear", "nn.Bilinear"])[0] == "nn.Linear"
    assert nearest(3, ["nn.Linear"]) == ()


def test_an_issue_reads_as_one_sentence() -> None:
    issue = Issue(path=("a", 0), problem="is wrong", found="1", expected="2", nearest=("x", "y"), hint="do")
    assert str(issue.under(("b",))) == "b.a[0]: is wrong; found 1; expected 2; did you mean 'x' or 'y'? (do)"
