# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
from typing import Any

import pytest
from query_target import Make, MeanTeacher, QueryTargetContract, open_silo

from fedcpsc.gatekeeper.gatekeeper import Gatekeeper


class TestInProcess(QueryTargetContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        def opened(**policy: Any) -> tuple[Gatekeeper, MeanTeacher]:
            return open_silo(tmp_path, **policy)

        return opened
