# SPDX-License-Identifier: Apache-2.0
"""Charts inside a page: its colours, its font, ids of their own, text that stays text."""

import re
from xml.etree import ElementTree

import pytest

from fedcpsc.report.figures import Lane, Level, Series, bars, lanes, lines

SERIES = [Series(f"silo {i}", [(float(x), 100.0 * x + i) for x in range(20)]) for i in range(7)]


@pytest.fixture(params=["lines", "bars"])
def svg(request):
    if request.param == "lines":
        star = Series("star", [(3.0, 3.0)], alone=True)
        return lines("one", 'A <title> & "more"', "x of it", "y of it", [*SERIES, star], [Level("level <5", 50)])
    return bars("one", 'A <title> & "more"', "x of it", "y of it", SERIES[:2])


def test_it_is_well_formed_and_named_for_screen_readers(svg):
    root = ElementTree.fromstring(svg)
    ns = "{http://www.w3.org/2000/svg}"
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == root.find(f"{ns}title").get("id")
    assert root.find(f"{ns}title").text == 'A <title> & "more"'
    assert root.get("width") is None
    texts = {"".join(node.itertext()) for node in root.iter(f"{ns}text")}
    assert {"x of it", "y of it", "silo 0", "silo 1"} <= texts


def test_all_its_colours_are_the_pages(svg):
    assert not re.findall(r"#[0-9a-fA-F]{6}", svg)
    used = set(re.findall(r"var\((--\w+)\)", svg))
    assert {"--ink", "--grid", "--font", "--s1", "--s2"} <= used
    assert "DejaVu" not in svg
    assert "<style" not in svg


def test_its_ids_are_its_own_and_all_found(svg):
    ids = re.findall(r'\bid="([^"]*)"', svg)
    assert len(ids) == len(set(ids))
    assert all(name.startswith("one-") for name in ids)
    assert set(re.findall(r"url\(#([^)]*)\)", svg)) | set(re.findall(r'href="#([^"]*)"', svg)) <= set(ids)


def test_the_same_figures_give_the_same_drawing():
    assert bars("a", "t", "x", "y", SERIES[:2]) == bars("a", "t", "x", "y", SERIES[:2])


def test_lines_differ_by_more_than_colour():
    drawn = lines("a", "t", "x", "y", SERIES[:4])
    assert len(set(re.findall(r"stroke-dasharray: [^;\"]*", drawn))) >= 3


def test_figures_that_are_all_zero_can_be_drawn():
    assert "<svg" in lines("a", "t", "x", "y", [Series("s", [(1.0, 0.0)])])


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (r"$\frac{ $x$", r"$\frac{ $x$"),
        ("$^$", "$^$"),
        ("_hidden", " _hidden"),
        ("<b> & \"'", "<b> & \"'"),
        ("</svg><script>", "</svg><script>"),
        ("a\x1b[31m\x00b\nc", r"a\x1b[31m\x00b\nc"),
        ("猫 🐈", "猫 🐈"),
        (r"\1 \g<0>", r"\1 \g<0>"),
    ],
)
def test_any_name_stays_text(name, shown):
    points = [(1.0, 1.0), (2.0, 3.0)]
    drawn = (
        lines("a", "t", "x", "y", [Series(name, points), Series("other", points)], [Level(name, 2.0)]),
        bars("a", "t", "x", "y", [Series(name, points)]),
        lanes("a", "t", "x", [Lane(name, "kind", [(0.0, 1.0)])]),
    )
    for svg in drawn:
        root = ElementTree.fromstring(svg)
        assert shown in {"".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")}
