# SPDX-License-Identifier: Apache-2.0
"""An audit of the Python API is the command line's, over images that their owners give or a configuration deals."""

import numpy as np
import pytest
import torch
from support.tiny_modules import CLASSES, SHAPE, federation, held_out, run
from torch import nn

import fedcpsc
from fedcpsc.errors import AuditError, DataError

PLAN = {
    "shadows": {"count": 24, "width": 8, "epochs": 2},
    "students": {"answers": [40], "width": 8, "steps": 5},
    "canaries": {"audited": 4},
    "fprs": [0.1],
}


def records(seed, count=200):
    """Noise with labels that mean nothing: all that can be learnt is to remember."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *SHAPE)).astype(np.uint8), rng.integers(0, 3, count)


def remember(images, labels):
    """A module that knows its own records by heart."""
    torch.manual_seed(1)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 3))
    x, y = torch.from_numpy(images).float() / 255, torch.from_numpy(labels)
    optimiser = torch.optim.Adam(module.parameters(), lr=5e-3)
    for _ in range(300):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(x), y).backward()
        optimiser.step()
    return module


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """Three modules of which the first remembers its records, and a run over them."""
    members = [records(seed) for seed in range(3)]
    models = [remember(*members[0]), *(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)) for _ in range(2))]
    with federation(models=models) as silos:
        yield silos, run(silos, folder=tmp_path_factory.mktemp("runs") / "audited"), members


def test_it_finds_the_members_of_a_module_that_remembers_them_and_not_of_others(setting):
    silos, made, members = setting
    before = [silo.answers_left for silo in silos.silos]
    said = []
    found = fedcpsc.audit(
        made, members=members, non_members=records(9, 400), config=PLAN, progress=lambda *told: said.append(told)
    )
    auc = {row["policy"]: row["auc"] for row in found.rows if row["attack"] == "loss" and row["surface"] == "teacher"}
    assert auc["silo-0"] > 0.9
    assert all(0.35 < auc[name] < 0.65 for name in ("silo-1", "silo-2"))
    assert not found.violation
    assert "silo-0, teacher" in found.text
    assert {row["policy"] for row in found.strongest} == {"silo-0", "silo-1", "silo-2", "run"}
    assert found.folder == made.folder / "audit"
    assert len(said) == 5
    assert [silo.answers_left for silo in silos.silos] == before
    assert "AUC" in str(found)
    assert found._repr_html_().startswith("<table>")
    again = fedcpsc.audit(made, members=members, non_members=records(9, 400), config=PLAN, resume=True)
    assert again.file == found.file
    with pytest.raises(AuditError, match="holds an audit already"):
        fedcpsc.audit(made, members=members, non_members=records(9, 400), config=PLAN)


def test_what_is_not_given_or_does_not_fit_is_explained(setting, tmp_path):
    _, made, members = setting
    other = records(9, 400)

    def tried(run=made, *more, **given):
        return fedcpsc.audit(run, *more, **({"config": PLAN, "folder": tmp_path / "audit"} | given))

    with pytest.raises(AuditError, match="members=None: must be given: only the silos' owners know"):
        tried(non_members=other)
    with pytest.raises(AuditError, match="non_members=None"):
        tried(members=members)
    with pytest.raises(AuditError, match="for each of 3 silos"):
        tried(members=members[:2], non_members=other)
    with pytest.raises(AuditError, match="exactly the silos silo-0, silo-1, silo-2"):
        tried(members={"silo-0": members[0], "north": members[1]}, non_members=other)
    with pytest.raises(DataError, match="members of silo-1: images"):
        tried(members=[members[0], (members[1][0][:, :, 1:], members[1][1]), members[2]], non_members=other)
    with pytest.raises(AuditError, match="must be given: this run was another process's"):
        tried(fedcpsc.open_run(made.folder), members=members, non_members=other)
    with pytest.raises(AuditError, match="leave both out"):
        tried(made, tmp_path, members=members, non_members=other)
    with federation(names=["a", "b", "c"]) as others, pytest.raises(AuditError, match="not of this federation"):
        tried(made, others, members=members, non_members=other)
    assert not (tmp_path / "audit").exists()


def test_a_run_opened_later_is_audited_with_its_federation(setting, tmp_path):
    silos, made, members = setting
    by_name = dict(zip(silos.names, [(x, [CLASSES[k] for k in y]) for x, y in members], strict=True))
    opened = fedcpsc.open_run(made.folder)
    found = fedcpsc.audit(
        opened, silos, members=by_name, non_members=held_out(400), config=PLAN | {"surfaces": ["teacher"]},
        folder=tmp_path / "audit",
    )  # fmt: skip
    assert {row["surface"] for row in found.rows} == {"teacher"}
    assert (tmp_path / "audit/audit.json").is_file()
