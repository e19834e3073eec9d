# SPDX-License-Identifier: Apache-2.0
"""What every `QueryTarget` must do. The in-process gatekeeper and the one behind a socket run the same suite."""

import dataclasses
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.tiny_recipes import a_recipe, both_ways

from fedcpsc.errors import RefusalCode
from fedcpsc.gatekeeper.gatekeeper import Gatekeeper
from fedcpsc.gatekeeper.guarantee import guarantee_of
from fedcpsc.gatekeeper.policy import Policy
from fedcpsc.gatekeeper.releases import report_class_counts
from fedcpsc.ledger.ledger import Ledger
from fedcpsc.protocol.codec import to_bytes
from fedcpsc.protocol.messages import (
    Answer,
    AnswerForm,
    DescribeRequest,
    Description,
    Query,
    QueryTarget,
    Refusal,
    decode_answers,
)
from fedcpsc.teachers.manifest import Manifest, Normalisation

SHAPE, CLASSES = (1, 4, 4), 5
NAMES = ("ant", "bee", "cat", "dog")  # the fifth output says none of these
FORMS = (AnswerForm.PROBABILITIES, AnswerForm.TOP_K, AnswerForm.LABEL)
Images = npt.NDArray[np.uint8]


class MeanTeacher:
    """Probabilities from the first K pixels of an image; counts its calls."""

    classes = CLASSES
    image_shape = SHAPE

    def __init__(self) -> None:
        self.images = 0

    def predict(self, images: Images) -> npt.NDArray[np.float32]:
        self.images += len(images)
        weights = images.reshape(len(images), -1)[:, :CLASSES].astype(np.float32) + 1.0
        return weights / weights.sum(1, keepdims=True)


def a_manifest(**fields: Any) -> Manifest:
    """Of a teacher that knows 15 private images."""
    facts: dict[str, Any] = {
        "silo": "north",
        "architecture": "convnet",
        "width": 4,
        "classes": CLASSES,
        "image_shape": SHAPE,
        "normalisation": Normalisation(),
        "population": "patients",
        "train_size": 15,
        "training": {"kind": "plain"},
        "weights_sha256": "1" * 64,
        "fingerprint": "2" * 64,
        "private_class_counts": (5, 4, 3, 2, 1),
    }
    return Manifest.model_validate(facts | fields)


def open_silo(folder: Path, **policy: Any) -> tuple[Gatekeeper, MeanTeacher]:
    """A silo in `folder` with 20 answers, at most 10 images a query."""
    ledger, teacher = Ledger.create(folder / "ledger.sqlite", "ds-" + "0" * 64, 20), MeanTeacher()
    manifest, rules = a_manifest(), Policy(images_per_query=10, **policy)
    gatekeeper = Gatekeeper(
        silo="north",
        model="model",
        teacher=teacher,
        policy=rules,
        ledger=ledger,
        guarantee=guarantee_of(rules, manifest, ledger),
        class_names=NAMES,
        none_class=True,
        class_report=report_class_counts(rules, manifest, ledger),
    )
    return gatekeeper, teacher


def some_images(count: int = 6, seed: int = 0) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def query(count: int = 6, form: AnswerForm = AnswerForm.PROBABILITIES, **fields: Any) -> Query:
    return Query(uuid.uuid4().hex, form, fields.pop("images", some_images(count)), **fields)


Make = Callable[..., tuple[QueryTarget, MeanTeacher]]


class QueryTargetContract:
    """A subclass gives the fixture `make(**policy)`, which opens a silo with 20 answers, at most 10 images a query."""

    @pytest.fixture
    def make(self) -> Make:
        raise NotImplementedError

    def test_describes_its_policy(self, make: Make) -> None:
        target, _ = make(forms=FORMS)
        found = target.describe(DescribeRequest())
        assert isinstance(found, Description)
        assert (found.classes, found.image_shape, found.forms) == (CLASSES, SHAPE, FORMS)
        assert (found.images_per_query, found.answers_total, found.answers_left) == (10, 20, 20)
        assert not found.claim.dp
        assert found.class_report is None

    def test_takes_no_more_bytes_than_its_policy_allows(self, make: Make) -> None:
        most = 4
        target, teacher = make(service={"query_megabytes": (4096 + most * int(np.prod(SHAPE))) / 1e6})
        found = target.describe(DescribeRequest())
        assert isinstance(found, Description)
        assert found.images_per_query == most
        large = query(most + 1)
        assert target.answer(large) == Refusal(RefusalCode.TOO_MANY_IMAGES, large.query_id)
        assert teacher.images == 0
        assert isinstance(target.answer(query(most)), Answer)

    def test_tells_the_names_of_its_classes(self, make: Make) -> None:
        target, _ = make()
        found = target.describe(DescribeRequest(version="1.0"))
        assert isinstance(found, Description)
        assert (found.class_names, found.none_class) == (NAMES, True)

    def test_tells_class_counts_only_where_the_policy_shares_them(self, make: Make) -> None:
        target, _ = make(share_class_counts=True)
        found = target.describe(DescribeRequest())
        assert isinstance(found, Description)
        assert found.class_report is not None
        assert found.class_report.counts == (5, 4, 3, 2, 1)

    @pytest.mark.parametrize(("policy", "said"), [({}, False), ({"share_answers": True}, True)])
    def test_tells_whether_its_answers_may_be_handed_on(self, make: Make, policy: dict[str, bool], said: bool) -> None:
        target, _ = make(**policy)
        found = target.describe(DescribeRequest())
        assert isinstance(found, Description)
        assert found.share_answers is said

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("bits", [8, 32])
    def test_answers_every_form_as_the_teacher_thinks(self, make: Make, form: AnswerForm, bits: int) -> None:
        target, teacher = make(forms=FORMS, bits=bits, top_k=3)
        images = some_images()
        answer = target.answer(query(form=form, images=images))
        assert isinstance(answer, Answer)
        truth = teacher.predict(images)
        assert (answer.form, answer.classes, answer.count) == (form, CLASSES, 6)
        if form is AnswerForm.LABEL:
            np.testing.assert_array_equal(answer.values, truth.argmax(1))
            return
        values = answer.values if bits == 32 else answer.values / 255.0
        shown = truth if form is AnswerForm.PROBABILITIES else -np.sort(-truth, axis=1)[:, :3]
        assert answer.values.dtype == (np.uint8 if bits == 8 else np.float32)
        np.testing.assert_allclose(values, shown, atol=0.5 / 255 + 1e-6 if bits == 8 else 0)
        if answer.indices is not None:
            np.testing.assert_array_equal(np.take_along_axis(truth, answer.indices.astype(int), 1), shown)
        assert decode_answers(answer).argmax(1).tolist() == truth.argmax(1).tolist()

    def test_a_replay_gets_identical_bytes_uncharged_and_asks_no_teacher(self, make: Make) -> None:
        target, teacher = make()
        asked = query()
        first, seen = target.answer(asked), teacher.images
        again = target.answer(asked)
        assert isinstance(first, Answer)
        assert isinstance(again, Answer)
        assert to_bytes(first) == to_bytes(again)
        assert teacher.images == seen
        assert first.answers_left == 14
        follow_up = target.answer(query())
        assert isinstance(follow_up, Answer)
        assert follow_up.answers_left == 8

    def test_the_same_id_with_other_images_is_refused(self, make: Make) -> None:
        target, _ = make()
        asked = query()
        target.answer(asked)
        other = dataclasses.replace(asked, images=some_images(seed=1))
        assert target.answer(other) == Refusal(RefusalCode.REPLAY, asked.query_id)

    def test_the_budget_is_exact_and_a_batch_is_refused_whole(self, make: Make) -> None:
        target, teacher = make()
        assert isinstance(target.answer(query(10)), Answer)
        assert isinstance(target.answer(query(8)), Answer)
        too_much = query(3)
        assert target.answer(too_much) == Refusal(RefusalCode.BUDGET, too_much.query_id)
        assert target.answer(too_much) == Refusal(RefusalCode.BUDGET, too_much.query_id)
        assert teacher.images == 18
        last = target.answer(query(2))
        assert isinstance(last, Answer)
        assert last.answers_left == 0
        assert target.answer(query(1)).code is RefusalCode.BUDGET  # type: ignore[union-attr]
        found = target.describe(DescribeRequest())
        assert isinstance(found, Description)
        assert found.answers_left == 0

    def test_refuses_by_code_what_the_policy_does_not_allow_and_charges_nothing(self, make: Make) -> None:
        target, teacher = make()
        asked = {
            RefusalCode.TOO_MANY_IMAGES: query(11),
            RefusalCode.FORM: query(form=AnswerForm.LABEL),
            RefusalCode.VERSION: query(version="2.0"),
            RefusalCode.MALFORMED: query(images=np.zeros((1, 3, 4, 4), np.uint8)),
        }
        for code, wrong in asked.items():
            assert target.answer(wrong) == Refusal(code, wrong.query_id)
        control = query(run="line\nbreak")
        assert target.answer(control) == Refusal(RefusalCode.MALFORMED, control.query_id)
        assert target.describe(DescribeRequest(version="0.9")) == Refusal(RefusalCode.VERSION)
        assert teacher.images == 0
        found = target.describe(DescribeRequest())
        assert isinstance(found, Description)
        assert found.answers_left == 20

    def test_a_recipe_is_the_question_of_its_images_asked_either_way(self, make: Make) -> None:
        target, teacher = make(recipe_queries=True)
        found = target.describe(DescribeRequest())
        assert isinstance(found, Description)
        assert found.recipes
        images, recipe = both_ways(a_recipe())
        answer = target.answer(recipe)
        assert isinstance(answer, Answer)
        np.testing.assert_array_equal(answer.values, np.rint(teacher.predict(images.images) * 255))
        assert answer.answers_left == 14, "every image is counted"
        for asked in (recipe, images):
            again = target.answer(asked)
            assert isinstance(again, Answer)
            assert to_bytes(again) == to_bytes(answer)
        other = dataclasses.replace(both_ways(a_recipe(seed=2))[1], query_id=recipe.query_id)
        assert target.answer(other) == Refusal(RefusalCode.REPLAY, other.query_id)

    def test_recipes_that_are_not_taken_cost_nothing(self, make: Make) -> None:
        target, teacher = make(recipe_queries=True)
        _, good = both_ways(a_recipe())
        _, large = both_ways(a_recipe(candidates=(100, 61)))  # of 10 images a query, 160 candidates
        _, many = both_ways(a_recipe(count=11))
        wrong = good.recipe.pools[0]
        unknown = dataclasses.replace(wrong, mixture=(("unheard-of", 1.0),))
        nothing = dataclasses.replace(wrong, mixture=(("smooth", 0.0),))
        refused = {
            "other images": dataclasses.replace(good, payload="0" * 64),
            "too many candidates": large,
            "an unknown prior": dataclasses.replace(good, recipe=dataclasses.replace(good.recipe, pools=(unknown,))),
            "no prior": dataclasses.replace(good, recipe=dataclasses.replace(good.recipe, pools=(nothing,))),
        }
        for what, asked in refused.items():
            assert target.answer(asked) == Refusal(RefusalCode.RECIPE, asked.query_id), what
        assert target.answer(many) == Refusal(RefusalCode.TOO_MANY_IMAGES, many.query_id)
        odd = both_ways(a_recipe((3, 4, 4), candidates=(50, 0)))[1]
        assert target.answer(odd) == Refusal(RefusalCode.MALFORMED, odd.query_id)
        assert teacher.images == 0
        found = target.describe(DescribeRequest())
        assert isinstance(found, Description)
        assert found.answers_left == 20
        assert isinstance(target.answer(good), Answer), "a refused recipe spoils no query id"

    def test_without_the_policys_word_no_recipe_is_followed(self, make: Make) -> None:
        target, _ = make()
        found = target.describe(DescribeRequest())
        assert isinstance(found, Description)
        assert not found.recipes
        images, recipe = both_ways(a_recipe())
        assert target.answer(recipe) == Refusal(RefusalCode.RECIPE, recipe.query_id)
        assert isinstance(target.answer(images), Answer)

    def test_tolerates_a_newer_minor_version(self, make: Make) -> None:
        target, _ = make()
        assert isinstance(target.answer(query(version="1.7")), Answer)

    def test_a_teacher_that_fails_costs_but_tells_only_a_code(self, make: Make) -> None:
        target, teacher = make()
        teacher.predict = lambda images: 1 / 0  # type: ignore[method-assign,assignment,return-value]
        asked = query()
        assert target.answer(asked) == Refusal(RefusalCode.INTERNAL, asked.query_id)
        del teacher.predict
        later = target.answer(asked)  # charged already: computed now
        assert isinstance(later, Answer)
        assert later.answers_left == 14
