# SPDX-License-Identifier: Apache-2.0
"""Whole runs over silos whose classes differ: what each is asked, banked, aggregated, measured and refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from support.fakes import FakeSilo, brightness_probabilities
from support.tiny_runs import evaluation, tiny_config

from fedcpsc.aggregation.rule import RULES
from fedcpsc.distillation.evaluate import SiloFacts
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import FederationError
from fedcpsc.export.export_student import export_run
from fedcpsc.export.plan import Format
from fedcpsc.protocol.messages import Answer, AnswerForm, ClassReport
from fedcpsc.report.page import write_report
from fedcpsc.runs.bank_view import find_bank
from fedcpsc.runs.details import read_details
from fedcpsc.runs.read import gather

ANIMALS = ("cat", "dog", "horse", "bird")
SETS = ((0, 1, 2), (1, 2, 3))
ACCURATE = {  # images of all brightnesses, and a student that has seen them
    "synthesis__prior_share": 1.0,
    "synthesis__moments": None,
    "queries__answers_per_silo": 400,
    "queries__rounds": 2,
    "student__committee": 1,
    "student__final_steps": 200,
    "student__width": 8,
    "student__learning_rate": 0.01,
}
BY_PEAK = {**ACCURATE, "aggregation__rule": "answer_peak_log"}


def teacher(own):
    return lambda images: brightness_probabilities(images, 4, own)


def silo(number, own, words=ANIMALS, **facts):
    names = tuple(words[k] for k in own)
    return FakeSilo(f"silo-{number}", classes=len(own), teacher=teacher(own), class_names=names, **facts)


def unlike(**facts):
    return [silo(number, own, **facts) for number, own in enumerate(SETS)]


def alike():
    """The same knowledge in padded label sets: no silo gives a class that it lacks any mass."""
    found = []
    for number, own in enumerate(SETS):

        def padded(images, own=own):
            dense = np.zeros((len(images), 4), np.float32)
            dense[:, list(own)] = teacher(own)(images)
            return dense

        found.append(FakeSilo(f"silo-{number}", classes=4, teacher=padded, class_names=ANIMALS))
    return found


def held_out(words=ANIMALS):
    """Images of four classes, numbered in the order of `words`."""
    images = evaluation(200, classes=4)
    number = np.array([words.index(name) for name in ANIMALS])
    return replace(images, labels=number[images.labels], class_names=words, classes=len(words))


def run(folder, silos, images=None, *, facts=None, resume=False, tell=lambda line: None, **changes):
    config = tiny_config(**changes)
    return distill(config, LocalTransport(silos), folder, resume=resume, evaluation=images, silo_facts=facts, tell=tell)


def test_the_student_has_the_federations_classes_by_name(tmp_path):
    said = []
    result = run(tmp_path / "run", unlike(), held_out(), tell=said.append)
    assert (result["classes"], result["class_names"]) == (4, list(ANIMALS))
    assert [s["class_names"] for s in result["silos"]] == [["cat", "dog", "horse"], ["dog", "horse", "bird"]]
    assert [s["none_class"] for s in result["silos"]] == [False, False]
    assert "4 classes in all: cat, dog, horse, bird" in said
    assert "silo-0 knows 3 of them, not bird" in said
    bank = find_bank(tmp_path / "run")
    assert bank.own_answers("silo-1", bank.batches[0].rows).shape == (bank.batches[0].count, 3), "kept as answered"
    dense, given = bank.answers(bank.batches[0])
    assert given.all()
    assert (dense[0, :, 3] == 0).all()
    assert (dense[1, :, 0] == 0).all()
    np.testing.assert_array_equal(dense[1][:, 1:], bank.own_answers("silo-1", bank.batches[0].rows))
    assert (bank.targets[:].max(0) > 0).all()


def test_unlike_label_sets_do_as_well_as_padded_ones(tmp_path):
    got = run(tmp_path / "unlike", unlike(), held_out(), **BY_PEAK)
    padded = run(tmp_path / "alike", alike(), held_out(), **BY_PEAK)
    assert got["student"]["accuracy"] == padded["student"]["accuracy"], "the same answers give the same student"
    assert got["student"]["accuracy"] > 0.75


@pytest.mark.parametrize("rule", RULES.choices.built_in())
def test_every_rule_takes_unlike_label_sets(tmp_path, rule):
    silos = [silo(n, own, class_report=ClassReport((5.0, 6.0, 7.0))) for n, own in enumerate(SETS)]
    facts = {f"silo-{n}": SiloFacts(10, teacher(own)) for n, own in enumerate(SETS)}
    said, decided = [], rule.endswith("_log")
    changes = {**ACCURATE, "aggregation__rule": rule}
    result = run(tmp_path / "run", silos, held_out(), facts=facts, tell=said.append, **changes)
    assert result["ensemble"]["accuracy"] > (0.9 if decided else 0.4)
    assert result["student"]["accuracy"] > (0.75 if decided else 0.4)
    assert decided != any("by answer_peak_log each class is decided by the silos that know it" in s for s in said)
    details = read_details(tmp_path / "run")
    assert details.class_names == ANIMALS
    assert details.teachers["silo-0"][:, 3].sum() == 0, "it has no word for a bird"
    if decided:
        assert details.weights["silo-0"][3] == 0, "nor a say in it"


def test_held_out_images_are_matched_by_name_and_not_by_number(tmp_path):
    same = run(tmp_path / "a", unlike(), held_out(), **BY_PEAK)["student"]["accuracy"]
    other = run(tmp_path / "b", unlike(), held_out(("bird", "cat", "horse", "dog")), **BY_PEAK)["student"]["accuracy"]
    assert other == same > 0.75


def test_images_of_a_class_that_no_silo_knows_count_as_wrong_and_are_told(tmp_path):
    said = []
    images = held_out(("zebra", *ANIMALS))
    images.labels[:50] = 0
    result = run(tmp_path / "run", unlike(), images, tell=said.append, **ACCURATE)
    assert any("50 held-out images are of classes that no silo knows (zebra)" in line for line in said)
    details = read_details(tmp_path / "run")
    assert details.class_names == (*ANIMALS, "zebra")
    assert details.student[4].sum() == 50
    assert details.student[:, 4].sum() == 0
    assert result["student"]["accuracy"] <= 0.75


REFUSED = {
    "as many classes, other numbering": (
        [FakeSilo("a", classes=3), silo(1, (0, 1, 2))],
        None,
        {"aggregation__aliases": {"felin": "cat"}},
        "felin",
    ),
    "another word": ([silo(0, (0, 1)), silo(1, (0, 1), ("Cat", "dog"))], None, {}, "case or space alone"),
    "by number, unlike": ([FakeSilo("a", classes=3), FakeSilo("b", classes=4)], None, {}, "names none"),
    "held-out images of other words": (
        unlike(),
        lambda: replace(held_out(), class_names=("a", "b", "c", "d")),
        {},
        "none of these is a class of the federation",
    ),
    "held-out images without names": (unlike(), lambda: replace(held_out(), class_names=None), {}, "have no names"),
    "held-out images, case": (
        unlike(),
        lambda: replace(held_out(), class_names=("Cat", *ANIMALS[1:])),
        {},
        "the held-out images has this class|case or space alone",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_before_anything_is_charged(tmp_path, case):
    silos, images, changes, message = REFUSED[case]
    with pytest.raises(FederationError, match=message):
        run(tmp_path / "run", silos, images and images(), **changes)
    assert all(not silo.queries for silo in silos)
    assert not (tmp_path / "run").exists()


def test_silos_with_as_many_classes_and_other_names_are_never_averaged(tmp_path):
    result = run(tmp_path / "run", [silo(0, (0, 1)), silo(1, (2, 3))])
    assert result["class_names"] == list(ANIMALS)


def test_an_alias_joins_two_words(tmp_path):
    silos = [silo(0, SETS[0]), silo(1, SETS[1], ("feline", "hound", "horse", "bird"))]
    result = run(tmp_path / "run", silos, held_out(), aggregation__aliases={"hound": "dog"})
    assert result["class_names"] == list(ANIMALS)


def test_a_silo_that_names_no_classes_is_told_of(tmp_path):
    said = []
    result = run(tmp_path / "run", [FakeSilo("silo-0"), silo(1, (0, 1, 2))], tell=said.append)
    assert result["class_names"] == ["cat", "dog", "horse"]
    assert any("they name none: silo-0" in line for line in said)


def test_a_silo_that_answers_in_the_federations_columns_and_not_its_own_is_left(tmp_path):
    class Padded(FakeSilo):
        def answer(self, query):
            values = np.zeros((len(query.images), 4), np.uint8)
            return Answer(query.query_id, query.form, 4, values, 9)

    silos = [silo(0, SETS[0]), Padded("silo-1", class_names=ANIMALS[1:])]
    result = run(tmp_path / "run", silos)
    assert "not what was asked" in result["silos"][1]["stopped"]
    assert result["silos"][1]["answers"] == 0


class TestNone:
    """A silo's last column says that an image is none of its classes."""

    def silos(self):
        def knows(own):
            def told(images):
                p = brightness_probabilities(images, 4)
                return np.concatenate([p[:, list(own)], np.delete(p, list(own), axis=1).sum(1, keepdims=True)], axis=1)

            return told

        sets = ((0, 1), (2, 3))
        names = [tuple(ANIMALS[k] for k in own) for own in sets]
        return [
            FakeSilo(f"silo-{n}", classes=3, teacher=knows(own), class_names=names[n], none_class=True)
            for n, own in enumerate(sets)
        ]

    def test_disjoint_silos_teach_one_student(self, tmp_path):
        result = run(tmp_path / "run", self.silos(), held_out(), **ACCURATE)
        assert result["student"]["accuracy"] > 0.9
        blind = [silo(n, own) for n, own in enumerate(((0, 1), (2, 3)))]
        without = run(tmp_path / "without", blind, held_out(), **ACCURATE)
        assert without["student"]["accuracy"] < result["student"]["accuracy"] - 0.1
        bank = find_bank(tmp_path / "run")
        assert bank.own_answers("silo-0", bank.batches[0].rows).shape[1] == 3

    @pytest.mark.parametrize("rule", ["answer_peak_log", "answer_prior_log", "entropy"])
    def test_by_any_rule(self, tmp_path, rule):
        silos = self.silos()
        facts = {fake.description.silo: SiloFacts(10, fake._teacher) for fake in silos}
        changes = {**ACCURATE, "aggregation__rule": rule}
        result = run(tmp_path / "run", silos, held_out(), facts=facts, **changes)
        assert result["ensemble"]["accuracy"] == 1.0
        assert result["student"]["accuracy"] > 0.9

    def test_with_labels_and_probabilities_mixed(self, tmp_path):
        silos = self.silos()
        forms = (AnswerForm.LABEL,)
        silos[1].description = replace(silos[1].description, forms=forms)
        result = run(tmp_path / "run", silos, held_out(), queries__form="best", **ACCURATE)
        assert result["student"]["accuracy"] > 0.6


class TestResume:
    def cut_short(self, folder, silos):
        """A run that dies while it is told of nothing: after its first round."""

        class Died(Exception):
            pass

        def die(query, count):
            if count > 2:
                raise Died

        silos[0].misbehave = die
        with pytest.raises(Died):
            run(folder, silos, held_out())
        silos[0].misbehave = lambda query, count: None

    def test_goes_on_with_the_same_label_sets(self, tmp_path):
        silos = unlike()
        self.cut_short(tmp_path / "run", silos)
        result = run(tmp_path / "run", silos, held_out(), resume=True)
        whole = run(tmp_path / "whole", unlike(), held_out())
        assert result["student"]["accuracy"] == whole["student"]["accuracy"]
        for name in ("student.safetensors", "bank/answers-1.f32"):
            assert (tmp_path / "run" / name).stat().st_size == (tmp_path / "whole" / name).stat().st_size

    @pytest.mark.parametrize("words", [("cat", "dog", "horse", "fish"), ("cat", "horse", "dog", "bird")])
    def test_other_names_are_refused_and_nothing_is_asked(self, tmp_path, words):
        silos = unlike()
        self.cut_short(tmp_path / "run", silos)
        before = (tmp_path / "run" / "bank" / "journal.jsonl").read_bytes()
        others = [silo(number, own, words) for number, own in enumerate(SETS)]
        with pytest.raises(FederationError, match=r"silo-1: class_names=.*when the run began"):
            run(tmp_path / "run", others, None, resume=True)
        assert all(not silo.queries for silo in others)
        assert (tmp_path / "run" / "bank" / "journal.jsonl").read_bytes() == before

    def test_a_bank_of_silos_that_named_nothing_yet_goes_on_with_names(self, tmp_path):
        silos = [FakeSilo("silo-0"), FakeSilo("silo-1")]

        class Died(Exception):
            pass

        def die(query, count):
            if count > 2:
                raise Died

        silos[0].misbehave = die
        with pytest.raises(Died):
            run(tmp_path / "run", silos)
        head = json.loads((tmp_path / "run" / "bank" / "journal.jsonl").read_text().splitlines()[0])
        assert "label_sets" not in head, "as an earlier version wrote it"
        for fake in silos:
            fake.misbehave = lambda query, count: None
            fake.description = replace(fake.description, class_names=("cat", "dog", "horse"))
        assert run(tmp_path / "run", silos, resume=True)["class_names"] == ["cat", "dog", "horse"]


def test_report_card_and_exports_name_the_classes(tmp_path):
    words = ("c$t & <b>", "犬", "horse", "bird" * 20)
    silos = [silo(n, own, words) for n, own in enumerate(SETS)]
    facts = {f"silo-{n}": SiloFacts(10, teacher(own)) for n, own in enumerate(SETS)}
    run(tmp_path / "run", silos, replace(held_out(), class_names=words), facts=facts)
    write_report(tmp_path / "run", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "c$t &amp; &lt;b&gt;" in page
    assert "<b>" not in page.replace("&lt;b&gt;", "")
    assert "2 of 2 silos know a part of them" in page
    export_run(tmp_path / "run", Format.SAFETENSORS)
    out = tmp_path / "run" / "export"
    config = json.loads((out / "config.json").read_text())
    assert config["id2label"] == {str(k): name for k, name in enumerate(words)}
    assert config["label2id"][words[1]] == 1
    card = (out / "README.md").read_text()
    assert "| 1 | 犬 |" in card
    assert "<b>" not in card
    from safetensors import safe_open

    with safe_open(out / "student.safetensors", "numpy") as file:
        assert json.loads(file.metadata()["class_names"]) == list(words)
    assert gather(tmp_path / "run").result["class_names"] == list(words)
