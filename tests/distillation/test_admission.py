# SPDX-License-Identifier: Apache-2.0
"""Descriptions and answers of a dishonest silo: it is left out by name with the reason, and the others go on."""

import copy
import json
import logging
import math
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from support.fakes import FakeSilo, brightness_probabilities
from support.tiny_runs import evaluation, tiny_config

from fedcpsc.distillation.claims import fault_of_answer, fault_of_description
from fedcpsc.distillation.denoising import denoise
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import BankError, FederationError, RunError
from fedcpsc.printable import printable
from fedcpsc.protocol.messages import Answer, AnswerForm, ClassReport, Description, DpClaim
from fedcpsc.runs.descriptions import read_descriptions
from fedcpsc.strict_json import parse_json

pytestmark = pytest.mark.slow  # whole runs

ANIMALS = ("cat", "dog", "horse")
COUNTS = ClassReport((5.0, 6.0, 7.0))
LAST = "silo-4"


def claimed(description: Description, **changes: object) -> Description:
    """The description with other values, of any type: what a program that is not ours may put together."""
    made = copy.copy(description)
    for name, value in changes.items():
        object.__setattr__(made, name, value)
    return made


def five(names: tuple[str, ...] | None = ANIMALS, **changes: object) -> list[FakeSilo]:
    """Five silos, of which the last claims what `changes` say."""
    silos = [FakeSilo(f"silo-{n}", class_names=names, class_report=COUNTS) for n in range(5)]
    silos[4].description = claimed(silos[4].description, **changes)
    return silos


def run(folder, silos, *, images=None, quorum=0.6, **changes):
    told = []
    usual = {"silos__count": len(silos), "queries__quorum": quorum, "queries__answers_per_silo": 40}
    config = tiny_config(**{**usual, "queries__rounds": 2, "student__committee": 1, **changes})
    result = distill(config, LocalTransport(silos), folder, evaluation=images, tell=told.append)
    return result, told


CLAIM = DpClaim(True, 1.0, 1e-5, "record", "add_remove", "dp_sgd")
HOSTILE = {
    "noise of 1e300": {"noise_sigma": 1e300},
    "noise of 1e-200": {"noise_sigma": 1e-200},
    "noise of NaN": {"noise_sigma": math.nan},
    "noise that is text": {"noise_sigma": "much"},
    "negative noise": {"noise_sigma": -0.1},
    "counts of 1e39": {"class_report": ClassReport((1e39, 1e39, 1e39))},
    "counts of NaN": {"class_report": ClassReport((math.nan, 1.0, 1.0))},
    "negative counts": {"class_report": ClassReport((-5.0, 1.0, 1.0))},
    "a class report of 9 classes": {"class_report": ClassReport((1.0,) * 9)},
    "no class report": {"class_report": None},
    "another image shape": {"image_shape": (3, 8, 8)},
    "images of a terapixel": {"image_shape": (1, 2**20, 2**20)},
    "no image shape": {"image_shape": ()},
    "other forms": {"forms": (AnswerForm.LABEL,)},
    "no forms": {"forms": ()},
    "forms that are none": {"forms": ("sonnet",)},
    "nothing in a query": {"images_per_query": 0},
    "a query of 1e400": {"images_per_query": 10**400},
    "more left than there is": {"answers_left": 10**9},
    "a budget below zero": {"answers_total": -1, "answers_left": -1},
    "other numbers of classes": {"classes": 4},
    "65,536 classes": {"classes": 2**16, "class_names": tuple(map(str, range(2**16))), "class_report": None},
    "1,000 classes of its own": {
        "classes": 1000,
        "class_names": tuple(f"own {k}" for k in range(1000)),
        "class_report": ClassReport((1.0,) * 1000),
    },
    "one class": {"classes": 1, "class_names": ("cat",), "class_report": ClassReport((1.0,))},
    "names that differ by case": {"class_names": ("Cat", "dog", "horse")},
    "a name twice": {"class_names": ("cat", "cat", "dog")},
    "names of escape characters": {"class_names": ("\x1b[2J", "dog", "horse")},
    "names that are numbers": {"class_names": (1, 2, 3)},
    "names that are one text": {"class_names": "cdh"},
    "a flag that is none": {"none_class": "yes"},
    "consent that is no flag": {"share_answers": "yes"},
    "a name of escape characters": {"silo": "\x1b[31mred"},
    "no name": {"silo": ""},
    "a name of a megabyte": {"silo": "x" * 10**6},
    "a name that differs by case": {"silo": "Silo-0"},
    "the name of another": {"silo": "silo-0"},
    "epsilon of infinity": {"claim": replace(CLAIM, epsilon=math.inf)},
    "delta of 2": {"claim": replace(CLAIM, delta=2.0)},
    "a unit of escape characters": {"claim": replace(CLAIM, unit="\x1b[31m")},
    "no claim": {"claim": None},
    "a version of line breaks": {"version": "1.2\nINFO all is well"},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_description_costs_its_own_silo_the_place_and_no_other(tmp_path, case, caplog):
    silos = five(**HOSTILE[case])
    honest = silos[:4]
    with caplog.at_level(logging.INFO, "fedcpsc"):
        result, told = run(tmp_path / "run", silos, aggregation__rule="class_prior_log")
    assert [silo["id"] for silo in result["silos"]] == [silo.description.silo for silo in honest]
    assert [silo["answers"] for silo in result["silos"]] == [40] * 4
    assert not silos[4].queries, "it was asked nothing"
    (line,) = [line for line in told if "not let in" in line]
    name = "node 4" if case == "the name of another" else printable(silos[4].description.silo, 400)
    assert line.startswith(f"{name} is not let in: ")
    assert line.isprintable()
    assert len(line) < 1000
    assert not any(record.exc_info for record in caplog.records)
    for name in ("result.json", "details.json"):
        parse_json((tmp_path / "run" / name).read_bytes())


@pytest.mark.parametrize("case", ["noise of 1e300", "another image shape", "names that differ by case", "other forms"])
def test_without_a_quorum_for_it_the_run_ends_before_anybody_is_charged(tmp_path, case):
    silos = five(**HOSTILE[case])
    with pytest.raises(FederationError) as raised:
        run(tmp_path / "run", silos, quorum=1.0)
    words = str(raised.value)
    assert f"{LAST}: " in words
    assert "at least 5 of 5" in words
    assert "queries.quorum (here 0.8)" in words
    assert "silos.count=4" in words
    assert all(not silo.queries for silo in silos)
    assert not (tmp_path / "run").exists()


def test_what_the_error_says_of_the_quorum_is_so(tmp_path):
    result, _ = run(tmp_path / "run", five(noise_sigma=1e300), quorum=0.8)
    assert len(result["silos"]) == 4
    assert result["not_joined"] == 1


def test_where_no_value_is_that_of_most_silos_nobody_is_left_out_and_all_are_named(tmp_path):
    silos = [FakeSilo(f"silo-{n}", image_shape=(1, 8, 8) if n < 2 else (1, 6, 6)) for n in range(4)]
    with pytest.raises(FederationError, match=r"image_shape=.*silo-0.*silo-3.*must be the same"):
        run(tmp_path / "run", silos, quorum=0.5)


def test_silos_that_all_lack_what_the_run_asks_for_are_not_at_fault(tmp_path):
    with pytest.raises(FederationError, match=r"queries\.form='label'.*silo-0 offers"):
        run(tmp_path / "run", five(), queries__form="label")


@pytest.mark.parametrize("others", [None, ANIMALS])
def test_one_silo_that_names_its_classes_unlike_the_others_or_not_at_all(tmp_path, others):
    names = ("a", "b", "c", "d") if others is None else None
    silos = five(others, classes=4, class_names=names, class_report=None)
    result, told = run(tmp_path / "run", silos)
    assert len(result["silos"]) == 4
    assert any(line.startswith(f"{LAST} is not let in: classes=") for line in told)


def test_words_of_one_silo_are_not_taken_for_the_classes_of_those_that_name_none(tmp_path):
    images = replace(evaluation(), class_names=ANIMALS)
    result, told = run(tmp_path / "run", five(None, class_names=("a", "b", "c")), images=images)
    assert (len(result["silos"]), result["class_names"]) == (4, None)
    assert any(line.startswith(f"{LAST} is not let in") for line in told)


def test_how_the_held_out_images_spell_a_class_decides_against_one_silo(tmp_path):
    silos = [FakeSilo(f"silo-{n}", classes=2, class_names=("dog", "horse")) for n in range(4)]
    silos.append(FakeSilo(LAST, class_names=("dog", "horse", "CAT")))
    images = replace(evaluation(), class_names=ANIMALS)
    result, told = run(tmp_path / "run", silos, images=images)
    assert result["class_names"] == ["dog", "horse"]
    assert any("'CAT': differs by case" in line for line in told)


def test_a_silo_with_classes_of_its_own_is_welcome(tmp_path):
    result, told = run(tmp_path / "run", five(class_names=("ant", "bee", "cat")))
    assert result["class_names"] == ["cat", "dog", "horse", "ant", "bee"]
    assert not [line for line in told if "not let in" in line]


BOUND = {
    "no noise": {"noise_sigma": 0.0},
    "an int": {"noise_sigma": 1},
    "least noise": {"noise_sigma": 1e-6},
    "most noise": {"noise_sigma": 1e4},
    "counts of 1e12": {"class_report": ClassReport((1e12, 0.0, 0.5))},
    "a name in any script": {"silo": "клиника №1 [bold] $x$ <b>"},
    "dp": {"claim": CLAIM},
    "another minor version": {"version": "1.9"},
    "a spent budget": {"answers_left": 0},
}


@pytest.mark.parametrize("case", BOUND)
def test_what_an_honest_silo_may_say_passes(case):
    assert fault_of_description(claimed(FakeSilo(class_names=ANIMALS).description, **BOUND[case])) is None


@pytest.mark.parametrize("sigma", [1e-6, 1e-3, 1.0, 1e4])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_noise_within_the_bounds_is_read_as_distributions(sigma, classes):
    rng = np.random.default_rng(1)
    exact = rng.dirichlet(np.full(classes, 0.1), 5)
    read = denoise((exact + rng.normal(0, sigma, exact.shape)).astype(np.float32), sigma)
    assert np.isfinite(read).all()
    np.testing.assert_allclose(read.sum(1), 1, atol=1e-4)


def answer(values, form=AnswerForm.PROBABILITIES, **changes):
    """An answer to two images by a program that does not check what it makes."""
    made = Answer("a" * 32, AnswerForm.PROBABILITIES, 3, np.zeros((2, 3), np.float32), 5)
    for name, value in {"values": np.asarray(values), "form": form, **changes}.items():
        object.__setattr__(made, name, value)
    return made


def floats(*row):
    return np.array([[0.2, 0.3, 0.5], row], np.float32)


REFUSED = {
    "NaN": answer(floats(np.nan, 0, 1)),
    "infinity": answer(floats(np.inf, 0, 1)),
    "negative": answer(floats(-0.5, 0.5, 1)),
    "above 1": answer(floats(1e30, 0, 0)),
    "a sum of 3": answer(floats(1, 1, 1)),
    "8 bits, a sum of 3": answer(np.full((2, 3), 255, np.uint8)),
    "other images": answer(np.zeros((3, 3), np.float32)),
    "other classes": answer(np.zeros((2, 3), np.float32), classes=4),
    "another form": answer(np.zeros(2, np.uint16), AnswerForm.LABEL),
    "a budget below zero": answer(floats(0, 0, 1), answers_left=-1),
    "a budget that is no number": answer(floats(0, 0, 1), answers_left=math.nan),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_answer_that_is_no_distribution_is_not_taken(case):
    assert fault_of_answer(REFUSED[case], FakeSilo().description, 2, AnswerForm.PROBABILITIES)


@pytest.mark.parametrize(
    "values",
    [
        floats(0, 0, 1),
        floats(0, 0, 0),  # rounded away, or an abstention
        floats(0.333, 0.333, 0.333),
        floats(0.6, 0.6, 0.6),  # one decimal: 0.55 is 0.6, and the sum may double at most
        np.array([[85, 85, 85], [255, 0, 0]], np.uint8),
    ],
)
def test_rounded_distributions_are_taken(values):
    assert fault_of_answer(answer(values), FakeSilo().description, 2, AnswerForm.PROBABILITIES) is None


def test_noise_of_the_stated_size_is_taken_and_of_a_thousand_times_that_is_not():
    noisy = np.random.default_rng(1).normal(0.3, 0.5, (2, 3)).astype(np.float32)
    described = FakeSilo(noise_sigma=0.5).description
    assert fault_of_answer(answer(noisy), described, 2, AnswerForm.PROBABILITIES) is None
    assert "noise 0.5" in str(fault_of_answer(answer(1000 * noisy), described, 2, AnswerForm.PROBABILITIES))


class Turns(FakeSilo):
    """Honest for two queries, then answers NaN."""

    def answer(self, query):
        honest = super().answer(query)
        if len(self.queries) > 2:
            object.__setattr__(honest, "values", np.full(honest.values.shape, np.nan, np.float32))
        return honest


def test_a_silo_that_answers_nan_is_asked_no_more_and_what_it_gave_before_stays(tmp_path):
    silos = [*(FakeSilo(f"silo-{n}") for n in range(4)), Turns(LAST)]
    result, told = run(tmp_path / "run", silos, quorum=1.0, queries__rounds=8)
    turned = result["silos"][4]
    assert turned["answers"] == 10
    assert turned["replies"] == {"answer": 2, "not what was asked": 1}
    assert "NaN or infinity" in turned["stopped"]
    assert [line for line in told if line.startswith(f"{LAST} is no longer asked: answered NaN or infinity")]
    assert len(silos[4].queries) == 3
    assert [silo["answers"] for silo in result["silos"][:4]] == [40] * 4
    for line in (tmp_path / "run/metrics.jsonl").read_bytes().splitlines():
        parse_json(line)
    assert json.loads((tmp_path / "run/result.json").read_text())["silos"][4]["stopped"] == turned["stopped"]


def test_honest_answers_of_every_form_pass(tmp_path):
    p = brightness_probabilities(np.zeros((2, 1, 8, 8), np.uint8))
    for form in AnswerForm:
        values = p.argmax(1).astype(np.uint16) if form is AnswerForm.LABEL else np.sort(p)[:, ::-1].copy()
        indices = np.argsort(-p).astype(np.uint16) if form is AnswerForm.TOP_K else None
        given = Answer("a" * 32, form, 3, values, 5, indices)
        assert fault_of_answer(given, FakeSilo().description, 2, form) is None


def test_a_fit_that_diverges_stops_the_run_and_leaves_no_student(tmp_path):
    silos = [FakeSilo(f"silo-{n}") for n in range(2)]
    with pytest.raises(RunError, match=r"loss in .*: must be finite: the fit has diverged.*student\.learning_rate"):
        run(tmp_path / "run", silos, student__learning_rate=1e30, student__steps_per_round=20)
    assert not (tmp_path / "run/result.json").exists()
    assert not (tmp_path / "run/student.safetensors").exists()


def test_answers_on_a_damaged_disk_are_named_by_silo(tmp_path):
    class Died(Exception):
        pass

    silos = [FakeSilo(f"silo-{n}") for n in range(2)]
    silos[1].misbehave = lambda query, count: (_ for _ in ()).throw(Died) if count == 2 else None
    with pytest.raises(Died):
        run(tmp_path / "run", silos)
    (tmp_path / "run/bank/answers-1.f32").write_bytes(np.full((20, 3), np.nan, np.float32).tobytes())
    config = tiny_config(
        queries__answers_per_silo=40, queries__rounds=2, queries__quorum=0.6, student__committee=1, silos__count=2
    )
    silos[1].misbehave = lambda query, count: None
    with pytest.raises(BankError, match=r"answers-1\.f32.*does not have the checksum.*backup"):
        distill(config, LocalTransport(silos), tmp_path / "run", resume=True)


class TestResume:
    """A silo's description at a resumed run is a claim as the first was, and is held against that."""

    class Died(Exception):
        pass

    def cut_short(self, folder):
        silos = five()

        def die(query, count):
            if count > 1:
                raise self.Died

        silos[0].misbehave = die
        with pytest.raises(self.Died):
            run(folder, silos, queries__rounds=4)
        silos[0].misbehave = lambda query, count: None
        return silos

    def resume(self, folder, silos, quorum=0.6, **changes):
        told = []
        config = tiny_config(
            silos__count=5, queries__quorum=quorum, queries__answers_per_silo=40, queries__rounds=4,
            student__committee=1, **changes,
        )  # fmt: skip
        return distill(config, LocalTransport(silos), folder, resume=True, tell=told.append), told

    CHANGED: ClassVar = {
        "names": {"class_names": ("a", "b", "c")},
        "order": {"class_names": ("dog", "cat", "horse")},
        "classes": {"classes": 4, "class_names": (*ANIMALS, "fish"), "class_report": None},
        "a column more": {"classes": 4, "none_class": True},
        "image shape": {"image_shape": (1, 6, 6)},
        "another name": {"silo": "stranger"},
        "noise": {"noise_sigma": 1e300},
    }

    @pytest.mark.parametrize("case", CHANGED)
    def test_a_silo_that_describes_itself_otherwise_is_left_and_what_it_gave_stays(self, tmp_path, case):
        silos = self.cut_short(tmp_path / "run")
        asked = len(silos[4].queries)
        silos[4].description = claimed(silos[4].description, **self.CHANGED[case])
        result, told = self.resume(tmp_path / "run", silos)
        assert [silo["answers"] for silo in result["silos"]] == [40, 40, 40, 40, 10]
        assert len(silos[4].queries) == asked
        assert result["silos"][4]["stopped"]
        name = "stranger" if case == "another name" else LAST
        assert any(line.startswith(f"{name} is not let in: ") for line in told)
        assert any(line.startswith(f"{LAST} is no longer asked: ") for line in told)

    def test_a_silo_that_does_not_come_again_is_not_asked(self, tmp_path):
        silos = self.cut_short(tmp_path / "run")
        result, told = self.resume(tmp_path / "run", silos[:4])
        assert [silo["answers"] for silo in result["silos"]] == [40, 40, 40, 40, 10]
        assert told == [f"{LAST} is no longer asked: it did not join again"]

    def test_without_the_quorum_nothing_is_asked_and_the_run_can_still_be_resumed(self, tmp_path):
        silos = self.cut_short(tmp_path / "run")
        asked = [len(silo.queries) for silo in silos]
        honest = silos[4].description
        silos[4].description = claimed(honest, class_names=("a", "b", "c"))
        with pytest.raises(RunError, match=r"queries\.quorum: 0\.6 -> 1\.0"):
            self.resume(tmp_path / "run", silos, quorum=1.0)
        for silo in silos[2:4]:
            silo.description = claimed(silo.description, noise_sigma=math.nan)
        with pytest.raises(FederationError, match=r"silo-4: class_names=.*was \('cat', 'dog', 'horse'\) when the run"):
            self.resume(tmp_path / "run", silos)
        assert [len(silo.queries) for silo in silos] == asked
        for silo in silos[2:]:
            silo.description = claimed(honest, silo=silo.description.silo)
        result, _ = self.resume(tmp_path / "run", silos)
        assert [silo["answers"] for silo in result["silos"]] == [40] * 5

    def test_what_a_silo_says_last_of_handing_its_answers_on_is_what_holds(self, tmp_path):
        silos = self.cut_short(tmp_path / "run")
        assert not any(said.share_answers for said in read_descriptions(tmp_path / "run").values())
        before = silos[1].description
        silos[1].description = replace(before, share_answers=True, noise_sigma=0.25, answers_left=3)
        self.resume(tmp_path / "run", silos)
        found = read_descriptions(tmp_path / "run")
        assert [said.share_answers for said in found.values()] == [False, True, False, False, False]
        assert found["silo-1"] == replace(before, share_answers=True), "all else stays as the run began"

    def test_a_run_of_an_earlier_version_takes_the_silos_as_they_are(self, tmp_path):
        silos = self.cut_short(tmp_path / "run")
        (tmp_path / "run/descriptions.json").unlink()
        result, _ = self.resume(tmp_path / "run", silos)
        assert [silo["answers"] for silo in result["silos"]] == [40] * 5

    def test_a_damaged_file_is_told_before_anything_is_asked(self, tmp_path):
        silos = self.cut_short(tmp_path / "run")
        (tmp_path / "run/descriptions.json").write_text("{")
        with pytest.raises(RunError, match=r"descriptions\.json.*damaged.*delete"):
            self.resume(tmp_path / "run", silos)
