# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser: it renders, at once, without an error, a request or a sideways scroll."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fedcpsc.report.page import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome is installed")

# Another page looks at the report in a frame: the report itself allows no script.
WATCHER = """<!doctype html><meta charset="utf-8"><pre id="told"></pre><script>
const told = {wide: {}, broken: [], opened: 0};
function frame(width) {
  return new Promise(done => {
    const begun = performance.now(), view = document.createElement("iframe");
    view.style = `width:${width}px;height:900px;border:0`;
    view.onload = () => { view.opened = performance.now() - begun; done(view); };
    view.src = "PAGE";
    document.body.append(view);
  });
}
(async () => {
  const first = await frame(1100);
  told.opened = first.opened;
  const page = first.contentDocument;
  told.broken = [...page.images].filter(i => !i.naturalWidth || !i.alt).map(i => i.alt);
  told.images = page.images.length;
  told.charts = [...page.querySelectorAll("svg.chart")].map(s => Math.round(s.getBoundingClientRect().height));
  told.ground = first.contentWindow.getComputedStyle(page.body).backgroundColor;
  told.ink = first.contentWindow.getComputedStyle(page.querySelector("svg.chart text")).fill;
  for (const width of [1100, 360]) {
    const view = width === 1100 ? first : await frame(width);
    view.contentDocument.querySelectorAll("details").forEach(d => { d.open = true; });
    const root = view.contentDocument.documentElement;
    told.opened = Math.min(told.opened, view.opened);  // a busy machine may be slow once
    told.wide[width] = root.scrollWidth - root.clientWidth;
  }
  document.getElementById("told").textContent = JSON.stringify(told);
})();
</script>"""


def browse(page: Path, folder: Path, *flags: str) -> tuple[str, str, set[str]]:
    """The DOM after loading, what the console said, and all that a page, not the browser for itself, asked for."""
    log = folder / "net.json"
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}", "--enable-logging=stderr"]
    command += ["--allow-file-access-from-files", *flags, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    begun = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    asked = {p["url"] for p in begun if "url" in p and p.get("initiator", "not an origin") != "not an origin"}
    return done.stdout, console, asked


def watch(report: Path, folder: Path, *flags: str):
    watcher = folder / "watcher.html"
    watcher.write_text(WATCHER.replace("PAGE", report.as_uri()))
    dom, console, asked = browse(watcher, folder, *flags)
    return json.loads(re.search(r'<pre id="told">(.*?)</pre>', dom)[1]), console, asked


@pytest.fixture(scope="module")
def report(thirty, tmp_path_factory):
    return write_report(thirty, tmp_path_factory.mktemp("page") / "report.html")


def test_it_opens_at_once_without_an_error_a_request_or_a_sideways_scroll(report, tmp_path):
    told, console, asked = watch(report, tmp_path)
    assert console == ""
    assert {url for url in asked if not url.startswith("file:")} == set()
    assert told["opened"] < 2000
    assert told["images"] > 20
    assert told["broken"] == []
    assert len(told["charts"]) == 5
    assert min(told["charts"]) > 150
    assert told["wide"] == {"1100": 0, "360": 0}


def test_its_drawings_follow_the_readers_choice_of_light_or_dark(report, tmp_path):
    grounds = {}
    for scheme, value in (("dark", 0), ("light", 1)):
        folder = tmp_path / scheme
        folder.mkdir()
        told, _, _ = watch(report, folder, f"--blink-settings=preferredColorScheme={value}")
        grounds[scheme] = (told["ground"], told["ink"])
    assert grounds["dark"] == ("rgb(20, 24, 28)", "rgb(232, 235, 238)")
    assert grounds["light"] == ("rgb(255, 255, 255)", "rgb(27, 31, 35)")


def test_a_page_with_such_faults_would_be_noticed(tmp_path):
    wide = '<p style="width:500px">wide</p><img src="http://127.0.0.1:9/x.png"><svg class="chart"><text>t</text></svg>'
    bad = tmp_path / "bad.html"
    bad.write_text(f"<!doctype html><body style='margin:0'>{wide}<script>nonsense()</script>")
    told, console, asked = watch(bad, tmp_path)
    assert "nonsense is not defined" in console
    assert any(url.startswith("http://127.0.0.1:9/") for url in asked)
    assert told["broken"]
    assert told["wide"]["360"] > 100
