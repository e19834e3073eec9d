# SPDX-License-Identifier: Apache-2.0
"""The reference of configurations, generated from their pydantic models: one table of keys for each section."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fedcpsc.field_words import about_of, meanings_of
from fedcpsc.registry import Choices, Entry, Registry
from fedcpsc.typed_yaml import OneOf

__all__ = ["Key", "Section", "cell", "reference", "sections"]

Model = type[BaseModel]

_TAG = "distinguishes the kinds of this section"
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


@dataclass(frozen=True)
class Key:
    """One key of a YAML file.

    Attributes:
        path: dotted path, from the file's top.
        kind: type and constraints, in words.
        default: default as YAML would have it; None where the key must be given.
        meaning: text of the field's description, else from its class's docstring.
    """

    path: str
    kind: str
    default: str | None
    meaning: str


@dataclass(frozen=True)
class Section:
    """The keys of one model.

    Attributes:
        title: the dotted path, with `kind: ...` where a section comes in kinds; empty for the file's top.
        about: the model's docstring, without its list of attributes.
        keys: keys in the order of the model; nested models have sections of their own.
    """

    title: str
    about: str
    keys: tuple[Key, ...]


def reference(title: str, about: str, parts: Iterable[Section]) -> str:
    """A page in Markdown.

    Args:
        title: title of the page.
        about: text below the title.
        parts: sections of the page, in this order.
    """
    return "\n\n".join([f"# {title}", about, *map(_section, parts)]) + "\n"


def sections(model: Model, top: str = "", *, one_of_several: bool = False) -> Iterator[Section]:
    """The model's own section, where it has keys, then those of the models inside it, depth first.

    Args:
        model: model of the file's top, or of one section of it.
        top: dotted path of that section.
        one_of_several: whether others may stand at that path, distinguished by `kind`.
    """
    about, meanings = about_of(model), meanings_of(model)
    schema = model.model_json_schema()
    nested: list[tuple[str, Model, bool]] = []
    keys = []
    for name, field in model.model_fields.items():
        path = f"{top}.{name}" if top else name
        inner = list(_models(field.annotation))
        nested += [(path, part, len(inner) > 1) for part in inner]
        if inner and not _is_list(field.annotation):
            continue
        kind = "list of sections, see below" if inner else _kind(schema["properties"][name], schema)
        meaning = meanings.get(name, _TAG if name == "kind" and one_of_several else "")
        sentences = [meaning.rstrip("."), *(_each(one_of.choices) for one_of in _choices(field))]
        keys.append(Key(path, kind, _default(field), ". ".join(sentences)))
    kinds = " / ".join(map(str, get_args(model.model_fields["kind"].annotation))) if one_of_several else ""
    title = f"{top}, kind {kinds}" if kinds else top
    if keys:
        yield Section(title, about, tuple(keys))
    for path, part, several in nested:
        yield from sections(part, path, one_of_several=several)


def _section(section: Section) -> str:
    lines = [f"## {section.title}"] if section.title else ["## The file's top"]
    lines += ["", section.about, "", "| key | meaning |", "|---|---|"]
    for key in section.keys:
        default = "must be given" if key.default is None else f"default `{key.default}`"
        name = key.path.rpartition(".")[2]  # a phone has no room for the section, which the heading names
        lines.append(f"| `{name}` | {cell(key.meaning)}<br><small>{cell(f'{key.kind}; {default}')}</small> |")
    return "\n".join(lines)


def cell(text: str) -> str:
    """Text for a table's cell; no `<` outside code, which would begin HTML."""
    parts = text.replace("|", "\\|").replace("\n", " ").split("`")
    return "`".join(part.replace("<", "&lt;") if i % 2 == 0 else part for i, part in enumerate(parts))


def _models(annotation: Any) -> Iterator[Model]:
    """The models in a type, be it one, a union, a list, or annotated."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _choices(annotation: Any) -> Iterator[OneOf]:
    """The tables of names that a field, or a type inside its type, is chosen from."""
    if isinstance(annotation, OneOf):
        yield annotation
    elif isinstance(annotation, FieldInfo):
        for part in (annotation.annotation, *annotation.metadata):
            yield from _choices(part)
    for part in get_args(annotation):
        yield from _choices(part)


def _each(choices: Choices) -> str:
    """Every choice, and when to take it."""
    built_in = ". ".join(f"`{e.name}`: {e.summary}; take it {e.when}" for e in Registry(choices, Entry).documented())
    own = ". Or one that [your own package](../extending.md) brings" if choices.group else ""
    return built_in + own


def _is_list(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) in (tuple, list)


def _default(field: FieldInfo) -> str | None:
    if field.is_required():
        return None
    value = field.get_default(call_default_factory=True)
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def _kind(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in schema:
        return _kind(whole["$defs"][schema["$ref"].rsplit("/", 1)[-1]], whole)
    if "anyOf" in schema:
        return " or ".join(_kind(part, whole) for part in schema["anyOf"])
    if "prefixItems" in schema:
        return "[" + ", ".join(_kind(part, whole) for part in schema["prefixItems"]) + "]"
    if "items" in schema:
        return f"list of {_kind(schema['items'], whole)}"
    inner = schema.get("additionalProperties")
    return f"mapping to {_kind(inner, whole)}" if isinstance(inner, dict) else _scalar(schema)


def _scalar(schema: Mapping[str, Any]) -> str:
    """One value's type and bounds."""
    if "const" in schema or "enum" in schema:
        return " | ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    bounds = [f"{sign} {_number(schema[name])}" for name, sign in _BOUNDS.items() if name in schema]
    if "pattern" in schema:
        bounds.append(f"like `{schema['pattern']}`")
    names = {"string": "text", "object": "mapping"}
    kind = schema.get("type", "value")  # without a type, any value may stand there
    return " ".join([names.get(kind, kind), ", ".join(bounds)]).strip()


def _number(value: float) -> str:
    exponent = int(value).bit_length() - 1
    return f"2^{exponent}" if value > 2**40 and value == 2**exponent else f"{value:,.10g}"
