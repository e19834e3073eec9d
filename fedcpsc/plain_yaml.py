# SPDX-License-Identifier: Apache-2.0
"""YAML as its writer reads it: no key twice, no number or date that is another one than it looks, no endless document.

PyYAML follows YAML 1.1, where `answers: 010000` is 4096, `deadline_s: 10:00` is 600 and `name: 2026-11-28` is a date,
and where the second of two equal keys wins without a word. Here a number is written in plain decimal digits; whatever
else looks like one in YAML 1.1 is text, which no field for a number takes. Merge keys (`<<`) and anchors stay legal, as
long as the document is small when they are written out. `true`, `yes`, `on` and their opposites are as in YAML 1.1.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Hashable
from typing import Any, cast

import yaml

from fedcpsc.yaml_words import NotPlain, in_words, shown_key

__all__ = ["DEEPEST", "NotPlain", "dump_inline", "dump_plain", "load_plain", "quoted"]

DEEPEST = 50
"""Levels of lists and mappings within each other, the outermost being the first."""

_MOST_VALUES = 100_000  # keys, texts, lists and mappings, with every alias written out; a configuration has hundreds
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(
    r"""[-+]?(?:(?:0|[1-9][0-9]*)\.[0-9]*(?:[eE][-+]?[0-9]+)?
             |(?:0|[1-9][0-9]*)[eE][-+]?[0-9]+
             |\.[0-9]+(?:[eE][-+]?[0-9]+)?
             |\.(?:inf|Inf|INF))\Z
    |\.(?:nan|NaN|NAN)\Z""",
    re.VERBOSE,
)
_LONGEST = 80  # digits of a whole number
_NULLS = ("~", "null", "Null", "NULL")
_STARTS = "-+0123456789."
_TAG = "tag:yaml.org,2002:"
_OURS = {_TAG + "int": _INT, _TAG + "float": _FLOAT}
_REPLACED = (*_OURS, _TAG + "timestamp", _TAG + "value")
_MERGE = _TAG + "merge"


class _Loader(yaml.SafeLoader):
    """`SafeLoader` with the numbers above, each key once, and an end to nesting and aliases; without `!!` objects."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML declares it
        first: [rule for rule in rules if rule[0] not in _REPLACED]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012 - as PyYAML declares it; more are added below
        _TAG + "seq": yaml.SafeLoader.construct_yaml_seq,
        _TAG + "map": yaml.SafeLoader.construct_yaml_map,
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = 0
        self._open: list[int] = []  # of each node that is being read: levels below it so far
        self._sizes: dict[yaml.Node, tuple[int, int]] = {}  # of each node read: values in it, levels below it
        self._lines: dict[yaml.Node, dict[Hashable, int]] = {}  # of each mapping: lines of its keys

    def fetch_flow_collection_start(self, kind: Any) -> None:
        """A `[` or `{`: PyYAML's scanner reads thousands of them, slowly, before the first is a node."""
        if self.flow_level >= DEEPEST:
            raise NotPlain(f"is nested more than {DEEPEST} levels deep (line {self.line + 1})", "write fewer levels")
        super().fetch_flow_collection_start(kind)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        """The next node, counted as often as it is meant: an alias weighs what it stands for."""
        event, values = self.peek_event(), self._values  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if len(self._open) >= DEEPEST and not isinstance(event, yaml.ScalarEvent | yaml.AliasEvent):
            raise NotPlain(f"is nested more than {DEEPEST} levels deep (line {line})", "write it with fewer levels")
        self._open.append(0)
        node = cast("yaml.Node", super().compose_node(parent, index))
        below = self._open.pop()
        if isinstance(event, yaml.AliasEvent):
            if node not in self._sizes:
                raise NotPlain(f"*{event.anchor} in line {line} stands within what it names", "write out what is meant")
            size, below = self._sizes[node]
            if len(self._open) + below > DEEPEST:
                constraint = f"is nested more than {DEEPEST} levels deep (*{event.anchor} in line {line})"
                raise NotPlain(constraint, "write it with fewer levels")
            self._values += size
        else:
            below += isinstance(event, yaml.CollectionStartEvent)
            self._values += 1
            self._sizes[node] = self._values - values, below
        if self._open:
            self._open[-1] = max(self._open[-1], below)
        if self._values > _MOST_VALUES:
            constraint = f"holds more than {_MOST_VALUES:,} values by line {line}, aliases written out"
            raise NotPlain(constraint, "write less, or use fewer aliases")
        if isinstance(parent, yaml.MappingNode) and index is None:
            self._check_key(parent, node, line)
        elif isinstance(event, yaml.ScalarEvent) and event.value == "" and event.implicit[0]:
            name = f"key {shown_key(index.value)}" if isinstance(index, yaml.Node) else "something"
            raise NotPlain(f"{name} has no value (line {line})", "write it, or null where none is meant")
        return node

    def _check_key(self, mapping: yaml.MappingNode, key: yaml.Node, line: int) -> None:
        """Does nothing where a key is text or a whole number, and new in its mapping."""
        lines, name = self._lines.setdefault(mapping, {}), self._name(key)
        if key.tag != _MERGE and type(name) not in (str, int):
            kind = "a list or a mapping" if isinstance(key, yaml.CollectionNode) else f"read as {name!r}, not as text"
            raise NotPlain(f"the key in line {line} is {kind}", "put it in quotes")
        if name in lines:
            earlier = lines[name]
            where = f"lines {earlier} and {line}" if earlier != line else f"line {line}"
            remedy = "name both in one list: <<: [*a, *b]" if key.tag == _MERGE else "keep the one that is meant"
            raise NotPlain(f"key {shown_key(key.value)} stands twice ({where})", remedy)
        lines[name] = line

    def _name(self, key: yaml.Node) -> Hashable:
        """What a mapping knows a key by: 1 and +1 are one."""
        if key.tag == _MERGE:
            return (_MERGE,)
        return self.construct_object(key) if isinstance(key, yaml.ScalarNode) else ()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Puts the keys of `<<` into the mapping: its own stand before those, and those of an earlier source first."""
        own = [(key, value) for key, value in node.value if key.tag != _MERGE]
        names = {self._name(key) for key, _ in own}
        for merge, value in node.value:
            for source in _sources(value) if merge.tag == _MERGE else ():
                self.flatten_mapping(source)
                inherited = [pair for pair in source.value if self._name(pair[0]) not in names]
                names |= {self._name(key) for key, _ in inherited}
                own += inherited
        node.value = own

    def construct_plain(self, node: yaml.Node) -> Any:
        """A text, number, true, false or null; one with a tag of its own must be written as without it."""
        kind, text = node.tag.removeprefix(_TAG), node.value
        line = node.start_mark.line + 1
        if not isinstance(node, yaml.ScalarNode):
            raise NotPlain(f"the value in line {line} is no single {kind}", "leave out the tag")
        if kind == "str":
            return text
        if kind == "bool" and text.lower() in self.bool_values:
            return self.bool_values[text.lower()]
        if kind == "null" and text in _NULLS:
            return None
        if kind == "int" and _INT.match(text) and len(text) <= _LONGEST:
            return int(text)
        if kind == "float" and (_INT.match(text) or _FLOAT.match(text)):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        raise NotPlain(
            f"{text!r} in line {line} is no {kind}", "leave out the tag, and write numbers in decimal digits"
        )

    def construct_unknown(self, node: yaml.Node) -> Any:
        """No object is made of a tag."""
        tag = node.tag.replace(_TAG, "!!")
        raise NotPlain(f"has the tag {tag} in line {node.start_mark.line + 1}", "leave it out, and quote text")


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
for _name in ("str", "int", "float", "bool", "null"):
    _Loader.add_constructor(_TAG + _name, _Loader.construct_plain)
_Loader.add_constructor(None, _Loader.construct_unknown)


def load_plain(text: str) -> Any:
    """The value in a YAML text: mappings, lists, text, numbers, true, false and null.

    Raises:
        NotPlain: the text is not YAML, has a key twice or without a value, is nested too deeply, or grows too large
            when its aliases are written out.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except NotPlain:
        raise
    except yaml.YAMLError as error:
        raise in_words(error, text) from error


def dump_plain(value: Any) -> str:
    """`value` as YAML text, keys in their order; `load_plain(dump_plain(value)) == value`."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False))


def dump_inline(value: Any) -> str:
    """`value` as YAML on one line, to stand after a key; `load_plain(dump_inline(value)) == value`."""
    shown = str(yaml.dump([value], Dumper=_Dumper, sort_keys=False, default_flow_style=True, width=math.inf))
    return shown.strip()[1:-1]


def quoted(text: str) -> str:
    """`text` on one line, in quotes: `load_plain(quoted(text)) == text`, whatever it looks like."""
    return json.dumps(text, ensure_ascii=False)
