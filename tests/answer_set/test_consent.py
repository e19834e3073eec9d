# SPDX-License-Identifier: Apache-2.0
"""What a silo's owner has not agreed to hand on is handed on in no form: neither as answers nor within targets."""

import json
import re
from dataclasses import replace

import datasets
import numpy as np
import pytest
from support.shared_run import ANIMALS, EAST, NORTH, SOUTH, described, shared_run, three_silos

from fedcpsc.answer_set.import_bank import import_bank
from fedcpsc.answer_set.set_format import SetFormat
from fedcpsc.errors import BankError, ConfigError, RunError
from fedcpsc.export.answers import export_answers
from fedcpsc.export.answers_card import answers_card


def texts(folder):
    return "".join(path.read_text() for path in (folder / "README.md", folder / "answers.json"))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"share_answers": False}, "south: its policy says share_answers: false"),
        ({"share_answers": False, "version": "1.2"}, "south: it does not say, for it speaks protocol 1.2"),
    ],
)
def test_a_silo_that_has_not_agreed_is_named_with_the_remedy_and_nothing_is_written(tmp_path, said, why):
    run = shared_run(tmp_path / "run")
    run.say(SOUTH, **said)
    with pytest.raises(RunError, match=r"has 1 silo\(s\) whose answers may not be handed on") as told:
        export_answers(run.folder, tmp_path / "out")
    assert why in str(told.value)
    assert "--exclude south" in str(told.value)
    assert "share_answers: true in policy.yaml" in str(told.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_every_silo_that_has_not_agreed_is_named_and_quoted_for_a_shell(tmp_path):
    run = shared_run(tmp_path / "run")
    run.say(SOUTH, share_answers=False)
    run.say(NORTH, share_answers=False)
    with pytest.raises(RunError, match="has 2 silo") as told:
        export_answers(run.folder, tmp_path / "out")
    assert f"--exclude '{NORTH}' --exclude south" in str(told.value)
    export_answers(run.folder, tmp_path / "out", exclude=[NORTH, SOUTH])


def test_a_run_without_a_record_of_what_silos_allow_hands_nothing_on(tmp_path):
    run = shared_run(tmp_path / "run")
    (run.folder / "descriptions.json").unlink()
    with pytest.raises(RunError, match="has no record of what its owner allows"):
        export_answers(run.folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("exclude", "constraint"),
    [
        (["nobody"], "no silo of this run has the name; its 3 silos are"),
        ([NORTH, SOUTH, EAST], "excludes every silo of the run"),
    ],
)
def test_names_of_no_silo_and_of_every_silo_are_refused(tmp_path, exclude, constraint):
    run = shared_run(tmp_path / "run")
    with pytest.raises(ConfigError, match=constraint):
        export_answers(run.folder, tmp_path / "out", exclude=exclude)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file_format", list(SetFormat))
@pytest.mark.parametrize("silo_answers", [True, False])
def test_nothing_that_is_written_depends_on_what_an_excluded_silo_answered(tmp_path, file_format, silo_answers):
    files = []
    for name, seeds in (("one", {}), ("other", {SOUTH: 77})):
        run = shared_run(tmp_path / name, seeds=seeds, images=300, aggregation__rule="answer_peak_log")
        run.say(SOUTH, share_answers=False)
        out = tmp_path / f"{name} out"
        export_answers(run.folder, out, file_format, exclude=[SOUTH], silo_answers=silo_answers)
        files.append({path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()})
        assert "south" not in texts(out), "not even its name"
    assert files[0] == files[1]


def test_the_targets_are_those_of_the_remaining_silos_alone(tmp_path):
    said = {name: described(name, ANIMALS) for name in ("a", "b", "c")}
    with_c, without = (
        shared_run(tmp_path / name, own)
        for name, own in (("three", said), ("two", {name: own for name, own in said.items() if name != "c"}))
    )
    targets = []
    for name, run, exclude in (("x", with_c, ["c"]), ("y", without, [])):
        export_answers(run.folder, tmp_path / name, exclude=exclude)
        found = datasets.load_dataset(str(tmp_path / name), split="train", cache_dir=str(tmp_path / "cache"))
        targets.append(np.array(found["target"], np.float32))
    np.testing.assert_array_equal(*targets)
    whole = export_answers(with_c.folder, tmp_path / "whole")
    assert whole.silos_left_out == 0
    found = datasets.load_dataset(str(tmp_path / "whole"), split="train", cache_dir=str(tmp_path / "cache"))
    assert not np.array_equal(np.array(found["target"], np.float32), targets[0])


def test_a_class_that_only_excluded_silos_know_is_left_out(tmp_path):
    run = shared_run(tmp_path / "run")
    facts = export_answers(run.folder, tmp_path / "out", exclude=[EAST])
    assert (facts.class_names, facts.classes_left_out, facts.silos_left_out) == (ANIMALS, 1, 1)
    assert not re.search(r"\bowl\b", texts(tmp_path / "out"))
    import_bank(tmp_path / "out", tmp_path / "new")
    kept = export_answers(tmp_path / "new", tmp_path / "again")
    assert kept.classes == 3
    found = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    bank = run.bank
    rows = [row for batch in bank.batches for row in range(batch.first, batch.rows.stop - 1)]
    owl = bank.label_sets.names.index("owl")
    made_for = np.array(bank.pseudo_labels[rows])
    place = {name: ANIMALS.index(name) for name in ANIMALS}
    wanted = [None if y in (-1, owl) else place[bank.label_sets.names[y]] for y in made_for]
    assert found["pseudo_label"] == wanted
    assert found["origin"] == ["generator" if y >= 0 else "prior" for y in made_for], "it was made for some class"


def test_answers_that_are_damaged_are_not_handed_on(tmp_path):
    run = shared_run(tmp_path / "run")
    file = run.folder / "bank/answers-0.f32"
    damaged = bytearray(file.read_bytes())
    damaged[5] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(BankError, match=r"answers-0\.f32.*does not have the checksum"):
        export_answers(run.folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_silos_that_are_left_with_one_class_are_refused(tmp_path):
    said = {"a": described("a", ("cat", "dog")), "b": described("b", ("eel",), none_class=True)}
    run = shared_run(tmp_path / "run", said)
    with pytest.raises(ConfigError, match="know 1 of the run's classes.*leave out fewer"):
        export_answers(run.folder, tmp_path / "out", exclude=["a"])


def test_targets_alone_hold_no_silos_answers_and_begin_no_run(tmp_path):
    run = shared_run(tmp_path / "run")
    facts = export_answers(run.folder, tmp_path / "out", silo_answers=False)
    found = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert found.column_names == ["image", "target", "label", "pseudo_label", "round", "origin"]
    assert not facts.with_answers
    assert "here the targets alone" in (tmp_path / "out/README.md").read_text()
    with pytest.raises(BankError, match="holds targets alone.*--silo-answers full"):
        import_bank(tmp_path / "out", tmp_path / "new")
    run.say(SOUTH, share_answers=False)
    with pytest.raises(RunError, match="south"):
        export_answers(run.folder, tmp_path / "again", silo_answers=False)


def test_a_silo_that_the_run_itself_excludes_need_not_agree(tmp_path):
    run = shared_run(tmp_path / "run", aggregation__exclude=[SOUTH])
    run.say(SOUTH, share_answers=False)
    facts = export_answers(run.folder, tmp_path / "out")
    assert {silo.name for silo in facts.silos} == {NORTH, EAST}
    assert export_answers(run.folder, tmp_path / "again", exclude=[SOUTH]) == facts


def test_a_run_whose_remaining_silos_answered_nothing_has_nothing_to_hand_on(tmp_path):
    run = shared_run(tmp_path / "run", {"a": described("a", ANIMALS), "b": described("b", ANIMALS)}, rounds=1, images=8)
    (run.folder / "bank/journal.jsonl").write_text(
        (run.folder / "bank/journal.jsonl").read_text().splitlines()[0] + "\n"
    )
    with pytest.raises(RunError, match="none of its silos that are handed on has answered anything"):
        export_answers(run.folder, tmp_path / "out")


def test_the_card_says_whose_answers_what_they_allow_and_what_can_be_learnt(tmp_path):
    said = three_silos()
    odd = replace(said[SOUTH], silo="| <b>south</b>")
    run = shared_run(tmp_path / "run", {NORTH: said[NORTH], EAST: said[EAST], odd.silo: odd})
    export_answers(run.folder, tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    row = next(line for line in card.splitlines() if line.startswith("| east"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:] == [
        "12",
        "probabilities",
        "yes",
        "yes",
        "2",
        "1e-05",
        "record",
        "add_remove",
        "shard_votes",
        "0.1",
    ]
    assert "Some of them are not differentially private" in card
    assert "membership inference" in card
    assert "not finished when this was written" in card
    assert "<b>" not in card.split("---\n")[2]
    assert "no image is of a silo's data" in card
    assert "class counts" not in card
    head = json.dumps(card.split("---\n")[1])
    assert "license: other" in head
    assert "data/train-*.parquet" in head


def test_the_card_does_not_say_that_images_need_no_data_where_it_cannot_know(tmp_path):
    run = shared_run(tmp_path / "run")
    config = (run.folder / "config.yaml").read_text()
    assert "    cppn: 1.0\n" in config
    facts = export_answers(run.folder, tmp_path / "out")
    own = facts.model_copy(
        update={"run": facts.run.model_copy(update={"settings": {**facts.run.settings, "synthesis.prior": "mine 1"}})}
    )
    assert "those from mine may have been made of real pictures" in answers_card(own)
    public = facts.model_copy(update={"origins": {**facts.origins, "public": 3}})
    assert "those from public may have been made of real pictures" in answers_card(public)
