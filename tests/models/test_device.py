"""Where networks run."""

import pytest
import torch

from fedcpsc.errors import ConfigError
from fedcpsc.models.device import choose_device


@pytest.mark.parametrize(
    ("wanted", "gpu", "chosen"),
    [("auto", False, "cpu"), ("auto", True, "cuda"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_the_gpu_is_taken_where_there_is_one_and_it_is_wanted(wanted, gpu, chosen, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert choose_device(wanted).type == chosen


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"runtime\.device='cuda': no GPU is visible to torch; use auto or cpu"):
        choose_device("cuda")
