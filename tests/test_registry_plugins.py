"""Plugins and import names: what is allowed, and what an error says about what is not there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry import ConfigError, Registry, Settings, installed_plugins, instantiate, load_plugins
from registry.providers import modules_near, provider_hint

SETTINGS = Settings(allow_imports=True, allow_target=True, allowed_import_prefixes=("plugs",))

GOOD = """
from fractions import Fraction
def register(registry):
    return registry.register("thing.half", Half)
def Half(top: int = 1):
    return Fraction(top, 2)
number = 3
"""
MODULES = {
    "__init__": "",
    "good": GOOD,
    "silent": "def register(registry):\n    registry.register('thing.third', dict, check='best_effort')\n",
    "wrong": "def register(registry):\n    return 3\n",
    "bare": "x = 1\n",
    "again": "def register(registry):\n    return registry.register('thing.half', dict, check='best_effort')\n",
    "broken": "def register(registry:\n",
    "needs": "import surely_not_installed\n",
    "boom": "raise RuntimeError('at once')\n",
    "exits": "raise SystemExit(3)\n",
    "deaf": "def register():\n    return 3\n",
    "lost": "def register(registry):\n    return {}['a']\n",
    "picky": "from plugs.good import surely_not_there\n",
}


@pytest.fixture
def plugs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of plugins on the path."""
    folder = tmp_path / "plugs"
    folder.mkdir()
    for name, text in MODULES.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    info = tmp_path / "plugs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugs\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[ftrainer.plugins]\nhalves = plugs.good:register\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "plugs"]:
        del sys.modules[name]


def refused(imports: object, message: str, settings: Settings = SETTINGS) -> None:
    with pytest.raises(ConfigError, match=message):
        load_plugins(Registry(), imports, settings)  # type: ignore[arg-type]


@pytest.mark.usefixtures("plugs")
def test_a_plugin_adds_its_keys_and_the_settings_travel() -> None:
    registry = load_plugins(Registry(), ["plugs.good"], SETTINGS)
    assert registry.keys() == ("thing.half",)
    assert registry.settings == SETTINGS
    assert load_plugins(Registry(), (), SETTINGS).settings == SETTINGS


@pytest.mark.usefixtures("plugs")
def test_an_installed_plugin_is_loaded_by_its_name_and_only_then() -> None:
    assert installed_plugins()["halves"] == "plugs.good"
    assert "plugs.good" not in sys.modules
    assert "thing.half" in load_plugins(Registry(), ["halves"], SETTINGS)


@pytest.mark.usefixtures("plugs")
@pytest.mark.parametrize(
    ("imports", "message"),
    [
        (
            ["plugs.silent"],
            r"plugs.silent.register returned no registry; found None \(.*: write `return registry.register",
        ),
        (["plugs.wrong"], r"imports\[0\]: plugs.wrong.register returned no registry; found int"),
        (["plugs.boom"], r"imports\[0\]: importing 'plugs.boom' failed: RuntimeError: at once \(.*boom.py:1\)"),
        (
            ["plugs.deaf"],
            r"plugs.deaf.register failed: TypeError: register\(\) takes 0 .*it takes one argument: `def reg",
        ),
        (["plugs.lost"], r"plugs.lost.register failed: KeyError: 'a' \(.*lost.py:2\)"),
        (["plugs.bare"], r"imports\[0\]: plugs.bare is no plugin: it has no function `register` \(add `def register"),
        (
            ["plugs.good", "plugs.again"],
            r"imports\[1\]: the key 'thing.half' is registered twice: by plugs.good.Half .* and .*dict",
        ),
        (["plugs.broken"], r"importing 'plugs.broken' failed: .*never closed"),
        (["plugs.needs"], r"importing 'plugs.needs' failed: no module named 'surely_not_installed'"),
        (["plugs.picky"], r"importing 'plugs.picky' failed: cannot import name 'surely_not_there'"),
        (["plugs.exits"], r"importing 'plugs.exits' failed: SystemExit: 3 \(.*exits.py:1\)"),
        (
            ["plugs.godo", "plugs.bare"],
            r"imports\[0\]: no module named 'plugs.godo'.*\nimports\[1\]: plugs.bare is no plu",
        ),
        (["plugs.godo"], r"no module named 'plugs.godo'; found 'plugs.godo'; did you mean 'plugs.good'"),
        (["plugs.good.more"], r"no module named 'plugs.good.more'"),
        (["plugs."], r"is no module name; found 'plugs.'"),
        ("plugs.good", r"imports: has the wrong type; found 'plugs.good'; expected a list of module names"),
        ({"a": 1}, r"imports: has the wrong type; found a mapping"),
        ([3], r"imports\[0\]: is no module name; found 3"),
        ([""], r"imports\[0\]: is no module name; found ''"),
        (["os"], r"imports\[0\]: lies outside settings.allowed_import_prefixes; found 'os'; expected under plugs"),
    ],
)
def test_a_wrong_import_says_what_to_do(imports: object, message: str) -> None:
    refused(imports, message)


@pytest.mark.usefixtures("plugs")
def test_nothing_is_imported_unless_the_settings_allow_it() -> None:
    refused(["plugs.good"], r"needs settings.allow_imports: true", Settings(allowed_import_prefixes=("plugs",)))
    refused(["plugs.good"], r"expected under nothing", Settings(allow_imports=True, allowed_import_prefixes=()))
    assert "plugs.good" not in sys.modules


@pytest.mark.usefixtures("plugs")
def test_a_target_is_called_by_its_import_path() -> None:
    registry = Registry().under(SETTINGS)
    assert str(instantiate(registry, {"_target_": "plugs.good.Half", "top": 3})) == "3/2"


@pytest.mark.usefixtures("plugs")
@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "plugs.good.Hlaf",
            r"_target_: plugs.good has no 'Hlaf'; found 'plugs.good.Hlaf'; did you mean 'plugs.good.Half'",
        ),
        ("plugs.good.number", r"_target_: cannot be called; found a int"),
        ("plugs.goodd.Half", r"_target_: no module named 'plugs.goodd'; .*did you mean 'plugs.good'"),
        ("os.system", r"_target_: lies outside settings.allowed_import_prefixes; found 'os'"),
        ("system", r"_target_: lies outside settings.allowed_import_prefixes; found 'system'"),
        (3, r"_target_: must be a name; found 3"),
    ],
)
def test_a_wrong_target_is_named(target: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        instantiate(Registry().under(SETTINGS), {"_target_": target})


def test_a_target_needs_permission() -> None:
    with pytest.raises(
        ConfigError, match=r"_target_: needs settings.allow_target: true; found 'os' \(set settings.allow"
    ):
        instantiate(Registry(), {"_target_": "os.system", "_args_": ["echo"]})


@pytest.mark.usefixtures("plugs")
def test_an_unknown_key_names_the_import_that_would_provide_it() -> None:
    with pytest.raises(ConfigError, match=r"\((plugs.\w+) registers it: add imports: \[\1\]\)"):
        instantiate(Registry().under(SETTINGS), {"_type_": "thing.half"})
    hint = provider_hint("thing.half", Settings(allowed_import_prefixes=("plugs",)))
    assert hint is not None
    assert hint.endswith("and settings: {allow_imports: true}")
    assert provider_hint("thing.fourth", SETTINGS) is None
    assert "plugs.good" not in sys.modules


@pytest.mark.usefixtures("plugs")
def test_names_like_a_missing_module_are_sought_beside_it() -> None:
    assert modules_near("plugs.goood") == ("plugs.good",)
    assert modules_near("plgs.good")[0] == "plugs.good"
    assert modules_near("jsn")[0] == "json"
