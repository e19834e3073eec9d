# SPDX-License-Identifier: Apache-2.0
"""Making silos: whole or not at all, reused where they match, and no ledger is ever lost."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.picture_sources import pictures, png, write_folder, write_parquet

from fedcpsc.config import RunConfig
from fedcpsc.data.silo_images import load_silo_train, parts_of_silos
from fedcpsc.data.sources import load_evaluation
from fedcpsc.errors import ConfigError, DataError, LedgerError, ManifestError, PolicyError
from fedcpsc.gatekeeper.opening import begin_ledger
from fedcpsc.gatekeeper.policy import POLICY_FILE, load_policy
from fedcpsc.gatekeeper.population import change_population
from fedcpsc.ledger.budget import Charge
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
from fedcpsc.ledger.mark import MARK_FILE
from fedcpsc.silos import make as silos
from fedcpsc.silos import maker as silo_maker
from fedcpsc.silos.make import make_silos
from fedcpsc.teachers.manifest import MANIFEST_FILE, WEIGHTS_FILE, dataset_id, load_manifest
from fedcpsc.teachers.opening import open_teacher


def config(**sections) -> RunConfig:
    tree = {
        "data": {"train_limit": 80, "test_limit": 60},
        "silos": {"count": 2, "partition": {"kind": "iid"}, "policy": {"answers": 500}},
        "teachers": {"width": 4, "epochs": 1},
        "runtime": {"device": "cpu", "threads": 1},
    }
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values} if isinstance(values, dict) else values
    return RunConfig.model_validate(tree)


def spend(folder, answers: int = 7) -> None:
    ledger = Ledger.open(folder / LEDGER_FILE, load_manifest(folder).population)
    ledger.reserve(f"{answers:032x}", "a" * 64, Charge(answers))
    ledger.close()


def spent(folder) -> int:
    ledger = Ledger.open(folder / LEDGER_FILE, load_manifest(folder).population)
    answers = ledger.status().spent.answers
    ledger.close()
    return answers


def test_a_silo_is_what_its_manifest_says(tmp_path):
    lines: list[str] = []
    reports = make_silos(config(), tmp_path, lines.append)
    assert [report.silo for report in reports] == ["silo-0", "silo-1"]
    assert [report.folder for report in reports] == [tmp_path / "0", tmp_path / "1"]
    assert lines == ["silo-0: training convnet on 40 images", "silo-1: training convnet on 40 images"]
    evaluation = load_evaluation(config().data, config().seed)
    for silo, report in enumerate(reports):
        images = load_silo_train(config(), silo)
        manifest = load_manifest(report.folder)
        assert manifest.dataset_id == dataset_id(images.images, images.labels)
        assert manifest.private_class_counts == tuple(np.bincount(images.labels, minlength=10).tolist())
        assert (manifest.train_size, manifest.image_shape, manifest.classes) == (40, (1, 8, 8), 10)
        assert manifest.training["epochs"] == 1
        predicted = open_teacher(report.folder, manifest).predict(evaluation.images).argmax(1)
        assert report.accuracy == pytest.approx((predicted == evaluation.labels).mean())
        assert load_policy(report.folder / POLICY_FILE).answers == 500
        ledger = Ledger.open(report.folder / LEDGER_FILE, manifest.population)
        assert ledger.status().budget.answers == 500
        ledger.close()
        assert (manifest.origin, manifest.population, manifest.unit) == ("trained", report.silo, "record")
        names = {path.name for path in report.folder.iterdir()}
        private = {"records.seen", "shard.key"}
        ledger_files = {LEDGER_FILE, f"{LEDGER_FILE}-journal", MARK_FILE}
        assert names == {WEIGHTS_FILE, MANIFEST_FILE, POLICY_FILE} | ledger_files | private
        assert "accuracy" not in (report.folder / MANIFEST_FILE).read_text()
        assert report.folder.stat().st_mode & 0o077 == 0
    assert "silo-0: convnet, 40 private images, " in str(reports[0])
    assert " % of held-out images right, made in " in str(reports[0])


def test_held_out_images_that_a_silo_trains_on_are_counted(tmp_path):
    encoded = [png(picture) for picture in pictures(24, 8)]
    write_parquet(tmp_path / "train.parquet", encoded[:20], [0, 1] * 10, ["a", "b"])
    write_parquet(tmp_path / "test.parquet", [*encoded[20:], *encoded[:3]], [0, 1, 0, 1, 0, 1, 0], ["a", "b"])
    told: list[str] = []
    changed = config(data={"source": "parquet", "path": str(tmp_path), "train_limit": None}, silos={"count": 1})
    make_silos(changed, tmp_path / "silos", tell=told.append)
    (line,) = told
    assert line.startswith(
        "3 of the 7 held-out images are, pixel for pixel, training images of silo-0: accuracy on them"
    )


def test_without_held_out_images_nothing_is_measured(tmp_path):
    (report, _) = make_silos(config(evaluation={"held_out": False}), tmp_path)
    assert report.accuracy is None
    assert "held-out" not in str(report)


def test_what_matches_is_reused(tmp_path):
    first = make_silos(config(), tmp_path)
    spend(tmp_path / "0")
    before = {path: path.read_bytes() for path in tmp_path.glob("*/*") if not path.name.startswith("ledger.")}
    lines: list[str] = []
    again = make_silos(config(), tmp_path, lines.append)
    assert lines == []
    assert [report.reused for report in first] == [False, False]
    assert [report.reused for report in again] == [True, True]
    assert [report.accuracy for report in again] == [report.accuracy for report in first]
    assert str(again[0]).endswith("reused")
    assert {path: path.read_bytes() for path in before} == before
    assert spent(tmp_path / "0") == 7


@pytest.mark.parametrize(
    "change",
    [
        {"teachers": {"epochs": 2}},
        {"teachers": {"width": 5}},
        {"teachers": {"architecture": "lenet5"}},
        {"teachers": {"training": {"optimiser": "sgd"}}},
    ],
)
def test_another_teacher_of_the_same_data_keeps_the_ledger(change, tmp_path):
    make_silos(config(), tmp_path)
    spend(tmp_path / "0")
    old = load_manifest(tmp_path / "0")
    reports = make_silos(config(**change), tmp_path)
    new = load_manifest(tmp_path / "0")
    assert not any(report.reused for report in reports)
    assert new.dataset_id == old.dataset_id
    assert new.weights_sha256 != old.weights_sha256
    assert spent(tmp_path / "0") == 7


def test_other_records_of_the_population_keep_its_ledger(tmp_path):
    make_silos(config(), tmp_path)
    spend(tmp_path / "0", 7)
    first = load_manifest(tmp_path / "0")
    make_silos(config(seed=2), tmp_path)
    assert load_manifest(tmp_path / "0").dataset_id != first.dataset_id
    assert spent(tmp_path / "0") == 7
    spend(tmp_path / "0", 9)
    make_silos(config(), tmp_path)
    assert load_manifest(tmp_path / "0").weights_sha256 == first.weights_sha256
    assert spent(tmp_path / "0") == 16
    assert not list((tmp_path / "0").rglob("past/ledger*"))


def test_the_population_is_named_by_the_configuration_and_does_not_change_by_it(tmp_path):
    named = {"count": 2, "partition": {"kind": "iid"}, "population": "patients of {silo}"}
    make_silos(config(silos=named), tmp_path)
    assert load_manifest(tmp_path / "1").population == "patients of silo-1"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    told = r"silos.population='silo-0': .* holds the silo of the population 'patients of silo-0'.*ledger population"
    for again in (config(), config(teachers={"epochs": 2})):
        with pytest.raises(LedgerError, match=told):
            make_silos(again, tmp_path)
    assert {path: path.read_bytes() for path in before} == before


def test_persons_and_records_are_not_counted_in_one_ledger(tmp_path, monkeypatch):
    make_silos(config(), tmp_path)

    def with_persons(config, wanted):
        for silo, images, _ in parts_of_silos(config, wanted):
            yield silo, replace(images, persons=np.array([f"p{i // 4}" for i in range(len(images))])), None

    monkeypatch.setattr(silos, "parts_of_silos", with_persons)
    with pytest.raises(LedgerError, match="unit='person': the ledger .* counts what each record loses"):
        make_silos(config(), tmp_path)
    make_silos(config(), tmp_path / "persons")
    assert load_manifest(tmp_path / "persons" / "0").unit == "person"


def test_persons_are_told_apart_as_the_ledger_recorded_or_nothing_is_trained(tmp_path, monkeypatch):
    """Patients were promised something; trained by visits, none of them is protected any more."""
    file, folder = tmp_path / "data" / "0" / "train.parquet", tmp_path / "silos" / "0"
    write_parquet(file, [png(picture) for picture in pictures(12)], [0, 1, 2] * 4)
    table = pq.read_table(file)
    for column, records in (("patient_id", 4), ("visit_id", 1)):
        table = table.append_column(column, [[f"{column} {i // records}" for i in range(12)]])
    pq.write_table(table, file)
    lines = "\n".join(f"{row},p{row // 2}" for row in range(12))
    (file.parent / "persons.csv").write_text(f"row,person\n{lines}\n")

    def by(epochs: int = 1, **persons: str) -> RunConfig:
        return config(
            data={"source": "parquet", "path": str(tmp_path / "data"), "persons": persons},
            silos={"count": 1, "partition": {"kind": "own_files"}, "policy": {}},
            teachers={"epochs": epochs},
        )

    patients, visits = {"kind": "column", "column": "patient_id"}, {"kind": "column", "column": "visit_id"}
    make_silos(by(**patients), tmp_path / "silos")
    (report,) = make_silos(by(**patients), tmp_path / "silos")
    assert report.reused
    with closing(Ledger.open(folder / LEDGER_FILE, "silo-0")) as ledger:
        assert ledger.persons() == "column patient_id"
        assert [row["kind"] for row in ledger.export()] == ["created", "population"]  # recorded once
    before = (folder / WEIGHTS_FILE).read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(silo_maker, "train_teacher", None)
        told = r"data.persons='{}': the ledger .* told apart by 'column patient_id'; configure .* as before; .*--reason"
        for other, named in (
            (visits, "column visit_id"),
            ({"kind": "file", "file": "persons.csv"}, "file persons.csv"),
        ):
            with pytest.raises(LedgerError, match=told.format(named)):
                make_silos(by(**other), tmp_path / "silos")
        assert (folder / WEIGHTS_FILE).read_bytes() == before
        for name in (WEIGHTS_FILE, MANIFEST_FILE):
            (folder / name).unlink()
        with pytest.raises(LedgerError, match=told.format("column visit_id")):  # the ledger knows without a manifest
            make_silos(by(**visits), tmp_path / "silos")
    make_silos(by(2, **patients), tmp_path / "silos")


def test_an_earlier_versions_ledger_records_with_the_next_run_how_persons_are_told_apart(tmp_path, monkeypatch):
    blocks = {"persons": {"kind": "blocks", "size": 4}}
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "name_persons", lambda ledger, persons: False)
        make_silos(config(data=blocks), tmp_path)
    (report, _) = make_silos(config(data=blocks), tmp_path)
    assert report.reused
    with pytest.raises(LedgerError, match="data.persons='blocks 5'.* told apart by 'blocks 4'"):
        make_silos(config(data={"persons": {"kind": "blocks", "size": 5}}), tmp_path)
    # another population begins anew, on the record
    change_population(tmp_path / "0", "others", "other patients")
    with closing(Ledger.open(tmp_path / "0" / LEDGER_FILE, "others")) as ledger:
        ledger.check_persons("blocks 5")


def test_records_are_checked_before_a_training_and_noted_after_it(tmp_path, monkeypatch):
    calls = []

    def refuse(folder, population, ids):
        raise LedgerError("seen under another population")

    monkeypatch.setattr(silo_maker, "check_records", refuse)
    with pytest.raises(LedgerError, match="seen under another population"):
        make_silos(config(), tmp_path)
    assert not (tmp_path / "0" / WEIGHTS_FILE).exists()
    monkeypatch.setattr(silo_maker, "check_records", lambda folder, population, ids: None)
    monkeypatch.setattr(silo_maker, "note_records", lambda *given: calls.append(given))
    make_silos(config(), tmp_path)
    assert [(folder.name, population, len(ids)) for folder, population, ids in calls] == [
        ("0", "silo-0", 40),
        ("1", "silo-1", 40),
    ]


def test_a_missing_ledger_is_not_begun_afresh(tmp_path):
    make_silos(config(), tmp_path)
    (tmp_path / "0" / LEDGER_FILE).unlink()
    for change in ({}, {"teachers": {"epochs": 2}}):
        with pytest.raises(LedgerError, match=r"ledger\.sqlite': is missing; restore it"):
            make_silos(config(**change), tmp_path)


def test_a_population_gets_no_second_ledger_also_where_ledger_mark_and_teacher_are_gone(tmp_path):
    make_silos(config(), tmp_path)
    for name in (LEDGER_FILE, MARK_FILE):
        (tmp_path / "0" / name).unlink()
    with pytest.raises(LedgerError, match=r"records.seen lists 40 .*fedcpsc ledger restore"):
        begin_ledger(tmp_path / "0")
    for name in (WEIGHTS_FILE, MANIFEST_FILE):
        (tmp_path / "0" / name).unlink()
    with pytest.raises(LedgerError, match=r"records.seen lists 40 .*fedcpsc ledger restore"):
        make_silos(config(), tmp_path)
    assert not (tmp_path / "0" / LEDGER_FILE).exists()


@pytest.mark.parametrize(
    ("name", "damage"), [(WEIGHTS_FILE, "cut"), (MANIFEST_FILE, "cut"), (MANIFEST_FILE, "gone")], ids=str
)
def test_a_damaged_teacher_is_refused_and_nothing_is_overwritten(name, damage, tmp_path):
    make_silos(config(), tmp_path)
    spend(tmp_path / "0")
    path = tmp_path / "0" / name
    original = path.read_bytes()
    if damage == "cut":
        path.write_bytes(original[:-9])
    else:
        path.unlink()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for again in (config(), config(teachers={"epochs": 2})):
        with pytest.raises(
            ManifestError, match="no whole teacher, so nothing is overwritten.*; restore .* from a backup"
        ):
            make_silos(again, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    path.write_bytes(original)
    assert all(report.reused for report in make_silos(config(), tmp_path))


def test_a_trained_teacher_whose_weights_are_gone_is_made_again(tmp_path):
    make_silos(config(), tmp_path)
    spend(tmp_path / "0")
    (tmp_path / "0" / WEIGHTS_FILE).unlink()
    manifest = load_manifest(tmp_path / "0")
    assert [report.reused for report in make_silos(config(), tmp_path)] == [False, True]
    assert load_manifest(tmp_path / "0").weights_sha256 == manifest.weights_sha256  # the same data, the same seed
    assert spent(tmp_path / "0") == 7


def test_a_silo_of_the_version_before_populations_is_migrated_by_a_command_alone(tmp_path):
    make_silos(config(), tmp_path)
    path = tmp_path / "0" / MANIFEST_FILE
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 1'))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ManifestError, match="fedcpsc ledger migrate"):
        make_silos(config(), tmp_path)
    assert {path: path.read_bytes() for path in before} == before


def test_the_configured_policy_is_written_until_its_owner_edits_it(tmp_path):
    make_silos(config(), tmp_path)
    changed = config(silos={"count": 2, "partition": {"kind": "iid"}, "policy": {"answers": 400}})
    reports = make_silos(changed, tmp_path)
    assert [report.reused for report in reports] == [True, True]
    assert load_policy(tmp_path / "0" / POLICY_FILE).answers == 400
    (tmp_path / "0" / POLICY_FILE).write_text("answers: 30\n")
    for again in (config(), changed, config(teachers={"epochs": 2})):
        reports = make_silos(again, tmp_path)
        assert [report.policy_kept for report in reports] == [True, False]
        assert "policy.yaml was edited by its owner and kept" in str(reports[0])
        assert load_policy(tmp_path / "0" / POLICY_FILE).answers == 30


def test_simulated_silos_let_their_answers_be_handed_on_and_one_made_alone_does_not(tmp_path):
    def agreed(base, silos=(0, 1)):
        return [load_policy(tmp_path / base / str(silo) / POLICY_FILE).share_answers for silo in silos]

    make_silos(config(), tmp_path / "all")
    assert agreed("all") == [True, True]
    make_silos(config(), tmp_path / "owner", only=1)
    assert agreed("owner", [1]) == [False]
    differ = ({}, {"share_answers": False})
    make_silos(config(silos={"count": 2, "partition": {"kind": "iid"}, "policies": differ}), tmp_path / "differ")
    assert agreed("differ") == [True, False]
    said = {"count": 2, "partition": {"kind": "iid"}, "policy": {"share_answers": True}}
    make_silos(config(silos=said), tmp_path / "said", only=0)
    assert agreed("said", [0]) == [True]


def test_an_owners_broken_policy_is_not_overwritten(tmp_path):
    make_silos(config(), tmp_path)
    (tmp_path / "1" / POLICY_FILE).write_text("answer: 30\n")
    with pytest.raises(PolicyError, match="answer: unknown key; the nearest valid one is 'answers'"):
        make_silos(config(), tmp_path)


def test_architectures_are_dealt_round_robin(tmp_path):
    mixed = config(
        teachers={"architecture": ["convnet", "lenet5"]},
        silos={"count": 3, "partition": {"kind": "iid"}, "policy": {}},
    )
    assert [report.architecture for report in make_silos(mixed, tmp_path)] == ["convnet", "lenet5", "convnet"]
    assert load_manifest(tmp_path / "1").architecture == "lenet5"


def test_owners_may_differ_in_their_policies(tmp_path):
    differ = [{"forms": ["label"]}, {"answers": 7, "images_per_query": 3}]
    mixed = config(silos={"count": 3, "partition": {"kind": "iid"}, "policy": {"answers": 50}, "policies": differ})
    make_silos(mixed, tmp_path)
    found = [load_policy(tmp_path / str(silo) / POLICY_FILE) for silo in range(3)]
    assert [policy.answers for policy in found] == [50, 7, 50]
    assert [policy.forms[0].value for policy in found] == ["label", "probabilities", "label"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"teachers": {"architecture": ["convnet", "resnet19"]}},
            "architecture='resnet19': unknown; the nearest is 'resnet1",
        ),
        ({"teachers": {"training": {"kind": "magic"}}}, "teachers.training.kind='magic'"),
        ({"silos": {"policy": {"answer": 1}}}, "silos.policy: answer: unknown key"),
        ({"silos": {"policy": {"answers": 0}}}, "silos.policy: answers=0"),
        ({"silos": {"policies": [{}, {"form": ["label"]}]}}, "silos.policy: form: unknown key.*forms"),
    ],
)
def test_bad_configuration_is_found_before_anything_is_made(change, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        make_silos(config(**change), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_held_out_images_of_another_size_are_refused(tmp_path):
    write_parquet(tmp_path / "train.parquet", [png(p) for p in pictures(8)], [0, 1] * 4)
    write_parquet(tmp_path / "test.parquet", [png(p) for p in pictures(2, size=7)], [0, 1])
    files = config(data={"source": "parquet", "path": str(tmp_path)})
    with pytest.raises(
        DataError, match=r"evaluation images=\(1, 7, 7\): silo-0's images are \(1, 6, 6\); set data.image_size"
    ):
        make_silos(files, tmp_path / "silos")


def test_own_files_make_silos_with_nothing_held_out(tmp_path):
    for silo in range(2):
        write_parquet(tmp_path / str(silo) / "train.parquet", [png(p) for p in pictures(6, seed=silo)], [0, 1, 2] * 2)
    own = config(
        data={"source": "parquet", "path": str(tmp_path)},
        silos={"count": 2, "partition": {"kind": "own_files"}, "policy": {}},
    )
    reports = make_silos(own, tmp_path / "silos")
    assert [report.train_size for report in reports] == [6, 6]
    assert [report.accuracy for report in reports] == [None, None]
    assert load_manifest(reports[0].folder).dataset_id != load_manifest(reports[1].folder).dataset_id


def test_an_owner_makes_one_silo_on_a_machine_of_its_own_and_gets_the_very_same(tmp_path):
    said = {"count": 2, "partition": {"kind": "iid"}, "policy": {"answers": 500, "share_answers": False}}
    make_silos(config(silos=said), tmp_path / "all")
    (alone,) = make_silos(config(silos=said), tmp_path / "own", only=1)
    assert [folder.name for folder in (tmp_path / "own").iterdir()] == ["1"]
    assert load_manifest(alone.folder) == load_manifest(tmp_path / "all" / "1")
    make_silos(config(), tmp_path / "agreed")  # where nothing is said, the policies differ and the teachers do not
    simulated = load_manifest(tmp_path / "agreed" / "1")
    assert simulated.policy_sha256 != load_manifest(alone.folder).policy_sha256
    assert simulated.model_copy(update={"policy_sha256": None}) == load_manifest(alone.folder).model_copy(
        update={"policy_sha256": None}
    )
    with pytest.raises(DataError, match=r"silo=2: must be in \[0, 2\)"):
        make_silos(config(), tmp_path / "own", only=2)


def own_pictures(root, names=("ant", "bee"), size=(6, 6), count=40) -> dict:
    """The data section of a folder of pictures, 28 to train on and 12 held out of 40."""
    values = np.random.default_rng(3).integers(0, 256, (count, *size), dtype=np.uint8)
    write_folder(root / "train", values, list(names) * (count // len(names)), list(names))
    return {"source": "folder", "path": str(root), "train_limit": None, "test_limit": None}


def test_names_and_resizing_stand_in_the_manifest_and_follow_the_data_without_a_training(tmp_path):
    data = own_pictures(tmp_path / "data")
    chosen = config(data={**data, "resize": "pad"}, silos={"count": 1})
    make_silos(chosen, tmp_path / "silos")
    manifest = load_manifest(tmp_path / "silos" / "0")
    assert (manifest.class_names, manifest.resize) == (("ant", "bee"), "pad")
    (tmp_path / "data" / "train" / "bee").rename(tmp_path / "data" / "train" / "wasp")
    (report,) = make_silos(config(data=data, silos={"count": 1}), tmp_path / "silos")
    renamed = load_manifest(tmp_path / "silos" / "0")
    assert report.reused
    assert (renamed.class_names, renamed.resize) == (("ant", "wasp"), "squash")
    assert renamed.weights_sha256 == manifest.weights_sha256


def test_each_reading_is_shown_once_before_anything_is_trained_on_it(tmp_path):
    shown: list[str] = []
    make_silos(config(), tmp_path, shown.append, None, lambda reading: shown.append(next(reading.lines())))
    assert shown == [
        "held-out images: 60 in 10 classes, from digits",
        "images to train on: 80 in 10 classes, from digits",
        "silo-0: training convnet on 40 images",
        "silo-1: training convnet on 40 images",
    ]


@pytest.mark.parametrize(
    ("teachers", "size", "message"),
    [
        ({"batch_size": 1, "architecture": "resnet18_narrow"}, (8, 8), r"teachers.batch_size=1: batch norm, which"),
        ({}, (3, 9), r"image_shape.*\(1, 3, 9\).*at least \(1, 4, 4\)"),
    ],
)
def test_what_cannot_be_trained_is_a_fault_of_the_configuration_before_a_ledger_is_begun(
    teachers, size, message, tmp_path
):
    chosen = config(data=own_pictures(tmp_path / "data", size=size), silos={"count": 1}, teachers=teachers)
    with pytest.raises(ConfigError, match=message):
        make_silos(chosen, tmp_path / "silos")
    assert not (tmp_path / "silos" / "0").exists()


def test_wide_images_make_a_teacher(tmp_path):
    chosen = config(data=own_pictures(tmp_path / "data", size=(8, 300), count=8), silos={"count": 1})
    (report,) = make_silos(chosen, tmp_path / "silos")
    assert load_manifest(report.folder).image_shape == (1, 8, 300)
