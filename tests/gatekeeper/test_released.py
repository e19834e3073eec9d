# SPDX-License-Identifier: Apache-2.0
"""The audit attacks what the gatekeeper lets out: one function makes both, also where a teacher fails."""

from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from support.silo_folder import SHAPE, make_folder

from fedcpsc.audit.silo_under_audit import OwnersSilo, SiloUnderAudit
from fedcpsc.data.images import ImageSet
from fedcpsc.errors import TeacherError
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.gatekeeper.released import teacher_outputs
from fedcpsc.label_sets import LabelSets
from fedcpsc.privacy.mechanisms import Plain
from fedcpsc.privacy.votes import NoiseOnly
from fedcpsc.protocol.messages import Answer, AnswerForm, Query, Refusal
from fedcpsc.teachers.manifest import dataset_id

IMAGES = np.random.default_rng(0).integers(0, 256, (12, *SHAPE)).astype(np.uint8)
PRIVATE = ImageSet(IMAGES, np.arange(12) % 2, 2)


class Failing:
    """A teacher whose network fails on every image."""

    classes, image_shape = 2, SHAPE

    def predict(self, images):
        raise TeacherError("teacher output: NaN")


def audited(folder, form=AnswerForm.PROBABILITIES, **policy):
    """A silo's folder of that policy, opened for an audit."""
    rules = {"answers": 1000, "images_per_query": 50, **policy}
    make_folder(folder, policy=rules, dataset_id=dataset_id(PRIVATE.images, PRIVATE.labels))
    return SiloUnderAudit.open(OwnersSilo(folder, PRIVATE), form, LabelSets.by_number(2, 1), 0)


NOISY = {"mechanism": {"kind": "noise_only", "sigma": 10.0, "epsilon": 8.0}}


def test_under_noise_a_failing_teacher_abstains_in_the_audit_as_in_the_gatekeeper(tmp_path):
    silo = replace(audited(tmp_path / "north", **NOISY), teacher=Failing())
    assert silo.mechanism.cost() > 0
    assert np.isfinite(silo.released(IMAGES)).all()
    gatekeeper = replace(open_gatekeeper(tmp_path / "north"), teacher=Failing())
    with closing(gatekeeper):
        assert isinstance(gatekeeper.answer(Query("1" * 32, AnswerForm.PROBABILITIES, IMAGES)), Answer)


def test_without_noise_a_failing_teacher_is_an_error_in_the_audit_as_in_the_gatekeeper(tmp_path):
    silo = replace(audited(tmp_path / "north"), teacher=Failing())
    assert isinstance(silo.mechanism, Plain)
    with pytest.raises(TeacherError, match="NaN"):
        silo.released(IMAGES)
    gatekeeper = replace(open_gatekeeper(tmp_path / "north"), teacher=Failing())
    with closing(gatekeeper):
        assert isinstance(gatekeeper.answer(Query("1" * 32, AnswerForm.PROBABILITIES, IMAGES)), Refusal)


def test_what_is_given_to_the_mechanism_are_probabilities_or_nan_for_each_image():
    assert np.isnan(teacher_outputs(NoiseOnly(mean_sigma=Fraction(1)), Failing(), IMAGES)).all()
    assert teacher_outputs(NoiseOnly(mean_sigma=Fraction(1)), Failing(), IMAGES).shape == (1, 12, 2)


def test_a_mechanism_of_shards_refuses_a_teacher_that_has_none():
    with pytest.raises(TeacherError, match="Failing.*has no shards.*train with kind: shards"):
        teacher_outputs(SimpleNamespace(shards=True), Failing(), IMAGES)


def test_each_silo_is_looked_at_through_the_bits_and_the_top_k_of_its_own_policy(tmp_path):
    coarse = audited(tmp_path / "one", AnswerForm.TOP_K, forms=["top_k"], bits=8, top_k=1)
    fine = audited(tmp_path / "two", AnswerForm.TOP_K, forms=["top_k"], bits=32, top_k=2)
    assert [(silo.channel.bits, silo.channel.top_k) for silo in (coarse, fine)] == [(8, 1), (32, 2)]
    assert not np.allclose(coarse.seen_by_server(IMAGES), coarse.own(IMAGES), atol=1e-3)
    np.testing.assert_allclose(fine.seen_by_server(IMAGES), fine.own(IMAGES), atol=1e-6)
