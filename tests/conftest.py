# SPDX-License-Identifier: Apache-2.0
"""For all tests."""

import shutil
from typing import Any

import pytest
import torch
from hypothesis import settings
from support.marks import ALONE, group_of, mark_of

# a busy machine takes its time: what matters is what a test finds, not when
settings.register_profile("fedcpsc", deadline=None)
settings.load_profile("fedcpsc")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks what `make test-fast` leaves out; `make test` leaves out nothing.

    Several workers begin with the longest tests, so that none of them is left alone with these at the end.
    """
    for item in items:
        if found := mark_of(item.nodeid):
            mark, reason = found
            item.add_marker(getattr(pytest.mark, mark)(reason=reason))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (group_of(item.nodeid) != ALONE, item.get_closest_marker("slow") is None))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """How several workers share the tests: by `group_of`."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return ByGroup(config, log)


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
