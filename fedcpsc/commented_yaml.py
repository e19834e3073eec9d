# SPDX-License-Identifier: Apache-2.0
"""A configuration's class as a YAML file to begin with: what is chosen, and every other key, its default commented out.

A line that begins with `# ` explains. A setting that begins with `#` alone stands at its default: without that sign the
file means the same, so whoever takes it away has a line to change. Each section has at least one setting without it: a
heading that was a comment itself would leave its lines to the section above. All words come from the class itself.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, cast, get_args, get_origin

from pydantic.fields import FieldInfo

from fedcpsc.field_words import about_of, meanings_of
from fedcpsc.plain_yaml import dump_inline
from fedcpsc.typed_yaml import OneOf, Strict, Tree

__all__ = ["commented"]

_WIDTH = 100
_STEP = "  "


def commented(
    model: type[Strict],
    chosen: Tree,
    reasons: Mapping[str, str] | None = None,
    sections: Mapping[str, type[Strict]] | None = None,
) -> str:
    """The text of a file that means `chosen`, and names every other key.

    Args:
        model: class of the file.
        chosen: values that differ from the defaults, by key; sections as mappings of their own.
        reasons: why a value was chosen, by its dotted key; shown behind it.
        sections: classes of sections that `model` keeps as plain mappings, by their dotted keys, as of a policy.
    """
    return "\n".join(_lines(model, chosen, "", "", reasons or {}, sections or {})) + "\n"


def _lines(
    model: type[Strict],
    chosen: Mapping[str, object],
    path: str,
    indent: str,
    reasons: Mapping[str, str],
    sections: Mapping[str, type[Strict]],
) -> Iterator[str]:
    meanings = meanings_of(model)
    for name, field in model.model_fields.items():
        key = f"{path}.{name}" if path else name
        given, inner = chosen.get(name), sections.get(key) or _section(field)
        if inner is not None:
            if not path:
                yield ""
                given = given or _first(inner)
            yield from _words(meanings.get(name) or about_of(inner), indent)
            yield f"{indent}{'#' if given is None else ''}{name}:"
            within = cast(Mapping[str, object], given or {})
            yield from _lines(inner, within, key, indent + _STEP, reasons, sections)
            continue
        yield from _words(_with_choices(meanings.get(name) or _about_kinds(field), field), indent)
        if name in chosen:
            reason = f"  # {reasons[key]}" if key in reasons else ""
            yield f"{indent}{name}: {dump_inline(given)}{reason}"
        else:
            yield f"{indent}#{name}: {dump_inline(_default(field))}"


def _section(field: FieldInfo) -> type[Strict] | None:
    """The class of a section that is always there; one that may be null, or is of several kinds, is one value here."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Strict) else None


def _first(section: type[Strict]) -> Tree:
    name, field = next(iter(section.model_fields.items()))
    return {name: _default(field)}


def _about_kinds(field: FieldInfo) -> str:
    """What the class of a section that may be null says of itself."""
    kinds = [part for part in get_args(field.annotation) if isinstance(part, type) and issubclass(part, Strict)]
    return " ".join(about_of(kind) for kind in kinds)


def _words(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def _with_choices(meaning: str, field: FieldInfo) -> str:
    names = [name for part in (field.annotation, *field.metadata) for name in _choices(part)]
    shown = f"one of {', '.join(names)}" if names else ""
    return "; ".join(part for part in (meaning.rstrip("."), shown) if part)


def _choices(annotation: Any) -> Iterator[str]:
    """Names that the value, or a key of it, may be."""
    if isinstance(annotation, OneOf):
        yield from annotation.choices.built_in()
    elif get_origin(annotation) is Literal:
        yield from (str(value) for value in get_args(annotation) if isinstance(value, str))
    elif get_origin(annotation) is Annotated:
        for part in (*get_args(annotation)[:1], *annotation.__metadata__):
            yield from _choices(part)
    else:
        for part in get_args(annotation):
            yield from _choices(part)


def _default(field: FieldInfo) -> object:
    value = field.get_default(call_default_factory=True)
    return value.model_dump(mode="json") if isinstance(value, Strict) else _plain(value)


def _plain(value: Any) -> object:
    return [_plain(part) for part in value] if isinstance(value, tuple) else getattr(value, "value", value)
