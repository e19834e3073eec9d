# SPDX-License-Identifier: Apache-2.0
"""What may belong to a run of 30 rounds: an audit, a silo's folder."""

import json

import pytest
from support.silo_folder import make_folder

from fedcpsc.privacy.gnmax import ORDERS

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><title>{}</title><rect width="9" height="9"/></svg>'


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
