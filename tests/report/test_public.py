# SPDX-License-Identifier: Apache-2.0
"""A report that may travel holds nothing that is a silo's own; the owner's report does, and stays with the silo."""

import base64
import json

import pytest
from page_reader import read
from support.fakes import FakeSilo
from support.picture_sources import pictures, png
from support.tiny_runs import tiny_config

from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import RunError, SiloError
from fedcpsc.report.audit_folder import read_audit
from fedcpsc.report.owner_facts import read_owner
from fedcpsc.report.page import render, write_report
from fedcpsc.runs.read import gather

PRIVATE_PLOT = b"PRIVATE-PLOT"


def everything(html):
    """The page's text with the content of its embedded files."""
    embedded = [image.get("src").partition("base64,")[2] for image in read(html).all("img")]
    return html.encode() + b"".join(base64.b64decode(text) for text in embedded)


def test_the_public_report_holds_no_silos_own_figures(run, audit, silo):
    owner = read_owner(silo)
    write_report(run, audit_dir=audit)
    public = everything((run / "report.html").read_text())
    assert b"PUBLIC-PLOT" in public
    for secret in (PRIVATE_PLOT, b"PRIVATE-ROW", b"/secret/place", b"15,017", b"4,983", b"15017"):
        assert secret not in public, secret
    for word in ("people of the north", owner.ledger["head"], "realised", "class_counts", str(run)):
        assert word.encode() not in public, word


def test_the_owners_report_holds_them_and_lies_in_the_silos_folder_for_its_owner_alone(run, audit, silo):
    path = write_report(run, audit_dir=audit, silo_dir=silo)
    assert path == silo / "report.html"
    assert path.stat().st_mode & 0o777 == 0o600
    assert not (run / "report.html").exists()
    private = everything(path.read_text())
    assert PRIVATE_PLOT in private
    for word in (
        b"15,017",
        b"4,983",
        b"PRIVATE-ROW",
        b"people of the north",
        b"For the owner of silo-2 alone",
        b"Private:",
    ):
        assert word in private, word
    realised = read_owner(silo).epsilon_realised
    assert realised > 0
    assert f"{realised:.4g} at delta".encode() in private


def test_a_silo_that_took_no_part_is_refused(run, silo, tmp_path):
    manifest = silo / "manifest.json"
    manifest.write_text(manifest.read_text().replace("silo-2", "silo-9"))
    with pytest.raises(RunError, match="silo-9.*took no part in this run"):
        write_report(run, silo_dir=silo)
    with pytest.raises(SiloError):
        write_report(run, silo_dir=tmp_path / "missing")


def test_reading_a_silo_charges_nothing(silo):
    before = read_owner(silo)
    assert read_owner(silo) == before


def test_a_deployments_report_hides_what_the_server_was_told_of_label_mixes(run, thirty):
    result, details = (json.loads((run / name).read_text()) for name in ("result.json", "details.json"))
    result["simulated"] = False  # and so the server knows nothing of these
    for silo in result["silos"]:
        silo |= {"teacher_accuracy": None, "train_size": None}
    result["ensemble"]["accuracy"] = None
    details["confusion"] |= {"teachers": {}, "ensemble": None}
    (run / "result.json").write_text(json.dumps(result))
    (run / "details.json").write_text(json.dumps(details))
    assert any(0 < w < 1 for w in gather(run).details.weights["silo-1"]), "there is something to hide"
    page = read(render(gather(run)))
    assert "Mean weight of each silo" not in page.words()
    assert "under class_prior_log a silo's weight in each class discloses its label mix" in page.words()
    assert "Confusion of teacher" not in page.words()
    (table,) = [t for t in page.all("table") if "What each teacher" in t.words()]
    cells = [[cell.words() for cell in row.all("td")] for row in table.all("tr")[1:6]]
    assert {(row[0], row[3]) for row in cells} == {("-", "-")}, "neither teachers' accuracies nor sizes"
    assert "Mean weight of each silo" in read(render(gather(thirty))).words()


def test_private_plots_are_not_even_opened_for_a_public_report(audit):
    (audit / "private/neighbours.svg").unlink()
    assert [plot.title for plot in read_audit(audit, run="thirty", owner=None).plots] == ["ROC"]


def test_an_owner_sees_no_other_owners_pictures(audit):
    seen = {owner: read_audit(audit, run="thirty", owner=owner) for owner in ("silo-1", "silo-2")}
    assert [[plot.title for plot in each.plots] for each in seen.values()] == [["ROC"], ["ROC", "Neighbours"]]
    assert [any(row["policy"] == "PRIVATE-ROW" for row in each.rows) for each in seen.values()] == [False, True]


def test_the_report_says_which_real_pictures_a_run_used_and_of_their_path_the_last_part(tmp_path):
    place = tmp_path / "secret-place/harbour"
    place.mkdir(parents=True)
    for i, pixels in enumerate(pictures(12)):
        (place / f"{i}.png").write_bytes(png(pixels))
    folder, silos = tmp_path / "run", [FakeSilo(f"silo-{i}") for i in range(2)]
    distill(tiny_config(synthesis__public={"path": str(place)}), LocalTransport(silos), folder)
    page = render(gather(folder))
    assert "not free of all data: 60 of 120 query images from 12 unlabelled pictures of the server" in page
    assert "--set synthesis.public.path=..." in page
    assert "secret-place" not in page
    result = json.loads((folder / "result.json").read_text())
    del result["real_pictures"]
    (folder / "result.json").write_text(json.dumps(result))
    assert "not free of all data" not in render(gather(folder))
