"""A finished run of 30 rounds and 5 silos, made once, and what may belong to it."""

import json
import shutil

import pytest
from gatekeeper.silo_folder import make_folder
from support.fakes import FakeSilo, brightness_probabilities
from support.tiny_runs import evaluation, tiny_config

from fedcpsc.distillation.run import SiloFacts, distill
from fedcpsc.distillation.teachers import LocalTeachers
from fedcpsc.privacy.gnmax import ORDERS
from fedcpsc.protocol.messages import ClassReport

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><title>{}</title><rect width="9" height="9"/></svg>'


def make_run(folder):
    """30 rounds, 5 silos, 10 classes, 28x28; one silo's budget ends early."""
    small = {
        "silos__count": 5,
        "queries__rounds": 30,
        "queries__answers_per_silo": 900,
        "student__steps_per_round": 1,
        "student__committee": 1,
        "student__final_steps": 4,
        "synthesis__steps": 1,
        "synthesis__candidates": 1,
        "evaluation__every": 3,
        "aggregation__rule": "class_prior_log",
        "data__path": "/secret/place",
        "output__name": "thirty",
    }
    config = tiny_config(**small)
    shape = {"classes": 10, "image_shape": (1, 28, 28)}
    fakes = [
        FakeSilo(
            f"silo-{i}",
            budget=400 if i == 3 else 5000 + 1000 * i,
            class_report=ClassReport(tuple(float(1 + (i * k) % 7) for k in range(10))),
            **shape,
        )
        for i in range(5)
    ]
    facts = {f.description.silo: SiloFacts(640, lambda images: brightness_probabilities(images, 10)) for f in fakes}
    held_out = evaluation(100, classes=10, side=28)
    distill(config, LocalTeachers(fakes), folder, evaluation=held_out, silo_facts=facts)


@pytest.fixture(scope="session")
def thirty(tmp_path_factory):
    """Not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "thirty"
    make_run(folder)
    return folder


@pytest.fixture
def run(thirty, tmp_path):
    """A copy to be changed."""
    return shutil.copytree(thirty, tmp_path / "run")


@pytest.fixture
def audit(tmp_path):
    """An audit's folder: a public plot and a private one."""
    folder = tmp_path / "audit"
    (folder / "private").mkdir(parents=True)
    (folder / "roc.svg").write_text(SVG.format("PUBLIC-PLOT"))
    (folder / "private/neighbours.svg").write_text(SVG.format("PRIVATE-PLOT"))
    (folder / "audit.json").write_text(
        json.dumps(
            {
                "schema": 1,
                "verdict": {"violation": True, "text": "plain claims epsilon 1, but shows at least 2.50."},
                "rows": [
                    {"policy": "plain", "auc": 0.912345, "tpr_at": {"0.01": 0.35}, "curve": {"fpr": [0, 1]}},
                    {"policy": "PRIVATE-ROW", "auc": 0.5, "private": True, "silo": "silo-2"},
                ],
                "bounds": [{"policy": "plain", "epsilon": 2.5, "claimed_epsilon": 1.0, "violated": True}],
                "plots": [
                    {"file": "roc.svg", "title": "ROC", "alt": "ROC: 35 % at 1 %.", "private": False},
                    {
                        "file": "private/neighbours.svg",
                        "title": "Neighbours",
                        "alt": "Pairs.",
                        "private": True,
                        "silo": "silo-2",
                    },
                ],
            }
        )
    )
    return folder


@pytest.fixture
def silo(tmp_path):
    """Folder of silo-2."""
    make_folder(tmp_path / "silo", silo="silo-2", private_class_counts=(15_017, 4_983))
    (tmp_path / "silo/owner_account.jsonl").write_text(
        json.dumps({"query_id": "q", "answers": 3, "rdp": [0.001 * a for a in ORDERS]}) + "\n"
    )
    return tmp_path / "silo"
