# SPDX-License-Identifier: Apache-2.0
"""Typed YAML: files read into frozen, strict models. Unknown keys are errors that name the nearest valid key."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, LiteralString, TypeAlias, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from fedcpsc.errors import ConfigError, explain
from fedcpsc.files import write_whole
from fedcpsc.plain_yaml import NotPlain, dump_plain, load_plain
from fedcpsc.registry import Choices

__all__ = ["OneOf", "Strict", "Tree", "load_as", "parse_overrides", "read_yaml", "save_config", "validate"]


class Strict(BaseModel):
    """Base of every configuration object: immutable, no unknown keys, no silent conversion of a number's kind.

    A whole number is neither `20.000` nor `true`, and no number is text: whoever writes one of these meant something
    else than its conversion.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keep_kinds(cls, given: Any) -> Any:
        if isinstance(given, dict):
            for name, field in cls.model_fields.items():
                fault = _fault_of_kind(given[name], _leaves(field.annotation)) if name in given else None
                if fault:
                    raise PydanticCustomError(_KIND, fault, {"key": name, "value": given[name]})
        return given


_KIND = "kind"
Model = TypeVar("Model", bound=Strict)

Tree: TypeAlias = dict[str, object]
"""Content of a YAML or JSON file before it is checked: values by key, sections as mappings of their own."""


@dataclass(frozen=True)
class OneOf:
    """Annotates a text that must be one of `choices`: `Annotated[str, OneOf(PRIORS)]`.

    Attributes:
        choices: names that may be chosen when the text is read.
    """

    choices: Choices

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "enum": list(self.choices.built_in())}

    def _checked(self, name: str) -> str:
        try:
            return self.choices.check(name)
        except ConfigError as error:
            raise ValueError(str(error)) from error


def load_as(model: type[Model], path: str | Path, overrides: list[str] | None = None) -> Model:
    """Reads a YAML file as `model`, applies `a.b=c` overrides, checks everything.

    Raises:
        ConfigError: naming the key or value, the constraint and the remedy.
    """
    tree = read_yaml(path)
    for key, value in parse_overrides(overrides or []).items():
        _set(tree, key.split("."), value)
    return validate(model, tree, str(path))


def save_config(config: Strict, path: str | Path) -> None:
    """Writes every value, whole or not at all; `load_as(type(config), path) == config`."""
    write_whole(path, dump_plain(config.model_dump(mode="json")))


def parse_overrides(overrides: list[str]) -> Tree:
    """`["a.b=1", ...]` as `{"a.b": 1}`; values are YAML.

    Raises:
        ConfigError: where an item has no `=` or its value is not YAML.
    """
    parsed: Tree = {}
    for item in overrides:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise ConfigError(
                explain("--set", item, "must be key=value", "for example --set queries.answers_per_silo=2000")
            )
        try:
            parsed[key.strip()] = load_plain(value)
        except NotPlain as error:
            raise ConfigError(explain("--set", item, f"its value {error.constraint}", "put it in quotes")) from error
    return parsed


def read_yaml(path: str | Path) -> Tree:
    """A YAML mapping; an empty file is an empty mapping.

    Raises:
        ConfigError: where the file cannot be read, has a key twice, or is not a mapping.
    """
    try:
        tree = load_plain(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            explain("config", str(path), f"cannot be read ({error.strerror})", "check the path")
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(explain("config", str(path), f"is not UTF-8 ({error})", "save it as UTF-8")) from error
    except NotPlain as error:
        raise ConfigError(explain("config", str(path), error.constraint, error.remedy)) from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(explain("config", str(path), "must be a mapping of sections", "see configs/digits.yaml"))
    return tree


def validate(model: type[Model], tree: Mapping[str, object], where: str) -> Model:
    """`tree` as `model`.

    Raises:
        ConfigError: with one line for each fault.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = [_fault(model, fault) for fault in error.errors()]
        raise ConfigError(f"{where}: " + "\n".join(lines)) from error


def _fault(model: type[Strict], fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"] if part != "[key]")  # pydantic's mark of a mapping's key
    if fault["type"] == "extra_forbidden":
        *parents, unknown = fault["loc"]
        valid = _keys(model, [str(part) for part in parents])
        near = difflib.get_close_matches(str(unknown), valid, n=1, cutoff=0.0)
        return f"{key}: unknown key; the nearest valid one is {near[0] if near else valid!r}"
    if fault["type"] == _KIND:
        key, value = (f"{key}.{fault['ctx']['key']}" if key else fault["ctx"]["key"]), fault["ctx"]["value"]
        return explain(key, value, str(fault["msg"]), "fix the value")
    if fault["type"] == "string_type":
        return explain(key, fault["input"], "must be text", "put it in quotes")
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "value_error":  # already says name=value, constraint, remedy
        return f"{key}: {message}" if key else message
    return explain(key, fault["input"], message[0].lower() + message[1:], "fix the value")


def _leaves(annotation: Any) -> set[Any]:
    """The types that a field's values, or those of its lists and mappings, may have."""
    parts = get_args(annotation)
    if get_origin(annotation) is Annotated:
        parts = parts[:1]
    return {leaf for part in parts for leaf in _leaves(part)} if parts else {annotation}


def _fault_of_kind(value: Any, leaves: set[Any]) -> LiteralString | None:
    """Why `value` is no number of the kind that its field takes; None where it is, or where none is taken."""
    if isinstance(value, list | tuple):
        return next((fault for fault in (_fault_of_kind(item, leaves) for item in value) if fault), None)
    if not {int, float} & leaves or type(value) in leaves:
        return None
    if isinstance(value, bool):
        return "must be a number, not true or false"
    if isinstance(value, float):
        return "must be a whole number, written without a point or an exponent"
    if isinstance(value, str) and not any(_takes_text(leaf) for leaf in leaves):
        return "must be a number, not text, with neither quotes, leading zeros nor colons"
    return None


def _takes_text(leaf: Any) -> bool:
    return isinstance(leaf, str) or leaf is Any or (isinstance(leaf, type) and issubclass(leaf, str))


def _keys(model: type[BaseModel], parents: list[str]) -> list[str]:
    options = [model]
    for part in parents:
        tagged = [option for option in options if len(options) > 1 and option.model_fields["kind"].default == part]
        if tagged:  # a union whose member `kind` chooses: its tag is part of the path
            options = tagged
            continue
        field = options[0].model_fields.get(part)
        annotation = field.annotation if field else None
        options = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel)]
        if not options:
            return []
    return list(options[0].model_fields)


def _set(tree: Tree, keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        child = tree.setdefault(key, {})
        if not isinstance(child, dict):
            raise ConfigError(explain("--set", ".".join(keys), f"{key} is not a section", "check the key"))
        tree = child
    tree[keys[-1]] = value
