# SPDX-License-Identifier: Apache-2.0
"""torch.export archives and TorchScript: opened by their owner's word alone, and refused where they are not plain."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from support.own_models import CONSTANTS, HALF, SHAPE, Small, answers_of, as_program, as_script, images, own_softmax

from fedcpsc.errors import ManifestError
from fedcpsc.teachers.recognise import Hints, recognise

WORD = Hints(allow_code=True, image_shape=SHAPE, normalisation=CONSTANTS)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return as_program(Small(), tmp_path_factory.mktemp("program") / "model.pt2")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    return as_script(Small(), tmp_path_factory.mktemp("script") / "model.pt")


def test_neither_is_opened_without_the_owners_word(program, script, monkeypatch):
    monkeypatch.setattr(torch.export, "load", lambda *_: pytest.fail("it was opened"))
    monkeypatch.setattr(torch.jit, "load", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(ManifestError, match="a torch.export archive, .*which can run code: it is not opened unasked"):
        recognise(program)
    with pytest.raises(ManifestError, match="a TorchScript program, which can read and write files"):
        recognise(script)


def test_both_answer_as_their_owner_knows_it(program, script, tmp_path):
    given = images()
    for kind, path in (("torch_export", program), ("torchscript", script)):
        found = recognise(path, WORD)
        assert (found.kind, found.outputs, found.image_shape, found.probabilities) == (kind, 3, SHAPE, False)
        answers = answers_of(found, tmp_path / kind, given)
        np.testing.assert_allclose(answers, own_softmax(Small(), given), atol=1e-5)


def test_an_archive_says_its_shape_and_a_script_does_not(program, script):
    word = Hints(allow_code=True)
    assert recognise(program, word).missing == ("normalisation",)
    assert recognise(script, word).missing == ("image_shape", "normalisation", "outputs", "probabilities")
    assert any("deprecated" in note for note in recognise(script, word).notes)


def test_an_archive_of_one_image_is_run_one_by_one(tmp_path):
    found = recognise(as_program(Small(), tmp_path / "model.pt2", free=False), WORD)
    assert found.fixed_batch == 1
    given = images()
    np.testing.assert_allclose(answers_of(found, tmp_path / "silo", given), own_softmax(Small(), given), atol=1e-5)


def test_softmax_inside_is_seen(tmp_path):
    found = recognise(as_script(Small(torch.nn.Softmax(1)), tmp_path / "model.pt"), WORD)
    assert found.probabilities is True
    given = images()
    np.testing.assert_allclose(answers_of(found, tmp_path / "silo", given), own_softmax(Small(), given), atol=1e-5)


class Two(torch.nn.Module):
    def forward(self, pixels):
        return pixels.mean((2, 3)), pixels.amax((2, 3))


def test_two_outputs_and_another_shape_are_refused(program, tmp_path):
    with pytest.raises(ManifestError, match="takes 1 inputs and gives 2 outputs"):
        recognise(as_program(Two(), tmp_path / "model.pt2"), WORD)
    with pytest.raises(ManifestError, match="gives tuple, must give one tensor"):
        recognise(as_script(Two(), tmp_path / "model.pt"), WORD)
    with pytest.raises(ManifestError, match=r"takes images of shape \(3, 16, 16\), must take image_shape=\(3, 8, 8\)"):
        recognise(program, Hints(allow_code=True, image_shape=(3, 8, 8)))


def test_weights_of_another_type_are_told_for_that_and_another_shape_for_its_own(script, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.load(str(script)).half().save(str(tmp_path / "model.pt"))
    with pytest.raises(ManifestError, match=r"weights are of another type: call model.float\(\) before it is exported"):
        recognise(tmp_path / "model.pt", WORD)
    other = dataclasses.replace(WORD, image_shape=(1, 16, 16), normalisation=HALF)
    with pytest.raises(ManifestError, match="check its input's shape"):
        recognise(script, other)


class Noisy(torch.nn.Module):
    def forward(self, pixels):
        return torch.nn.functional.dropout(pixels.mean((2, 3)), 0.5, True)


def test_a_model_exported_in_training_mode_is_refused(tmp_path):
    path = as_program(Noisy(), tmp_path / "model.pt2")
    with pytest.raises(ManifestError, match="the model is in training mode"):
        recognise(path, WORD)


def test_archives_that_are_damaged_are_told(program, script, tmp_path):
    import zipfile

    for number, path in enumerate((program, script)):
        broken = tmp_path / f"broken{number}"
        with zipfile.ZipFile(path) as whole, zipfile.ZipFile(broken, "w") as part:
            for name in whole.namelist():
                part.writestr(name, b"{}" if name.endswith((".json", ".pkl")) else whole.read(name))
        with pytest.raises(ManifestError, match="cannot be loaded by torch"):
            recognise(broken, WORD)
