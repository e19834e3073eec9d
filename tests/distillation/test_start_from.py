# SPDX-License-Identifier: Apache-2.0
"""A run that begins with another one's answers: who is asked what, who is charged, and what is kept apart."""

import itertools
import json

import numpy as np
import pytest
from support.fakes import FakeSilo, brightness_probabilities
from support.kept_runs import a_run, assert_same_student, changed, files_of, of_teacher
from support.tiny_runs import evaluation, tiny_config

from fedcpsc.distillation.evaluate import SiloFacts
from fedcpsc.distillation.refit import refit
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import BankError, ConfigError, FederationError, RunError
from fedcpsc.protocol.messages import AnswerForm
from fedcpsc.runs.read import gather


def going_on(source, **changes):
    """Configuration of a run from `source`, which is of tiny_config."""
    return changed(tiny_config(), queries__start_from=str(source), output__name="more", **changes)


def spent(silos):
    return [10_000 - silo.left for silo in silos]


def test_more_answers_are_asked_for_and_what_was_paid_for_is_not_asked_again(tmp_path):
    _, fakes = a_run(tmp_path / "run", tiny_config())
    before, told = files_of(tmp_path / "run"), []
    config = going_on(tmp_path / "run", queries__answers_per_silo=180, queries__rounds=3)
    result, _ = a_run(tmp_path / "more", config, fakes, tell=told.append)
    assert spent(fakes) == [180, 180]
    assert files_of(tmp_path / "run") == before
    run = gather(tmp_path / "more")
    assert run.result == result
    assert run.bank.rows == 180
    assert run.bank.group_ends == (1, 2, 3, 4, 5, 6, 7), "inherited rounds come first"
    asked = np.concatenate([query.images for query in fakes[0].queries])
    assert len({image.tobytes() for image in asked}) == 180, "no image twice, and new ones are new"
    assert [(silo["answers"], silo["answers_here"]) for silo in result["silos"]] == [(180, 60), (180, 60)]
    (origin,) = result["earlier_runs"]
    assert (origin["run"], origin["images"], origin["answers"]) == ("test", 120, {"silo-0": 120, "silo-1": 120})
    assert result["refit"] is False
    assert [line["answers_used"] for line in run.rounds] == [30, 60, 90, 120, 140, 160, 180]
    assert run.lines[-1]["share_done"] == 1.0


def test_its_student_is_refitted_bit_by_bit_too_and_a_third_run_names_both(tmp_path):
    _, fakes = a_run(tmp_path / "run", tiny_config())
    config = going_on(tmp_path / "run", queries__answers_per_silo=180, queries__rounds=3, student__steps_per_round=None)
    a_run(tmp_path / "more", config, fakes)
    refit(tmp_path / "more", config, tmp_path / "refit", evaluation=evaluation())
    assert_same_student(tmp_path / "more", tmp_path / "refit")
    third = changed(
        config, queries__start_from=str(tmp_path / "refit"), queries__answers_per_silo=200, queries__rounds=1
    )
    result, _ = a_run(tmp_path / "third", third, fakes)
    assert [(one["run"], one["images"], one["answers"]["silo-0"]) for one in result["earlier_runs"]] == [
        ("test", 120, 120),
        ("more", 60, 60),
    ]
    assert [silo["answers_here"] for silo in result["silos"]] == [20, 20]
    assert spent(fakes) == [200, 200]


def test_a_silo_that_joins_later_alone_is_charged_for_what_is_banked(tmp_path):
    _, fakes = a_run(tmp_path / "run", tiny_config())
    newcomer, told = FakeSilo("a-newcomer"), []
    config = going_on(tmp_path / "run", silos__count=3)
    result, _ = a_run(tmp_path / "more", config, [*fakes, newcomer], tell=told.append)
    assert spent([*fakes, newcomer]) == [120, 120, 120]
    assert len(fakes[0].queries) == len(newcomer.queries) == 4
    assert {silo["id"]: silo["answers_here"] for silo in result["silos"]} == {
        "a-newcomer": 120,
        "silo-0": 0,
        "silo-1": 0,
    }
    assert [silo["answers"] for silo in result["silos"]] == [120, 120, 120]
    assert any("a-newcomer joins anew" in line for line in told)
    bank = gather(tmp_path / "more").bank
    assert bank.check_sums()
    before = gather(tmp_path / "run").bank
    for old, new in zip(before.batches, bank.batches, strict=True):
        np.testing.assert_array_equal(before.answers(old)[0], bank.answers(new)[0][1:])


def test_it_is_as_good_as_if_it_had_been_there_from_the_start(tmp_path):
    """The same images, the same rounds and seeds: with the student alone in the committee the very same student."""
    own = {"student__committee": 1, "synthesis__candidates": 1, "synthesis__prior_share": 1.0}
    whole = changed(tiny_config(silos__count=3), **own)
    a_run(tmp_path / "whole", whole)
    a_run(tmp_path / "two", changed(whole, silos__count=2))
    a_run(tmp_path / "three", changed(whole, queries__start_from=str(tmp_path / "two")))
    assert_same_student(tmp_path / "whole", tmp_path / "three")


def test_a_newcomer_may_have_small_queries_and_too_small_a_budget(tmp_path):
    _, fakes = a_run(tmp_path / "run", tiny_config())
    newcomer = FakeSilo("silo-2", budget=70, images_per_query=10)
    result, _ = a_run(tmp_path / "more", going_on(tmp_path / "run", silos__count=3), [*fakes, newcomer])
    assert newcomer.left == 0
    assert result["silos"][2]["answers_here"] == 70
    assert result["silos"][2]["stopped"] == "its budget is spent"
    assert spent(fakes) == [120, 120]


def test_a_silo_that_has_left_counts_and_is_not_waited_for(tmp_path):
    _, fakes = a_run(tmp_path / "run", tiny_config(silos__count=3))
    told = []
    config = going_on(tmp_path / "run", silos__count=2, queries__answers_per_silo=160, queries__rounds=2)
    result, _ = a_run(tmp_path / "more", config, fakes[:2], tell=told.append)
    assert spent(fakes) == [160, 160, 120]
    assert [(silo["answers"], silo["answers_here"]) for silo in result["silos"]] == [(160, 40), (160, 40), (120, 0)]
    assert result["not_joined"] == 0
    assert result["silos"][2]["stopped"].startswith("it has not joined this run; its answers from test stay")
    assert any("aggregation.exclude: [silo-2]" in line for line in told)
    without = changed(config, aggregation__exclude=["silo-2"])
    result, _ = a_run(tmp_path / "without", without, fakes[:2])
    assert [silo["id"] for silo in result["silos"]] == ["silo-0", "silo-1"]
    assert result["not_joined"] == 0


def test_all_may_have_left_but_the_newcomer(tmp_path):
    a_run(tmp_path / "run", tiny_config(silos__count=2))
    newcomer = FakeSilo("silo-9")
    result, _ = a_run(tmp_path / "more", going_on(tmp_path / "run", silos__count=1), [newcomer])
    assert [silo["answers_here"] for silo in result["silos"]] == [0, 0, 120]
    assert spent([newcomer]) == [120]


def test_the_quorum_is_of_those_who_are_there(tmp_path):
    a_run(tmp_path / "run", tiny_config(silos__count=3))
    config = going_on(tmp_path / "run", silos__count=2)
    with pytest.raises(FederationError, match=r"at least 2 of 2 must join.*silos.count=1"):
        a_run(tmp_path / "more", config, [FakeSilo("silo-0")])
    assert not (tmp_path / "more").exists()


def other_teacher(images):
    return np.roll(brightness_probabilities(images, 3), 1, axis=1)


def test_a_replaced_teacher_is_kept_apart_and_pays_for_itself(tmp_path):
    old = [of_teacher("aaaaaaaa11111111", FakeSilo("silo-0")), of_teacher("bbbbbbbb22222222", FakeSilo("silo-1"))]
    a_run(tmp_path / "run", tiny_config(), old)
    new = of_teacher("cccccccc33333333", FakeSilo("silo-1", teacher=other_teacher))
    new.answered, told = dict(old[1].answered), []  # the ledger is the silo's: it knows what the old teacher answered
    result, _ = a_run(tmp_path / "more", going_on(tmp_path / "run"), [old[0], new], tell=told.append)
    assert spent([old[0], new]) == [120, 120]
    assert [silo["id"] for silo in result["silos"]] == ["silo-0", "silo-1", "silo-1@bbbbbbbb"]
    assert [silo["answers_here"] for silo in result["silos"]] == [0, 120, 0]
    assert result["earlier_runs"][0]["answers"] == {"silo-0": 120, "silo-1@bbbbbbbb": 120}
    assert any("kept apart as silo-1@bbbbbbbb" in line for line in told)
    assert any('aggregation.exclude: ["silo-1@bbbbbbbb"]' in line for line in told)
    bank, before = gather(tmp_path / "more").bank, gather(tmp_path / "run").bank
    for mine, theirs in zip(bank.batches, before.batches, strict=True):
        answers, kept = bank.answers(mine)[0], before.answers(theirs)[0]
        np.testing.assert_array_equal(answers[2], kept[1])
        assert (answers[1] != answers[2]).any(), (
            "the new teacher's answers are its own, not the ledger's of the old one"
        )
    without = going_on(tmp_path / "run", aggregation__exclude=["silo-1@bbbbbbbb"])
    result = refit(tmp_path / "more", without, tmp_path / "refit")
    assert [silo["id"] for silo in result["silos"]] == ["silo-0", "silo-1"]


def test_a_teacher_that_is_replaced_again_is_asked_under_ids_of_its_own(tmp_path):
    versions = ("11111111", "22222222", "33333333")
    silos = [of_teacher(version, FakeSilo("silo-1")) for version in versions]
    fixed = of_teacher("00000000", FakeSilo("silo-0"))
    a_run(tmp_path / "run-0", tiny_config(), [fixed, silos[0]])
    for number, silo in enumerate(silos[1:], 1):
        silo.answered = dict(silos[number - 1].answered)
        config = going_on(
            tmp_path / f"run-{number - 1}", queries__answers_per_silo=120 + 30 * number, queries__rounds=1
        )
        a_run(tmp_path / f"run-{number}", config, [fixed, silo])
    assert spent(silos) == [120, 150, 180]
    ids = [{query.query_id for query in silo.queries} for silo in silos]
    assert all(not one & other for one, other in itertools.combinations(ids, 2))
    names = [silo["id"] for silo in gather(tmp_path / "run-2").result["silos"]]
    assert names == ["silo-0", "silo-1", "silo-1@11111111", "silo-1@22222222"]
    # cut in the middle of the last and gone on with: under the same ids
    again = of_teacher("33333333", FakeSilo("silo-1", misbehave=dies_at(3)))
    again.answered = dict(silos[1].answered)
    with pytest.raises(KeyboardInterrupt):
        a_run(tmp_path / "cut", config, [fixed, again])
    again.misbehave = lambda query, count: None
    a_run(tmp_path / "cut", config, [fixed, again], resume=True)
    assert spent([again]) == [180]
    assert_same_student(tmp_path / "run-2", tmp_path / "cut")


def dies_at(number):
    def misbehave(query, count):
        if count == number:
            raise KeyboardInterrupt

    return misbehave


def test_the_same_teacher_under_other_terms_is_not_charged_again_for_the_same_images(tmp_path):
    forms = (AnswerForm.PROBABILITIES, AnswerForm.LABEL)
    fakes = [of_teacher(f"{i}" * 16, FakeSilo(f"silo-{i}", forms=forms)) for i in range(2)]
    a_run(tmp_path / "run", tiny_config(), fakes)
    config = going_on(tmp_path / "run", queries__form="label", queries__answers_per_silo=150, queries__rounds=1)
    result, _ = a_run(tmp_path / "more", config, fakes)
    assert spent(fakes) == [150, 150]
    assert [(silo["id"], silo["form"], silo["answers"]) for silo in result["silos"]] == [
        ("silo-0", "label", 30),
        ("silo-0@probabilities", "probabilities", 120),
        ("silo-1", "label", 30),
        ("silo-1@probabilities", "probabilities", 120),
    ]


def test_a_silo_whose_teacher_is_not_known_is_taken_for_the_same_and_that_is_told(tmp_path):
    _, fakes = a_run(tmp_path / "run", tiny_config())
    told = []
    a_run(tmp_path / "more", going_on(tmp_path / "run"), fakes, tell=told.append)
    assert sum("does not say which teacher answers" in line for line in told) == 2


def test_an_unfinished_run_is_begun_with_and_its_open_questions_are_answered(tmp_path):
    fakes = [FakeSilo("silo-0", misbehave=dies_at(3)), FakeSilo("silo-1")]
    with pytest.raises(KeyboardInterrupt):
        a_run(tmp_path / "run", tiny_config(), fakes)
    fakes[0].misbehave = lambda query, count: None
    result, _ = a_run(tmp_path / "more", going_on(tmp_path / "run"), fakes)
    assert spent(fakes) == [120, 120], "nothing is paid twice"
    assert result["earlier_runs"][0]["finished"] is False
    here = [silo["answers_here"] for silo in result["silos"]]
    there = [result["earlier_runs"][0]["answers"].get(f"silo-{i}", 0) for i in range(2)]
    assert [one + other for one, other in zip(here, there, strict=True)] == [120, 120]


@pytest.mark.parametrize("at", ["before the copy is whole", "once it is whole", "in a round"])
def test_a_crash_at_any_point_costs_no_answer(tmp_path, monkeypatch, at):
    import fedcpsc.distillation.run as module
    import fedcpsc.runs.bank_copy as copying

    _, fakes = a_run(tmp_path / "run", tiny_config())
    newcomer = FakeSilo("silo-2", misbehave=dies_at(2) if at == "in a round" else lambda query, count: None)
    config = going_on(tmp_path / "run", silos__count=3, queries__answers_per_silo=150, queries__rounds=1)

    def dies(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if at == "before the copy is whole":
            patched.setattr(copying, "write_lineage", dies)
        elif at == "once it is whole":
            patched.setattr(module, "AnswerBank", dies)
        with pytest.raises(KeyboardInterrupt):
            a_run(tmp_path / "more", config, [*fakes, newcomer])
    assert (tmp_path / "more/bank").exists() is (at != "before the copy is whole")
    newcomer.misbehave = lambda query, count: None
    with pytest.raises(RunError, match="holds a run already"):
        a_run(tmp_path / "more", config, [*fakes, newcomer])
    result, _ = a_run(tmp_path / "more", config, [*fakes, newcomer], resume=True)
    assert spent([*fakes, newcomer]) == [150, 150, 150]
    assert [silo["answers_here"] for silo in result["silos"]] == [30, 30, 150]
    assert not (tmp_path / "more/bank.partial").exists()
    others = [FakeSilo("silo-0"), FakeSilo("silo-1"), FakeSilo("silo-2")]
    for old, new in zip(fakes, others, strict=False):
        new.answered = dict(old.answered)
    a_run(tmp_path / "whole", changed(config, output__name="whole"), others)
    assert_same_student(tmp_path / "whole", tmp_path / "more")


def test_the_source_may_be_gone_once_the_copy_is_whole(tmp_path):
    _, fakes = a_run(tmp_path / "run", tiny_config())
    config = going_on(tmp_path / "run", queries__answers_per_silo=150, queries__rounds=1)
    fakes[1].misbehave = dies_at(5)
    with pytest.raises(KeyboardInterrupt):
        a_run(tmp_path / "more", config, fakes)
    (tmp_path / "run").rename(tmp_path / "away")
    fakes[1].misbehave = lambda query, count: None
    a_run(tmp_path / "more", config, fakes, resume=True)
    assert spent(fakes) == [150, 150]


def test_a_teacher_that_is_replaced_while_such_a_run_rests_is_not_let_in(tmp_path):
    fakes = [of_teacher(f"{i}" * 16, FakeSilo(f"silo-{i}")) for i in range(2)]
    a_run(tmp_path / "run", tiny_config(), fakes)
    config = going_on(tmp_path / "run", queries__answers_per_silo=150, queries__rounds=1, queries__quorum=0.5)
    fakes[1].misbehave = dies_at(5)
    with pytest.raises(KeyboardInterrupt):
        a_run(tmp_path / "more", config, fakes)
    fakes[1].misbehave = lambda query, count: None
    of_teacher("f" * 16, fakes[1])
    result, _ = a_run(tmp_path / "more", config, fakes, resume=True)
    assert "teacher='ffffffffffffffff'" in result["turned_away"]["silo-1"]


def test_fewer_images_than_are_banked_are_refused(tmp_path):
    _, fakes = a_run(tmp_path / "run", tiny_config())
    calls = fakes[0].calls
    with pytest.raises(ConfigError, match=r"answers_per_silo=100: .* has banked 120.*set it to 120"):
        a_run(tmp_path / "more", going_on(tmp_path / "run", queries__answers_per_silo=100), fakes)
    assert fakes[0].calls == calls
    assert not (tmp_path / "more").exists()


def test_other_images_other_classes_and_other_readings_are_refused_before_anything_is_paid(tmp_path):
    names = ("cat", "dog", "emu")
    a_run(tmp_path / "run", tiny_config(), [FakeSilo(f"silo-{i}", class_names=names) for i in range(2)])
    large = [FakeSilo(f"silo-{i}", class_names=names, image_shape=(1, 9, 9)) for i in range(2)]
    with pytest.raises(FederationError, match=r"image_shape=.*are \[1, 8, 8\]"):
        distill(going_on(tmp_path / "run"), LocalTransport(large), tmp_path / "more")
    knowing = FakeSilo("silo-2", class_names=("cat", "dog", "yak"))
    old = [FakeSilo(f"silo-{i}", class_names=names) for i in range(2)]
    with pytest.raises(FederationError, match="about other classes"):
        distill(going_on(tmp_path / "run", silos__count=3), LocalTransport([*old, knowing]), tmp_path / "more")
    with pytest.raises(ConfigError, match="aggregation.denoise: True -> False"):
        distill(going_on(tmp_path / "run", aggregation__denoise=False), LocalTransport(old), tmp_path / "more")
    assert spent([*large, knowing, *old]) == [0] * 5
    assert not (tmp_path / "more").exists()


def test_classes_in_another_order_are_the_same_classes(tmp_path):
    names = ("cat", "dog", "emu")
    fakes = [FakeSilo(f"silo-{i}", class_names=names) for i in range(2)]
    distill(tiny_config(), LocalTransport(fakes), tmp_path / "run")
    first = FakeSilo("a-silo", class_names=("emu", "cat", "dog"), teacher=other_teacher)
    config = going_on(tmp_path / "run", silos__count=3)
    result = distill(config, LocalTransport([*fakes, first]), tmp_path / "more")
    assert result["class_names"] == ["emu", "cat", "dog"]
    bank, before = gather(tmp_path / "more").bank, gather(tmp_path / "run").bank
    for mine, theirs in zip(bank.batches, before.batches, strict=True):
        np.testing.assert_array_equal(bank.answers(mine)[0][1][:, [1, 2, 0]], before.answers(theirs)[0][0])
        np.testing.assert_allclose(bank.answers(mine)[0][0], bank.answers(mine)[0][1], atol=0.01)


def test_a_run_from_itself_from_nothing_or_from_a_damaged_bank_is_refused(tmp_path):
    _, fakes = a_run(tmp_path / "run", tiny_config())
    with pytest.raises(RunError, match="holds a run already"):
        a_run(tmp_path / "run", going_on(tmp_path / "run"), fakes)
    with pytest.raises(RunError, match="is not the folder of a run"):
        a_run(tmp_path / "more", going_on(tmp_path / "nothing"), fakes)
    journal = tmp_path / "run/bank/journal.jsonl"
    journal.write_text(journal.read_text().replace('"count": 30', '"count": 31', 1))
    with pytest.raises(BankError, match="journal"):
        a_run(tmp_path / "more", going_on(tmp_path / "run"), fakes)
    assert not (tmp_path / "more").exists()
    assert spent(fakes) == [120, 120]


def test_an_excluded_silos_answers_are_kept_for_later(tmp_path):
    _, fakes = a_run(tmp_path / "run", tiny_config(silos__count=3))
    config = going_on(tmp_path / "run", silos__count=3, aggregation__exclude=["silo-2"])
    result, _ = a_run(tmp_path / "more", config, fakes)
    assert [silo["id"] for silo in result["silos"]] == ["silo-0", "silo-1"]
    assert fakes[2].left == 10_000 - 120
    head = json.loads((tmp_path / "more/bank/journal.jsonl").read_text().splitlines()[0])
    assert head["silos"] == ["silo-0", "silo-1", "silo-2"]
    back = refit(tmp_path / "more", changed(config, aggregation__exclude=[]), tmp_path / "refit")
    assert [silo["answers"] for silo in back["silos"]] == [120, 120, 120]
    with pytest.raises(ConfigError, match="no silo has this name"):
        a_run(tmp_path / "typo", changed(config, aggregation__exclude=["silo-22"], output__name="typo"), fakes)


def test_real_pictures_behind_inherited_images_are_told_though_the_run_draws_from_none(tmp_path):
    real = tiny_config(synthesis__prior={"photographs": 1.0})
    first, fakes = a_run(tmp_path / "run", real)
    assert first["real_pictures"][0]["images"] == 120 - sum(gather(tmp_path / "run").bank.pseudo_labels >= 0)
    config = going_on(tmp_path / "run", queries__answers_per_silo=150, queries__rounds=1)
    more, _ = a_run(tmp_path / "more", config, fakes)
    assert more["real_pictures"] == first["real_pictures"]
    assert refit(tmp_path / "more", config, tmp_path / "refit")["real_pictures"] == first["real_pictures"]
    procedural, _ = a_run(tmp_path / "none", tiny_config(), fakes)
    both = going_on(tmp_path / "none", synthesis__prior={"photographs": 1.0}, queries__answers_per_silo=150)
    (told,) = a_run(tmp_path / "both", both, fakes)[0]["real_pictures"]
    assert 0 < told["images"] <= 30
    assert "real_pictures" not in procedural


def test_a_silo_that_has_left_is_not_measured_by_whatever_teacher_lies_in_its_folder(tmp_path):
    _, fakes = a_run(tmp_path / "run", tiny_config(silos__count=3))
    facts = {f"silo-{i}": SiloFacts(10, lambda images: brightness_probabilities(images, 3)) for i in range(3)}
    there, _ = a_run(tmp_path / "there", going_on(tmp_path / "run", silos__count=3), fakes, silo_facts=facts)
    left, _ = a_run(tmp_path / "left", going_on(tmp_path / "run", silos__count=2), fakes[:2], silo_facts=facts)
    assert there["ensemble"]["accuracy"] is not None
    assert left["ensemble"]["accuracy"] is None
    assert left["silos"][2]["train_size"] is None
