# SPDX-License-Identifier: Apache-2.0
"""`import fedcpsc`: light, complete, and as its `__all__` says."""

import subprocess
import sys
from pathlib import Path

import pytest

import fedcpsc

LIGHT = """
import sys, time
begun = time.process_time()
import fedcpsc
spent = time.process_time() - begun
heavy = [name for name in ("torch", "flwr", "numpy", "pydantic", "scipy") if name in sys.modules]
print(f"{spent:.4f}", *heavy)
"""


def test_importing_the_package_brings_neither_torch_nor_flower_and_takes_under_a_tenth_of_a_second():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    spent, *heavy = done.stdout.split()
    assert heavy == []
    assert float(spent) < 0.1


@pytest.mark.parametrize("name", fedcpsc.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name):
    found = getattr(fedcpsc, name)
    assert name in dir(fedcpsc)
    assert name == "__version__" or found.__doc__


def test_the_lazy_names_are_the_typed_ones():
    text = Path(fedcpsc.__file__).read_text(encoding="utf-8")
    typed = text.partition("if TYPE_CHECKING:")[2].partition("__all__")[0]
    assert all(name in typed for name in fedcpsc.__all__)
    assert {*fedcpsc._PLACES, "audit", "__version__"} == set(fedcpsc.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        fedcpsc.distil  # noqa: B018


def test_audit_is_the_function_also_after_its_package_was_imported():
    import fedcpsc.audit.plan

    assert callable(fedcpsc.audit)
    assert fedcpsc.audit.plan.AuditConfig
    with pytest.raises(fedcpsc.FedcpscError, match="is not the folder of a run"):
        fedcpsc.audit("/nowhere")
