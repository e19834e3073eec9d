# SPDX-License-Identifier: Apache-2.0
"""What silos say of a student, on the terminal, on the report's page and in the model card; and of a refit."""

import html
import io

import pytest
from rich.console import Console
from support.fakes import FakeSilo
from support.judging_silo import CountingSilo, JudgingSilo, bright_images
from support.tiny_runs import tiny_config

from fedcpsc.commands.run_view import result_table
from fedcpsc.distillation.refit import refit
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.export.card import model_card
from fedcpsc.report.page import render
from fedcpsc.runs.evaluation_words import adjustment_in_words, in_one_sentence
from fedcpsc.runs.evaluations import pooled, silo_evaluation
from fedcpsc.runs.read import gather
from fedcpsc.runs.student import load_student

SENTENCE = "73.3 % right, standard error 4.4 points, on 150 held-out images that 2 silos have, by their own word."


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged") / "run"
    silos = [JudgingSilo("a"), JudgingSilo("b", 30, 50, sigma=4.0), FakeSilo("c")]
    rules = tiny_config(silos__count=3, evaluation__at_silos=True, evaluation__held_out=False)
    distill(rules, LocalTransport(silos), folder)
    return folder


def terminal(result) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(result_table(result))
    return " ".join(console.file.getvalue().split())


def test_the_terminals_table_has_the_pooled_figure_and_each_silos_number(judged):
    shown = terminal(gather(judged).result)
    assert SENTENCE in shown
    assert "student, by the silos │ 150 │ │ │ │ 73.3% │" in shown
    assert "a evaluated: 80.0 % +- 4.0, 80 of 100" in shown
    assert "b evaluated: 60.0 % +- 10.6, 30 of 50" in shown
    assert "c has not evaluated: it offers none" in shown


def test_the_reports_page_has_a_section_of_it_and_that_it_is_a_claim(judged):
    page = render(gather(judged))
    for words in (
        "Evaluated by the silos",
        "73.3 % right",
        "30 of 50",
        "standard deviation 4 images",
        "silo&#39;s claim",
    ):
        assert words in page or words.replace("&#39;", "'") in page, words
    assert "exact, and not differentially private" in page
    headline = page.split("<h1>")[1].split("</h1>")[0].replace("\xa0", " ")
    assert "own word it classifies 73.3 % of 150 held-out images of theirs rightly" in headline


def test_the_model_card_says_it_beside_that_nothing_else_was_measured(judged):
    run = gather(judged)
    card = model_card(run, load_student(run), {}, None)
    assert f"**By the silos, on held-out images of their own:** {SENTENCE}" in card
    assert "| b | 60.0 % +- 10.6 | 30 of 50 | standard deviation 4 images (no guarantee) |" in card
    assert "| c | none | - | - |" in card


@pytest.fixture(scope="module")
def by_class(tmp_path_factory):
    folder = tmp_path_factory.mktemp("by_class") / "run"
    silos = [CountingSilo("a", bright_images(60, 0)), CountingSilo("b", bright_images(60, 1))]
    rules = tiny_config(evaluation__at_silos=True, evaluation__held_out=False, student__final_steps=150)
    distill(rules, LocalTransport(silos), folder)
    return folder


def test_what_was_added_to_class_biases_is_told_everywhere_and_never_how_many_images_a_class_has(by_class):
    run = gather(by_class)
    found = run.result["federated_evaluation"]
    told = adjustment_in_words(found)
    assert "right on the silos' images" in told
    assert told in terminal(run.result)
    assert told in html.unescape(model_card(run, load_student(run), {}, None))
    page = render(run).replace("&#39;", "'").replace("\xa0", " ")
    assert told in page
    section = page.split("Class by class")[-1].split("</table>")[0]
    for bias, share in zip(found["adjustment"]["biases"], found["recall"], strict=True):
        assert f"{bias:+.2f}" in section
        assert f"{100 * share:.1f}" in section
    assert "of 20" not in section


def test_a_run_that_asked_nobody_says_nothing_of_it(judged, tmp_path):
    result = distill(tiny_config(evaluation__held_out=False), LocalTransport([FakeSilo("a"), FakeSilo("b")]), tmp_path)
    assert "evaluated" not in terminal(result)
    assert "Evaluated by the silos" not in render(gather(tmp_path))


def test_a_refit_asks_nobody_and_says_so(judged, tmp_path):
    config = gather(judged).config
    config = config.model_copy(update={"output": config.output.model_copy(update={"name": "again"})})
    result = refit(judged, config, tmp_path / "again")
    assert result["federated_evaluation"]["silos"] == []
    assert "No silo has evaluated the student: fedcpsc refit asks no silo anything" in terminal(result)


def test_words_for_silos_that_do_not_tell_how_many_images_they_have():
    from fedcpsc.protocol.evaluation import EvaluationAnswer

    entry = silo_evaluation("a", EvaluationAnswer("0" * 32, 93, 2.0, None, 1), None)
    found = {"silos": [entry], "pooled": pooled([entry]), "reason": None}
    assert in_one_sentence(found) == "1 silo has evaluated the student, and none tells how many images it has."


def test_a_refit_says_that_its_class_biases_are_those_of_the_fit(by_class, tmp_path):
    lines = []
    refit(by_class, gather(by_class).config, tmp_path / "again", tell=lines.append)
    assert any("were shifted by what silos counted" in line for line in lines)
