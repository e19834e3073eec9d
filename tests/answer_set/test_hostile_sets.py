# SPDX-License-Identifier: Apache-2.0
"""A data set may come from anybody: what cannot stand in a bank is refused with its row, and no bank is left."""

import hashlib
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from support.shared_run import EAST, NORTH, SOUTH, shared_run

from fedcpsc.answer_set.facts import read_facts
from fedcpsc.answer_set.import_bank import import_bank
from fedcpsc.answer_set.pngs import from_png, to_png
from fedcpsc.answer_set.reading import read_rows
from fedcpsc.answer_set.set_format import SetFormat
from fedcpsc.errors import BankError
from fedcpsc.export.answers import export_answers

ROW = 17


@pytest.fixture
def out(tmp_path):
    """The folder of a parquet data set."""
    export_answers(shared_run(tmp_path / "run").folder, tmp_path / "out")
    return tmp_path / "out"


def facts_of(folder):
    return json.loads((folder / "answers.json").read_text())


def write_facts(folder, tree):
    (folder / "answers.json").write_text(json.dumps(tree))


def file_of(folder):
    return folder / facts_of(folder)["files"][0]["name"]


def rewrite(folder, table):
    """Puts another table in the file's place, and its hash into the facts: as whoever means it would."""
    pq.write_table(table, file_of(folder))
    tree = facts_of(folder)
    tree["files"][0]["sha256"] = hashlib.sha256(file_of(folder).read_bytes()).hexdigest()
    write_facts(folder, tree)


def with_value(table, name, value, row=ROW, kind=None):
    field = table.schema.field(name)
    values = table[name].to_pylist()
    values[row] = value
    place = table.schema.names.index(name)
    return table.set_column(place, pa.field(name, kind or field.type), pa.array(values, kind or field.type))


def refused(folder, tmp_path, message):
    with pytest.raises(BankError, match=message):
        import_bank(folder, tmp_path / "new")
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").iterdir())


def png(*shape, mode="RGB"):
    file = io.BytesIO()
    Image.new(mode, shape).save(file, "PNG")
    return file.getvalue()


def jpeg():
    file = io.BytesIO()
    Image.new("RGB", (5, 4)).save(file, "JPEG")
    return file.getvalue()


NOT_DISTRIBUTIONS = {
    "too much": [0.5, 0.5, 0.5],
    "too little": [0.1, 0.1, 0.1],
    "below zero": [-0.5, 1.0, 0.5],
    "NaN": [float("nan"), 0.5, 0.5],
    "infinity": [float("inf"), 0.0, 0.0],
}


@pytest.mark.parametrize("case", NOT_DISTRIBUTIONS)
def test_an_answer_that_is_no_distribution_is_refused_with_its_row(out, tmp_path, case):
    rewrite(out, with_value(pq.read_table(file_of(out)), f"answers_{NORTH}", NOT_DISTRIBUTIONS[case]))
    refused(out, tmp_path, rf"answers of {NORTH}=.*must be numbers in \[0, 1\] that sum to 1 \(data/.*, row {ROW}\)")


VALUES = {
    "a target that is none": ("target", [1.0, 1.0, 0.0, 0.0], "target="),
    "a target of other length": ("target", [0.5, 0.5], "cannot be read|2 numbers"),
    "no target": ("target", None, "target=None.*must not be missing"),
    "a class that is not there": ("pseudo_label", 4, "pseudo_label='?4.*must be a class, 0 to 3, or missing"),
    "a class below": ("pseudo_label", -2, "pseudo_label"),
    "an unknown origin": ("origin", "dreams", "origin='dreams'.*must be one of prior, generator, public"),
    "no origin": ("origin", None, "origin=None.*must not be missing"),
    "a round below zero": ("round", -1, "round.*must be >= 0"),
    "a round that falls": ("round", 0, "round.*must not fall: sort the rows by round"),
    "no round": ("round", None, "round=None.*must not be missing"),
    "no image": ("image", None, "image=None.*must not be missing"),
    "no bytes": ("image", {"bytes": None, "path": "x.png"}, "image=None.*bytes must be in the file"),
    "bytes that are no picture": ("image", {"bytes": b"x" * 9, "path": None}, "image='9 bytes'.*is no PNG file"),
    "another picture": ("image", {"bytes": png(6, 4), "path": None}, "RGB 4x6, and must be RGB 4x5"),
    "another mode": ("image", {"bytes": png(5, 4, mode="L"), "path": None}, "L 4x5, and must be RGB 4x5"),
    "a JPEG": ("image", {"bytes": jpeg(), "path": None}, "is no PNG file"),
    "half a picture": ("image", {"bytes": png(5, 4)[:40], "path": None}, "is no PNG file, or a damaged one"),
}


@pytest.mark.parametrize("case", VALUES)
def test_a_value_that_cannot_stand_in_a_bank_is_refused_with_its_row(out, tmp_path, case):
    name, value, message = VALUES[case]
    kind = pa.list_(pa.float32()) if case == "a target of other length" else None
    rewrite(out, with_value(pq.read_table(file_of(out)), name, value, kind=kind))
    refused(out, tmp_path, f"({message}).*row {ROW}")


def test_a_row_that_nobody_answered_is_refused(out, tmp_path):
    table = pq.read_table(file_of(out))
    for silo in (NORTH, SOUTH, EAST):
        table = with_value(table, f"answers_{silo}", None)
    rewrite(out, table)
    refused(out, tmp_path, rf"at least one silo must have answered \(.*row {ROW}\)")


def test_lists_without_a_fixed_length_are_read_alike(out, tmp_path):
    table = pq.read_table(file_of(out))
    for name in ("target", f"answers_{SOUTH}"):
        place, field = table.schema.names.index(name), pa.field(name, pa.list_(pa.float32()))
        table = table.set_column(place, field, pa.array(table[name].to_pylist(), field.type))
    rewrite(out, table)
    assert import_bank(out, tmp_path / "new").rows == len(table)


@pytest.mark.parametrize("column", ["image", "target", "pseudo_label", "round", "origin", f"answers_{SOUTH}"])
def test_a_file_that_lacks_a_column_or_has_it_twice_or_of_another_type_is_refused(out, tmp_path, column):
    table = pq.read_table(file_of(out))
    rewrite(out, table.drop_columns([column]))
    refused(out, tmp_path, "there must be one column of this name.*not 0")
    other = pa.array([1.5] * len(table))
    rewrite(out, table.set_column(table.schema.names.index(column), column, other))
    refused(out, tmp_path, "column=.*must hold .*, and is double")
    rewrite(out, table.append_column(column, other))
    refused(out, tmp_path, "there must be one column of this name.*not 2")


def test_columns_that_others_added_and_the_label_are_not_read(out, tmp_path):
    table = pq.read_table(file_of(out)).drop_columns(["label"])
    rewrite(out, table.append_column("note", pa.array(["?"] * len(table))))
    assert import_bank(out, tmp_path / "new").rows == len(table)


def test_a_file_that_is_not_the_one_that_was_written_is_refused_unless_one_says_so(out, tmp_path):
    table = pq.read_table(file_of(out))
    pq.write_table(table.slice(0, 40), file_of(out))
    refused(out, tmp_path, "is not the file that was written.*set its sha256 in answers.json to null")
    tree = facts_of(out)
    tree["files"][0]["sha256"] = None
    write_facts(out, tree)
    refused(out, tmp_path, "holds 40 rows, and must hold 44")
    tree["files"][0]["rows"] = tree["rows"] = 40
    write_facts(out, tree)
    refused(out, tmp_path, "its origins do not count 40 images together")
    words = table.slice(0, 40)["origin"].to_pylist()
    tree["origins"] = {name: words.count(name) for name in tree["origins"]}
    write_facts(out, tree)
    assert import_bank(out, tmp_path / "new").rows == 40


@pytest.mark.parametrize("file_format", list(SetFormat))
@pytest.mark.parametrize("damage", [b"", b"PAR1", b"\0" * 2000])
def test_a_file_that_cannot_be_read_is_told(tmp_path, file_format, damage):
    out = tmp_path / "out"
    export_answers(shared_run(tmp_path / "run").folder, out, file_format)
    tree = facts_of(out)
    tree["files"][0]["sha256"] = None
    write_facts(out, tree)
    file_of(out).write_bytes(damage)
    refused(out, tmp_path, "answers=.*cannot be read")
    file_of(out).unlink()
    refused(out, tmp_path, "answers=.*cannot be read.*restore the data set's folder")


TENSORS = {
    "an array is missing": (lambda arrays: arrays.pop("given.1"), "array='given.1': there is no such array"),
    "another type": (
        lambda a: a.update(target=a["target"].astype(np.float64)),
        r"array='target'.*must be F32 \[44, 4\]",
    ),
    "another length": (lambda a: a.update(round=a["round"][:-1]), r"array='round'.*\[44\].*\[43\]"),
    "another shape": (lambda a: a.update(image=a["image"].transpose(0, 2, 3, 1).copy()), "array='image'"),
    "no distribution": (lambda a: a["answers.0"].__setitem__(ROW, 0.9), f"answers of {NORTH}.*row {ROW}"),
    "an origin beyond": (lambda a: a["origin"].__setitem__(ROW, 9), f"origin.*must be 0 to 2.*row {ROW}"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_arrays_that_cannot_stand_in_a_bank_are_refused(tmp_path, case):
    out = tmp_path / "out"
    export_answers(shared_run(tmp_path / "run").folder, out, SetFormat.SAFETENSORS)
    change, message = TENSORS[case]
    arrays = load_file(file_of(out))
    change(arrays)
    save_file(arrays, file_of(out))
    tree = facts_of(out)
    tree["files"][0]["sha256"] = None
    write_facts(out, tree)
    refused(out, tmp_path, message)


def of_silo(place, **changes):
    return lambda tree: tree["silos"][place].update(changes)


FACTS = {
    "an unknown key": (lambda tree: tree.update(colour="red"), "colour: unknown key"),
    "a newer version": (lambda tree: tree.update(schema=9), "was written by a newer version"),
    "no schema that is a number": (lambda tree: tree.update(schema="one"), "schema"),
    "an unknown format": (lambda tree: tree.update(format="csv"), "format"),
    "a path that leads out": (lambda tree: tree["files"][0].update(name="../../etc/passwd"), "name"),
    "a path below data that leads out": (lambda tree: tree["files"][0].update(name="data/../x"), "name"),
    "a file twice": (lambda tree: tree["files"].append(tree["files"][0]), "do not hold|is named twice"),
    "no silo": (lambda tree: tree.update(silos=[]), "silos"),
    "a silo that is another": (of_silo(0, name="nobody"), "description of 'nobody' is of another silo"),
    "a silo twice": (lambda tree: tree["silos"].append(tree["silos"][0]), "two silos of one name"),
    "one column for two": (lambda tree: tree["silos"][1].update(column=tree["silos"][0]["column"]), "of one column"),
    "answers of some": (of_silo(1, column=None), "answers of some of its silos alone"),
    "a class beyond": (of_silo(1, places=[0, 1, 9]), "not different numbers below 4"),
    "a class twice": (of_silo(1, places=[0, 1, 1]), "not different numbers below 4"),
    "more classes than it described": (of_silo(2, places=[0, 1, 2, 3]), "of another silo, or of other classes"),
    "a class of nobody": (
        lambda tree: tree.update(classes=5, class_names=[*tree["class_names"], "fox"]),
        "nobody|none of",
    ),
    "names too few": (lambda tree: tree.update(class_names=["cat"]), "must be one for each of 4 classes"),
    "other images": (lambda tree: tree.update(image_shape=[3, 4, 6]), r"of images \(3, 4, 5\), not \(3, 4, 6\)"),
    "a description that is none": (of_silo(0, description={"kind": "query"}), "not a message|another message"),
    "a refusal as description": (
        of_silo(0, description={"kind": "refusal", "code": "busy"}),
        "description='refusal': is another message",
    ),
    "a hostile name": (of_silo(0, description={"kind": "description", "silo": "\x1b[31m"}), "name"),
    "a rule of nobody": (
        lambda tree: tree["run"]["settings"].update({"aggregation.rule": "majority"}),
        "aggregation.rule.*majority",
    ),
    "a run's name that leads out": (lambda tree: tree["run"].update(name="../x"), "output.name"),
}


@pytest.mark.parametrize("case", FACTS)
def test_facts_that_contradict_themselves_are_refused(out, tmp_path, case):
    change, message = FACTS[case]
    tree = facts_of(out)
    change(tree)
    write_facts(out, tree)
    refused(out, tmp_path, message)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"schema": 1, "schema": 1}', "\x00"])
def test_facts_that_are_no_json_object_are_refused(out, tmp_path, text):
    (out / "answers.json").write_text(text)
    refused(out, tmp_path, r"answers=.*answers\.json.*|schema")


def test_a_folder_without_facts_is_no_data_set(out, tmp_path):
    (out / "answers.json").unlink()
    refused(out, tmp_path, "holds no answers.json.*give a folder that fedcpsc bank export wrote")


def test_a_bank_or_a_run_that_is_there_is_not_overwritten(out, tmp_path):
    import_bank(out, tmp_path / "new")
    before = (tmp_path / "new/bank/journal.jsonl").read_bytes()
    with pytest.raises(BankError, match="bank=.*is there already"):
        import_bank(out, tmp_path / "new")
    assert (tmp_path / "new/bank/journal.jsonl").read_bytes() == before
    (tmp_path / "run/bank").rename(tmp_path / "run/away")
    with pytest.raises(BankError, match=r"config\.yaml.*is there already"):
        import_bank(out, tmp_path / "run")


def test_pictures_keep_every_byte():
    random = np.random.default_rng(0)
    for channels in (1, 3, 4):
        image = random.integers(0, 256, (channels, 7, 9)).astype(np.uint8)
        np.testing.assert_array_equal(from_png(to_png(image), image.shape), image)


@pytest.mark.parametrize("file_format", list(SetFormat))
def test_flipped_bytes_end_in_an_explained_error_or_in_other_numbers_and_never_in_a_traceback(tmp_path, file_format):
    out, random = tmp_path / "out", np.random.default_rng(5)
    export_answers(shared_run(tmp_path / "run", rounds=1, images=6).folder, out, file_format)
    tree = facts_of(out)
    tree["files"][0]["sha256"] = None
    write_facts(out, tree)
    facts, whole = read_facts(out), file_of(out).read_bytes()
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for place in random.integers(0, len(damaged), 3):
            damaged[place] ^= int(random.integers(1, 256))
        file_of(out).write_bytes(damaged)
        try:
            list(read_rows(out, facts))
        except BankError:
            refused += 1
    assert refused > 30
