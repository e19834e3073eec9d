# SPDX-License-Identifier: Apache-2.0
"""Both sides are measured, each by its own code; bad input is told before anything is measured."""

import io
import json
import subprocess
from pathlib import Path

import pytest
from rich.console import Console
from support.tiny_bench import TINY
from support.tiny_runs import SMOKE
from typer.testing import CliRunner

from fedcpsc import cli
from fedcpsc.bench import benchmark as bench_run
from fedcpsc.bench.benchmark import run_bench
from fedcpsc.bench.curve import summarised
from fedcpsc.bench.sides import BenchPlan, differences, opened_sides
from fedcpsc.bench.throughput import clock_of, measure_stages, over_bare
from fedcpsc.commands.bench_command import bench_table, curve_table, ratio_table
from fedcpsc.errors import ConfigError, RunError

ROOT = Path(__file__).parents[2]
runner = CliRunner()


def quiet(share, text):
    assert 0 <= share <= 1
    assert text


def plan(**changes):
    return BenchPlan(**{"config": SMOKE, "overrides": TINY, "steps": 2, "repeats": 2, **changes})


def test_stages_are_timed_and_their_memory_taken(tmp_path):
    only = ("prior", "generator", "selection", "committee", "final", "evaluation", "answers")  # each is a process
    bench = run_bench(plan(only=only), tmp_path, quiet)
    assert [row["stage"] for row in bench["throughput"]] == list(only)
    assert json.loads((tmp_path / "bench.json").read_text()) == bench
    assert (tmp_path / "bench.png").read_bytes()[:4] == b"\x89PNG"
    assert bench["clock"] == "cpu_s"
    assert bench["sides"]["this"]["values"]["student"]["width"] == 4
    for row in bench["throughput"]:
        figures = row["sides"]["this"]
        seconds = figures["cpu_s"]
        assert 0 < seconds["least"] <= seconds["median"] <= seconds["most"]
        assert len(seconds["each"]) == 2
        assert figures["images_per_second"] == pytest.approx(figures["images"] / seconds["median"])
        assert 30 < figures["at_rest_MiB"] <= figures["peak_MiB"]
        assert "ratio" not in row
        if row["stage"] == "prior":
            assert figures["over_bare"] is None, "no network is passed through"
        else:
            over = figures["over_bare"]["cpu_s"]
            assert 0 < over["least"] <= over["median"] <= over["most"]
            assert len(over["each"]) == 2
    said = io.StringIO()
    Console(file=said, width=120).print(bench_table(bench))
    assert "/ bare" in said.getvalue()


@pytest.mark.parametrize(("bare", "told"), [(0.02, 2.0), (0.08, 0.5)])
def test_a_stage_is_held_against_the_bare_passes_beside_it(bare, told):
    calls = [{"wall_s": 0.04, "cpu_s": 0.04, "bare_wall_s": bare, "bare_cpu_s": bare} for _ in range(3)]
    assert over_bare(calls)["wall_s"]["median"] == pytest.approx(told)
    assert over_bare([{"wall_s": 0.04, "cpu_s": 0.04}]) is None


def test_two_sides_are_compared_by_the_image_in_memory_and_over_whole_runs(tmp_path):
    changes = ("student.width=16", "student.batch_size=512", "queries.answers_per_silo=20")
    two = plan(overrides_against=changes, steps=5, repeats=3, curve=True, only=("student",))
    bench = run_bench(two, tmp_path, quiet)
    assert bench["differs"] == {
        "queries.answers_per_silo": [40, 20],
        "student.batch_size": [8, 512],
        "student.width": [4, 16],
    }
    (row,) = bench["throughput"]
    this, other = row["sides"]["this"], row["sides"]["other"]
    assert other["cpu_s"]["median"] > this["cpu_s"]["median"]
    assert other["peak_MiB"] > this["peak_MiB"] + 5
    by_image = (other["cpu_s"]["median"] / 512) / (this["cpu_s"]["median"] / 8)
    assert row["ratio"]["cpu_s"]["least"] / 2 < by_image < row["ratio"]["cpu_s"]["most"] * 2
    assert not row["same_outcome"]

    curves = bench["curve"]
    assert [point["answers"] for point in curves["this"]["points"]] == [10, 20, 30, 40]
    assert [point["answers"] for point in curves["other"]["points"]] == [5, 10, 15, 20]
    assert curves["other"]["final"]["answers"] == 20
    assert curves["this"]["seeds"] == [1]
    assert curves["this"]["split"] == "test"
    for table in (bench_table(bench), ratio_table(bench), curve_table(curves)):
        Console(file=io.StringIO()).print(table)


@pytest.fixture
def repository(tmp_path):
    """A clone-like repository of the package with two commits: the tag `slow` sleeps in every student step."""
    root = tmp_path / "source"
    root.mkdir()

    def git(*words):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        return subprocess.run(["git", *identity, *words], cwd=root, check=True, capture_output=True, text=True).stdout

    subprocess.run(["cp", "-r", str(ROOT / "fedcpsc"), str(root)], check=True)
    subprocess.run(["cp", str(SMOKE), str(root / "smoke.yaml")], check=True)
    (root / ".gitignore").write_text("__pycache__/\nout/\n")
    git("init", "-q")
    steps = root / "fedcpsc/distillation/steps.py"
    fast = steps.read_text()
    assert "    member.network.train()\n" in fast
    slow = fast.replace("    member.network.train()\n", "    member.network.train()\n    sum(range(20_000_000))\n")
    for name, text in (("old", "raise ImportError('no such thing yet')\n"), ("slow", slow), ("fast", fast)):
        steps.write_text(text)
        git("add", "-A")
        git("commit", "-q", "-m", name)
        git("tag", name)
    return root


def test_another_commit_is_measured_by_its_own_code(repository, monkeypatch):
    monkeypatch.setattr("fedcpsc.__file__", str(repository / "fedcpsc/__init__.py"))
    before = sorted(repository.glob(".git/**/*"))
    with opened_sides(plan(against_commit="slow")) as sides:
        rows, said = measure_stages(plan(repeats=3, only=("round",)), sides, quiet)
        assert said["other"]["ready"] != said["this"]["ready"] == str(repository / "fedcpsc")
    assert not sides[1].root.exists()
    assert sorted(repository.glob(".git/**/*")) == before, "the repository is left as it was"
    assert len(sides[1].commit) == 12
    assert rows[0]["ratio"]["cpu_s"]["least"] > 1.5
    assert rows[0]["same_outcome"], "only slower"

    words = "could not be measured: ImportError: no such thing yet; measure a later commit"
    with opened_sides(plan(against_commit="old")) as sides, pytest.raises(RunError, match=words):
        measure_stages(plan(), sides[1:], quiet)
    with (
        pytest.raises(ConfigError, match="'gone'.*give a commit, branch or tag"),
        opened_sides(plan(against_commit="gone")),
    ):
        pass


def test_a_changed_tree_is_noted(monkeypatch):
    monkeypatch.setattr("fedcpsc.bench.sides.commit", lambda: "abc-dirty")
    with opened_sides(plan(overrides_against=("seed=2",))) as sides:
        assert [side.commit for side in sides] == ["abc-dirty", "abc-dirty"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--steps", "0"], "--steps=0"),
        (["--repeats", "-1"], "--repeats=-1"),
        (["--seeds", "0"], "--seeds=0"),
        (["--only", "students"], "--only='students'"),
        (["--against", str(SMOKE), "--against-commit", "HEAD"], "exclude each other"),
        (["--against", "gone.yaml"], "gone.yaml"),
        (["--set-against", "student.widht=3"], "width"),
        (["--curve", "--set", "evaluation.held_out=false"], "evaluation.held_out"),
    ],
)
def test_what_cannot_be_measured_is_told_on_the_command_line(tmp_path, monkeypatch, words, told):
    monkeypatch.setattr(bench_run, "measure_stages", lambda *given: ([], {}))
    done = runner.invoke(cli.app, ["bench", str(SMOKE), "--out", str(tmp_path), *words])
    assert done.exit_code == 2, done.output
    assert told in done.stderr.replace("\n", "")


def test_a_child_that_fails_tells_why():
    broken = plan(overrides=(*TINY, "student.architecture=resnt18"))
    with opened_sides(broken) as sides, pytest.raises(RunError, match="resnt18.*resnet18"):
        measure_stages(broken, sides, quiet)


def test_a_curve_is_mean_and_deviation_where_all_seeds_have_a_point():
    runs = [
        {"seed": 1, "points": [[10, 0.2], [20, 0.4]], "final": [20, 0.5], "split": "test"},
        {"seed": 2, "points": [[10, 0.4]], "final": [10, 0.7], "split": "test"},
    ]
    found = summarised(runs)
    (point,) = found["points"]
    assert point["answers"] == 10
    assert point["mean"] == pytest.approx(0.3)
    assert point["std"] == pytest.approx(0.02**0.5)
    assert found["final"]["mean"] == pytest.approx(0.6)
    assert summarised(runs[:1])["final"]["std"] is None


def test_threads_and_gpus_have_no_cpu_clock():
    assert clock_of({"this": {"device": "cpu", "threads": 1}}) == "cpu_s"
    assert clock_of({"this": {"device": "cpu", "threads": 2}}) == "wall_s"
    assert clock_of({"this": {"device": "cuda", "threads": 1}}) == "wall_s"


def test_differences_name_keys_by_their_path():
    assert differences({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 5}}) == {"a.c": [2, 5], "d": [3, None]}


def test_without_a_repository_there_is_no_other_commit(monkeypatch, tmp_path):
    (tmp_path / "fedcpsc").mkdir()
    monkeypatch.setattr("fedcpsc.__file__", str(tmp_path / "fedcpsc/__init__.py"))
    with pytest.raises(ConfigError, match="names no revision of fedcpsc"), opened_sides(plan(against_commit="HEAD")):
        pass
