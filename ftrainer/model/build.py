"""The configuration's section `model:`, in any of its forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from registry import ConfigError, ConfigPath, Deferred, Issue, Registry, component, instantiate

from .bridge import Model


@component
class SequentialSection:
    """`sequential:` as it is written."""

    layers: tuple[Deferred, ...]
    inputs: tuple[str, ...] = ("x",)


FORMS = ("sequential", "graph", "_type_")


def build_model(registry: Registry, section: Any, path: ConfigPath = ("model",)) -> Model:
    """The model that a configuration describes; nothing is drawn and no module is built yet.

    Args:
        registry: the keys that the section may name.
        section: `{sequential: …}`, `{graph: …}` or a spec with `_type_`.
        path: the section's place in the configuration.

    Raises:
        ConfigError: with everything that is wrong with the section.
    """
    if not isinstance(section, Mapping):
        raise ConfigError([Issue(path=path, problem="is no model", found=repr(section), expected=_expected())])
    forms = [form for form in FORMS if form in section]
    if len(forms) != 1:
        found = " and ".join(forms) or ", ".join(map(str, section)) or "nothing"
        raise ConfigError([Issue(path=path, problem="says not what kind of model", found=found, expected=_expected())])
    if forms == ["sequential"]:
        return _sequential(registry, section["sequential"], (*path, "sequential"))
    factory = registry.entry(section["_type_"], (*path, "_type_")).factory
    if isinstance(factory, type) and issubclass(factory, nn.Module):
        spec = instantiate(registry, section, path, expected=Deferred)
        return Model(factory=spec)
    return instantiate(registry, section, path)


def _expected() -> str:
    return "exactly one of sequential, graph, _type_"


def stack(layers: Sequence[nn.Module]) -> nn.Sequential:
    """An ordinary `nn.Sequential`; its tensors are named `0.weight`, `2.bias`, …"""
    return nn.Sequential(*layers)


def _sequential(registry: Registry, section: Any, path: ConfigPath) -> Model:
    read = instantiate(registry, section, path, expected=SequentialSection)
    return Model(
        factory=Deferred(key="sequential", factory=stack, kwargs={"layers": read.layers}, path=path), inputs=read.inputs
    )


def torch_model(factory: Deferred, inputs: tuple[str, ...] = ("x",)) -> Model:
    """A model from any factory that returns an `nn.Module` (`model.torch`).

    Args:
        factory: a spec; what it names is called at `init`.
        inputs: names of the model's inputs. They go to `forward` by name where it has parameters of these names,
            else by position.
    """
    return Model(factory=factory, inputs=inputs)
