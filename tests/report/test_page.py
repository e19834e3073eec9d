# SPDX-License-Identifier: Apache-2.0
"""The page stands alone, is whole, and can be used by ear, by keyboard, in the dark and on a phone."""

import json
import re

import pytest
from page_reader import addresses, contrast, mixed, read
from support.old_bank import without_sums

from fedcpsc.errors import AuditError, RunError
from fedcpsc.report.audit_folder import read_audit
from fedcpsc.report.page import render, style, write_report
from fedcpsc.report.sections.audit import audited
from fedcpsc.report.sections.outcome import accuracy
from fedcpsc.runs.read import gather

CSS = style()


@pytest.fixture(scope="module")
def html(thirty):
    return render(gather(thirty))


@pytest.fixture(scope="module")
def page(html):
    return read(html)


def test_a_report_of_thirty_rounds_and_five_silos_is_one_small_file(run):
    path = write_report(run)
    assert path == run / "report.html"
    assert path.stat().st_size <= 5_000_000


def test_nothing_is_loaded_from_outside_the_file(html, page):
    for address in addresses(html):
        assert address.startswith(("#", "data:")), address
    assert page.all("script", "iframe", "object", "embed", "form", "base", "video", "audio") == []
    assert not [
        name for element in page.all("svg", "img", "a", "body") for name in element.attributes if name[:2] == "on"
    ]
    (policy,) = [m.get("content") for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def test_addresses_are_found_where_they_hide():
    hidden = '<p style="background: url(http://a/x)"><img src="http://b" alt=""><style>@import "c";</style></p>'
    assert addresses(hidden) == {"http://a/x", "http://b", '@import "c"'}


def test_every_part_is_there(page):
    titles = [heading.words() for heading in page.all("h2")]
    assert titles == [
        "In short",
        "Accuracy against answers",
        "Outcome",
        "What was run",
        "How far each silo is believed",
        "Budgets",
        "What the silos were asked",
        "Confusion",
        "Who contributed what",
        "Waiting and work",
        "Privacy audit",
        "Repeat it",
    ]
    captions = [caption.words() for caption in page.all("caption")]
    for silo in range(5):
        assert any(f"Confusion of teacher silo-{silo}" in caption for caption in captions)
    assert any(caption.startswith("Confusion of the ensemble") for caption in captions)
    assert len(charts(page)) == 5


def test_the_final_table_says_what_the_result_says(thirty, page):
    run = gather(thirty)
    (table,) = [t for t in page.all("table") if "What each teacher" in t.words()]
    rows = {row.all("th")[0].words(): [cell.words() for cell in row.all("td")] for row in table.all("tr")[1:]}
    assert rows["teacher silo-3"][:4] == [f"{100 * run.silos[3].teacher_accuracy:.1f} %", "390", "1 budget", "640"]
    assert rows["student"][0] == f"{100 * run.result['student']['accuracy']:.1f} %"
    assert rows["ensemble (class_prior_log)"][0] == f"{100 * run.result['ensemble']['accuracy']:.1f} %"
    assert "silo-3: its budget is spent" in page.words()


def test_the_chart_of_accuracy_has_the_ensemble_that_only_the_result_knows(thirty):
    run = gather(thirty)
    assert all("ensemble_accuracy" not in line for line in run.lines)
    (chart,) = accuracy(run).blocks
    assert f"ensemble, {100 * run.result['ensemble']['accuracy']:.1f} %" in chart.svg


def test_weights_and_burn_down_are_those_of_the_run(thirty, page):
    run = gather(thirty)
    (table,) = [t for t in page.all("table") if "Mean weight" in t.words()]
    for row in table.all("tr")[1:]:
        weights = run.details.weights[row.all("th")[0].words()]
        shown = [int(cell.words()) for cell in row.all("td")]
        assert shown[1:] == [round(100 * w) for w in weights]
    (left,) = [t for t in page.all("table") if t.words().startswith("Images left")]
    assert [cell.words() for cell in left.all("tr")[13].all("td")] == ["4,610", "5,610", "6,610", "10", "8,610"]


def test_what_is_shown_of_each_class_was_asked(thirty, page):
    run = gather(thirty)
    (table,) = [t for t in page.all("table") if t.words().startswith("Query images")]
    head = [cell.words() for cell in table.all("thead")[0].all("th")]
    assert head == ["class"] + [f"rounds {5 * i + 1}-{5 * i + 5}" for i in range(6)]
    counts = run.bank.targets.argmax(1)
    for k, row in enumerate(table.all("tbody")[0].all("tr")):
        for span, cell in enumerate(row.all("td")):
            expected = int((counts[150 * span : 150 * (span + 1)] == k).sum())
            assert cell.words() == (str(expected) if expected else "none")
            assert len(cell.all("img")) == (expected > 0)


def test_it_can_be_read_by_ear(page):
    (root,) = page.all("html")
    assert root.get("lang") == "en"
    assert len(page.all("h1")) == len(page.all("main")) == len(page.all("head")[0].all("title")) == 1
    for table in page.all("table"):
        first = next(child for child in table.children if child.tag != "#text")
        assert first.tag == "caption"
        assert first.words()
        assert all(cell.get("scope") == "col" for cell in table.all("thead")[0].all("th"))
        for row in table.all("tbody")[0].all("tr"):
            assert [cell.get("scope") for cell in row.all("th")] == ["row"]
    for image in page.all("img"):
        assert image.get("alt").strip()
    for chart in charts(page):
        (title,) = [t for t in chart.all("title") if t.get("id") == chart.get("aria-labelledby")]
        assert len(title.words()) > 40, "a chart says what it shows, not only what it is"
        assert chart.parent.parent.all("table"), "its figures are there as a table"
    for section in page.all("section"):
        assert section.get("aria-labelledby") == section.all("h2")[0].get("id")


def test_it_can_be_used_by_keyboard(page):
    ids = [element.get("id") for element in _all(page) if element.get("id")]
    assert len(ids) == len(set(ids))
    links = [link.get("href") for link in page.all("a")]
    assert links[0] == "#main"
    assert {link.removeprefix("#") for link in links} <= set(ids)
    for region in [e for e in _all(page) if "scroll" in (e.get("class") or "").split() or e.tag == "pre"]:
        assert region.get("tabindex") == "0"
        assert region.get("aria-label")
    assert ":focus-visible { outline: 3px" in CSS
    assert "outline: none" not in CSS.replace("main:focus { outline: none; }", "")


def test_it_reads_well_on_light_and_on_dark():
    light, dark = (dict(re.findall(r"(--\w+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", CSS, re.S))
    assert light.keys() == dark.keys()
    for theme in (light, dark):
        for ground in ("--paper", "--panel"):
            assert contrast(theme["--ink"], theme[ground]) >= 7
        for text in ("--soft", "--link", "--faint", "--s1", "--s2", "--s3", "--s4", "--s5", "--s6"):
            assert contrast(theme[text], theme["--paper"]) >= 4.5
        assert contrast(theme["--focus"], theme["--paper"]) >= 3
        assert contrast(theme["--ink"], mixed(theme["--tint"], theme["--paper"], 0.5)) >= 4.5
    assert "calc(var(--shade) * 50%)" in CSS
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # the usual example of just too little


def test_it_moves_only_where_motion_is_welcome():
    still = re.sub(r"@media \(prefers-reduced-motion: no-preference\) \{.*?\} \}", "", CSS)
    assert not re.search(r"transition|animation|smooth", still)
    assert "smooth" in CSS


def test_what_silos_call_themselves_is_no_markup(run):
    without_sums(run / "bank")
    for name in ("result.json", "details.json", "bank/journal.jsonl", "metrics.jsonl"):
        path = run / name
        path.write_text(path.read_text().replace("silo-3", "<script>alert(1)</script> & co"))
    page = read(render(gather(run)))
    assert page.all("script") == []
    assert "teacher <script>alert(1)</script> & co" in page.words()


def test_the_audits_verdict_plots_and_figures_are_shown(thirty, audit):
    page = read(render(gather(thirty), read_audit(audit, run="thirty", owner=None)))
    (section,) = [s for s in page.all("section") if s.get("aria-labelledby") == "audit"]
    assert "Violation: plain claims epsilon 1, but shows at least 2.50." in section.words()
    assert [image.get("alt") for image in section.all("img")] == ["ROC: 35 % at 1 %."]
    rows = [[cell.words() for cell in row.all("th", "td")] for row in section.all("tr")]
    assert rows == [
        ["policy", "auc", "tpr at 0.01"],
        ["plain", "0.9123", "0.35"],
        ["policy", "epsilon", "claimed epsilon", "violated"],
        ["plain", "2.5", "1", "yes"],
    ]


@pytest.mark.parametrize(
    ("verdict", "mark", "words"),
    [
        ({"violation": False, "testable": True}, "No violation found:", None),
        ({"violation": False, "testable": False}, "Not every claim could be tested:", "could not have been refuted"),
        ({"violation": False}, "No violation found; what could have been found is not known:", "Run the audit again"),
        ({"violation": True, "testable": False}, "Violation:", "could not have been refuted"),
    ],
)
def test_what_an_audit_could_not_have_refuted_is_told_also_where_its_file_is_older(thirty, audit, verdict, mark, words):
    path = audit / "audit.json"
    bound = {"policy": "plain", "unit": "person", "epsilon": 0.1, "reachable_epsilon": 2.77, "claimed_epsilon": 8.0}
    changed = {"verdict": {"text": "THE VERDICT"} | verdict, "bounds": [bound]}
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    text = " ".join(str(block) for block in audited(read_audit(audit, run="thirty", owner=None)).blocks)
    assert f"mark='{mark.removesuffix(':')}'" in text
    assert "person" in text
    for sentence in ("could not have been refuted", "Run the audit again"):
        assert (sentence in text) == (sentence == words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, r"audit\.json.*cannot be read"),
        ("{", "damaged"),
        ("[1, 2]", "damaged"),
        ('{"schema": 2, "verdict": {"violation": false, "text": ""}, "rows": [], "bounds": [], "plots": []}', "schema"),
        ('{"schema": 1, "rows": [], "bounds": [], "plots": []}', "verdict"),
    ],
)
def test_an_audit_that_is_missing_or_damaged_is_told(thirty, audit, text, words):
    (audit / "audit.json").unlink() if text is None else (audit / "audit.json").write_text(text)
    with pytest.raises(AuditError, match=words):
        write_report(thirty, audit.parent / "x.html", audit_dir=audit)


def test_an_audit_of_another_run_is_refused_and_one_of_no_run_says_so(thirty, audit):
    path = audit / "audit.json"
    read_anew = "The audit made teachers and students of its own"
    assert read_anew in render(gather(thirty), read_audit(audit, run="thirty", owner=None))
    tree = json.loads(path.read_text())
    path.write_text(json.dumps(tree | {"facts": {"run": "thirty"}}))
    assert read_anew not in render(gather(thirty), read_audit(audit, run="thirty", owner=None))
    path.write_text(json.dumps(tree | {"facts": {"run": "other"}}))
    with pytest.raises(AuditError, match="is of run 'other', not of 'thirty'"):
        write_report(thirty, audit.parent / "x.html", audit_dir=audit)


@pytest.mark.parametrize("file", ["../secret.svg", "/etc/hostname", "roc.html", "missing.png"])
def test_an_audit_cannot_bring_in_another_file(thirty, audit, file):
    (audit.parent / "secret.svg").write_text("<svg/>")
    (audit / "roc.html").write_text("<b>")
    path = audit / "audit.json"
    path.write_text(path.read_text().replace("roc.svg", file))
    with pytest.raises(AuditError, match="plot="):
        read_audit(audit, run="thirty", owner=None)


def test_a_file_that_cannot_be_written_is_told(run, tmp_path):
    with pytest.raises(RunError, match="--out=.*cannot be written"):
        write_report(run, tmp_path / "missing" / "report.html")


def charts(page):
    """The drawings that are pictures of their own; those inside are parts of one."""
    return [svg for svg in page.all("svg") if svg.get("role") == "img"]


def _all(element):
    yield element
    for child in element.children:
        yield from _all(child)
