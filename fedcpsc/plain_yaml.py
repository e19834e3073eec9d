# SPDX-License-Identifier: Apache-2.0
"""YAML as its writer reads it: no key twice, no number or date that is another one than it looks.

PyYAML follows YAML 1.1, where `answers: 010000` is 4096, `deadline_s: 10:00` is 600 and `name: 2026-11-28` is a date,
and where the second of two equal keys wins without a word. Here numbers are those of YAML 1.2 (with `_` between digits,
as before), dates are text, and an equal key is an error. Merge keys (`<<`) and anchors stay legal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from typing import Any

import yaml

__all__ = ["NotPlain", "dump_plain", "load_plain", "quoted"]

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0b[01_]+|0x[0-9a-fA-F_]+)\Z")
_FLOAT = re.compile(
    r"""[-+]?(?:(?:0|[1-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
             |(?:0|[1-9][0-9_]*)[eE][-+]?[0-9]+
             |\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
             |\.(?:inf|Inf|INF))\Z
    |\.(?:nan|NaN|NAN)\Z""",
    re.VERBOSE,
)
_STARTS = "-+0123456789."
_OURS = {"tag:yaml.org,2002:int": _INT, "tag:yaml.org,2002:float": _FLOAT}
_REPLACED = (*_OURS, "tag:yaml.org,2002:timestamp")
_MERGE = "tag:yaml.org,2002:merge"


class NotPlain(yaml.YAMLError):
    """The text is not YAML, or says something twice.

    Args:
        constraint: rule that the text breaks, with the place where it does.
        remedy: advice for whoever wrote it.
    """

    def __init__(self, constraint: str, remedy: str) -> None:
        super().__init__(f"{constraint}; {remedy}")
        self.constraint = constraint
        self.remedy = remedy


class _Loader(yaml.SafeLoader):
    """`SafeLoader` with the numbers above, and each key once."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML declares it
        first: [rule for rule in rules if rule[0] not in _REPLACED]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Puts the keys of `<<` into the mapping: its own stand before those, and those of an earlier source first."""
        own = [(key, value) for key, value in node.value if key.tag != _MERGE]
        names = _each_once([key for key, _ in own])
        for merge, value in node.value:
            for source in _sources(value) if merge.tag == _MERGE else ():
                self.flatten_mapping(source)
                inherited = [pair for pair in source.value if _name(pair[0]) not in names]
                names |= {_name(key): 0 for key, _ in inherited}
                own += inherited
        node.value = own


def _name(key: yaml.Node) -> Hashable:
    return (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)


def _each_once(keys: list[yaml.Node]) -> dict[Hashable, int]:
    """The line of each key, none of which stands twice."""
    lines: dict[Hashable, int] = {}
    for key in keys:
        line = key.start_mark.line + 1
        if _name(key) in lines:
            earlier = lines[_name(key)]
            where = f"lines {earlier} and {line}" if earlier != line else f"line {line}"
            raise NotPlain(f"key {key.value!r} stands twice ({where})", "keep the one that is meant")
        lines[_name(key)] = line
    return lines


def _sources(value: yaml.Node) -> list[yaml.MappingNode]:
    sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
    if not all(isinstance(source, yaml.MappingNode) for source in sources):
        raise NotPlain(f"<< in line {value.start_mark.line + 1} must name mappings", "give it *NAME of a mapping")
    return list(sources)


class _Dumper(yaml.SafeDumper):
    """`SafeDumper` that quotes text which the loader above would take for a number."""


for _tag, _pattern in _OURS.items():
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(_tag, _pattern, list(_STARTS))


def load_plain(text: str) -> Any:
    """The value in a YAML text: mappings, lists, text, numbers, true, false and null.

    Raises:
        NotPlain: the text is not YAML, has a key twice, or is nested too deeply.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except NotPlain:
        raise
    except yaml.YAMLError as error:
        raise NotPlain(f"is not YAML ({error})", "fix it") from error
    except ValueError as error:  # a tag such as !!int on what is none
        raise NotPlain(f"is not YAML ({error})", "fix it") from error
    except RecursionError as error:
        raise NotPlain("is nested too deeply", "write it with fewer levels") from error


def dump_plain(value: Any) -> str:
    """`value` as YAML text, keys in their order; `load_plain(dump_plain(value)) == value`."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False))


def quoted(text: str) -> str:
    """`text` on one line, in quotes: `load_plain(quoted(text)) == text`, whatever it looks like."""
    return json.dumps(text, ensure_ascii=False)
