# SPDX-License-Identifier: Apache-2.0
"""Charts inside a page: its colours, its font, ids of their own, text that stays text."""

import base64
import io
import re
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from fedcpsc.report.figures import Lane, Level, Series, bars, lanes, lines
from fedcpsc.report.heat_map import heat_map

SERIES = [Series(f"silo {i}", [(float(x), 100.0 * x + i) for x in range(20)]) for i in range(7)]


@pytest.fixture(params=["lines", "bars"])
def svg(request):
    if request.param == "lines":
        star = Series("star", [(3.0, 3.0)], alone=True)
        return lines("one", 'A <title> & "more"', "x of it", "y of it", [*SERIES, star], [Level("level <5", 50)])
    return bars("one", 'A <title> & "more"', "x of it", "y of it", SERIES[:2])


def texts(drawing):
    """All words of a drawing, those of its key too."""
    return {"".join(node.itertext()) for node in ElementTree.fromstring(drawing).iter() if node.tag in ("text", "span")}


def test_it_is_well_formed_and_named_for_screen_readers(svg):
    (plane,) = [node for node in ElementTree.fromstring(svg).iter("svg") if node.get("role") == "img"]
    assert plane.get("aria-labelledby") == plane.find("title").get("id")
    assert plane.find("title").text == 'A <title> & "more"'
    assert plane.get("width") is None, "the page decides how wide it is"
    assert {"x of it", "y of it", "silo 0", "silo 1"} <= texts(svg)


def test_all_its_colours_are_the_pages(svg):
    assert not re.findall(r"#[0-9a-fA-F]{6}", svg)
    assert {"--s1", "--s2"} <= set(re.findall(r"var\((--\w+)\)", svg))
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
    assert len(set(re.findall(r'stroke-dasharray="([^"]*)"', drawn))) >= 3
    assert len(set(re.findall(r'overflow="visible">(<(?:circle|path)[^>]*>)', drawn))) >= 4, "their markers differ"


def test_figures_that_are_all_zero_can_be_drawn():
    assert "<svg" in lines("a", "t", "x", "y", [Series("s", [(1.0, 0.0)])])


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (r"$\frac{ $x$", r"$\frac{ $x$"),
        ("$^$", "$^$"),
        ("_hidden", "_hidden"),
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
        assert shown in texts(svg)


def test_each_line_is_named_at_its_end_and_no_two_names_overlap():
    close = [Series(f"silo {i}", [(1.0, 90.0), (2.0, 95.0 + 0.1 * i)]) for i in range(6)]
    drawn = ElementTree.fromstring(lines("a", "t", "x", "y", close, [Level("ensemble", 95.2)]))
    plane = next(node for node in drawn.iter("svg") if node.get("role") == "img")
    (ends,) = [node for node in plane.iter("g") if node.get("class") == "ends"]
    places = sorted(float(text.get("y").rstrip("%")) * float(plane.get("height")) / 100 for text in ends.iter("text"))
    assert len(places) == 7
    assert min(b - a for a, b in pairwise(places)) >= 15


@pytest.mark.parametrize(("lowest", "said"), [(80.0, True), (10.0, False)])
def test_an_axis_that_does_not_begin_at_zero_says_where_it_does(lowest, said):
    drawn = lines("a", "t", "x", "accuracy", [Series("s", [(1.0, lowest), (2.0, 95.0)])])
    assert ("axis begins at" in drawn) == said


def test_a_time_line_names_every_lane_and_kind():
    rows = [Lane("server", "work", [(0.0, 2.0)]), Lane("north", "query", [(0.0, 1.0), (0.5, 3.0)])]
    assert {"server", "north", "work", "query"} <= texts(lanes("a", "t", "x", rows))


def test_a_heat_map_tints_every_mistake_and_names_rows_and_columns():
    shares = np.eye(30)
    shares[3, 7] = 0.001
    drawn = heat_map("a", "t", shares, [f"class {k}" for k in range(30)], "rows and columns")
    png = base64.b64decode(re.search(r"base64,([^\"]*)", drawn)[1])
    opacity = np.asarray(Image.open(io.BytesIO(png)))[..., 3]
    assert opacity[3, 7] >= 50
    assert opacity[3, 8] == 0
    assert opacity[3, 3] == 255
    assert {"class 0", "class 27", "rows and columns"} <= texts(drawn)


@pytest.mark.parametrize("rounds", [1, 2, 7])
def test_nothing_is_written_beside_bars_that_are_not_there(rounds):
    drawn = bars("a", "t", "round", "seconds", [Series("work", [(float(r + 1), 2.5) for r in range(rounds)])])
    places = [float(text.get("x").rstrip("%")) for text in ElementTree.fromstring(drawn).iter("text")]
    assert max(places) <= 100
