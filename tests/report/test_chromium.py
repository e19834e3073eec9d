# SPDX-License-Identifier: Apache-2.0
"""Reports in a real browser: nothing is cut, faint, overlapping or wider than the screen, on any screen and paper."""

from pathlib import Path

import pytest
from PIL import Image
from support.browser import BROWSER, Browser
from support.report_runs import make_hundred_classes, make_long_names, make_without_held_out

from fedcpsc.report.page import write_report

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome is installed")

CHECKS = (Path(__file__).parents[1] / "support/page_checks.js").read_text()
NAMES = (
    "sideways",
    "cut",
    "uncuedScrolling",
    "faint",
    "overlapping",
    "headings",
    "pictures",
    "tables",
    "links",
)
MAKERS = {"long_names": make_long_names, "without_held_out": make_without_held_out, "hundred": make_hundred_classes}
SCREENS = [(width, scheme) for width in (390, 768, 1280) for scheme in ("light", "dark")]
PAPER = 718  # pixels: A4 between margins of 1 cm


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(thirty, tmp_path_factory):
    """Addresses of reports, by name."""
    folder = tmp_path_factory.mktemp("pages")
    for name, make in MAKERS.items():
        make(folder / name)
    runs = {name: folder / name for name in MAKERS} | {"thirty": thirty}
    return {name: write_report(run, folder / f"{name}.html").as_uri() for name, run in runs.items()}


def found(browser):
    """What is wrong with the page, by check; folded parts are opened first."""
    browser.run(CHECKS)
    browser.run("checks.unfold()")
    return {name: wrong for name in NAMES if (wrong := browser.run(f"checks.{name}()"))}


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
@pytest.mark.parametrize("name", [*MAKERS, "thirty"])
def test_nothing_is_wrong_with_a_report_on_any_screen(browser, pages, name, width, scheme):
    browser.open(pages[name], width, scheme=scheme)
    assert found(browser) == {}
    assert browser.complaints() == []
    asked = {url for url in browser.requests() if not url.startswith("data:")}
    assert asked == {pages[name]}, "it asks for nothing but itself"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", [*MAKERS, "thirty"])
def test_on_paper_it_is_light_whole_and_without_a_list_of_links(browser, pages, name, scheme):
    browser.open(pages[name], PAPER, scheme=scheme, media="print")
    browser.run(CHECKS)
    assert browser.run("checks.sideways()") == []
    assert browser.run("checks.faint()") == []
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("[...document.querySelectorAll('nav')].every(nav => !nav.checkVisibility())")
    wide = (
        "[...document.querySelectorAll('table')].filter(t => t.getBoundingClientRect().right > innerWidth + 0.5).length"
    )
    assert browser.run(wide) == 0, "what a screen would scroll would be lost"


@pytest.mark.parametrize("name", [*MAKERS, "thirty"])
def test_the_first_screen_is_painted_within_a_second(browser, pages, name):
    times = []
    for _ in range(4):  # a busy machine may be slow once
        browser.open(pages[name], 1280)
        times.append(browser.largest_paint_ms())
    assert 0 < min(times) < 1000


def test_the_contents_stay_beside_the_text_on_a_wide_screen_and_fold_on_a_phone(browser, pages):
    browser.open(pages["thirty"], 1280)
    browser.run("document.documentElement.style.scrollBehavior = 'auto'; scrollTo(0, 3000)")
    top = browser.run("document.querySelector('.contents-wide a').getBoundingClientRect().top")
    assert 0 <= top < 200
    assert not browser.run("document.querySelector('.contents').checkVisibility()")
    browser.open(pages["thirty"], 390)
    assert not browser.run("document.querySelector('.contents-wide').checkVisibility()")
    assert not browser.run("document.querySelector('.contents a').checkVisibility()")
    browser.run("document.querySelector('.contents summary').click()")
    assert browser.run("document.querySelector('.contents a').checkVisibility()")


def test_by_keyboard_the_first_stop_leads_past_the_contents_and_is_seen(browser, pages):
    browser.open(pages["thirty"], 1280)
    browser.press("Tab")
    assert browser.run("document.activeElement.className") == "skip"
    assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert browser.run("document.activeElement.getBoundingClientRect().left >= 0")
    browser.press("Enter")
    assert browser.run("location.hash") == "#main"
    for _ in range(3):
        browser.press("Tab")
        assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_drawings_follow_the_readers_choice_of_light_or_dark(browser, pages):
    inks = []
    for scheme in ("light", "dark"):
        browser.open(pages["thirty"], 1280, scheme=scheme)
        inks.append(browser.run("getComputedStyle(document.querySelector('svg.plane text')).fill"))
    assert inks == ["rgb(78, 88, 97)", "rgb(180, 190, 199)"]


def test_a_chart_is_as_wide_as_the_page_and_its_letters_keep_their_size(browser, pages):
    seen = []
    for width in (390, 1280):
        browser.open(pages["thirty"], width)
        chart = browser.run("(({width}) => width)(document.querySelector('.chart').getBoundingClientRect())")
        letter = browser.run("document.querySelector('svg.plane text').getBoundingClientRect().height")
        assert chart == browser.run("document.querySelector('main').getBoundingClientRect().width")
        seen.append(letter)
    assert abs(seen[0] - seen[1]) < 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_table_that_goes_on_has_a_shadow_at_its_edge_until_its_end_is_seen(browser, pages, scheme, tmp_path):
    browser.open(pages["long_names"], 390, scheme=scheme)
    box = "[...document.querySelectorAll('.scroll')].find(b => b.scrollWidth > b.clientWidth + 40)"
    place = f"(b => {{ const r = b.getBoundingClientRect(); return [r.left, r.top + scrollY, r.width, 20]; }})({box})"
    shades = {}
    for end in (0, 9999):
        browser.run(f"{box}.scrollLeft = {end}")
        browser.picture(tmp_path / f"{end}.png", tuple(browser.run(place)))
        picture = Image.open(tmp_path / f"{end}.png").convert("L")
        row = [picture.getpixel((x, 1)) for x in range(picture.width)]  # above the letters of the caption
        paper = sorted(row)[len(row) // 2]
        shades[end] = (abs(row[1] - paper), abs(row[-2] - paper))
    assert shades[0][0] <= 2
    assert shades[0][1] >= 15
    assert shades[9999][0] >= 15
    assert shades[9999][1] <= 2


@pytest.mark.parametrize(
    ("check", "damage"),
    [
        ("sideways", "document.querySelector('main').style.width = '3000px'"),
        ("cut", "document.querySelector('h1').style.cssText = 'position: absolute; left: -30px'"),
        (
            "cut",
            "document.querySelector('.note').style.cssText = 'overflow: hidden; white-space: nowrap; width: 5rem'",
        ),
        ("uncuedScrolling", "document.querySelectorAll('.scroll').forEach(b => { b.style.background = 'none'; })"),
        ("uncuedScrolling", "document.querySelectorAll('.scroll').forEach(b => b.removeAttribute('tabindex'))"),
        ("faint", "document.querySelector('.strip dt').style.color = '#8a8a8a'"),
        ("faint", "document.querySelector('svg.plane text').style.fill = '#8a8a8a'"),
        ("faint", "document.querySelector('.shaded').style.background = '#444'"),
        ("overlapping", "document.querySelectorAll('.ends text').forEach(t => t.setAttribute('y', '50%'))"),
        ("headings", "document.querySelector('h2').outerHTML = '<h3>x</h3>'"),
        ("headings", "document.querySelector('h1').remove()"),
        ("pictures", "document.images[3].alt = ''"),
        ("pictures", "document.querySelector('svg.plane > title').remove()"),
        ("tables", "document.querySelector('caption').remove()"),
        ("tables", "document.querySelector('th').removeAttribute('scope')"),
        ("links", "document.querySelector('h2').id = 'elsewhere'"),
    ],
)
def test_each_fault_would_be_noticed(browser, pages, check, damage):
    width = 390 if check == "uncuedScrolling" else 1280
    browser.open(pages["long_names"], width)
    assert check not in found(browser)
    browser.run(damage)
    assert check in found(browser)


def test_a_script_that_fails_and_a_request_would_be_noticed(browser, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text('<!doctype html><h1>x</h1><img src="http://127.0.0.1:9/x.png" alt="x"><script>nonsense()</script>')
    browser.open(bad.as_uri(), 390)
    assert "nonsense is not defined" in " ".join(browser.complaints())
    assert "http://127.0.0.1:9/x.png" in browser.requests()
