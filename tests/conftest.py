# SPDX-License-Identifier: Apache-2.0
"""For all tests."""

import shutil

import pytest
import torch
from hypothesis import settings
from support.marks import ONE_AT_A_TIME, mark_of

# a busy machine takes its time: what matters is what a test finds, not when
settings.register_profile("fedcpsc", deadline=None)
settings.load_profile("fedcpsc")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks what `make test-fast` leaves out; `make test` leaves out nothing.

    Where several workers share the tests, those of a file stay together, for what they share is made once; those that
    start processes, ports or a browser are one worker's, so that none of them disturbs another; the longest go first.
    """
    for item in items:
        if found := mark_of(item.nodeid):
            mark, reason = found
            item.add_marker(getattr(pytest.mark, mark)(reason=reason))
    if hasattr(config, "workerinput"):
        for item in items:
            group = "processes" if _alone(item) else item.nodeid.partition("::")[0]
            item.add_marker(pytest.mark.xdist_group(group))
        items.sort(key=lambda item: 0 if _alone(item) else 1 if item.get_closest_marker("slow") else 2)


def _alone(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(mark) for mark in ONE_AT_A_TIME)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Networks here are tiny: more threads only wait for each other, many times over on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def thirty(tmp_path_factory):
    """Folder of a finished run of 30 rounds and 5 silos, made once. Not to be changed."""
    from support.thirty_rounds import make_run

    folder = tmp_path_factory.mktemp("runs") / "thirty"
    make_run(folder)
    return folder


@pytest.fixture
def run(thirty, tmp_path):
    """A copy of it to be changed."""
    return shutil.copytree(thirty, tmp_path / "run")
