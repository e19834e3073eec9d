"""For all tests."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Networks here are tiny: more threads only wait for each other, many times over on a busy machine."""
    torch.set_num_threads(1)
