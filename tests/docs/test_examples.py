# SPDX-License-Identifier: Apache-2.0
"""The examples run, with fewer answers and steps than they ask for, and are as short as they promise."""

import io
import os
import re
import subprocess
import sys
import tokenize

import pytest
from support.documented import ROOT

EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "first_hour.ipynb"


def statements(source):
    """First and last line of each statement: neither docstrings nor comments nor blank lines."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER)
    first, rows = None, []
    for token in tokens:
        if token.type in skipped:
            continue
        if first is None:
            first = token
        if token.type == tokenize.NEWLINE:
            if first.type != tokenize.STRING:
                rows.append((first.start[0], token.start[0]))
            first = None
    return rows


def test_three_models_to_a_student_take_at_most_twelve_lines():
    source = (EXAMPLES / "three_models.py").read_text(encoding="utf-8")
    rows = statements(source)
    assert sum(last - first + 1 for first, last in rows) <= 12
    assert "run.student" in source


def smaller(source, numbers):
    """An example's source with other numbers, each of which must be in it."""
    for asked, instead in numbers.items():
        assert asked in source
        source = source.replace(asked, instead)
    return source


def run_example(name, folder, numbers):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "PYTHONPATH": f"{ROOT}:{EXAMPLES}"}
    source = smaller((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"), numbers)
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    return done.stdout


def test_three_models_become_a_student_better_than_most_of_them(tmp_path):
    fewer = {"answers=2000, rounds=10": "answers=1000, rounds=5", '"shift": 0}': '"shift": 0, "final_steps": 500}'}
    shown = run_example("three_models", tmp_path, fewer)
    accuracies = [float(share) for share in re.findall(r"^\S.*? ([\d.]+)%$", shown.partition("curve")[0], re.MULTILINE)]
    *teachers, ensemble, student = accuracies
    assert len(teachers) == 3
    assert sorted(teachers)[1] < student < ensemble
    assert "ConvNet(" in shown


def test_a_private_policy_is_refused_without_proof_and_ends_with_its_budget(tmp_path):
    fewer = {'"sigma": 16': '"sigma": 8', "answers=2000, rounds=4": "answers=500, rounds=4"}
    shown = run_example("private_answers", tmp_path, fewer)
    assert "number of this teacher's records is not known" in shown
    found = re.findall(r"silo-\d: (\d+) of 2,000 answers, epsilon 20 .* refusals \{'budget': 1\}", shown)
    assert found == ["375"] * 3, "a quarter of the answers of twice that noise"
    assert "its budget is spent" in shown


def test_two_rules_are_compared_over_the_same_answers(tmp_path):
    fewer = {"(1, 2, 3)": "(1, 2)", '"final_steps": 800': '"final_steps": 400'}
    fewer |= {"answers=1000": "answers=600", "rounds=5": "rounds=3"}
    shown = run_example("compare_rules", tmp_path, fewer)
    head, *rows, paid = shown.splitlines()
    assert head == "rule,mean,std,each"
    assert [row.split(",")[0] for row in rows] == ["uniform", "answer_peak_log"]
    assert all(0.5 < float(row.split(",")[1]) < 1 for row in rows)
    assert paid == "answers paid by each silo: [1200, 1200, 1200]"


def test_the_notebook_is_kept_without_outputs():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert '"outputs": [' not in text.replace('"outputs": []', "")
    assert '"execution_count": null' in text
    assert not re.search(r'"execution_count": \d', text)


@pytest.mark.filterwarnings("ignore")  # of the notebook's own machinery
def test_the_notebook_runs_from_top_to_bottom():
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    fewer = {"answers=2000": "answers=600", "rounds=10": "rounds=3", '"shift": 0}': '"shift": 0, "final_steps": 100}'}
    fewer |= {'"final_steps": 1500': '"final_steps": 100', '{"answers": 5000}': '{"answers": 800}'}
    fewer |= {"answers=4000, rounds=4": "answers=400, rounds=2", '"final_steps": 200': '"final_steps": 20'}
    source = smaller("\0".join(cell.source for cell in notebook.cells), fewer)
    for cell, less in zip(notebook.cells, source.split("\0"), strict=True):
        cell.source = less
    resources = {"metadata": {"path": str(EXAMPLES)}}
    nbclient.NotebookClient(notebook, timeout=200, kernel_name="python3", resources=resources).execute()
    shown = str(notebook.cells)
    assert "text/html" in shown
    assert "image/png" in shown
    assert re.search(r"refused: \{'budget': 1\}", shown)
