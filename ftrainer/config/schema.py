"""A JSON Schema of the configuration language, for completion and red underlines in editors.

Every file may leave out what its `defaults:` bring, so nothing is required; every scalar may be an interpolation.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import attrs

from registry.hints import is_mapping, is_open, is_sequence, options, plain
from registry.registry import Registry
from registry.signatures import Signature, signature_of
from registry.spec import Deferred

from .catalogue import first_sentence
from .merge import MODES
from .sections import LISTS, MAPPINGS, PREFIXES, SCHEMA_VERSION, SECTIONS, RunSettings, Settings

Schema = dict[str, Any]

INTERPOLATION: Schema = {"type": "string", "pattern": r"\$\{"}
ANYTHING: Schema = {}
NUMBERS: Schema = {"type": ["number", "array"]}
_SCALARS: dict[Any, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    Path: "string",
    type(None): "null",
}


def json_schema(registry: Registry) -> Schema:
    """The schema of a whole configuration, with a definition for each registered key (draft 2020-12)."""
    sections = {name: _section(registry, name) for name in PREFIXES}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ftrainer configuration",
        "type": "object",
        "additionalProperties": False,
        "properties": {**dict.fromkeys(SECTIONS, ANYTHING), **_fixed(), **sections, "model": _model()},
        "$defs": {
            **{f"key:{key}": _component(registry, key) for key in registry},
            "spec": _family(registry.keys()),
            "merge": _merge(),
        },
    }


def _fixed() -> dict[str, Schema]:
    paths = {"type": "array", "items": {"type": "string"}}
    return {
        "schema_version": {"const": SCHEMA_VERSION},
        "defaults": {
            **paths,
            "type": ["array", "string", "null"],
            "description": "Files that this one builds on, relative to it; later ones win.",
        },
        "imports": {**_merged(paths), "description": "Plugins: modules with register(registry) -> registry."},
        "run": _attrs_object(RunSettings),
        "settings": _attrs_object(Settings),
        "params": {"type": "object", "description": "Values for ${params.name}."},
        "templates": {"type": "object", "description": "Mappings that _template_: name lays under a node."},
    }


def _section(registry: Registry, name: str) -> Schema:
    keys = tuple(key for prefix in PREFIXES[name] for key in registry.keys(prefix))
    spec = _family(keys)
    if name in LISTS:
        return _merged({"type": ["array", "null"], "items": spec})
    if name in MAPPINGS:
        return _merged({"type": "object", "additionalProperties": spec})
    return _merged({"anyOf": [spec, {"type": "null"}]})


def _model() -> Schema:
    layers = _merged({"type": "array", "items": {"$ref": "#/$defs/spec"}})
    sequential = {
        "type": "object",
        "properties": {"inputs": ANYTHING, "layers": layers, "outputs": ANYTHING, "return": ANYTHING},
    }
    modules = {"type": "object", "additionalProperties": {"$ref": "#/$defs/spec"}}
    graph = {"type": "object", "properties": {"modules": modules}}
    forms = {"sequential": sequential, "graph": graph}
    return _merged(
        {"type": "object", "properties": forms, "if": {"required": ["_type_"]}, "then": {"$ref": "#/$defs/spec"}}
    )


def _family(keys: tuple[str, ...]) -> Schema:
    """A spec whose `_type_` is one of some keys; the key decides which properties it may have."""
    cases = [
        {
            "if": {"properties": {"_type_": {"const": key}}, "required": ["_type_"]},
            "then": {"$ref": f"#/$defs/key:{key}"},
        }
        for key in keys
    ]
    return {
        "type": "object",
        "properties": {"_type_": {"enum": list(keys)} if keys else {"type": "string"}},
        **({"allOf": cases} if cases else {}),
    }


def _component(registry: Registry, key: str) -> Schema:
    entry = registry.entry(key)
    signature = entry.signature
    description = first_sentence(entry.factory)
    schema = ANYTHING if signature is None else _object(signature, registry.literals)
    return {**schema, **({"description": description} if description else {})}


def _object(signature: Signature, literals: Collection[type]) -> Schema:
    properties: dict[str, Schema] = {p.name: _value(p.hint, literals) for p in signature.parameters}
    reserved: dict[str, Schema] = {
        "_type_": {"type": "string"},
        "_args_": {"type": "array"},
        "_kwargs_": {"type": "object"},
    }
    return {
        "type": "object",
        "properties": {**reserved, "_template_": {"type": "string"}, **properties},
        **({} if signature.extra else {"additionalProperties": False}),
    }


def _attrs_object(cls: type) -> Schema:
    signature = signature_of(cls)
    properties = {p.name: _value(p.hint) for p in signature.parameters} if signature else {}
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "description": first_sentence(cls),
    }


def _value(hint: Any, literals: Collection[type] = ()) -> Schema:
    """What an annotation takes, as a schema; an interpolation is always possible. Literals are written as numbers."""
    schemas = [NUMBERS if option in literals else _one(option) for option in options(hint)]
    return ANYTHING if ANYTHING in schemas else {"anyOf": [*schemas, INTERPOLATION, {"$ref": "#/$defs/merge"}]}


def _one(hint: Any) -> Schema:
    if is_open(hint) or plain(hint):
        return ANYTHING
    if get_origin(hint) is Literal:
        return {"enum": list(get_args(hint))}
    if hint in _SCALARS:
        return {"type": _SCALARS[hint]}
    if is_mapping(hint):
        args = get_args(hint)
        return {"type": "object", "additionalProperties": _value(args[1]) if len(args) == 2 else ANYTHING}
    if is_sequence(hint):
        items = [arg for arg in get_args(hint) if arg is not Ellipsis]
        return {"type": "array", "items": _value(items[0]) if len(set(map(str, items))) == 1 else ANYTHING}
    if isinstance(hint, type) and attrs.has(hint) and hint is not Deferred:
        return {"type": "object"}
    return {"$ref": "#/$defs/spec"}


def _merged(schema: Mapping[str, Any]) -> Schema:
    """What a schema takes, or a `_merge_` directive, or an interpolation, in its place."""
    directive = {"type": "object", "required": ["_merge_"]}
    return {"if": directive, "then": {"$ref": "#/$defs/merge"}, "else": {"anyOf": [dict(schema), INTERPOLATION]}}


def _merge() -> Schema:
    properties = {"_merge_": {"enum": list(MODES)}, "_value_": ANYTHING, "key": {"type": "string"}}
    return {
        "type": "object",
        "properties": properties,
        "required": ["_merge_", "_value_"],
        "additionalProperties": False,
    }
