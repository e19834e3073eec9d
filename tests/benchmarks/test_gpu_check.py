# SPDX-License-Identifier: Apache-2.0
"""The check of a machine with a GPU times what `fedcpsc bench` times."""

from benchmarks.gpu_check import Check
from fedcpsc.bench.probe import Work


def test_work_is_called_once_to_warm_up_and_then_timed():
    called = []
    found = Check("cpu").seconds(Work(lambda: called.append(1) or [], units=1, images=1))
    assert len(called) == 2
    assert 0 <= found["least"] <= found["median"] <= found["most"]
