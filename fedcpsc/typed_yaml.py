# SPDX-License-Identifier: Apache-2.0
"""Typed YAML: files read into frozen, strict models. Unknown keys are errors that name the nearest valid key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, LiteralString, TypeAlias, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from fedcpsc.errors import ConfigError, explain
from fedcpsc.files import write_whole
from fedcpsc.plain_yaml import DEEPEST, NotPlain, dump_plain, load_plain
from fedcpsc.registry import Choices
from fedcpsc.yaml_words import read_text, shown_key

__all__ = [
    "OneOf",
    "Positive",
    "Rate",
    "Share",
    "Strict",
    "Tree",
    "Weight",
    "load_as",
    "parse_overrides",
    "read_yaml",
    "save_config",
    "set_key",
    "validate",
]

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Strict(BaseModel):
    """Base of every configuration object: immutable, no unknown keys, no silent conversion of a number's kind.

    A whole number is neither `20.000` nor `true`, no number is text, and only true and false say whether: whoever
    writes one of these meant something else than its conversion.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False, defer_build=True)

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


def load_as(
    model: type[Model], path: str | Path, overrides: list[str] | None = None, *, absent: str = "check the path"
) -> Model:
    """Reads a YAML file as `model`, applies `a.b=c` overrides, checks everything.

    Args:
        model: class of the file.
        path: path of the file.
        overrides: items of `--set`.
        absent: remedy where there is no such file, nor one of a name like it.

    Raises:
        ConfigError: naming the key or value, the constraint and the remedy.
    """
    tree = read_yaml(path, absent=absent)
    for key, value in parse_overrides(overrides or []).items():
        set_key(tree, key.split("."), value)
    return validate(model, tree, str(path))


def save_config(config: Strict, path: str | Path) -> None:
    """Writes every value, whole or not at all; `load_as(type(config), path) == config`."""
    write_whole(path, dump_plain(config.model_dump(mode="json")))


def parse_overrides(overrides: list[str]) -> Tree:
    """`["a.b=1", ...]` as `{"a.b": 1}`; values are YAML, the last of equal keys wins.

    Raises:
        ConfigError: where an item has no `=` or its value is not YAML.
    """
    parsed: Tree = {}
    for item in overrides:
        key, equals, value = item.partition("=")
        key = key.strip()
        if not equals or not all(key.split(".")) or key.count(".") >= DEEPEST:
            raise ConfigError(
                explain("--set", item, "must be key=value", "for example --set queries.answers_per_silo=2000")
            )
        if not value.strip():
            raise ConfigError(
                explain("--set", item, "has no value", "write one, null for none, or '\"\"' for empty text")
            )
        try:
            parsed[key] = load_plain(value)
        except NotPlain as error:
            constraint, remedy = (
                f"its value cannot be taken: {error.constraint}",
                f"{error.remedy}, or put it in quotes",
            )
            raise ConfigError(explain("--set", item, constraint, remedy)) from error
    return parsed


def read_yaml(path: str | Path, *, absent: str | None = None) -> Tree:
    """A YAML mapping; an empty file is an empty mapping.

    Args:
        path: path of the file.
        absent: remedy where there is no such file, nor one of a name like it; None looks for none.

    Raises:
        ConfigError: where the file cannot be read, is too large, has a key twice, or is not a mapping.
    """
    try:
        tree = load_plain(read_text(Path(path)))
    except OSError as error:
        if absent is not None and isinstance(error, FileNotFoundError):
            raise ConfigError(explain("file", str(path), "is not there", _instead_of(Path(path)) or absent)) from error
        raise ConfigError(explain("file", str(path), f"cannot be read ({error.strerror})", "check the path")) from error
    except NotPlain as error:
        raise ConfigError(explain("file", str(path), error.constraint, error.remedy)) from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(
            explain("file", str(path), "must be a mapping: lines of the form KEY: VALUE", "see the files in configs/")
        )
    return tree


def _instead_of(path: Path) -> str:
    """A question for whoever misspelt a path, or left out a folder or an ending; empty where nothing is near."""
    import difflib  # noqa: PLC0415 - for this error alone

    folders = dict.fromkeys([path.parent, Path("configs")])
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.glob("*.yaml"))]
    near = difflib.get_close_matches(path.stem, [file.stem for file in files], n=1, cutoff=0.7)
    return f"did you mean {next(file for file in files if file.stem == near[0])}?" if near else ""


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
    key = ".".join(_shown(part) for part in fault["loc"] if part != "[key]")  # pydantic's mark of a mapping's key
    if fault["type"] == "extra_forbidden":
        *parents, unknown = fault["loc"]
        valid = _keys(model, [str(part) for part in parents])
        import difflib  # noqa: PLC0415 - for this error alone

        near = difflib.get_close_matches(str(unknown), valid, n=1, cutoff=0.0)
        return f"{key}: unknown key; the nearest valid one is {near[0] if near else valid!r}"
    if fault["type"] == "invalid_key":
        return explain("key", fault["input"], "must be text", "put it in quotes")
    if fault["type"] == _KIND:
        key, value = (f"{key}.{fault['ctx']['key']}" if key else fault["ctx"]["key"]), fault["ctx"]["value"]
        return explain(key, value, str(fault["msg"]), "fix the value")
    if fault["type"] == "string_type":
        return explain(key, fault["input"], "must be text", "put it in quotes")
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "value_error":  # already says name=value, constraint, remedy
        return f"{key}: {message}" if key else message
    return explain(key, fault["input"], message[0].lower() + message[1:], "fix the value")


def _shown(part: str | int) -> str:
    text = str(part)
    return text if text.isascii() and text.isprintable() else shown_key(text)


def _leaves(annotation: Any) -> set[Any]:
    """The types, or for a `Literal` the values, that a field's values, or those of its lists and mappings, may have."""
    parts = get_args(annotation)
    if get_origin(annotation) is Annotated:
        parts = parts[:1]
    elif get_origin(annotation) is dict:
        parts = parts[1:]
    return {leaf for part in parts for leaf in _leaves(part)} if parts else {annotation}


def _fault_of_kind(value: Any, leaves: set[Any]) -> LiteralString | None:
    """Why `value` is not of the kind that a field for numbers, or for true and false, takes; None where it may be."""
    if isinstance(value, dict):  # a section checks itself
        value = [] if any(isinstance(leaf, type) and issubclass(leaf, BaseModel) for leaf in leaves) else value.values()
    if not isinstance(value, str | int | float):
        parts = value if isinstance(value, Iterable) else ()
        return next((fault for fault in (_fault_of_kind(part, leaves) for part in parts) if fault), None)
    kinds = {leaf if isinstance(leaf, type) else type(leaf) for leaf in leaves}
    numbers = {int, float} & kinds
    if (
        type(value) in kinds
        or not numbers | ({bool} & kinds)
        or (isinstance(value, str) and any(map(_takes_text, leaves)))
    ):
        return None
    if not numbers:
        return "must be true or false, without quotes"
    if isinstance(value, bool):
        return "must be a number, not true or false"
    if isinstance(value, str):
        return "must be a number in decimal digits, without quotes, leading zeros, underscores, colons or 0x"
    return "must be a whole number, written without a point or an exponent" if isinstance(value, float) else None


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


def set_key(tree: Tree, keys: list[str], value: object) -> None:
    """Sets a value in a tree, whose sections are made where they are missing.

    Args:
        tree: tree that is changed.
        keys: key of each section on the way, and last the value's own.
        value: value to set.

    Raises:
        ConfigError: where one of the sections is a value.
    """
    for key in keys[:-1]:
        child = tree.setdefault(key, {})
        if not isinstance(child, dict):
            raise ConfigError(explain("--set", ".".join(keys), f"{key} is not a section", "check the key"))
        tree = child
    tree[keys[-1]] = value
