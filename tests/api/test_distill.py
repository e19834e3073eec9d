# SPDX-License-Identifier: Apache-2.0
"""A run of the Python API, and what it leaves: the student, the bank, the curve, the page."""

import csv
import gc
import random
import re
import threading
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.tiny_modules import CLASSES, SHAPE, Brightness, equal, federation, held_out, run, weights
from torch import nn

import fedcpsc
from fedcpsc.errors import BankError, ConfigError, DataError, FederationError, RunError
from fedcpsc.runs.layout import REPORT_FILE
from fedcpsc.runs.read import gather


@pytest.fixture(scope="module")
def silos():
    with federation() as made:
        yield made


@pytest.fixture(scope="module")
def done(silos, tmp_path_factory):
    """A finished run that nobody changes."""
    return run(silos, held_out=held_out(), folder=tmp_path_factory.mktemp("runs") / "done")


def test_the_student_is_a_module_that_gives_logits_of_pixels_and_probabilities_of_images(done):
    images, _ = held_out()
    student = done.student
    assert isinstance(student, nn.Module)
    assert not student.training
    logits = student(torch.from_numpy(images) / 127.5 - 1)
    expected = torch.softmax(logits, 1).detach().numpy()
    np.testing.assert_allclose(done.predict(images), expected, atol=1e-5)
    np.testing.assert_allclose(done.predict(torch.from_numpy(images[:, 0])), expected, atol=1e-5)
    assert done.student is student


def test_the_result_has_attributes_and_says_what_the_file_says(done):
    result = done.result
    assert result.student.accuracy == pytest.approx((done.predict(held_out()[0]).argmax(1) == held_out()[1]).mean())
    assert result.ensemble.accuracy == result.best_teacher == 1.0
    assert [(silo.id, silo.answers) for silo in result.silos] == [(f"silo-{i}", 60) for i in range(3)]
    assert (result.classes, result.class_names, result.image_shape) == (3, tuple(CLASSES), SHAPE)
    assert result.file == gather(done.folder).result
    assert result.file["simulated"]
    with pytest.raises(AttributeError):
        result.seed = 2


def test_it_is_exported_also_with_class_biases_of_unlabelled_images(done, tmp_path):
    before = weights(done)
    plain = load_file(done.export("safetensors", tmp_path / "plain"))
    images = held_out()[0]
    shares = dict(zip(CLASSES, np.array([1, 1, 8]), strict=True))
    fitted = load_file(done.export("safetensors", tmp_path / "fitted", unlabelled=images, class_shares=shares))
    moved = [name for name in plain if not torch.equal(plain[name], fitted[name])]
    assert moved == ["head.bias"]
    shift = fitted["head.bias"] - plain["head.bias"]
    logits = torch.from_numpy(np.log(done.predict(images))) + shift
    assert torch.softmax(logits, 1).mean(0).numpy() == pytest.approx([0.1, 0.1, 0.8], abs=0.05)
    assert equal(weights(done), before), "the run's own stays as it was fitted"
    assert "stated class shares" in (tmp_path / "fitted" / "README.md").read_text(encoding="utf-8")


def test_an_export_that_cannot_be_is_refused_before_it_is_written(done, silos, tmp_path):
    images = held_out()[0]
    for wrong, error, words in [
        ({"file_format": "pickle"}, ConfigError, "must be one of onnx, torch-export, safetensors"),
        ({"unlabelled": images[:14]}, DataError, "at least 15 pictures, 5 for each class"),
        ({"unlabelled": images[:, :, :4]}, DataError, "must be images of the silos' shape"),
        ({"unlabelled": images, "class_shares": {CLASSES[0]: 1}}, ConfigError, f"lacks {CLASSES[1]}"),
        ({"unlabelled": images, "class_shares": dict.fromkeys([*CLASSES, 1, "1"], 1)}, ConfigError, "two numbers"),
        ({"unlabelled": images, "class_shares": [1, 1, 8]}, ConfigError, "by its name"),
        ({"class_shares": {CLASSES[0]: 1}}, ConfigError, "say nothing without unlabelled pictures"),
    ]:
        with pytest.raises(error, match=re.escape(words)):
            done.export(**{"file_format": "safetensors", **wrong}, folder=tmp_path / "out")
        assert not (tmp_path / "out").exists()
    with pytest.raises(RunError, match="is temporary"):
        run(silos).export("safetensors")


def test_the_bank_holds_what_was_asked_and_answered(done, silos):
    bank = done.bank
    assert len(bank) == 60
    assert (bank.images.dtype, bank.images.shape) == (np.uint8, (60, *SHAPE))
    assert isinstance(bank.images, np.memmap)
    assert bank.rounds.tolist() == [1] * 20 + [2] * 20 + [3] * 20
    assert set(bank.answers) == set(silos.names)
    for name, member in zip(silos.names, silos.members, strict=True):
        answers = bank.answers[name]
        assert isinstance(answers, np.memmap)
        np.testing.assert_allclose(answers, member.facts.predict(np.array(bank.images)), atol=1 / 255)
        assert bank.answered(name).all()
        with pytest.raises(ValueError, match="read-only"):
            answers[0] = 0
    np.testing.assert_allclose(bank.targets.sum(1), 1, atol=1e-5)
    assert bank.pseudo_labels.shape == (60,)
    with pytest.raises(KeyError):
        bank.answers["nobody"]


def test_the_curve_is_a_table_for_csv_and_pandas(done, tmp_path):
    curve = done.curve
    assert [point.answers for point in curve.measured] == [20, 40, 60, 60]
    assert curve[-1].student_accuracy == done.result.student.accuracy
    rows = list(csv.DictReader(curve.to_csv(tmp_path / "curve.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == len(curve)
    assert rows[0]["phase"] == "round"
    assert float(rows[-1]["student_accuracy"]) == curve[-1].student_accuracy
    pandas = pytest.importorskip("pandas")
    frame = curve.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == list(curve.columns)
    with pytest.raises(RunError, match="cannot be written"):
        curve.to_csv(tmp_path / "nowhere" / "curve.csv")


def test_it_shows_itself_and_leaves_its_page(done):
    assert (done.folder / REPORT_FILE).is_file()
    page = done.report().read_text(encoding="utf-8")
    assert "fedcpsc.distill" in page
    assert "fedcpsc run config.yaml" not in page  # which could not have the modules
    assert "student" in repr(done)
    assert str(done.folder) in repr(done)
    assert done._repr_html_().startswith("<table>")
    assert done.curve._repr_html_().startswith("<table>")


def test_any_runs_folder_can_be_opened(done, tmp_path):
    again = fedcpsc.open_run(done.folder)
    assert again.federation is None
    assert equal(weights(again), weights(done))
    assert again.result == done.result
    with pytest.raises(RunError, match="is not the folder of a run"):
        fedcpsc.open_run(tmp_path)


def test_the_same_seed_gives_the_same_student_and_another_one_another(silos, done):
    again = run(silos, held_out=held_out())
    assert equal(weights(again), weights(done))
    assert not equal(weights(run(silos, seed=2)), weights(done))


def test_a_temporary_run_goes_with_its_object_and_a_bank_keeps_it_until_it_is_saved(silos, tmp_path):
    made = run(silos)
    bank, folder = made.bank, made.folder
    del made
    gc.collect()
    assert bank.answers["silo-0"].shape == (60, 3)
    del bank
    gc.collect()
    assert not folder.exists()
    made = run(silos)
    student = weights(made)
    kept, folder = made.save(tmp_path / "kept"), made.folder
    assert (kept, folder) == (tmp_path / "kept", tmp_path / "kept")
    assert not made.temporary
    with pytest.raises(RunError, match="is there already"):
        made.save(kept)
    del made
    gc.collect()
    assert equal(weights(fedcpsc.open_run(kept)), student)


def test_nothing_of_the_process_is_changed(silos):
    np.random.seed(3)  # noqa: NPY002 - the global stream is what is looked at
    random.seed(3)
    torch.manual_seed(3)
    own = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 3)).train()
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    streams = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        handlers = list(__import__("logging").getLogger("fedcpsc").handlers)
        run(silos, student=own, held_out=held_out(), config={"runtime": {"threads": 1}})
        assert torch.get_num_threads() == 2
        assert __import__("logging").getLogger("fedcpsc").handlers == handlers
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), streams[0])
    assert np.array_equal(np.random.get_state()[1], streams[1])  # noqa: NPY002
    assert random.getstate() == streams[2]
    assert equal(dict(own.state_dict()), before)
    assert own.training


def test_runs_in_several_threads_over_one_federation_are_each_what_they_are_alone(done):
    images = held_out()
    found, failed = {}, []
    with federation() as silos:

        def one(seed):
            try:
                found[seed] = run(silos, seed=seed, held_out=images)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=one, args=(seed,)) for seed in (1, 2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert equal(weights(found[1]), weights(done))
        assert equal(weights(found[2]), weights(run(silos, seed=2)))
        assert silos.silos[0].answers_left == 20_000 - 4 * 60


def test_a_students_module_of_ones_own_is_fitted_as_a_copy_and_comes_back_in_its_class(silos, tmp_path):
    class Mine(nn.Sequential):
        pass

    own = Mine(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    made = run(silos, student=own, held_out=held_out(), folder=tmp_path / "own")
    assert isinstance(made.student, Mine)
    assert made.result.student.architecture == "Mine"
    assert equal(dict(own.state_dict()), before)
    assert not equal(weights(made), before)
    again = fedcpsc.open_run(tmp_path / "own", student=own)
    assert equal(weights(again), weights(made))
    with pytest.raises(RunError, match=r"fedcpsc\.open_run"):
        fedcpsc.open_run(tmp_path / "own").student  # noqa: B018


def test_a_folder_that_holds_something_is_refused_gone_on_with_or_moved_aside(silos, done, tmp_path):
    folder = tmp_path / "run"
    first = run(silos, folder=folder)
    left = silos.silos[0].answers_left
    with pytest.raises(RunError, match="existing='resume'"):
        run(silos, folder=folder)
    assert run(silos, folder=folder, existing="resume").result == first.result
    assert silos.silos[0].answers_left == left
    with pytest.raises(RunError, match="began with another configuration"):
        run(silos, folder=folder, existing="resume", answers=90)
    run(silos, folder=folder, existing="overwrite")
    assert (tmp_path / "run.previous").is_dir()
    with pytest.raises(ConfigError, match="say one of refuse, resume, overwrite"):
        run(silos, folder=folder, existing="replace")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/mine.txt").write_text("mine")
    with pytest.raises(RunError, match=r"holds mine\.txt, and no run"):
        run(silos, folder=tmp_path / "notes")
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["mine.txt"]


def test_a_run_that_was_stopped_goes_on_and_pays_nothing_twice(done, tmp_path):
    class Stop(fedcpsc.Callback):
        def on_round(self, line):
            if line["round"] == 2:
                raise KeyboardInterrupt

    with federation() as silos:
        with pytest.raises(KeyboardInterrupt):
            run(silos, folder=tmp_path / "run", held_out=held_out(), callbacks=[Stop()])
        begun = fedcpsc.open_run(tmp_path / "run")
        assert not begun.finished
        assert len(begun.bank) == 40
        with pytest.raises(RunError, match="has not finished"):
            begun.result  # noqa: B018
        assert "2 of 3 rounds" in repr(begun)
        made = run(silos, folder=tmp_path / "run", held_out=held_out(), existing="resume")
        assert silos.silos[0].answers_left == 20_000 - 60
    assert equal(weights(made), weights(done))


def test_a_run_without_a_folder_that_was_stopped_says_where_what_was_paid_for_lies():
    class Stop(fedcpsc.Callback):
        def on_round(self, line):
            raise KeyboardInterrupt

    with federation() as silos:
        with pytest.raises(KeyboardInterrupt) as stopped:
            run(silos, callbacks=[Stop()])
        (note,) = stopped.value.__notes__
        folder = note.split("folder='")[1].split("'")[0]
        assert run(silos, folder=folder, existing="resume").finished
        assert silos.silos[0].answers_left == 20_000 - 60


def test_a_kept_run_over_modules_in_a_temporary_folder_goes_on_with_them_in_another(done, tmp_path):
    class Stop(fedcpsc.Callback):
        def on_round(self, line):
            raise KeyboardInterrupt

    with federation() as silos, pytest.raises(KeyboardInterrupt):
        run(silos, folder=tmp_path / "run", held_out=held_out(), callbacks=[Stop()])
    events = []

    class Events(fedcpsc.Callback):
        def on_start(self, start):
            events.append(start.resumed)

        def on_end(self, result):
            events.append("end")

    with federation() as silos:
        made = run(silos, folder=tmp_path / "run", held_out=held_out(), existing="resume", callbacks=[Events()])
        run(silos, folder=tmp_path / "run", held_out=held_out(), existing="resume", callbacks=[Events()])  # is done
    assert equal(weights(made), weights(done))
    assert events == [True, "end"]


def test_what_an_operator_would_be_told_stands_in_the_notes(tmp_path):
    with federation(models=[Brightness(20), Brightness(25)], policy=[{"answers": 20}, {}]) as silos:
        made = run(silos)
    assert any("silo-0" in note for note in made.notes)
    assert made.notes[0] in repr(made)
    assert made.notes[0].split()[0] in made._repr_html_()


def test_settings_may_be_sections_dotted_keys_or_a_file_and_arguments_go_first(silos, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "seed: 7\ndata: {source: digits}\nsilos: {count: 9}\nqueries: {answers_per_silo: 30, rounds: 2}\n"
        "student: {width: 4, final_steps: 5, steps_per_round: 2}\nsynthesis: {steps: 1, width: 4}\n"
    )
    config = fedcpsc.distill(silos, config=path, answers=20).config
    assert (config.seed, config.queries.answers_per_silo, config.queries.rounds) == (7, 20, 2)
    assert (config.data.source, config.silos.count) == ("arrays", 3)
    config = run(silos, student={"width": 6}, config={"evaluation.every": 2, "student": {"average": 0.5}}).config
    assert (config.student.width, config.student.average, config.evaluation.every) == (6, 0.5, 2)


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"config": {"student.widht": 4}}, ConfigError, "the nearest valid one is 'width'"),
        ({"config": {"silos": {"count": 2}}}, ConfigError, "leave that section out"),
        ({"config": "nowhere.yaml"}, ConfigError, "cannot be read"),
        ({"answers": 0}, ConfigError, "queries.answers_per_silo"),
        ({"student": "convnets"}, ConfigError, "the nearest is 'convnet'"),
        ({"student": nn.Linear(3, 3)}, ConfigError, "student='Linear'"),
        ({"folder": "runs/my run"}, ConfigError, "output.name"),
        ({"config": {"queries.form": "top_k"}}, FederationError, "offers"),
        ({"held_out": held_out()[0]}, DataError, "must be .images, labels"),
        ({"held_out": (held_out()[0] / 255, held_out()[1])}, DataError, "must be uint8"),
        ({"held_out": (held_out()[0].transpose(0, 2, 3, 1), held_out()[1])}, DataError, "move the channels"),
        ({"held_out": (held_out()[0][:, :, 1:], held_out()[1])}, DataError, "silos' shape"),
        ({"held_out": (held_out()[0], held_out()[1][:5])}, DataError, "one for each of 60"),
        ({"held_out": (held_out()[0], held_out()[1] + 1)}, DataError, r"must be in \[0, 3\)"),
        ({"held_out": (held_out()[0], ["pale"] * 60)}, DataError, "is none of dark, grey, bright"),
        ({"held_out": (held_out()[0], held_out()[1] * 1.0)}, DataError, "whole numbers or names"),
    ],
)
def test_bad_input_is_explained_and_nothing_is_paid(silos, asked, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    left = [silo.answers_left for silo in silos.silos]
    with pytest.raises(error, match=message):
        fedcpsc.distill(silos, **({"answers": 20, "rounds": 1} | asked))
    assert [silo.answers_left for silo in silos.silos] == left


def test_labels_may_be_names(silos, done):
    images, labels = held_out()
    named = run(silos, held_out=(torch.from_numpy(images), [CLASSES[label] for label in labels]))
    assert named.result.student.accuracy == done.result.student.accuracy


def test_a_page_that_cannot_be_drawn_is_a_warning(silos, monkeypatch):
    from fedcpsc.report import page

    def broken(folder):
        raise OSError("no ink")

    monkeypatch.setattr(page, "write_report", broken)
    with pytest.warns(RuntimeWarning, match="no ink.*the run is complete"):
        assert run(silos).finished


def test_a_run_without_a_bank_says_so(done, tmp_path):
    import shutil

    folder = fedcpsc.open_run(done.folder).save(tmp_path / "copy")
    shutil.rmtree(folder / "bank")
    with warnings.catch_warnings(), pytest.raises(BankError, match="has no answer bank"):
        fedcpsc.open_run(folder).bank  # noqa: B018
