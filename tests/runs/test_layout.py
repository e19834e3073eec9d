# SPDX-License-Identifier: Apache-2.0
"""A run's file names are spelt in one place, and only the engine opens a bank for writing."""

import ast
from pathlib import Path

import pytest

from fedcpsc.runs import layout

ROOT = Path(__file__).parents[2]
FOLDERS = {layout.BANK_FOLDER, layout.CHECKPOINT_FOLDER, layout.EXPORT_FOLDER, layout.AUDIT_FOLDER}
# of a run's folder alone: "teacher.safetensors" is also a silo's file
FILES = {getattr(layout, name) for name in layout.__all__} - FOLDERS - {layout.WHITE_BOX_TEACHER_FILE, "tensorboard"}


def modules():
    for package in ("fedcpsc", "server", "clients"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if not path.is_relative_to(ROOT / "fedcpsc/runs"):
                yield path


def spelt(source: str) -> list[str]:
    """Names of a run's files and folders that the code spells; what documentation says does not count."""
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    joined = {id(node.right) for node in ast.walk(tree) if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)}
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in prose:
            continue
        parts = node.value.split("/")
        found += [part for part in parts if part in FILES]
        if id(node) in joined or len(parts) > 1:
            found += [part for part in parts if part in FOLDERS]
        found += [name for name in FILES if name in node.value.split() and name not in parts]
    return found


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ('path = run_dir / "result.json"', ["result.json"]),
        ('path = run_dir / "bank"', ["bank"]),
        ('path = run_dir / "bank/journal.jsonl"', ["journal.jsonl", "bank"]),
        ('say("read metrics.jsonl first")', ["metrics.jsonl"]),
        ('line["bank"]', []),
        ('explain("bank", folder)', []),
        ('def f():\n    """Writes result.json."""', []),
    ],
)
def test_what_counts_as_spelling_a_name(source, names):
    assert spelt(source) == names


def test_no_module_outside_the_package_spells_a_name_of_a_runs_folder():
    found = {str(path.relative_to(ROOT)): names for path in modules() if (names := spelt(path.read_text()))}
    assert found == {}


def test_only_the_engine_and_what_makes_a_bank_of_a_data_set_open_one_for_writing():
    users = {path.relative_to(ROOT).parts[1] for path in modules() if "answer_bank import" in path.read_text()}
    assert users == {"answer_set", "distillation"}
