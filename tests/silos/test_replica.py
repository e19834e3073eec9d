# SPDX-License-Identifier: Apache-2.0
"""Copies of a simulated silo begin alike, each with a ledger of its own; what an owner keeps is not copied."""

from contextlib import closing

import pytest

from fedcpsc.config import RunConfig
from fedcpsc.errors import SiloError
from fedcpsc.gatekeeper.held_out import HELD_OUT_FOLDER
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.gatekeeper.policy import POLICY_FILE, Policy
from fedcpsc.gatekeeper.seen_records import records_seen
from fedcpsc.ledger.budget import Charge
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
from fedcpsc.protocol.messages import DescribeRequest
from fedcpsc.silos import replica
from fedcpsc.silos.make import make_silos
from fedcpsc.silos.replica import check_copyable, replicate
from fedcpsc.teachers.manifest import WEIGHTS_FILE, load_manifest, save_manifest


def config(**sections) -> RunConfig:
    tree = {
        "data": {"train_limit": 60, "test_limit": 20},
        "silos": {"count": 1, "partition": {"kind": "iid"}, "policy": {"answers": 500}},
        "teachers": {"width": 4, "epochs": 1},
        "runtime": {"device": "cpu", "threads": 1},
    }
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values}
    return RunConfig.model_validate(tree)


@pytest.fixture
def made(tmp_path):
    """The folder of one silo, just made."""
    make_silos(config(), tmp_path / "made")
    return tmp_path / "made/0"


def ledger_of(folder):
    return closing(Ledger.open(folder / LEDGER_FILE, load_manifest(folder).population))


def charge(folder, answers):
    with ledger_of(folder) as ledger:
        ledger.reserve(f"{answers:032x}", "a" * 64, Charge(answers))


def test_a_copy_judges_students_on_the_images_that_were_set_aside(tmp_path):
    policy = {"answers": 500, "evaluation": {"evaluations": 2, "public_size": True}}
    make_silos(config(silos={"policy": policy, "held_out": 0.3}), tmp_path / "made")
    made, copy = tmp_path / "made/0", tmp_path / "copy/0"
    replicate(made, copy)
    assert (copy / HELD_OUT_FOLDER).stat().st_mode & 0o077 == 0
    offers = []
    for folder in (made, copy):
        gatekeeper = open_gatekeeper(folder)
        offers.append(gatekeeper.describe(DescribeRequest()).evaluation)
        gatekeeper.close()
    assert offers[0] == offers[1]
    assert offers[0].held_out > 0


def test_a_copy_has_the_teacher_and_the_whole_budget_and_what_it_spends_is_its_own(made, tmp_path):
    one, other = tmp_path / "one/0", tmp_path / "other/0"
    assert replicate(made, one) == replicate(made, other) == load_manifest(made)
    assert (one / WEIGHTS_FILE).read_bytes() == (made / WEIGHTS_FILE).read_bytes()
    assert one.stat().st_mode & 0o077 == 0
    charge(one, 7)
    replicate(made, one)  # again: it stays as it is
    for folder, spent in ((one, 7), (other, 0), (made, 0)):
        with ledger_of(folder) as ledger:
            assert (ledger.verify().spent.answers, ledger.status().budget.answers) == (spent, 500)
    open_gatekeeper(one).close()


def test_a_copys_ledger_was_begun_there_and_it_knows_its_records(made, tmp_path):
    replicate(made, tmp_path / "copy")
    with ledger_of(made) as ledger, ledger_of(tmp_path / "copy") as own:
        assert ledger.status().head != own.status().head
    assert records_seen(tmp_path / "copy") == records_seen(made) == {"silo-0": 60}
    reports = make_silos(config(silos={"root": str(tmp_path)}), tmp_path / "made")
    assert reports[0].reused
    (tmp_path / "run").mkdir()
    replicate(made, tmp_path / "run/0")
    assert make_silos(config(), tmp_path / "run")[0].reused, "a copy is what making the silo there would have made"


def test_a_dp_sgd_teachers_training_is_on_the_copys_record_and_its_claim_holds(tmp_path):
    dp = {"kind": "dp_sgd", "epsilon": 8, "delta": 1e-3}
    policy = {"answers": 500, "mechanism": {"kind": "dp_sgd", "epsilon": 8, "delta": 1e-3}, "public_size": True}
    architecture = {"architecture": "scattering", "training": dp, "batch_size": 20}
    make_silos(config(teachers=architecture, silos={"policy": policy}), tmp_path / "made")
    replicate(tmp_path / "made/0", tmp_path / "copy")
    with ledger_of(tmp_path / "made/0") as ledger, ledger_of(tmp_path / "copy") as own:
        trainings = [[(row["kind"], row["query_id"], row["note"]) for row in one.releases()] for one in (ledger, own)]
        assert trainings[0] == trainings[1]
        assert len(trainings[0]) == 1
    gatekeeper = open_gatekeeper(tmp_path / "copy")
    assert gatekeeper.describe(DescribeRequest()).claim.epsilon == 8
    gatekeeper.close()


def test_a_silo_that_was_asked_or_that_an_owner_keeps_is_not_copied(made, tmp_path):
    with (made / POLICY_FILE).open("a") as file:
        file.write("# mine\n")
    with pytest.raises(SiloError, match="kept by its owner"):
        replicate(made, tmp_path / "copy")
    make_silos(config(silos={"population": "others"}), tmp_path / "asked")
    charge(tmp_path / "asked/0", 3)
    with pytest.raises(SiloError, match="was asked already"):
        replicate(tmp_path / "asked/0", tmp_path / "copy")
    make_silos(config(silos={"population": "third"}), tmp_path / "adopted")
    save_manifest(
        load_manifest(tmp_path / "adopted/0").model_copy(update={"origin": "adopted"}), tmp_path / "adopted/0"
    )
    with pytest.raises(SiloError, match="kept by its owner"):
        replicate(tmp_path / "adopted/0", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("mark", ["/var/lib/marks/0.mark", "../0.mark"])
def test_copies_cannot_share_a_mark(mark):
    check_copyable(Policy(high_water_mark="own.mark"))
    with pytest.raises(SiloError, match="copies of the silo would share it"):
        check_copyable(Policy(high_water_mark=mark))


def test_a_copy_that_was_cut_short_is_made_anew(made, tmp_path, monkeypatch):
    def dies(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(replica, "sync", dies)
        with pytest.raises(KeyboardInterrupt):
            replicate(made, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    replicate(made, tmp_path / "copy")
    open_gatekeeper(tmp_path / "copy").close()
