"""What is said about a configuration before, and after, the registry is known; and how it is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ftrainer.builtins import builtin_registry
from ftrainer.config import render, resolve_config, validate_post_model, validate_preflight
from ftrainer.config.sections import SECTIONS
from ftrainer.config.validate import settings_of
from ftrainer.examine import examine
from registry import ConfigError, Issue, Mark, Settings

REGISTRY = builtin_registry()
GOOD: dict[str, Any] = {
    "schema_version": 1,
    "run": {"name": "a"},
    "model": {"sequential": {"layers": [{"_type_": "mlp", "dims": [None, 4]}]}},
    "data": {"_type_": "data.random_regression", "batch_size": 2, "steps_per_epoch": 1, "x_shape": [3], "y_shape": [4]},
    "io": {"_type_": "io.mapping", "model_kwargs": {"x": ["x"]}, "targets": {"y": ["y"]}},
    "loss": {"_type_": "loss.torch", "fn": {"_type_": "nn.MSELoss"}},
    "optimizer": {"_type_": "optim.sgd", "lr": 0.1},
    "trainer": {"_type_": "trainer.default", "max_epochs": 1},
}


def preflight(**sections: Any) -> list[str]:
    config = {name: value for name, value in {**GOOD, **sections}.items() if value != "absent"}
    try:
        validate_preflight(resolve_config(config, environ={}))
    except ConfigError as error:
        return [str(issue) for issue in error.issues]
    return []


def test_a_good_configuration_passes() -> None:
    assert preflight() == []
    resolved = resolve_config(GOOD)
    validate_post_model(resolved, REGISTRY, ("x",))
    assert examine(GOOD, registry=REGISTRY)[0].data == resolved.data


@pytest.mark.parametrize(
    ("sections", "messages"),
    [
        ({"optimzer": {}}, ["optimzer: unknown section; found 'optimzer'; did you mean 'optimizer'?"]),
        ({"zzz": 1}, ["zzz: unknown section; found 'zzz'; expected one of schema_version, settings"]),
        ({"trainer": "absent"}, ["trainer: is required and missing"]),
        ({"data": None}, ["data: is required and missing"]),
        ({"io": "absent", "loss": "absent"}, ["io: is required and missing", "loss: is required and missing"]),
        ({"io": "absent", "learner": {"_type_": "learner.mine"}}, []),
        ({"schema_version": 2}, ["schema_version: unknown version; found 2; expected 1"]),
        ({"schema_version": True}, ["schema_version: unknown version; found True"]),
        ({"params": [1]}, ["params: has the wrong type; found a list; expected a mapping of values to refer to"]),
        ({"settings": {"strcit": 1}}, ["settings.strcit: unknown key"]),
        (
            {"settings": [1]},
            ["settings: has the wrong type; found a list; expected a mapping of strict, allow_imports"],
        ),
        ({"settings": None}, []),
        ({"run": {"seed": 0}}, ["run.name: is required and missing"]),
        (
            {"run": {"name": "a", "device": "gpu"}},
            ["run.device: is none of the choices; found 'gpu'; expected 'auto' or"],
        ),
        ({"run": {"name": "a", "compile": "fast"}}, ["run.compile: is none of the choices; found 'fast'"]),
        ({"run": [1]}, ["run: has the wrong type; found a list"]),
        ({"imports": ["extensions.a"]}, ["imports[0]: needs settings.allow_imports: true; found 'extensions.a'"]),
        (
            {"imports": "extensions.a"},
            ["imports: has the wrong type; found 'extensions.a'; expected a list of module names"],
        ),
        ({"imports": [1]}, ["imports[0]: is no module name; found 1"]),
        (
            {"trainer": {"_type_": "log.stdout"}},
            ["trainer._type_: is of the wrong family for this section; found 'log.stdout'; expected trainer.*"],
        ),
        (
            {"optimizer": {"_type_": "adam"}},
            ["optimizer._type_: is of the wrong family for this section; found 'adam'; expected optim_factory.*"],
        ),
        ({"trainer": {"max_epochs": 1}}, ["trainer: has no _type_; expected _type_: trainer.*"]),
        (
            {"trainer": {"_tpye_": "trainer.default"}},
            [
                "trainer._tpye_: has no _type_; expected _type_: trainer.* (_tpye_ looks like _type_)",
                "trainer._tpye_: unknown reserved key",
            ],
        ),
        (
            {"trainer": "trainer.default"},
            ["trainer: has the wrong type; found text; expected a mapping with _type_: trainer.*"],
        ),
        (
            {"callbacks": {"a": {}}},
            ["callbacks: has the wrong type; found a mapping; expected a list of specs with _type_"],
        ),
        (
            {"callbacks": [3]},
            ["callbacks[0]: has the wrong type; found an integer; expected a mapping with _type_: cb.*"],
        ),
        (
            {"evaluators": [1]},
            ["evaluators: has the wrong type; found a list; expected a mapping from names to specs with _type_"],
        ),
        (
            {"evaluators": {"sim": {"_type_": "cb.x"}}},
            ["evaluators.sim._type_: is of the wrong family for this section; found 'cb.x'; expected eval.*"],
        ),
        ({"loggers": [{"_target_": "os.system"}]}, ["loggers[0]._target_: needs settings.allow_target: true"]),
        (
            {"model": [1]},
            ["model: has the wrong type; found a list; expected a mapping with sequential, graph or _type_"],
        ),
        ({"model": {}}, ["model: takes exactly one of sequential, graph and _type_; found none of them"]),
        (
            {"model": {"sequental": {}}},
            ["model.sequental: takes exactly one of sequential, graph and _type_; found 'sequental'; did you mean"],
        ),
        (
            {"model": {"sequential": {}, "graph": {}}},
            ["model.graph: takes exactly one of sequential, graph and _type_; found sequential and graph"],
        ),
        ({"model": {"_type_": "nn.Linear", "_note_": 1}}, ["model._note_: unknown reserved key; found '_note_'"]),
        ({"model": {"_type_": "nn.Linear", "_note_": 1}, "settings": {"strict": False}}, []),
        (
            {"settings": {"allow_target": True}, "model": {"_target_": "os.system"}},
            ["model._target_: lies outside settings.allowed_import_prefixes; found 'os.system'; expected"],
        ),
    ],
)
def test_preflight_names_what_is_wrong(sections: dict[str, Any], messages: list[str]) -> None:
    found = preflight(**sections)
    assert [text[: len(message)] for text, message in zip(found, messages, strict=False)] == messages, found
    assert len(found) == len(messages), found


def test_everything_is_found_at_once() -> None:
    broken = {
        **GOOD,
        "optimizer": {"_type_": "optim.sgd", "lr": True},
        "runn": {},
        "x": "${gone}",
        "trainer": {"_type_": "log.stdout"},
    }
    with pytest.raises(ConfigError) as caught:
        examine(broken, registry=REGISTRY)
    assert sorted(str(issue).partition(":")[0] for issue in caught.value.issues) == [
        "optimizer.lr",
        "runn",
        "trainer._type_",
        "x",
    ]


NO_SECTION = {"a list": "[1, a]", "a list of specs": "[{_type_: log.stdout}]", "an integer": "3", "a float": "-1.5",
              "a boolean": "true", "text": "text", "empty text": "''", "a key that is none": "{1: 2}"}  # fmt: skip


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_refuses_what_it_cannot_be_at_its_line(tmp_path: Path, name: str) -> None:
    rest = yaml.safe_dump({key: value for key, value in GOOD.items() if key != name})
    wrong = {what: text for what, text in NO_SECTION.items() if (name, what) != ("loggers", "a list of specs")}
    for text in wrong.values():
        file = tmp_path / "broken.yaml"
        file.write_text(f"{name}: {text}\n{rest}")
        with pytest.raises(ConfigError) as caught:
            examine(file, registry=REGISTRY)
        assert all(issue.where.line == 1 for issue in caught.value.issues if issue.where), text
        assert caught.value.issues[0].where, text


def test_what_follows_from_a_wrong_type_is_not_reported() -> None:
    with pytest.raises(ConfigError) as caught:
        examine({**GOOD, "data": {**GOOD["data"], "_type_": "data.csv.gone"}}, registry=REGISTRY)
    assert [issue.path for issue in caught.value.issues] == [("data", "_type_")]


def test_what_components_refuse_is_found_in_every_section() -> None:
    broken = {**GOOD, "optimizer": {"_type_": "optim.sgd", "lr": -1.0}, "data": {**GOOD["data"], "batch_size": 0}}
    with pytest.raises(ConfigError) as caught:
        examine(broken, registry=REGISTRY)
    assert sorted(issue.path for issue in caught.value.issues) == [("data", "batch_size"), ("optimizer", "lr")]


def test_keys_of_a_plugin_that_does_not_load_are_not_called_unknown() -> None:
    config = {
        **GOOD,
        "settings": {"allow_imports": True},
        "imports": ["extensions.example_plugn"],
        "data": {"_type_": "data.constant_regression"},
        "loss": {"_type_": "loss.trch"},
    }
    with pytest.raises(ConfigError) as caught:
        examine(config, registry=REGISTRY)
    assert [issue.path for issue in caught.value.issues] == [("imports", 0), ("loss", "_type_")]


@pytest.mark.parametrize("settings", [{}, {"allow_imports": True, "allowed_import_prefixes": ["elsewhere"]}])
def test_no_name_is_suggested_for_a_key_that_a_refused_plugin_may_register(settings: dict[str, Any]) -> None:
    config = {**GOOD, "settings": settings, "imports": ["extensions.mine"], "loss": {"_type_": "loss.my_huber"}}
    with pytest.raises(ConfigError) as caught:
        examine(config, registry=REGISTRY)
    assert [issue.path for issue in caught.value.issues] == [("imports", 0), ("loss", "_type_")]
    assert "allow" in str(caught.value.issues[0])
    assert str(caught.value.issues[1]).endswith(
        "unknown registry key; found 'loss.my_huber' (a plugin that may not be imported may register it)"
    )


def test_wrong_settings_count_as_the_cautious_ones() -> None:
    assert settings_of({"settings": {"allow_imports": "yes"}}) == Settings() == settings_of({})
    assert settings_of({"settings": {"allow_imports": True}}).allow_imports


@pytest.mark.parametrize(
    ("sections", "inputs", "messages"),
    [
        (
            {"loss": {"_type_": "loss.trch"}},
            ("x",),
            ["loss._type_: unknown registry key; found 'loss.trch'; did you mean 'loss.torch'"],
        ),
        ({"loggers": [{"_type_": "log.stdot"}]}, ("x",), ["loggers[0]._type_: unknown registry key"]),
        ({"evaluators": {"a": {"_type_": "eval.gone"}}}, ("x",), ["evaluators.a._type_: unknown registry key"]),
        (
            {},
            ("obs",),
            [
                "io.model_kwargs.x: the model has no such input; found 'x'; expected exactly the model's inputs: obs",
                "io.model_kwargs.obs: the model's input is not fed",
            ],
        ),
        (
            {},
            ("x", "y"),
            ["io.model_kwargs.y: the model's input is not fed; expected exactly the model's inputs: x, y"],
        ),
        (
            {"scheduler": {"_type_": "sched_factory.torch", "interval": "metric"}},
            ("x",),
            ["scheduler.monitor: a scheduler with interval: metric needs the name of a metric to monitor"],
        ),
    ],
)
def test_after_the_model_the_registry_and_the_inputs_are_checked(
    sections: dict[str, Any], inputs: tuple[str, ...], messages: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_post_model(resolve_config({**GOOD, **sections}), REGISTRY, inputs)
    assert [str(i)[: len(m)] for i, m in zip(caught.value.issues, messages, strict=True)] == messages


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (
            {"type": "optim_cls.AdamW", "kwargs": {"lr": "x"}},
            "optimizer.kwargs.lr: has the wrong type; found 'x'; expected a number",
        ),
        ({"type": "optim_cls.AdamW", "kwargs": {"lrr": 1}}, "optimizer.kwargs.lrr: "),
        (
            {"type": "optim_cls.AdamW", "kwargs": [1]},
            "optimizer.kwargs: has the wrong type; found a list; expected a mapping",
        ),
        (
            {"type": "optim_cls.AdamW", "kwargs": {"lr": {"_type_": "a"}}},
            "optimizer.kwargs.lr: is plain data: nothing is built here",
        ),
        ({"type": "optim_cls.AdamV"}, "optimizer.type: unknown optimizer"),
    ],
)
def test_arguments_of_torch_classes_are_checked_against_them(optimizer: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        examine({**GOOD, "optimizer": {"_type_": "optim_factory.torch", **optimizer}}, registry=REGISTRY)
    assert str(caught.value).startswith(message)


# Rendering

MARK = Mark(file="a.yaml", line=12, column=5, text="  a: value", width=5)


def test_an_issue_is_shown_with_its_line_and_a_caret() -> None:
    issue = Issue(
        path=("x", 0), problem="is wrong", found="1", expected="2", nearest=("y", "z"), hint="do it", where=MARK
    )
    assert render(ConfigError([issue])) == "\n".join(
        [
            "a.yaml:12:5: error: x[0]: is wrong",
            "  12 |   a: value",
            "     |     ^^^^^",
            "  found:    1",
            "  expected: 2",
            "  did you mean y or z?",
            "  hint: do it",
            "",
            "1 error",
        ]
    )


def test_issues_come_in_the_order_of_the_text_and_once() -> None:
    late, early = Issue(problem="late", where=MARK), Issue(problem="early", where=Mark(file="a.yaml", line=2, column=1))
    lines = render(ConfigError([late, early, late])).splitlines()
    assert [line for line in lines if "error" in line] == [
        "a.yaml:2:1: error: early",
        "a.yaml:12:5: error: late",
        "2 errors",
    ]


def test_colours_are_for_terminals_only_and_control_characters_for_nobody() -> None:
    error = ConfigError([Issue(problem="bad \x1b[31m\x07", found="\x1b]0;title\x07", where=MARK)])
    assert "\x1b" not in render(error)
    assert "\x1b[31merror\x1b[0m" in render(error, color=True)
    assert "\x1b]" not in render(error, color=True)


def test_the_caret_stands_under_what_follows_a_tab() -> None:
    error = ConfigError([Issue(problem="bad", where=Mark(file="a", line=1, column=2, text="\tx: 1"))])
    assert "  1 | \tx: 1\n    | \t^" in render(error)


def test_targets_build_everything_where_they_are_allowed() -> None:
    config = {
        **GOOD,
        "settings": {"allow_target": True, "allowed_import_prefixes": ["torch.nn", "ftrainer"]},
        "model": {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 4},
        "loss": {"_type_": "loss.torch", "fn": {"_target_": "torch.nn.MSELoss"}},
        "optimizer": {"_target_": "ftrainer.components.optim.sgd.SGD", "lr": 0.1},
    }
    examine(config, registry=REGISTRY)
    with pytest.raises(ConfigError, match=r"torch.nn has no 'Linera'; .*did you mean 'torch.nn.Linear'"):
        examine({**config, "model": {"_target_": "torch.nn.Linera"}}, registry=REGISTRY)
