# SPDX-License-Identifier: Apache-2.0
"""Commands that people type often start at once: what they import is what they need.

Modules are counted, which no busy machine changes; the bound in CPU seconds leaves room for one.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from support.silo_folder import make_folder

from fedcpsc.ledger.budget import Charge
from fedcpsc.ledger.ledger import Ledger

HEAVY = {
    *("torch", "torchvision", "flwr", "ray", "numpy", "scipy", "mpmath", "pandas", "pyarrow", "sklearn", "matplotlib"),
    *("PIL", "jinja2", "httpx", "fastapi", "uvicorn", "cryptography", "opacus", "safetensors", "importlib_resources"),
}
OF_CONFIGURATIONS = {"pydantic", "yaml", "fedcpsc.config", "sqlite3"}
MOST_CPU_S = 1.2

CODE = """
import json, sys
from fedcpsc import cli
sys.argv[0] = "fedcpsc"
try:
    cli.main()
except SystemExit as end:
    print(json.dumps({"code": end.code, "modules": sorted(sys.modules)}), file=sys.stderr)
"""


def imported_by(*words: str) -> set[str]:
    """Modules that a command has imported when it ends; it must end well."""
    done = subprocess.run([sys.executable, "-c", CODE, *words], capture_output=True, text=True, check=True)
    *said, told = done.stderr.splitlines()
    told = json.loads(told)
    assert told["code"] in (0, None), said
    return set(told["modules"])


@pytest.fixture(scope="module")
def silo(tmp_path_factory) -> Path:
    """A silo's folder; its ledger has one charge without a guarantee."""
    folder = tmp_path_factory.mktemp("silos") / "north"
    make_folder(folder)
    ledger = Ledger.open(folder / "ledger.sqlite", "people of the north")
    ledger.reserve("a", "p", Charge(3, private=False))
    ledger.close()
    return folder


@pytest.mark.parametrize(
    "words", ["--help", "--version", "run --help", "ledger --help", "gatekeeper --help", "deploy --help", "init --help"]
)
def test_help_needs_no_configuration_and_nothing_heavy(words):
    assert imported_by(*words.split()) & (HEAVY | OF_CONFIGURATIONS) == set()


def test_the_status_of_a_finished_run_needs_nothing_heavy(thirty):
    assert imported_by("status", str(thirty)) & (HEAVY | {"rich"}) == set()


def test_the_status_of_a_run_that_goes_on_needs_nothing_heavy(run):
    (run / "result.json").unlink()
    day = "86400"  # its last line was written when the session's tests began, which may be long ago
    assert imported_by("status", str(run), "--stalled-after", day) & HEAVY == set()


@pytest.mark.parametrize("words", [["show"], ["verify"], ["export"]])
def test_a_look_at_a_ledger_needs_nothing_heavy(silo, words):
    assert imported_by("ledger", *words, str(silo)) & (HEAVY | {"rich"}) == set()


def test_help_status_and_ledger_take_well_under_a_second_of_cpu(thirty, silo):
    for words in (["--help"], ["status", str(thirty)], ["ledger", "show", str(silo)]):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "fedcpsc.cli", *words], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        assert spent < MOST_CPU_S, words
