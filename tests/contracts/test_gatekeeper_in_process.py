from pathlib import Path
from typing import Any

import pytest
from query_target import Make, MeanTeacher, QueryTargetContract

from fedcpsc.gatekeeper.gatekeeper import Gatekeeper
from fedcpsc.gatekeeper.ledger import Ledger
from fedcpsc.gatekeeper.policy import Policy


class TestInProcess(QueryTargetContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        def opened(**policy: Any) -> tuple[Gatekeeper, MeanTeacher]:
            ledger = Ledger.create(tmp_path / "ledger.sqlite", "ds", 20)
            teacher = MeanTeacher()
            rules = Policy(images_per_query=10, **policy)
            return Gatekeeper("north", "model", teacher, rules, ledger, class_counts=(5, 4, 3, 2, 1)), teacher

        return opened
