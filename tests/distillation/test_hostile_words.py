# SPDX-License-Identifier: Apache-2.0
"""What a silo calls itself and its classes is words wherever it is shown: no command, no markup, no formula."""

import io
import logging
import re
from dataclasses import replace
from html import escape

import numpy as np
import pytest
from rich.console import Console
from support.fakes import FakeSilo, brightness_probabilities
from support.tiny_runs import evaluation, tiny_config

from fedcpsc.commands.run_view import result_table
from fedcpsc.commands.status_words import in_words
from fedcpsc.distillation.evaluate import SiloFacts
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport, Unreadable
from fedcpsc.export.export_student import export_run
from fedcpsc.export.plan import Format
from fedcpsc.logs import JsonLines, TextLines
from fedcpsc.protocol.messages import DpClaim
from fedcpsc.report.page import write_report
from fedcpsc.runs.health import read_health
from fedcpsc.strict_json import parse_json

pytestmark = pytest.mark.slow  # whole runs

NAMES = [
    "[/] [bold]x[/bold] [link=https://evil.example]y[/link] :boom:",
    r"$\frac{ $ _^{ \$ % #",
    "<script>alert(1)</script> <img src=x onerror=y> & \" ' {{ 7 * 7 }}",
    "_| `rm -rf` [a](javascript:1) ![b](c) *d* ~e~ | --- |",
]
CLASSES = ("$x$ [red]", "<b>cat</b> {{ 1 }}", "[a](b) | `c` \\")


class Garbled(LocalTransport):
    """The third silo's second reply cannot be read, for a reason that quotes it."""

    def receive(self, timeout_s):
        replies = super().receive(timeout_s)
        return [replace(r, content=self._garbled(r)) for r in replies]

    def _garbled(self, reply):
        if reply.silo != NAMES[2] or reply.content.answers_left > 9960:
            return reply.content
        return Unreadable(reply.content.query_id, f"reply is not of this protocol: {NAMES[0]}{NAMES[2]}")


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    silos = [FakeSilo(name, class_names=CLASSES) for name in NAMES]
    claim = DpClaim(True, 1.0, 1e-5, "[bold]record[/bold] <i>", "add_remove", "$gnmax$ | x")
    silos[0].description = replace(silos[0].description, claim=claim)
    facts = {name: SiloFacts(10, brightness_probabilities) for name in NAMES}
    told, records = [], []
    handler = logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger("fedcpsc")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        config = tiny_config(silos__count=4, queries__quorum=0.5, evaluation__every=1)
        images = replace(evaluation(), class_names=CLASSES)
        result = distill(config, Garbled(silos), folder, evaluation=images, silo_facts=facts, tell=told.append)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return folder, result, told, records


def on_screen(*things, **options):
    out = io.StringIO()
    console = Console(file=out, width=400, force_terminal=True, color_system=None, emoji=False)
    for thing in things:
        console.print(thing, **options)
    return out.getvalue()


def test_the_table_of_a_run(shown):
    _, result, _, _ = shown
    text = on_screen(result_table(result))
    for name in NAMES:
        assert name in text
    assert "per [bold]record[/bold] <i>" in text


def test_the_status_and_what_is_told(shown):
    folder, result, told, _ = shown
    (stopped,) = [silo["stopped"] for silo in result["silos"] if silo["id"] == NAMES[2]]
    assert NAMES[0] in stopped
    words = list(in_words(read_health(folder)))
    text = on_screen(*words, markup=False, highlight=False, soft_wrap=True)
    for name in NAMES:
        assert any(line.startswith(f"{name}: ") for line in text.splitlines())
    for line in [*words, *told]:
        assert line.isprintable()


def test_the_page(shown):
    folder, _, _, _ = shown
    write_report(folder, folder.parent / "page.html")
    page = (folder.parent / "page.html").read_text(encoding="utf-8")
    for danger in ("<script>alert", "<img src=x", "<b>cat", "<i>"):
        assert danger not in page
    for name in NAMES:
        assert escape(name, quote=False) in page.replace("&#34;", '"').replace("&#39;", "'").replace("&quot;", '"')
    assert "49" not in page.split("{{ 7 * 7")[0][-20:]


def test_the_pictures_were_drawn(shown):
    folder, _, _, _ = shown
    for name in ("samples.png", "curve.png"):
        assert (folder / name).stat().st_size > 1000


def test_the_card_holds_no_markup_of_theirs(shown):
    folder, _, _, _ = shown
    export_run(folder, Format.SAFETENSORS)
    card = (folder / "export" / "README.md").read_text(encoding="utf-8")
    for danger in ("<script", "<img", "<b>", "*d*", "$x$", "$gnmax$"):
        assert danger not in card
    own = "\n".join(line for line in card.splitlines() if line.startswith("| "))
    assert not re.search(r"(?<!\\)\](?=\((?:javascript|b|c))|(?<!\\)`(?=rm|c)|(?<!\\)\$(?=x|gnmax|\\frac)", own)
    rows = [line for line in card.splitlines() if line.startswith("| ") and "alert" in line]
    assert [row.count("|") for row in rows] == [9], "it stays in its cell"
    assert r"\[a\](javascript:1)" in card
    assert "add_remove" in card


def test_the_log_has_one_line_for_each_record_and_json_is_json(shown):
    _, _, _, records = shown
    assert records
    for record in records:
        line = TextLines().format(record)
        assert line.isprintable()
        assert parse_json(JsonLines().format(record).encode())["message"]


def test_tensorboard_takes_such_names(tmp_path):
    pytest.importorskip("tensorboard")
    silos = [FakeSilo(name, class_names=CLASSES) for name in NAMES]
    config = tiny_config(silos__count=4, output__tensorboard=True)
    result = distill(config, LocalTransport(silos), tmp_path / "run")
    assert np.isfinite([silo["answers"] for silo in result["silos"]]).all()
