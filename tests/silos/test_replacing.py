# SPDX-License-Identifier: Apache-2.0
"""A new teacher takes an old one's place: both are kept whole wherever the process dies on the way."""

import os
import shutil

import pytest
from test_silos import config, spend, spent

from fedcpsc.errors import LedgerError, ManifestError, SiloError
from fedcpsc.models.registry import build_classifier
from fedcpsc.silos import maker as silo_maker
from fedcpsc.silos import replacing
from fedcpsc.silos.folder import MAKING_FILE, PAST, STAGED
from fedcpsc.silos.make import make_silos
from fedcpsc.teachers.manifest import MANIFEST_FILE, WEIGHTS_FILE, load_manifest, read_weights
from fedcpsc.training import teacher as private_training
from fedcpsc.training.canaries import CANARIES_FILE, load_canaries

ONE = {"count": 1, "partition": {"kind": "iid"}, "policy": {"answers": 500}}
BEFORE = config(silos=ONE, teachers={"training": {"kind": "plain", "canaries": 10}})
AFTER = config(silos=ONE, teachers={"epochs": 2})


class Killed(BaseException):
    """What no handler of the code under test catches."""


class Death:
    """Counts the steps that touch the disk, and kills the process before a chosen one."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.steps = at, 0

    def before(self, function):
        def step(*args, **kwargs):
            if self.steps == self.at:
                raise Killed
            self.steps += 1
            return function(*args, **kwargs)

        return step

    def watch(self, patched) -> None:
        for module, name in (
            (silo_maker, "note_records"),
            (silo_maker, "save_manifest"),
            (silo_maker, "write_policy"),
            (replacing, "write_whole"),
            (replacing, "record_training"),
            (replacing.os, "replace"),
            (replacing.os, "fsync"),
            (replacing.shutil, "copy2"),
            (replacing.shutil, "rmtree"),
        ):
            patched.setattr(module, name, self.before(getattr(module, name)))


def whole(folder):
    """The manifest of the folder's teacher, weights and canaries checked against it."""
    manifest = load_manifest(folder)
    read_weights(folder, manifest)
    if "canaries" in manifest.training:
        load_canaries(folder, manifest)
    return manifest


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    base = tmp_path_factory.mktemp("before")
    make_silos(BEFORE, base)
    spend(base / "0")
    return base


@pytest.fixture(autouse=True)
def quick_training(monkeypatch):
    """The same network for the same configuration, without the training: what is tested is where it is put."""

    def untrained(images, config, seed, architecture, *args):
        return build_classifier(architecture, images.classes, images.image_shape, config.width, seed=config.epochs)

    monkeypatch.setattr(private_training, "train_classifier", untrained)


def test_the_teacher_before_is_kept_with_its_manifest_and_canaries(made, tmp_path):
    shutil.copytree(made / "0", tmp_path / "0")
    old = {name: (made / "0" / name).read_bytes() for name in (WEIGHTS_FILE, MANIFEST_FILE, CANARIES_FILE)}
    lines = []
    (report,) = make_silos(AFTER, tmp_path, lines.append)
    kept = tmp_path / "0" / PAST / f"teacher-{load_manifest(made / '0').weights_sha256[:12]}"
    assert report.kept == kept
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == old
    assert kept.stat().st_mode & 0o077 == 0
    assert f"silo-0: the teacher before it is kept in {kept}" in lines
    assert str(report).endswith(f"; the teacher before it is kept in {kept}")
    assert not (tmp_path / "0" / CANARIES_FILE).exists()
    assert not (tmp_path / "0" / STAGED).exists()
    assert not (tmp_path / "0" / MAKING_FILE).exists()
    assert whole(tmp_path / "0").training["epochs"] == 2


def test_a_crash_at_any_point_loses_neither_teacher(made, tmp_path, monkeypatch):
    counted = Death()
    shutil.copytree(made, tmp_path / "count")
    with monkeypatch.context() as patched:
        counted.watch(patched)
        make_silos(AFTER, tmp_path / "count")
    assert counted.steps > 20
    old = load_manifest(made / "0")
    states = set()
    for at in range(counted.steps):
        base = tmp_path / str(at)
        shutil.copytree(made, base)
        with monkeypatch.context() as patched:
            Death(at).watch(patched)
            with pytest.raises(Killed):
                make_silos(AFTER, base)
        if (base / "0" / MAKING_FILE).exists():
            states.add("made again")
        else:
            states.add(f"epochs {whole(base / '0').training['epochs']}")
        # whoever comes next with either configuration finds a whole silo, the ledger as it was, the old teacher kept
        for again in (AFTER, BEFORE) if at % 2 else (BEFORE, AFTER):
            make_silos(again, base)
            assert whole(base / "0") == load_manifest(base / "0")
            assert not (base / "0" / STAGED).exists()
            assert spent(base / "0") == 7
        teachers = [base / "0", *(base / "0" / PAST).iterdir()]
        assert old.weights_sha256 in {whole(folder).weights_sha256 for folder in teachers}
        shutil.rmtree(base)
    assert states == {"epochs 1", "made again", "epochs 2"}


def test_what_was_trained_before_the_crash_is_not_trained_again(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    with monkeypatch.context() as patched:
        patched.setattr(replacing, "record_training", lambda *given: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            make_silos(AFTER, tmp_path)
    recorded = []
    monkeypatch.setattr(replacing, "record_training", lambda manifest, ledger: recorded.append(manifest))
    monkeypatch.setattr(silo_maker, "train_teacher", None)
    (report,) = make_silos(AFTER, tmp_path)
    assert report.reused
    assert [manifest.weights_sha256 for manifest in recorded] == [load_manifest(tmp_path / "0").weights_sha256]


def test_weights_that_an_owner_puts_into_an_interrupted_silo_are_refused(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    with monkeypatch.context() as patched:
        patched.setattr(replacing, "record_training", lambda *given: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            make_silos(AFTER, tmp_path)
    (tmp_path / "0" / WEIGHTS_FILE).write_bytes(b"an owner's own")
    with pytest.raises(ManifestError, match="that no training of this silo wrote"):
        make_silos(AFTER, tmp_path)
    assert (tmp_path / "0" / WEIGHTS_FILE).read_bytes() == b"an owner's own"


def test_where_the_training_cannot_be_recorded_the_old_silo_stands(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)

    def full(manifest, ledger):
        raise LedgerError("the disk is full")

    monkeypatch.setattr(replacing, "record_training", full)
    with pytest.raises(LedgerError, match="the disk is full"):
        make_silos(AFTER, tmp_path)
    assert whole(tmp_path / "0") == load_manifest(made / "0")
    assert not (tmp_path / "0" / MAKING_FILE).exists()


def test_a_silo_on_a_read_only_file_system_is_told_in_a_line(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)

    def read_only(*args, **kwargs):
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(replacing, "write_whole", read_only)
    with pytest.raises(SiloError, match=r"cannot be written \(Read-only file system\); free space, or make"):
        make_silos(AFTER, tmp_path)
    assert whole(tmp_path / "0") == load_manifest(made / "0")
    assert spent(tmp_path / "0") == 7
