# SPDX-License-Identifier: Apache-2.0
"""The documentation site: the generated reference leaves nothing out, and all links lead somewhere."""

import re
import subprocess
import sys
from typing import Annotated, Literal

import click
import pytest
from pydantic import BaseModel, Field
from support.documented import ROOT

from fedcpsc.audit.plan import AuditConfig
from fedcpsc.cli import app
from fedcpsc.config import RunConfig
from fedcpsc.gatekeeper.policy import Policy
from fedcpsc.sweep.plan import SweepPlan
from fedcpsc.training.plan import DpSgdTraining, PlainTraining, ShardsTraining
from fedcpsc.white_box.plan import WhiteBoxConfig
from website import commands, fields
from website.reference import pages

TRAININGS = (PlainTraining, DpSgdTraining, ShardsTraining)
FILES = {
    RunConfig: "run",
    Policy: "policy",
    SweepPlan: "sweep",
    AuditConfig: "audit",
    WhiteBoxConfig: "white_box",
}
WHERE = FILES | dict.fromkeys(TRAININGS, "training")


def keys_of(model, top=""):
    """Every dotted key below a model, found in another way than the reference does: from an object's JSON schema."""
    schema = model.model_json_schema()

    def walk(node, path):
        if "$ref" in node:
            yield from walk(schema["$defs"][node["$ref"].split("/")[-1]], path)
        for part in [*node.get("anyOf", []), *node.get("oneOf", [])]:
            yield from walk(part, path)
        if "items" in node:
            yield from walk(node["items"], path)
        for name, part in node.get("properties", {}).items():
            here = f"{path}.{name}" if path else name
            below = list(walk(part, here))
            yield from below or [here]

    return set(walk(schema, top))


@pytest.mark.parametrize("model", WHERE, ids=lambda model: model.__name__)
def test_every_key_is_in_the_reference_under_its_section(model):
    expected = keys_of(model)
    assert len(expected) >= 3
    found = {key.path for section in fields.sections(model) for key in section.keys}
    assert found >= expected
    page = pages()[f"reference/{WHERE[model]}.md"]
    rows = {
        f"{title.partition(',')[0]}.{name}" if title != "The file's top" else name
        for title, body in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
        for name in re.findall(r"^\| `(\w+)` \|", body, re.MULTILINE)
    }
    top = "teachers.training." if model in TRAININGS else ""
    assert rows >= {top + key for key in expected}


@pytest.mark.parametrize("model", [RunConfig, Policy, *TRAININGS], ids=lambda model: model.__name__)
def test_every_key_says_what_it_means(model):
    parts = fields.sections(model, one_of_several=model in TRAININGS)
    assert [key.path for part in parts for key in part.keys if not key.meaning] == []


class Inner(BaseModel):
    """One kind.

    Attributes:
        low, high: bounds of
            something | else.
    """

    kind: Literal["inner"] = "inner"
    low: Annotated[int, Field(ge=1, lt=2**63)] = 1
    high: float | None = None


class Other(BaseModel):
    """Another kind."""

    kind: Literal["other"] = "other"
    names: tuple[str, ...] = Field(..., description="put <these> here.")


class Outer(BaseModel):
    """The top."""

    part: Annotated[Inner | Other, Field(discriminator="kind")] = Inner()
    pair: tuple[Annotated[float, Field(gt=0)], bool] = (0.5, True)
    several: tuple[Inner, ...] = (Inner(),)


def test_a_reference_tells_types_bounds_defaults_and_meanings():
    top, inner, other, several = fields.sections(Outer)
    assert top.title == ""
    assert top.keys[0] == fields.Key("pair", "[number > 0, boolean]", "[0.5, true]", "")
    assert top.keys[1].kind == "list of sections, see below"
    assert [part.title for part in (inner, other, several)] == ["part, kind inner", "part, kind other", "several"]
    assert inner.about == "One kind."
    assert inner.keys[1] == fields.Key("part.low", "integer ≥ 1, < 2^63", "1", "bounds of something | else")
    assert inner.keys[2] == fields.Key("part.high", "number or null", "null", "bounds of something | else")
    assert other.keys[1] == fields.Key("part.names", "list of text", None, "put <these> here")
    page = fields.reference("Title", "About.", fields.sections(Outer))
    assert r"| `low` | bounds of something \| else<br><small>integer ≥ 1, &lt; 2^63; default `1`</small> |" in page
    assert "| `names` | put &lt;these> here<br><small>list of text; must be given</small> |" in page


def test_every_command_and_option_is_in_the_reference():
    page = pages()["reference/commands.md"]
    assert "Exit codes: 0 done; 1 failed; 2 the command line or a configuration is wrong;" in page
    found = list(commands.commands(app, "fedcpsc"))
    assert {"fedcpsc run", "fedcpsc ledger show", "fedcpsc gatekeeper serve"} <= {command.words for command in found}
    for command in found:
        (section,) = re.findall(rf"^## {command.words}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
        for parameter in command.click.params:
            shown = parameter.opts if isinstance(parameter, click.Option) else [parameter.human_readable_name]
            assert all(name in section for name in shown), f"{command.words}: {shown}"
            assert getattr(parameter, "help", None), f"{command.words}: {shown} says nothing"
        assert "[bold]" not in section
        assert "```bash\nfedcpsc " in section, f"{command.words}: no example"


@pytest.fixture
def project(tmp_path):
    """Builds a project of one's own around pages, with this project's settings."""
    pytest.importorskip("mkdocs")

    def build(**texts):
        (tmp_path / "docs").mkdir()
        for name, text in texts.items():
            (tmp_path / "docs" / f"{name}.md").write_text(text)
        settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
        settings = settings[: settings.index("nav:\n")].replace("website/hooks.py", str(ROOT / "website/hooks.py"))
        (tmp_path / "mkdocs.yml").write_text(settings)
        return mkdocs(tmp_path / "mkdocs.yml", tmp_path / "site")

    return build


def mkdocs(settings, site):
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", str(settings), "--site-dir", str(site)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)


def test_the_site_builds_without_a_warning_and_asks_no_other_server_for_anything(tmp_path):
    pytest.importorskip("mkdocs")
    done = mkdocs(ROOT / "mkdocs.yml", tmp_path)
    assert done.returncode == 0, done.stderr
    built = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.html")}
    pages_written = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert {f"{name}.html" for name in pages_written} <= built
    assert {path.replace(".md", ".html") for path in pages()} <= built
    loads = r"""<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=["']?(https?:[^"'\s>]+)"""
    for path in sorted(built):
        assert re.findall(loads, (tmp_path / path).read_text(encoding="utf-8")) == [], path
    listed = (tmp_path / "external-links.txt").read_text(encoding="utf-8").splitlines()
    assert "https://flower.ai\tindex.md" in listed
    assert (tmp_path / "benchmarks/results/shard_votes.png").exists()


def test_links_that_lead_nowhere_fail_the_build(project):
    gone = {
        "page": "gone-page.md",
        "anchor": "other.md#gone-there",
        "own anchor": "#gone-here",
        "outside": "../gone.png",
    }
    lines = "\n".join(f"[{name}]({link})" for name, link in gone.items())
    done = project(index=f"# Home\n\n{lines}\n", other="# Other\n\n## Here\n")
    assert done.returncode != 0
    assert [link for link in gone.values() if link.rpartition("#")[2].removeprefix("../") not in done.stderr] == []


def test_links_that_lead_somewhere_do_not(project):
    done = project(
        index="# Home\n\n[a](other.md#here) [b](reference/run.md#data) [c](../LICENSE) [d](https://nowhere.invalid/x)\n",
        other="# Other\n\n## Here\n",
        privacy="# The reference links here\n",
        white_box="# And here\n",
        extending="# And here\n",
        sweeps="# And here\n",
        students="# And here\n",
        python_api="# And here\n",
    )
    assert done.returncode == 0, done.stderr
