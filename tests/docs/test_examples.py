# SPDX-License-Identifier: Apache-2.0
"""The examples run as they say, and are as short as they promise."""

import io
import os
import re
import subprocess
import sys
import tokenize

import pytest
from support.documented import ROOT

pytestmark = pytest.mark.timeout(900)  # minutes each on an idle machine, and several times that on a busy one

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


def run_example(name, folder):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    command = [sys.executable, str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    return done.stdout


def test_three_models_become_a_student_better_than_most_of_them(tmp_path):
    shown = run_example("three_models", tmp_path)
    accuracies = [float(share) for share in re.findall(r"^\S.*? ([\d.]+)%$", shown.partition("curve")[0], re.MULTILINE)]
    *teachers, ensemble, student = accuracies
    assert len(teachers) == 3
    assert sorted(teachers)[1] < student < ensemble
    assert "ConvNet(" in shown


def test_a_private_policy_is_refused_without_proof_and_ends_with_its_budget(tmp_path):
    shown = run_example("private_answers", tmp_path)
    assert "number of this teacher's records is not known" in shown
    assert len(re.findall(r"silo-\d: 1500 of 2,000 answers, epsilon 20 .* refusals \{'budget': 1\}", shown)) == 3
    assert "its budget is spent" in shown


def test_two_rules_are_compared_over_the_same_answers(tmp_path):
    shown = run_example("compare_rules", tmp_path)
    head, *rows, paid = shown.splitlines()
    assert head == "rule,mean,std,each"
    assert [row.split(",")[0] for row in rows] == ["uniform", "answer_peak_log"]
    assert all(0.5 < float(row.split(",")[1]) < 1 for row in rows)
    assert paid == "answers paid by each silo: [3000, 3000, 3000]"


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
    resources = {"metadata": {"path": str(EXAMPLES)}}
    nbclient.NotebookClient(notebook, timeout=800, kernel_name="python3", resources=resources).execute()
    shown = str(notebook.cells)
    assert "text/html" in shown
    assert "image/png" in shown
    assert re.search(r"refused: \{'budget': 1\}", shown)
