# SPDX-License-Identifier: Apache-2.0
"""Images set aside of a silo, those of an owner's own, and a whole run whose student real silos judge."""

import contextlib
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.inproc_grid import InProcGrid
from support.judged_students import a_manifest
from support.picture_sources import png

import clients.app
from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet
from fedcpsc.data.set_aside import set_aside
from fedcpsc.data.silo_images import load_silo_train, parts_of_silos
from fedcpsc.data.units import record_ids
from fedcpsc.distillation.evaluate import accuracy, predicted_classes
from fedcpsc.distillation.run import distill
from fedcpsc.errors import PolicyError
from fedcpsc.gatekeeper.evaluation_policy import EvaluationPolicy
from fedcpsc.gatekeeper.held_out import read_held_out
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.gatekeeper.seen_records import note_records
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
from fedcpsc.runs.metrics import read_metrics
from fedcpsc.runs.read import gather
from fedcpsc.runs.student import load_student
from fedcpsc.silos.held_out import write_held_out
from fedcpsc.silos.make import make_silos
from fedcpsc.simulated.one_process import run_local
from fedcpsc.teachers.manifest import load_manifest
from server.flower_transport import FlowerTransport


def config(**sections) -> RunConfig:
    tree = {
        "data": {"train_limit": 160, "test_limit": 40},
        "silos": {
            "count": 2,
            "partition": {"kind": "iid"},
            "policy": {"answers": 500, "evaluation": {"evaluations": 2, "public_size": True}},
            "held_out": 0.3,
        },
        "teachers": {"width": 4, "epochs": 1},
        "queries": {"answers_per_silo": 40, "rounds": 2},
        "student": {"width": 4, "steps_per_round": 2, "final_steps": 4, "batch_size": 16},
        "synthesis": {"steps": 2, "batch_size": 16, "width": 4},
        "evaluation": {"at_silos": True},
        "output": {"name": "judged"},
        "runtime": {"device": "cpu", "threads": 1},
    }
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values}
    return RunConfig.model_validate(tree)


def some_images(count=200, persons=None) -> ImageSet:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)
    return ImageSet(images, rng.integers(0, 3, count), 3, persons=persons)


def keys(images: ImageSet) -> set[bytes]:
    return {image.tobytes() for image in images.images}


def test_one_unit_more_or_less_moves_no_other_to_the_other_side():
    whole = some_images()
    train, held = set_aside(whole, 0.3, seed=1)
    assert keys(train) | keys(held) == keys(whole)
    assert not keys(train) & keys(held)
    assert 30 <= len(held) <= 90  # binomial, 200 at 0.3: further off with a chance below 1e-5
    less_train, less_held = set_aside(whole.subset(np.arange(1, 200)), 0.3, seed=1)
    assert keys(less_train) == keys(train) - {whole.images[0].tobytes()}
    assert keys(less_held) == keys(held) - {whole.images[0].tobytes()}
    assert keys(set_aside(whole, 0.3, seed=2)[1]) != keys(held)


def test_a_person_is_set_aside_with_all_images():
    persons = np.array([f"p{i // 5}" for i in range(200)], np.str_)
    train, held = set_aside(some_images(persons=persons), 0.3, seed=1)
    assert not set(train.persons) & set(held.persons)
    assert len(held) == 5 * held.person_count


def test_what_is_set_aside_is_trained_on_by_nobody_and_comes_back_from_the_silos_folder(tmp_path):
    rules = config()
    make_silos(rules, tmp_path)
    for silo, train, held in parts_of_silos(rules, [0, 1]):
        manifest, section = load_manifest(tmp_path / str(silo)), EvaluationPolicy(evaluations=1)
        assert manifest.train_size == len(train) == len(load_silo_train(rules, silo))
        assert not keys(train) & keys(held)
        found = read_held_out(tmp_path / str(silo), section, manifest)
        np.testing.assert_array_equal(found.images, held.images)
        np.testing.assert_array_equal(found.labels, held.labels)
        assert (tmp_path / str(silo) / "held_out/train.parquet").stat().st_mode & 0o077 == 0


def test_of_a_person_only_so_many_images_count_as_the_noise_covers(tmp_path):
    persons = np.array(["a"] * 7 + ["b"] * 2 + ["c"], np.str_)
    images = some_images(10, persons=persons)
    write_held_out(tmp_path, images)
    manifest = a_manifest(unit="person", class_names=None)
    found = read_held_out(tmp_path, EvaluationPolicy(evaluations=1, images_per_person=3), manifest)
    np.testing.assert_array_equal(found.images, images.images[[0, 1, 2, 7, 8, 9]])
    assert "4 of 10 images" in found.notes[0]
    write_held_out(tmp_path, replace(images, persons=None))
    with pytest.raises(PolicyError, match="evaluation.images"):
        read_held_out(tmp_path, EvaluationPolicy(evaluations=1), manifest)


def of_a_folder(**images) -> EvaluationPolicy:
    return EvaluationPolicy.model_validate({"evaluations": 1, "images": {"path": "mine", **images}})


def test_an_owners_own_pictures_are_read_by_the_names_of_their_classes(tmp_path):
    rng = np.random.default_rng(0)
    shown = {name: rng.integers(0, 256, (1, 8, 8), dtype=np.uint8) for name in ("cat", "ant")}
    for name, image in shown.items():
        (tmp_path / "mine/test" / name).mkdir(parents=True)
        (tmp_path / "mine/test" / name / "0.png").write_bytes(png(image[0]))
    found = read_held_out(tmp_path, of_a_folder(), a_manifest())
    assert sorted(found.labels.tolist()) == [0, 2]  # of ant, bee, cat
    place = found.labels.tolist().index(2)
    np.testing.assert_array_equal(found.images[place], shown["cat"])
    (tmp_path / "mine/test/dog").mkdir()
    (tmp_path / "mine/test/dog/0.png").write_bytes(png(shown["cat"][0]))
    with pytest.raises(PolicyError, match="'dog' is no class of the silo"):
        read_held_out(tmp_path, of_a_folder(), a_manifest())
    assert len(read_held_out(tmp_path, of_a_folder(classes=("cat", "ant")), a_manifest())) == 2
    with pytest.raises(PolicyError, match="cannot be read"):
        read_held_out(tmp_path, of_a_folder(path="nowhere"), a_manifest())


def numbered(folder, labels, names=None):
    """Writes the owner's own test.parquet with numbers for labels, which the file names or not."""
    rng = np.random.default_rng(0)
    shown = [{"bytes": png(rng.integers(0, 256, (8, 8), dtype=np.uint8)), "path": None} for _ in labels]
    table = pa.table({"image": pa.array(shown), "label": pa.array(labels, pa.int64())})
    if names is not None:
        features = {"label": {"_type": "ClassLabel", "names": list(names)}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    (folder / "mine").mkdir(exist_ok=True)
    pq.write_table(table, folder / "mine/test.parquet")
    return of_a_folder(source="parquet")


def test_where_classes_can_only_be_matched_by_number_the_owner_is_told_which_is_which(tmp_path):
    section = numbered(tmp_path, [0, 1, 2])
    found = read_held_out(tmp_path, section, a_manifest())
    assert found.labels.tolist() == [0, 1, 2]
    assert found.notes[-1].endswith("are taken for the silo's by their order: 0 is 'ant', 1 is 'bee', 2 is 'cat'")
    found = read_held_out(tmp_path, numbered(tmp_path, [0, 1]), a_manifest())
    assert found.notes[-1] == "they are of 2 classes, and the silo has 3"
    section = numbered(tmp_path, [0, 1, 2], ["cat", "ant", "bee"])
    found = read_held_out(tmp_path, section, a_manifest())
    assert (found.labels.tolist(), found.notes) == ([2, 0, 1], ())
    found = read_held_out(tmp_path, section, a_manifest(class_names=None))
    assert found.notes[-1].endswith("by their order: 'cat' is 0, 'ant' is 1, 'bee' is 2")


def test_the_owner_is_told_how_the_images_were_read_and_what_was_left_out(tmp_path):
    for name in ("cat", "ant"):
        (tmp_path / "mine/test" / name / "below").mkdir(parents=True)
        Image.new("RGBA", (8, 8), (9, 9, 9, 0)).save(tmp_path / "mine/test" / name / "below/0.png")
        (tmp_path / "mine/test" / name / "notes.txt").write_text("no picture")
    told = " | ".join(read_held_out(tmp_path, of_a_folder(), a_manifest()).notes)
    assert "lie in folders below their class's own" in told
    assert "left out: 2" in told
    assert "transparent" in told


def test_the_owner_is_told_of_images_that_were_trained_on(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 1, 8, 8), dtype=np.uint8)
    for number, image in enumerate(images):
        of_class = tmp_path / "mine/test" / ("cat" if number < 5 else "ant")
        of_class.mkdir(parents=True, exist_ok=True)
        (of_class / f"{number}.png").write_bytes(png(image[0]))
    assert read_held_out(tmp_path, of_a_folder(), a_manifest()).notes == ()
    cats = np.full(4, 2, np.int64)
    note_records(tmp_path, "patients", record_ids(images[:4], cats))
    found = read_held_out(tmp_path, of_a_folder(), a_manifest())
    assert len(found) == 6
    assert found.notes == ("4 of 6 images were trained on here: what is said of students is too good",)


def spent(folder) -> list[str]:
    with contextlib.closing(Ledger.read(folder / LEDGER_FILE)) as ledger:
        ledger.verify()
        return [row["mechanism"] for row in ledger.export() if row["kind"] == "charged" and not row["answers"]]


def judged_run(rules, folder):
    """The result of a run over silos that are made for it, whose numbers are held against the student of the folder."""
    make_silos(rules, folder / "silos")
    result = run_local(rules, folder / "run", folder / "silos", resume=False, on_line=lambda line: None)
    network = load_student(gather(folder / "run")).network
    parts = parts_of_silos(rules, range(rules.silos.count))
    for entry, (_, _, held) in zip(result["federated_evaluation"]["silos"], parts, strict=True):
        assert entry["right"] == round(accuracy(predicted_classes(network, held), held) * len(held))
    return result


def test_a_whole_run_in_one_process_is_judged_by_its_silos(tmp_path):
    rules = config()
    found = judged_run(rules, tmp_path)["federated_evaluation"]
    for entry, (silo, _, held) in zip(found["silos"], parts_of_silos(rules, [0, 1]), strict=True):
        assert (entry["images"], entry["dp"], entry["reason"]) == (len(held), False, None)
        assert spent(tmp_path / "silos" / str(silo)) == ["evaluation exact"]
    assert found["pooled"]["images"] == sum(entry["images"] for entry in found["silos"])


def test_real_silos_tell_of_classes_and_other_biases_are_tried_at_the_price_of_an_evaluation_each(tmp_path):
    policy = {"answers": 500, "evaluation": {"evaluations": 5, "public_size": True, "per_class": True}}
    rules = config(silos={"policy": policy})
    result = judged_run(rules, tmp_path)
    found = result["federated_evaluation"]
    for silo in range(2):
        assert spent(tmp_path / "silos" / str(silo)) == ["evaluation exact per class"] * 4
    made = found["adjustment"]
    assert made["accuracy_before"] is not None
    assert found["pooled"]["accuracy"] >= made["before"]["accuracy"]
    last = [line for line in read_metrics(tmp_path / "run") if "student_accuracy" in line][-1]
    assert last["student_accuracy"] == result["student"]["accuracy"]


def test_the_same_through_flowers_messages_and_the_clientapp_under_a_dp_policy(tmp_path):
    noisy = {"evaluations": 3, "public_size": True, "sigma": 3.0, "per_class": True}
    mechanism = {"kind": "noise_only", "sigma": 50.0, "epsilon": 8.0, "accept_large_delta": True}
    rules = config(silos={"policy": {"answers": 500, "evaluation": noisy, "mechanism": mechanism}})
    make_silos(rules, tmp_path / "silos")
    gatekeepers = [open_gatekeeper(tmp_path / "silos" / str(silo)) for silo in range(2)]
    grid = InProcGrid(clients.app.app, [{"silo-dir": str(tmp_path / "silos" / str(silo))} for silo in range(2)])
    transport = FlowerTransport(grid, ttl_s=60)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                clients.app, "target_of", lambda node, *_: gatekeepers[int(str(node["silo-dir"]).rpartition("/")[2])]
            )
            result = distill(rules, transport, tmp_path / "run")
    finally:
        transport.close()
        grid.close()
        for gatekeeper in gatekeepers:
            gatekeeper.close()
    for silo, entry in enumerate(result["federated_evaluation"]["silos"]):
        assert (entry["sigma"], entry["dp"], entry["epsilon"], entry["reason"]) == (3.0, True, 8.0, None)
        told = spent(tmp_path / "silos" / str(silo))  # noise outweighs 25 images of 10 classes: nothing else is tried
        assert told == ["evaluation sigma=3.0 images_per_unit=1 per class"]
