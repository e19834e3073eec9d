# SPDX-License-Identifier: Apache-2.0
"""The first sentence and the figures beside it say what is known, and no more."""

import dataclasses

import pytest

from fedcpsc.report.sections.headline import headline, key_figures
from fedcpsc.runs.read import gather


@pytest.fixture(scope="module")
def facts(thirty):
    return gather(thirty)


def changed(facts, student=None, ensemble=None, **silos):
    result = facts.result | {
        "student": facts.result["student"] | {"accuracy": student},
        "ensemble": facts.result["ensemble"] | {"accuracy": ensemble},
    }
    each = tuple(dataclasses.replace(silo, **silos) for silo in facts.silos)
    return dataclasses.replace(facts, result=result, silos=each)


def test_it_says_what_was_learnt_from_whom_and_what_the_silos_reach_together(facts):
    said = "A student of 10 classes reaches 92.8 % from 5 silos' answers; the ensemble reaches 97.3 %."
    assert headline(changed(facts, 0.928, 0.973)) == said


def test_a_deployment_that_does_not_know_the_ensemble_does_not_name_it(facts):
    assert headline(changed(facts, 0.928)) == "A student of 10 classes reaches 92.8 % from 5 silos' answers."


def test_one_silo_is_one(facts):
    alone = dataclasses.replace(changed(facts, 0.5), silos=facts.silos[:1])
    assert headline(alone) == "A student of 10 classes reaches 50.0 % from 1 silo's answers."


def test_without_held_out_images_it_says_that_nobody_knows(facts):
    unmeasured = changed(facts, teacher_accuracy=None)
    assert "was not measured" in headline(unmeasured)
    assert "%" not in headline(unmeasured)
    terms = {item.term: item.value for item in key_figures(unmeasured).items}
    assert list(terms) == ["student", "answers per silo", "differential privacy"]
    assert terms["student"] == "not measured"


def test_a_run_that_goes_on_says_how_far_it_is(facts):
    rounds = tuple(line for line in facts.lines if line["phase"] == "round")
    going = dataclasses.replace(facts, result=None, details=None, lines=rounds[:12])
    reached = [line["student_accuracy"] for line in rounds[:12] if "student_accuracy" in line][-1]
    so_far = f"Not finished: 12 of 30 rounds are done, and the student reaches {100 * reached:.1f} % so far."
    assert headline(going) == so_far
    assert headline(dataclasses.replace(going, lines=())) == "Not finished: no round is done yet."


@pytest.mark.parametrize(
    ("promises", "value", "words"),
    [
        ([False] * 5, "not private", "is not protected"),
        ([True] * 5, "epsilon 3.5", "5 of 5 silos claim it, epsilon at most 3.5 per record"),
        ([True, False, True, True, True], "partly", "not protected: silo-1"),
        ([None] * 5, "-", "not recorded yet"),
    ],
)
def test_privacy_is_never_said_to_be_more_than_the_least_protected_silo_has(facts, promises, value, words):
    silos = tuple(
        dataclasses.replace(silo, dp=dp, epsilon=3.5 if dp else None, unit="record" if dp else None)
        for silo, dp in zip(facts.silos, promises, strict=True)
    )
    shown = key_figures(dataclasses.replace(facts, silos=silos)).items[-1]
    assert (shown.term, shown.value) == ("differential privacy", value)
    assert words in shown.note


def test_the_students_figure_has_the_interval_of_its_sample_and_is_the_main_one(facts):
    (student,) = [item for item in key_figures(changed(facts, 0.9, 0.95)).items if item.main]
    assert (student.term, student.value) == ("student", "90.0 %")
    assert "of 100 held-out images (95 % interval of that sample 82.6 % to 94.5 %; one seed)" in student.note
