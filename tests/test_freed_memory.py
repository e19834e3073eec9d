# SPDX-License-Identifier: Apache-2.0
"""A process that was told to keep freed memory asks the system for it once; one that was not, again and again."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource
import numpy as np
from fedcpsc.freed_memory import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
def step():
    blocks = [np.ones(2**19) for _ in range(8)]  # 4 MiB each
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep):
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(keep=keep)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="speaks to glibc alone")
def test_freed_blocks_are_taken_again_without_page_faults():
    assert faults(keep=True) < 200
    assert faults(keep=False) > 5000
