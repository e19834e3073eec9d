# SPDX-License-Identifier: Apache-2.0
"""A bank that was exported and made again holds the same, and the hub's library reads what stands in it."""

import json

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from support.shared_run import ANIMALS, EAST, NORTH, SHAPE, SOUTH, described, shared_run, three_silos

from fedcpsc.answer_set import parquet_writer, rows, tensor_files
from fedcpsc.answer_set.facts import read_facts
from fedcpsc.answer_set.import_bank import import_bank
from fedcpsc.answer_set.set_format import SetFormat
from fedcpsc.errors import ConfigError, RunError
from fedcpsc.export.answers import export_answers
from fedcpsc.runs.bank_view import read_bank
from fedcpsc.runs.descriptions import read_descriptions
from fedcpsc.runs.read import gather

FORMATS = list(SetFormat)


def answered(bank):
    """Arrays of the rows that anybody answered, in the bank's order."""
    kept = bank.answered_rows()
    dense, given = (np.concatenate([bank.answers(batch)[i] for batch in bank.batches], axis=1) for i in range(2))
    rounds = np.concatenate([np.full(batch.count, batch.round) for batch in bank.batches])
    found = {"images": bank.images, "pseudo_labels": bank.pseudo_labels, "rounds": rounds}
    return {name: np.array(values[kept]) for name, values in found.items()} | {
        "answers": dense[:, kept],
        "given": given[:, kept],
    }


def opened(folder, tmp_path):
    return datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_bank_that_was_exported_and_made_again_is_equal_to_the_bit(tmp_path, file_format):
    run = shared_run(tmp_path / "run")
    facts = export_answers(run.folder, tmp_path / "out", file_format)
    assert import_bank(tmp_path / "out", tmp_path / "new") == facts == read_facts(tmp_path / "out")
    before, after = run.bank, read_bank(tmp_path / "new/bank")
    for name, values in answered(before).items():
        np.testing.assert_array_equal(answered(after)[name], values, err_msg=name)
    assert (after.silos, after.classes, after.label_sets) == (before.silos, before.classes, before.label_sets)
    assert after.rows == before.rows - 4 == facts.rows, "the last row of each round has no answer"
    assert facts.images_left_out == 4
    assert after.check_sums(), "every line of the new journal has its checksum"
    assert not {batch.query_id for batch in before.batches} & {batch.query_id for batch in after.batches}
    np.testing.assert_allclose(after.targets.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("file_format", FORMATS)
def test_what_was_made_again_can_be_exported_again_to_the_same(tmp_path, file_format):
    run = shared_run(tmp_path / "run", aggregation__robust=False)
    first = export_answers(run.folder, tmp_path / "first", file_format)
    import_bank(tmp_path / "first", tmp_path / "new")
    again = export_answers(tmp_path / "new", tmp_path / "again", file_format)
    assert again.files == first.files, "the hashes of all rows"
    assert gather(tmp_path / "new").config.aggregation == run.config.aggregation


def test_silos_describe_themselves_as_before_but_for_their_class_counts(tmp_path):
    run = shared_run(tmp_path / "run")
    export_answers(run.folder, tmp_path / "out")
    import_bank(tmp_path / "out", tmp_path / "new")
    found = read_descriptions(tmp_path / "new")
    assert found[NORTH].class_report is None
    assert {silo: said for silo, said in found.items() if silo != NORTH} == {
        silo: said for silo, said in run.descriptions.items() if silo != NORTH
    }
    assert "counts" not in (tmp_path / "out/answers.json").read_text()


def test_the_hubs_library_opens_it_with_its_features_and_every_number(tmp_path):
    run = shared_run(tmp_path / "run")
    facts = export_answers(run.folder, tmp_path / "out")
    import_bank(tmp_path / "out", tmp_path / "new")
    found, bank = opened(tmp_path / "out", tmp_path), read_bank(tmp_path / "new/bank")
    files = str(tmp_path / "out/data/*.parquet")
    alone = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert alone.features == found.features
    assert len(alone) == len(found) == facts.rows == 44
    floats = {f"answers_{NORTH}": 3, f"answers_{EAST}": 3, f"answers_{SOUTH}": 3, "target": 4}
    for name, length in floats.items():
        assert found.features[name] == datasets.List(datasets.Value("float32"), length=length)
    assert found.features["label"] == datasets.ClassLabel(names=["cat", "dog", "eel", "owl"])
    assert isinstance(found.features["image"], datasets.Image)
    kinds = {name: found.features[name].dtype for name in ("pseudo_label", "round", "origin")}
    assert kinds == {"pseudo_label": "int64", "round": "int64", "origin": "string"}

    wanted = answered(bank)
    pictures = np.array([np.asarray(picture) for picture in found["image"]])
    np.testing.assert_array_equal(pictures.transpose(0, 3, 1, 2), wanted["images"])
    np.testing.assert_array_equal(np.array(found["target"], np.float32), bank.targets)
    np.testing.assert_array_equal(found["label"], bank.targets.argmax(1))
    made_for = [-1 if y is None else y for y in found["pseudo_label"]]
    np.testing.assert_array_equal(made_for, wanted["pseudo_labels"])
    np.testing.assert_array_equal(found["round"], wanted["rounds"])
    assert found["origin"] == ["prior" if y < 0 else "generator" for y in made_for]
    for place, silo in enumerate(bank.silos):
        own = found[f"answers_{silo}"]
        assert [row is not None for row in own] == wanted["given"][place].tolist()
        given = np.array([row for row in own if row is not None], np.float32)
        dense = np.zeros((len(given), 4), np.float32)
        if silo != EAST:
            dense[:, list(bank.label_sets.places[place])] = given
            np.testing.assert_array_equal(dense, wanted["answers"][place][wanted["given"][place]])
        np.testing.assert_allclose(given.sum(1), 1, atol=1e-5)


def test_the_numbers_are_stored_in_lists_of_one_length_and_pictures_as_png(tmp_path):
    run = shared_run(tmp_path / "run")
    facts = export_answers(run.folder, tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / facts.files[0].name)
    assert table.schema.field("target").type == pa.list_(pa.float32(), 4)
    assert table["image"][0].as_py()["bytes"][:8] == b"\x89PNG\r\n\x1a\n"
    assert "huggingface" in {key.decode() for key in table.schema.metadata}


def test_arrays_can_be_read_without_this_project(tmp_path):
    run = shared_run(tmp_path / "run")
    facts = export_answers(run.folder, tmp_path / "out", SetFormat.SAFETENSORS)
    arrays = load_file(tmp_path / "out" / facts.files[0].name)
    wanted = answered(run.bank)
    np.testing.assert_array_equal(arrays["image"], wanted["images"])
    assert [silo.column for silo in facts.silos] == ["answers.0", "answers.1", "answers.2"]
    for place in range(3):
        np.testing.assert_array_equal(arrays[f"given.{place}"], wanted["given"][place])
        assert not arrays[f"answers.{place}"][arrays[f"given.{place}"] == 0].any()
    assert list(facts.origins) == ["prior", "generator", "public"]
    np.testing.assert_array_equal(arrays["origin"], arrays["pseudo_label"] >= 0)


@pytest.mark.parametrize("file_format", FORMATS)
def test_many_rows_are_cut_into_files_and_never_held_together(tmp_path, monkeypatch, file_format):
    run = shared_run(tmp_path / "run", rounds=6, images=40)
    size = rows.bytes_of_row(export_answers(run.folder, tmp_path / "one", file_format))
    monkeypatch.setattr(parquet_writer, "LARGEST_FILE", 50 * size)
    monkeypatch.setattr(tensor_files, "LARGEST_TENSOR_FILE", 50 * size)
    monkeypatch.setattr(rows, "_MOST_AT_ONCE", 16)
    held, init = [], rows.AnswerRows.__init__

    def noted(self, images, *others, **named):
        held.append(len(images))
        init(self, images, *others, **named)

    monkeypatch.setattr(rows.AnswerRows, "__init__", noted)
    facts = export_answers(run.folder, tmp_path / "many", file_format)
    assert [file.rows for file in facts.files] == [50, 50, 50, 50, 34]
    assert [file.name.rpartition("-")[0][-8:] for file in facts.files] == [f"{k:05}-of" for k in range(5)]
    assert max(held) <= (50 if file_format is SetFormat.SAFETENSORS else 16)
    monkeypatch.undo()
    import_bank(tmp_path / "many", tmp_path / "new")
    for name, values in answered(run.bank).items():
        np.testing.assert_array_equal(answered(read_bank(tmp_path / "new/bank"))[name], values)
    if file_format is SetFormat.PARQUET:
        assert len(opened(tmp_path / "many", tmp_path)) == 234


def test_silos_that_name_no_classes_go_by_number(tmp_path):
    said = {name: described(name, ANIMALS, class_names=None) for name in (SOUTH, EAST)}
    run = shared_run(tmp_path / "run", said)
    export_answers(run.folder, tmp_path / "out")
    assert opened(tmp_path / "out", tmp_path).features["label"].names == ["0", "1", "2"]
    import_bank(tmp_path / "out", tmp_path / "new")
    assert read_bank(tmp_path / "new/bank").label_sets == run.bank.label_sets


def test_a_word_that_stands_for_another_comes_along(tmp_path):
    said = {SOUTH: described(SOUTH, ANIMALS), EAST: described(EAST, ("feline", "dog", "eel"))}
    aliases = {"feline": "cat"}
    run = shared_run(tmp_path / "run", said, aggregation__aliases=aliases)
    assert export_answers(run.folder, tmp_path / "out").aliases == aliases
    import_bank(tmp_path / "out", tmp_path / "new")
    assert gather(tmp_path / "new").config.aggregation.aliases == aliases
    assert export_answers(run.folder, tmp_path / "alone", exclude=[EAST]).aliases == {}, "it is the other silo's word"


def test_images_that_are_no_pictures_are_for_arrays(tmp_path):
    said = {name: described(name, ANIMALS) for name in (SOUTH, EAST)}
    wide = (2, 3, 3)
    said = {name: type(own)(**{**vars(own), "image_shape": wide}) for name, own in said.items()}
    run = shared_run(tmp_path / "run", said, shape=wide)
    with pytest.raises(ConfigError, match=r"images of 2 channels are no pictures.*--format safetensors"):
        export_answers(run.folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    export_answers(run.folder, tmp_path / "out", SetFormat.SAFETENSORS)
    import_bank(tmp_path / "out", tmp_path / "new")
    np.testing.assert_array_equal(answered(read_bank(tmp_path / "new/bank"))["images"], answered(run.bank)["images"])


@pytest.mark.parametrize("shape", [(1, 4, 5), (4, 4, 5)])
def test_grey_pictures_and_those_of_four_channels_keep_every_byte(tmp_path, shape):
    said = {name: type(own)(**{**vars(own), "image_shape": shape}) for name, own in three_silos().items()}
    run = shared_run(tmp_path / "run", said, shape=shape)
    export_answers(run.folder, tmp_path / "out")
    import_bank(tmp_path / "out", tmp_path / "new")
    np.testing.assert_array_equal(answered(read_bank(tmp_path / "new/bank"))["images"], answered(run.bank)["images"])


def test_nothing_that_is_there_is_overwritten_and_nothing_is_left_of_a_failure(tmp_path, monkeypatch):
    run = shared_run(tmp_path / "run")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(RunError, match=r"holds mine\.txt, and nothing is overwritten"):
        export_answers(run.folder, tmp_path / "out")
    (tmp_path / "out/mine.txt").unlink()
    monkeypatch.setattr("fedcpsc.export.answers.answers_card", lambda facts: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(RunError, match="OUT=.*cannot be written"):
        export_answers(run.folder, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]
    assert not list((tmp_path / "out").iterdir())
    monkeypatch.undo()
    export_answers(run.folder, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "answers.json", "data"]
    assert tuple(json.loads((tmp_path / "out/answers.json").read_text())["image_shape"]) == SHAPE
