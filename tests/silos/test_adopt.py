# SPDX-License-Identifier: Apache-2.0
"""A finished model becomes a silo whole or not at all, and nothing that is there is overwritten."""

import contextlib
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.adopted_silo import adopt as by_hand
from support.adopted_silo import onnx_model
from support.asked import ask, own_softmax
from support.own_models import HALF

from fedcpsc.errors import ConfigError, DataError, LedgerError, ManifestError, PolicyError, SiloError, TeacherError
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.gatekeeper.policy import POLICY_FILE, Policy, load_policy
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
from fedcpsc.logs import TextLines
from fedcpsc.silos import folder as silo_folder
from fedcpsc.silos.adoption import adopt as adoption
from fedcpsc.silos.adoption.adopt import adopt
from fedcpsc.silos.adoption.names_file import read_class_names
from fedcpsc.silos.adoption.own_pictures import look_at_pictures
from fedcpsc.silos.adoption.wishes import Wishes, named_normalisation, read_shape
from fedcpsc.teachers.manifest import MANIFEST_FILE, WEIGHTS_FILE, Normalisation, load_manifest
from fedcpsc.teachers.recognise import recognise
from fedcpsc.teachers.recognised import Hints

NAMES = tuple(f"digit {k}" for k in range(10))
SHAPE = (1, 8, 8)
WHOLE = Wishes(
    hints=Hints(image_shape=SHAPE), class_names=NAMES, normalisation="half", population="patients of clinic north"
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_model())
    return path


def test_the_folder_is_a_silo_whose_answers_are_the_models_own(model, tmp_path):
    found = adopt(model, tmp_path / "deep" / "north", WHOLE)
    folder = tmp_path / "deep" / "north"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [WEIGHTS_FILE, MANIFEST_FILE, POLICY_FILE, LEDGER_FILE, f"{LEDGER_FILE}-journal", "ledger.mark"]
    )
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert [path.name for path in folder.parent.iterdir()] == ["north"]
    manifest = load_manifest(folder)
    assert manifest == found.manifest
    assert (manifest.origin, manifest.silo, manifest.class_names) == ("adopted", "north", NAMES)
    assert (manifest.train_size, manifest.private_class_counts) == (None, None)
    assert load_policy(folder / POLICY_FILE) == found.policy
    assert 1 <= found.policy.service.batch_size <= 500
    images = np.random.default_rng(1).integers(0, 256, (20, *SHAPE), dtype=np.uint8)
    answer, spent = ask(folder, images)
    assert np.abs(answer - own_softmax(model, images)).max() <= 0.5 / 255 + 1e-6
    assert spent == 20


@pytest.mark.parametrize("last", ["Softmax", "LogSoftmax"])
def test_a_model_that_ends_in_a_softmax_or_its_logarithm_is_seen_and_answered_right(last, model, tmp_path):
    (tmp_path / "ended.onnx").write_bytes(onnx_model(last=last))
    found = adopt(tmp_path / "ended.onnx", tmp_path / "north", WHOLE)
    assert found.manifest.probabilities == (last == "Softmax")
    assert found.trial.warnings == ()
    images = np.random.default_rng(1).integers(0, 256, (20, *SHAPE), dtype=np.uint8)
    assert np.abs(ask(tmp_path / "north", images)[0] - own_softmax(model, images)).max() <= 0.5 / 255 + 1e-6


def test_a_manifest_by_hand_that_forgets_the_softmax_inside_is_warned_of_with_the_switch(tmp_path, caplog):
    by_hand(tmp_path / "north", onnx_model(last="Softmax"))
    open_gatekeeper(tmp_path / "north").close()
    warnings = [record for record in caplog.records if record.message == "the teacher may be wrong"]
    (warning,) = map(TextLines().format, warnings)
    assert "exceed 0.232" in warning
    assert "probabilities: true" in warning


def test_one_that_ends_in_a_sigmoid_for_each_class_is_refused(tmp_path):
    (tmp_path / "ended.onnx").write_bytes(onnx_model(last="Sigmoid"))
    with pytest.raises(ManifestError, match="do not sum to 1"):
        adopt(tmp_path / "ended.onnx", tmp_path / "north", WHOLE)
    assert not (tmp_path / "north").exists()


def test_an_empty_folder_is_taken_and_one_with_anything_in_it_is_left_as_it_is(model, tmp_path):
    (tmp_path / "empty").mkdir()
    adopt(model, tmp_path / "empty", WHOLE)
    before = {path.name: path.read_bytes() for path in (tmp_path / "empty").iterdir()}
    with pytest.raises(SiloError, match="holds ledger.mark, ledger.sqlite, .*nothing is overwritten"):
        adopt(model, tmp_path / "empty", WHOLE)
    assert {path.name: path.read_bytes() for path in (tmp_path / "empty").iterdir()} == before
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / ".notes").write_text("mine")
    for there in (tmp_path / "own", model):
        with pytest.raises(SiloError, match=r"nothing is overwritten|is a file"):
            adopt(model, there, WHOLE)
    assert [path.name for path in (tmp_path / "own").iterdir()] == [".notes"]


@pytest.mark.parametrize(
    ("module", "broken"),
    [
        (adoption, "save_manifest"),
        (adoption, "try_under_policy"),
        (adoption, "save_policy"),
        (adoption, "begin_ledger"),
        (adoption, "batch_that_fits"),
        (silo_folder, "sync"),
    ],
)
def test_whatever_fails_nothing_stays(module, broken, model, tmp_path, monkeypatch):
    def fail(*args, **more):
        raise TeacherError("a fault")

    monkeypatch.setattr(module, broken, fail)
    elsewhere = tmp_path / "other volume"
    elsewhere.mkdir()
    wishes = dataclasses.replace(WHOLE, policy=Policy(high_water_mark=str(elsewhere / "mark")))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(TeacherError, match="a fault"):
        adopt(model, tmp_path / "north", wishes)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_mark_that_belongs_to_another_ledger_is_left_and_the_silo_not_made(model, tmp_path):
    mark = tmp_path / "mark"
    wishes = dataclasses.replace(WHOLE, policy=Policy(high_water_mark=str(mark)))
    adopt(model, tmp_path / "north", wishes)
    before = mark.read_bytes()
    with pytest.raises(LedgerError, match="belongs to an earlier ledger"):
        adopt(model, tmp_path / "south", wishes)
    assert mark.read_bytes() == before
    assert not (tmp_path / "south").exists()


def test_all_that_is_missing_is_asked_for_at_once_with_the_option_for_each(model, tmp_path):
    with pytest.raises(ConfigError) as error:
        adopt(model, tmp_path / "north", Wishes())
    lines = str(error.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "--classes names.txt",
        "--normalisation NAME",
        "--population NAME",
    ]
    assert "of its 10 outputs" in lines[1]
    assert not (tmp_path / "north").exists()


def test_the_policy_that_its_owner_wrote_is_kept_with_its_batch_size(model, tmp_path):
    policy = Policy.model_validate({"answers": 77, "service": {"batch_size": 3}})
    found = adopt(model, tmp_path / "north", dataclasses.replace(WHOLE, policy=policy))
    assert load_policy(tmp_path / "north" / POLICY_FILE) == policy == found.policy
    assert found.trial.batch_size == 3
    with contextlib.closing(Ledger.read(tmp_path / "north" / LEDGER_FILE)) as ledger:
        assert ledger.status().budget.answers == 77
        assert ledger.status().population == "patients of clinic north"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"class_names": NAMES[:7]}, ManifestError, "7.*the model has 10"),
        ({"class_names": (*NAMES, "eleven")}, ManifestError, "11.*the model has 10"),
        ({"hints": Hints(image_shape=(1, 9, 9))}, ManifestError, "9"),
        ({"hints": Hints(image_shape=(3, 8, 8))}, ManifestError, "8"),
        ({"normalisation": "imagenet"}, ConfigError, "is of 3 channels, and the images have 1"),
        ({"kind": "torch"}, ManifestError, "is read as kind onnx; leave --kind out, or say onnx"),
        ({"class_counts": (1, 2)}, ConfigError, "--class-counts.*10 numbers"),
        ({"policy": Policy.model_validate({"mechanism": {"kind": "gnmax", "epsilon": 1.0, "delta": 1e-6, "sigma": 9}})},
         PolicyError, "shards"),
        ({"policy": Policy(share_class_counts=True)}, PolicyError, "class counts of this teacher are not known"),
    ],
    ids=["too few names", "too many names", "size", "channels", "imagenet", "kind", "counts", "mechanism", "share"],
)  # fmt: skip
def test_what_does_not_fit_the_model_is_explained_and_nothing_is_made(change, error, message, model, tmp_path):
    with pytest.raises(error, match=message):
        adopt(model, tmp_path / "north", dataclasses.replace(WHOLE, **change))
    assert not (tmp_path / "north").exists()


def test_another_resizing_than_the_models_folder_says_is_told(model, tmp_path, monkeypatch):
    found = dataclasses.replace(recognise(model, WHOLE.hints), resize="crop")
    monkeypatch.setattr(adoption, "recognise", lambda path, hints: dataclasses.replace(found, normalisation=HALF))
    told = "warning: resizing by pad is taken as you say, although the model's folder says crop"
    padded = adopt(model, tmp_path / "0", dataclasses.replace(WHOLE, resize="pad"))
    assert (padded.manifest.resize, told in padded.notes) == ("pad", True)
    assert adopt(model, tmp_path / "1", dataclasses.replace(WHOLE, resize="crop")).notes == found.notes


def test_counts_that_are_said_are_kept(model, tmp_path):
    found = adopt(model, tmp_path / "0", dataclasses.replace(WHOLE, class_counts=tuple(range(10))))
    assert (found.manifest.train_size, found.manifest.private_class_counts) == (45, tuple(range(10)))
    assert found.manifest.silo == "silo-0"
    shared = Policy(share_class_counts=True)
    found = adopt(model, tmp_path / "1", dataclasses.replace(WHOLE, class_counts=(1,) * 10, policy=shared))
    open_gatekeeper(tmp_path / "1").close()


class TestNames:
    def names(self, tmp_path, text, encoding="utf-8"):
        (tmp_path / "names.txt").write_bytes(text.encode(encoding))
        return read_class_names(tmp_path / "names.txt")

    def test_a_line_is_a_name(self, tmp_path):
        assert self.names(tmp_path, "cat\r\nbig dog \n\thorse\n\n") == ("cat", "big dog", "horse")
        assert self.names(tmp_path, "Löwe\nBär", "utf-8-sig") == ("Löwe", "Bär")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "names no class"),
            ("\n \n", "names no class"),
            ("cat\n\ndog\n", "line 2 is empty"),
            ("cat\ndog\ncat", "'cat': is there twice"),
            ("cat\ndog\nCat", "'Cat': differs from 'cat' by case or space alone"),
            ("big dog\nbigdog", "differs from 'big dog' by case or space alone"),
            ("cat\n" + "x" * 101, "must be 1 to 100 printable characters"),
            ("cat\nd\x07g", "must be 1 to 100 printable characters"),
        ],
    )
    def test_what_is_no_list_of_names_is_explained(self, tmp_path, text, message):
        with pytest.raises(ConfigError, match=message):
            self.names(tmp_path, text)

    @pytest.mark.parametrize(
        "text",
        [
            "2 horse\n0 cat\n1 big dog\n",
            "1: big dog\n0: cat\n2: horse",
            "0. cat\n1. big dog\n2. horse",
            "big dog,1\ncat,0\nhorse,2",
            "horse\t2\nbig dog\t1\ncat\t0",
            '{"cat": 0,\n"horse": 2,\n"big dog": 1}',
            '{"1": "big dog", "0": "cat", "2": "horse"}',
            '[\n "cat",\n "big dog",\n "horse"\n]',
        ],
    )
    def test_numbered_lines_and_json_go_by_their_numbers_and_that_is_told(self, text, tmp_path):
        (tmp_path / "names.txt").write_text(text)
        notes = []
        assert read_class_names(tmp_path / "names.txt", notes) == ("cat", "big dog", "horse")
        assert len(notes) == 1
        assert notes[0].endswith("output 0 is 'cat'")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("- cat\n- dog\n- horse", "every line begins with a dash, as in YAML; write one name a line"),
            ('"cat"\n"dog"\n', "every line is in quotes"),
            ("'cat',\n'dog',\n", "every line is in quotes"),
            ("cat,\ndog,\nhorse", "but the last ends with a comma"),
            ("nc: 2\nnames:\n  0: cat\n  1: dog", "has the line 'nc: 2', as in YAML"),
            ("cat,dog,horse", "has one line alone, with several names in it"),
            ('{"cat": 1, "dog": 2}', "looks like JSON"),
            ('["cat", "dog"', "one line alone"),
            ("1 cat\n2 dog\n3 horse", "numbers its lines from 1 to 3, and outputs are numbered from 0; number them"),
            ("label,index\ncat,0\ndog,1", "has a line without a number, 'label,index', before numbered ones"),
        ],
    )
    def test_forms_whose_names_or_order_are_in_doubt_are_refused(self, text, message, tmp_path):
        with pytest.raises(ConfigError, match=message):
            self.names(tmp_path, text)

    @pytest.mark.parametrize(
        "text",
        [
            "0\n1\n10", "1 euro\n2 euro\n3 euro", "0.5 mg\n1.2 mg", "type 1\ntype 0", "7 eleven\n9 lives",
            "0 to 9\n10 to 19\nolder", "410: infarct\n493: asthma", "T1,N0\nT0,N1", "- none -\ncat", "[none]\ncat",
            "10-K\n8-K", "1\n2\n3", "cat, black\ndog, white",
        ],
    )  # fmt: skip
    def test_names_with_numbers_and_signs_in_them_stay_names(self, text, tmp_path):
        assert self.names(tmp_path, text) == tuple(text.split("\n"))

    def test_a_file_that_cannot_be_read(self, tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_class_names(tmp_path / "missing.txt")
        with pytest.raises(ConfigError, match="is no UTF-8 text"):
            self.names(tmp_path, "Löwe", "latin-1")
        with pytest.raises(ConfigError, match="cannot be read"):
            read_class_names(tmp_path)


def test_shapes():
    assert read_shape("3x224x192") == (3, 224, 192)
    for text, message in (
        ("224x224x3", "channels come first: --input 3x224x224"),
        ("16x16x3", "channels come first: --input 3x16x16"),
        ("224x224", "channels come first, for example"),
        ("3x0x224", "must be channels x height x width"),
        ("3,224,224", "must be channels x height x width"),
        ("-3x8x8", "must be"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_shape(text)


def test_normalisations():
    assert named_normalisation("imagenet", 3).std == (0.229, 0.224, 0.225)
    assert named_normalisation("half", 2) == Normalisation(mean=(0.5, 0.5), std=(0.5, 0.5))
    assert named_normalisation("none", 1) == Normalisation(mean=(0.0,), std=(1.0,))
    assert named_normalisation("bytes", 1).std == (1 / 255,)
    assert named_normalisation("0.1307/0.3081", 2).mean == (0.1307, 0.1307)
    assert named_normalisation("0.1,0.2,0.3/0.5", 3) == Normalisation(mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))
    for text, message in (
        ("imagnet", "use one of imagenet, half, none, bytes, or mean/std"),
        ("0.1,0.2/0.5", "one number, or one for each of 3"),
        ("0.5/0", "std must be > 0"),
        ("nan/1", "finite"),
        ("123.675,116.28,103.53/58.395,57.12,57.375", "divide by 255: 0.485,0.456,0.406/0.229,0.224,0.225"),
        ("1/2/3", "is no normalisation"),
    ):
        with pytest.raises(ConfigError, match=message):
            named_normalisation(text, 3)


class Bright:
    """Says "dark", "grey" or "bright" by an image's mean, after the manifest's normalisation to [-1, 1]."""

    classes, image_shape = 3, SHAPE

    def __init__(self, manifest):
        self._mean, self._std = manifest.normalisation.mean[0], manifest.normalisation.std[0]

    def predict(self, images):
        level = (images.reshape(len(images), -1).mean(1) / 255 - self._mean) / self._std
        logits = -9 * (level[:, None] - np.array([-0.7, 0, 0.7])) ** 2
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return (powers / powers.sum(1, keepdims=True)).astype(np.float32)


class TestPictures:
    NAMES = ("dark", "grey", "bright")

    @pytest.fixture
    def folder(self, tmp_path):
        for name, level in (("Dark", 30), ("grey", 128), ("bright", 220), ("unheard of", 5)):
            (tmp_path / "own" / name).mkdir(parents=True)
            for i in range(6):
                Image.new("RGB", (20, 30), (level + i,) * 3).save(tmp_path / "own" / name / f"{i}.png")
        (tmp_path / "own" / "grey" / "9.png").write_bytes(b"damaged")
        return tmp_path / "own"

    def manifest(self, model, tmp_path, normalisation="half"):
        found = adopt(model, tmp_path / "silo", WHOLE).manifest
        changed = {"class_names": self.NAMES, "normalisation": named_normalisation(normalisation, 1)}
        return found.model_copy(update=changed)

    def test_what_the_model_makes_of_them_is_shown_and_counted_by_folder(self, folder, model, tmp_path):
        view = look_at_pictures(folder, self.manifest(model, tmp_path), self.NAMES, Bright)
        assert [(each.name, each.right, each.count) for each in view.classes] == [
            ("dark", 6, 6), ("grey", 6, 6), ("bright", 6, 6),
        ]  # fmt: skip
        assert view.accuracy == 1.0
        assert {guess.picture.split("/")[0]: guess.top[0][0] for guess in view.guesses} == {
            "Dark": "dark", "grey": "grey", "bright": "bright",
        }  # fmt: skip
        assert view.notes[0] == "no class is called 'unheard of': those folders were left out"
        assert "1 cannot be decoded, such as grey/9.png" in view.notes
        assert len(view.notes) == 2
        assert "100 % of these pictures right" in list(view.lines())

    def test_a_normalisation_under_which_more_are_right_is_named(self, folder, model, tmp_path):
        view = look_at_pictures(folder, self.manifest(model, tmp_path, "none"), self.NAMES, Bright)
        assert view.accuracy < 0.7
        (warning,) = [note for note in view.notes if note.startswith("warning")]
        assert "with --normalisation half it would answer 100 % of these pictures right instead of" in warning
        assert "dark: 0 of 6 right, others mostly taken for grey" in list(view.lines())

    def test_pictures_without_folders_are_shown_and_not_counted(self, folder, model, tmp_path):
        view = look_at_pictures(folder / "bright", self.manifest(model, tmp_path), self.NAMES, Bright)
        assert view.accuracy is None
        assert [guess.top[0][0] for guess in view.guesses] == ["bright"] * 6

    def test_folders_of_other_names_are_not_counted(self, folder, model, tmp_path):
        manifest = self.manifest(model, tmp_path)
        view = look_at_pictures(folder, manifest, ("a", "b", "c"), Bright)
        assert view.accuracy is None
        assert "no sub-folder has the name of a class" in view.notes[0]

    def test_what_was_done_to_them_and_what_was_left_out_is_said(self, folder, model, tmp_path):
        for i in range(2):
            Image.new("RGBA", (20, 30), (220, 220, 220, 0)).save(folder / "bright" / f"clear-{i}.png")
        (folder / "bright" / "phone.heic").write_bytes(b"x")
        manifest, clear = self.manifest(model, tmp_path), "2 transparent in places, laid on white"
        notes = look_at_pictures(folder, manifest, self.NAMES, Bright).notes
        assert clear in notes
        assert "left out: 1 file(s) not a picture, by its extension, such as bright/phone.heic" in notes
        notes = look_at_pictures(folder / "bright", manifest, self.NAMES, Bright).notes
        assert clear in notes
        assert "left out: 1 file(s) not a picture, by its extension, such as phone.heic" in notes

    def test_without_pictures(self, model, tmp_path):
        manifest = self.manifest(model, tmp_path)
        (tmp_path / "nothing").mkdir()
        for place in ("nothing", "missing"):
            with pytest.raises(DataError, match=r"holds no picture|cannot be read"):
                look_at_pictures(tmp_path / place, manifest, self.NAMES, Bright)

    def test_nothing_of_them_is_written(self, folder, model, tmp_path):
        found = adopt(model, tmp_path / "silo", WHOLE, folder)
        assert found.pictures is not None
        whole = b"".join(path.read_bytes() for path in (tmp_path / "silo").iterdir())
        assert b"own/" not in whole
        assert b"accuracy" not in whole


class TestNamesOfTheModelsOwn:
    OWN = ("cat", "dog", "horse", "pig", "ant", "bee", "cow", "elk", "fox", "owl")

    @pytest.fixture
    def named(self, model, tmp_path):
        onnx = pytest.importorskip("onnx")
        made = onnx.load(model)
        onnx.helper.set_model_props(made, {"class_names": str(list(self.OWN))})
        onnx.save(made, tmp_path / "named.onnx")
        return tmp_path / "named.onnx"

    def made(self, named, tmp_path, **changes):
        return adopt(named, tmp_path / "north", dataclasses.replace(WHOLE, **changes))

    @pytest.mark.parametrize(
        "said",
        [("dog", "cat", *OWN[2:]), ("Dog", "Cat", *OWN[2:]), ("pony", "cat", *OWN[2:]), (*OWN[1:], "newt")],
        ids=["exchanged", "in another case", "one of them new", "all one further"],
    )
    def test_a_name_that_stands_at_another_output_there_is_refused(self, said, named, tmp_path):
        with pytest.raises(ConfigError, match="by the model's own names .*; leave --classes out"):
            self.made(named, tmp_path, class_names=said)
        assert not (tmp_path / "north").exists()

    def test_other_names_are_taken_and_told(self, named, tmp_path):
        found = self.made(named, tmp_path, class_names=("Cat", "hound", *self.OWN[2:]))
        assert found.manifest.class_names[:2] == ("Cat", "hound")
        assert "'Cat' for 'cat', 'hound' for 'dog'" in found.notes[-1]

    def test_where_the_owner_names_none_the_models_are_taken(self, named, tmp_path):
        assert self.made(named, tmp_path, class_names=None).manifest.class_names == self.OWN

    @pytest.mark.parametrize("said", [None, OWN[:-1]])
    def test_the_name_of_an_output_that_is_taken_for_none_of_the_classes_is_told(self, said, named, tmp_path):
        found = self.made(named, tmp_path, class_names=said, none_class=True)
        assert found.manifest.class_names == self.OWN[:-1]
        assert "the last output, which the model calls 'owl', is taken to say none of the classes" in found.notes
