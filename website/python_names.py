# SPDX-License-Identifier: Apache-2.0
"""The reference of the Python API, generated from what `fedcpsc.__all__` names: signatures and docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator

import fedcpsc
from website.fields import cell

__all__ = ["reference"]

_SECTIONS = ("Args", "Attributes", "Returns", "Raises")
_ENTRY = re.compile(r"^ {4}(?P<names>[\w.*]+(?:, [\w.*]+)*): (?P<text>.*)$")
_SECTION = re.compile(rf"^({'|'.join(_SECTIONS)}):\n", re.MULTILINE)


def reference(title: str, about: str) -> str:
    """A page in Markdown: functions first, then classes with their methods and properties.

    Args:
        title: title of the page.
        about: text below the title.
    """
    found = {name: getattr(fedcpsc, name) for name in fedcpsc.__all__ if name != "__version__"}
    found["audit"] = _audit()
    classes = {name: one for name, one in found.items() if inspect.isclass(one)}
    functions = {name: one for name, one in found.items() if name not in classes}
    parts = [f"# {title}", about, "`fedcpsc.__version__` is the version, as text."]
    parts += [_part(f"fedcpsc.{name}", one, "##") for name, one in functions.items()]
    for name, one in classes.items():
        parts.append(_part(f"fedcpsc.{name}", one, "##"))
        parts += [_part(f"{name}.{member}", thing, "###") for member, thing in _members(one)]
    return "\n\n".join(parts) + "\n"


def _audit() -> Callable[..., object]:
    """The function behind the package of its name."""
    from fedcpsc.api.audit import audit  # noqa: PLC0415 - beside the others, which are looked up

    return audit


def _members(kind: type) -> Iterator[tuple[str, object]]:
    """Public methods and properties that a class has of its own; what a callback overrides stands at its base."""
    inherited = {name for base in kind.__mro__[1:] for name in vars(base)}
    for name, member in vars(kind).items():
        if name.startswith("_") or name in inherited:
            continue
        if inspect.isfunction(member) or isinstance(member, property):
            yield name, member


def _part(name: str, thing: object, mark: str) -> str:
    shown = thing.fget if isinstance(thing, property) else thing
    text, code = inspect.getdoc(shown) or "", ""
    if inspect.isclass(thing) and not issubclass(thing, fedcpsc.Callback):  # it is given, not made
        text = re.sub(r"^Args:\n(?: {4}.*\n|\n(?= {4}))*", "", text + "\n", flags=re.MULTILINE)
    elif not isinstance(thing, property):
        code = f"```python\n{_signature(name, shown)}\n```\n\n"
    return f"{mark} {name}\n\n{code}{_markdown(text)}"


def _signature(name: str, thing: object) -> str:
    """One line, or an argument a line where they are many."""
    assert callable(thing)  # noqa: S101 - a function, a method or a class
    found = inspect.signature(thing)
    arguments = [part for key, part in found.parameters.items() if key != "self"]
    shown, starred = [], False
    for argument in arguments:
        if argument.kind is argument.KEYWORD_ONLY and not starred:
            shown.append("*")
            starred = True
        typed = "" if argument.annotation is argument.empty else f": {argument.annotation}"
        default = "" if argument.default is argument.empty else f" = {argument.default!r}"
        shown.append(f"{argument.name}{typed}{default}")
    gives = "" if found.return_annotation in (found.empty, "None", None) else f" -> {found.return_annotation}"
    line = f"{name}({', '.join(shown)}){gives}"
    return line if len(line) <= 90 else f"{name}(\n    " + ",\n    ".join(shown) + f",\n){gives}"


def _markdown(docstring: str) -> str:
    """A docstring of Google's form with its lists as Markdown's."""
    first, *rest = _SECTION.split(docstring)
    parts = [_prose(first)]
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        entries = _entries(body)
        if entries:
            parts.append(f"**{title}**\n\n" + "\n".join(f"- `{name}`: {cell(text)}" for name, text in entries))
        else:
            parts.append(f"**{title}**\n\n{_prose(inspect.cleandoc(body))}")
    return "\n\n".join(part for part in parts if part)


def _prose(text: str) -> str:
    return "\n\n".join(cell(re.sub(r"\s+", " ", block)) for block in text.strip().split("\n\n") if block.strip())


def _entries(body: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for line in body.splitlines():
        if match := _ENTRY.match(line):
            found.append((match["names"], match["text"]))
        elif line.strip() and found:
            name, text = found[-1]
            found[-1] = (name, f"{text} {line.strip()}")
    return found
