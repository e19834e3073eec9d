# SPDX-License-Identifier: Apache-2.0
"""The library runs where only torch is: no Flower, no Ray."""

import subprocess
import sys

import pytest

PARTS = [
    "fedcpsc.distillation.run",
    "fedcpsc.gatekeeper.opening",
    "fedcpsc.silos.make",
    "fedcpsc.export.export_student",
    "fedcpsc.simulated.one_process",
    "fedcpsc.protocol.codec",
    "fedcpsc.report.page",
]


@pytest.mark.parametrize("part", PARTS)
def test_the_library_imports_without_flower_and_ray(part):
    code = f"import sys; sys.modules['flwr'] = sys.modules['ray'] = None; import {part}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
