# SPDX-License-Identifier: Apache-2.0
"""A page as its structure: what a screen reader, a keyboard and a network watcher would meet."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "hr", "input"}
BLOCKS = {
    "p",
    "div",
    "td",
    "th",
    "tr",
    "li",
    "dt",
    "dd",
    "dl",
    "h1",
    "h2",
    "caption",
    "section",
    "table",
    "figcaption",
    "pre",
}
FOREIGN_VOID = {"path", "use", "rect", "circle", "line"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    parent: Element | None
    children: list[Element] = field(default_factory=list)
    text: str = ""

    def all(self, *tags: str) -> list[Element]:
        found = [self] if self.tag in tags else []
        for child in self.children:
            found += child.all(*tags)
        return found

    def words(self) -> str:
        inner = "".join(f" {child.words()} " if child.tag in BLOCKS else child.words() for child in self.children)
        return re.sub(r"\s+", " ", self.text + inner) if self.tag == "#text" else re.sub(r"\s+", " ", inner).strip()

    def get(self, name: str) -> str | None:
        return self.attributes.get(name)


class Reader(HTMLParser):
    """`root` after `feed`; a tag that is closed wrongly is an AssertionError."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("document", {}, None)
        self._open = self.root

    def handle_starttag(self, tag, attributes):
        element = Element(tag, dict(attributes), self._open)
        self._open.children.append(element)
        if tag not in VOID:
            self._open = element

    def handle_startendtag(self, tag, attributes):
        assert tag in VOID | FOREIGN_VOID, f"<{tag}/> is not closed in HTML"
        self._open.children.append(Element(tag, dict(attributes), self._open))

    def handle_endtag(self, tag):
        assert self._open.tag == tag, f"</{tag}> closes <{self._open.tag}>"
        self._open = self._open.parent

    def handle_data(self, data):
        self._open.children.append(Element("#text", {}, self._open, text=data))


def read(html: str) -> Element:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader._open is reader.root
    return reader.root


def addresses(html: str) -> set[str]:
    """Everything in a page that names a place: attributes that load or lead, and url() or @import in its styles."""
    found = set()
    for element in read(html).all(*{e.tag for e in _walk(read(html))}):
        for name in ("src", "href", "xlink:href", "srcset", "poster", "data", "action", "formaction", "background"):
            if element.get(name) is not None:
                found.add(element.get(name))
    found |= {url.strip("'\" ") for url in re.findall(r"url\(([^)]*)\)", html)}
    found |= set(re.findall(r"@import[^;]*", html))
    return found


def _walk(element: Element):
    yield element
    for child in element.children:
        yield from _walk(child)


def contrast(first: str, second: str) -> float:
    """WCAG 2.1's contrast ratio of two colours #rrggbb, in [1, 21]."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def mixed(top: str, bottom: str, share: float) -> str:
    """`share` of `top` over `bottom`."""
    return "#" + "".join(
        f"{round(share * int(top[i : i + 2], 16) + (1 - share) * int(bottom[i : i + 2], 16)):02x}" for i in (1, 3, 5)
    )
