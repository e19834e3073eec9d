# SPDX-License-Identifier: Apache-2.0
"""How far silos are believed: invented federations whose truth is known, with liars among them."""

import dataclasses

import numpy as np
import pytest

from fedcpsc.aggregation.reputation import believed_counts, judge
from fedcpsc.aggregation.rule import RULES
from fedcpsc.distillation.aggregation import aggregate

IMAGES, CLASSES = 1500, 10
ALL = np.ones(CLASSES, bool)


class Answers:
    """Answers so far, as a rule learns from them."""

    def __init__(self, said, given=None):
        self.said = np.asarray(said, np.float32)
        self.given = np.ones(self.said.shape[:2], bool) if given is None else given
        self.shape = (self.said.shape[0], self.said.shape[2])

    def pieces(self):
        yield self.said, self.given

    def sample(self):
        return self.said, self.given


def truth(seed=0, images=IMAGES):
    return np.random.default_rng(seed).integers(0, CLASSES, images)


def teacher(seed, classes=range(CLASSES), sharpness=5.0, images=IMAGES):
    """A teacher that knows `classes`; of others it says, unsurely, one of its own."""
    rng = np.random.default_rng(100 + seed)
    logits = rng.normal(0, 1, (images, CLASSES))
    labels, known = truth(images=images), np.isin(np.arange(CLASSES), list(classes))
    logits[np.arange(images), labels] += np.where(known[labels], sharpness, 0)
    logits[:, ~known] -= 3
    p = np.exp(logits)
    return (p / p.sum(1, keepdims=True)).astype(np.float32)


def skewed():
    """Five silos that share a few classes each; class 9 is known to the last alone."""
    return [
        teacher(1, (0, 1, 2, 3)),
        teacher(2, (2, 3, 4, 5)),
        teacher(3, (4, 5, 6, 7)),
        teacher(4, (0, 1, 6, 7, 8)),
        teacher(5, (4, 8, 9)),
    ]


def certain(classes):
    return np.eye(CLASSES, dtype=np.float32)[classes]


def swapped(answers, a, b):
    order = np.arange(CLASSES)
    order[[a, b]] = b, a
    return answers[:, order]


LIES = {
    "random": lambda own: certain(np.random.default_rng(9).integers(0, CLASSES, len(own))),
    "random, with its own confidences": lambda own: np.random.default_rng(9).permuted(own, axis=1),
    "one class": lambda own: certain(np.full(len(own), 3)),
    "shifted": lambda own: certain((own.argmax(1) + 1) % CLASSES),
    "shifted, with its own confidences": lambda own: np.roll(own, 1, axis=1),
    "of no use": lambda own: np.full_like(own, 1 / CLASSES),
}


def standing_of(said, **more):
    found = judge(Answers(said, **more), np.ones((len(said), CLASSES), bool))
    assert found is not None
    return found


def accuracy(said, standing):
    given, rule = np.ones((len(said), len(said[0])), bool), RULES.get("answer_peak_log")
    tempered = np.stack(said) if standing is None else standing.temper(np.stack(said))
    smoothing = 1e-4 if standing is None else 1 / CLASSES
    target = aggregate(
        np.stack(said), given, rule, counts=rule.learn(Answers(tempered)), standing=standing, smoothing=smoothing
    )
    return float((target.argmax(1) == truth(images=target.shape[0])).mean())


def test_among_the_honest_none_is_doubted_the_rarest_expert_included():
    for said in (skewed(), [teacher(seed) for seed in range(5)], [teacher(seed) for seed in range(3)]):
        standing = standing_of(said)
        assert standing.suspicions() == [None] * len(said)
        assert (standing.weights > 0.5).all()
        assert accuracy(said, standing) >= accuracy(said, None) - 0.015


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("liar", range(5))
def test_a_single_liar_counts_for_nothing_and_is_named(lie, liar):
    for honest in (skewed(), [teacher(seed) for seed in range(5)]):
        said = [LIES[lie](own) if s == liar else own for s, own in enumerate(honest)]
        standing = standing_of(said)
        named = [s for s, why in enumerate(standing.suspicions()) if why is not None]
        assert named == [liar]
        assert standing.reputation[liar] == standing.reputation.min()
        without = [own for s, own in enumerate(honest) if s != liar]
        assert accuracy(said, standing) >= accuracy(without, standing_of(without)) - 0.03


def test_what_is_not_judged_falls_to_the_loudest():
    said = [*[teacher(seed) for seed in range(4)], LIES["shifted"](teacher(4))]
    assert accuracy(said, None) < 0.9
    assert accuracy(said, standing_of(said)) > 0.97


@pytest.mark.parametrize("lie", ["random", "shifted", "shifted, with its own confidences"])
def test_two_of_five_that_vouch_for_each_other_are_outvoted_by_three_that_agree(lie):
    said = [*[teacher(seed) for seed in range(3)], *[LIES[lie](teacher(3))] * 2]
    standing = standing_of(said)
    assert standing.agreement[3, 4] > 0.9
    assert (standing.reputation[:3] == 1).all()
    assert (standing.reputation[3:] < 0.1).all()


def test_one_that_swaps_two_classes_loses_these_and_keeps_the_others():
    said = [teacher(seed) for seed in range(5)]
    said[2] = swapped(said[2], 3, 8)
    standing = standing_of(said)
    assert standing.reputation[2] > 0.5
    assert (standing.support[2, [3, 8]] < 0.2).all()
    assert (np.delete(standing.support[2], [3, 8]) > 0.9).all()
    assert standing.contradicted(2).tolist() == [3, 8]
    assert [why is not None for why in standing.suspicions()] == [False, False, True, False, False]
    assert accuracy(said, standing) > 0.97


def idiosyncratic(seed, share):
    """A teacher that sees in `share` of the images what all see, and in the others what it alone does."""
    own = np.random.default_rng(200 + seed).integers(0, CLASSES, IMAGES)
    alike = np.random.default_rng(300 + seed).random(IMAGES) < share
    return 0.9 * certain(np.where(alike, truth(), own)) + 0.1 * teacher(seed)


def test_honest_silos_that_seldom_see_the_same_accuse_none_of_them():
    """As teachers of photographs, which agree on few of the images that priors draw."""
    for shares in ((0.7, 0.7, 0.45), (0.7, 0.6, 0.6), (0.7, 0.6, 0.5, 0.6, 0.7)):
        standing = standing_of([idiosyncratic(seed, share) for seed, share in enumerate(shares)])
        assert standing.suspicions() == [None] * len(shares)
        assert standing.weights.min() > 0.5


def test_a_class_that_a_silo_sees_elsewhere_than_others_is_contradicted_only_by_one_voice():
    said = [teacher(seed) for seed in range(3)]
    alone = said[2].copy()
    where = np.random.default_rng(8).random(IMAGES) < 0.1  # images of any class, which it takes for the third
    alone[truth() == 3] = np.roll(alone[truth() == 3], 4, axis=1)
    alone[where] = certain(np.full(where.sum(), 3))
    standing = standing_of([said[0], said[1], alone])
    assert standing.support[2, 3] < 0.25  # it hardly counts there, and nobody accuses it
    assert 3 not in standing.contradicted(2)
    standing = standing_of([said[0], said[1], swapped(said[2], 3, 8)])
    assert standing.contradicted(2).tolist() == [3, 8]


def test_no_class_is_contradicted_on_fewer_images_than_the_highest_two_per_cent_take():
    said = [teacher(seed)[:400] for seed in range(3)]
    said[2] = swapped(said[2], 3, 8)
    assert standing_of(said).contradicted(2).tolist() == []


def test_confidence_buys_no_weight():
    said = [teacher(seed) for seed in range(4)] + [certain(teacher(4).argmax(1))]
    standing = standing_of(said)
    tempered = standing.temper(np.stack(said))
    confident = tempered.max(2).mean(1)
    assert confident[4] == pytest.approx(np.median(confident), abs=0.01)
    assert standing.power[:4].max() <= 1
    assert tempered.sum(2) == pytest.approx(np.ones((5, IMAGES)), abs=1e-5)


@pytest.mark.parametrize("bits", [8, 32])
@pytest.mark.parametrize("highest", [0.1001, 0.12, 0.13, 0.2, 0.35])
@pytest.mark.parametrize("rule", ["uniform", "class_prior_log", "answer_peak_log"])
def test_one_that_is_hardly_sure_of_anything_beside_certain_ones_stops_no_run(highest, bits, rule):
    """Its answers are raised to the 50th power to be compared, which float32 cannot hold where they are small."""
    labels = truth()
    timid = np.full((IMAGES, CLASSES), (1 - highest) / (CLASSES - 1), np.float32)
    timid[np.arange(IMAGES), labels] = highest
    if bits == 8:
        timid = np.round(timid * 255) / 255
        timid = (timid / timid.sum(1, keepdims=True)).astype(np.float32)
    said = np.stack([certain(labels), certain(labels), certain(labels), certain((labels + 1) % CLASSES), timid])
    with np.errstate(all="raise", under="ignore"):
        standing = judge(Answers(said), np.ones((5, CLASSES), bool))
        counts = np.ones((5, CLASSES), np.float32)
        given = np.ones((5, IMAGES), bool)
        target = aggregate(said, given, RULES.get(rule), counts=counts, standing=standing, place=0.5)
    for name in ("power", "reputation", "support", "steadiness", "agreement", "surest"):
        assert np.isfinite(getattr(standing, name)).all(), name
    assert (target.argmax(1) == labels).mean() > 0.99


def test_one_that_turns_after_honest_rounds_counts_for_nothing_in_the_later_ones():
    said = [teacher(seed) for seed in range(5)]
    half = IMAGES // 3
    said[1] = np.concatenate([said[1][:half], np.roll(said[1][half:], 1, axis=1)])
    standing = standing_of(said)
    assert standing.weight(0.1)[1] > 0.5 or standing.reputation[1] < 0.5
    assert standing.weight(0.9)[1] < 0.01
    assert standing.suspicions()[1] is not None
    assert all(why is None for s, why in enumerate(standing.suspicions()) if s != 1)


def test_two_of_five_that_turn_together_do_not_hold_each_other_up():
    said = [teacher(seed) for seed in range(5)]
    half = IMAGES // 2
    for liar in (1, 4):
        said[liar] = np.concatenate([said[liar][:half], np.roll(said[liar][half:], 1, axis=1)])
    standing = standing_of(said)
    assert (standing.weight(0.9)[[1, 4]] < 0.01).all()
    assert [s for s, why in enumerate(standing.suspicions()) if why is not None] == [1, 4]


def test_where_nobody_agrees_on_a_class_nobody_is_named_for_it():
    rng = np.random.default_rng(4)
    said = [teacher(seed) for seed in range(5)]
    for own in said:  # each sees class 0 in images of its own
        own[:, 0] = 0.01
        rows = rng.choice(IMAGES, 40, replace=False)
        own[rows] = 0.01
        own[rows, 0] = 0.91
    said = [own / own.sum(1, keepdims=True) for own in said]
    standing = standing_of(said)
    assert (standing.support[:, 0] < 0.35).all()
    assert standing.suspicions() == [None] * 5


def test_two_silos_cannot_outvote_each_other_and_few_answers_say_nothing():
    both = Answers([teacher(0), teacher(1)])
    assert judge(both, np.ones((2, CLASSES), bool)) is None
    few = Answers([teacher(seed, images=150) for seed in range(5)])
    assert judge(few, np.ones((5, CLASSES), bool)) is None


def test_where_no_two_agree_all_stay_as_they_are():
    rng = np.random.default_rng(0)
    said = [rng.dirichlet(np.ones(CLASSES), IMAGES) for _ in range(4)]
    assert standing_of(said).reputation.tolist() == [1, 1, 1, 1]


def test_a_silo_that_shares_no_class_with_others_cannot_be_checked_and_stays():
    known = np.ones((4, CLASSES), bool)
    known[:3, 8:], known[3, :8] = False, False
    said = [teacher(seed, range(8)) * known[seed] for seed in range(3)] + [teacher(3, (8, 9)) * known[3]]
    said = [own / own.sum(1, keepdims=True) for own in said]
    standing = judge(Answers(said), known)
    assert standing.unchecked.tolist() == [False, False, False, True]
    assert standing.reputation[3] == 1
    tempered = standing.temper(np.stack(said).astype(np.float32))
    assert (tempered[~known[:, None, :].repeat(IMAGES, 1)] == 0).all(), "what a silo does not know it does not say"


def test_answers_that_are_missing_are_no_disagreement():
    said = [teacher(seed) for seed in range(5)]
    given = np.ones((5, IMAGES), bool)
    given[2, ::2] = given[4, : IMAGES // 2] = False
    said = [np.where(present[:, None], own, 0) for own, present in zip(said, given, strict=True)]
    standing = standing_of(said, given=given)
    assert standing.suspicions() == [None] * 5
    assert (standing.weights == 1).all()


def test_counts_are_believed_as_far_as_answers_bear_them_out():
    reported = np.array([[100, 100], [80, 120], [1e12, 1e12]], np.float32)
    surest = np.array([[0.9, 0.9], [0.9, 0.9], [0.9, 0.1]], np.float32)
    believed = believed_counts(reported, surest)
    assert believed[:2] == pytest.approx(reported[:2] * 0.9)
    assert believed[2] == pytest.approx([4 * 200 / 2 * 0.9, 4 * 200 / 2 * 0.1])


@pytest.mark.parametrize("rule", ["uniform", "entropy", "answer_peak_log"])
def test_support_by_class_decides_between_silos_and_not_between_classes(rule):
    """Where all silos say the same, that is the target, however unlike their support is on its classes."""
    standing = standing_of([swapped(own, 3, 8) if s == 2 else own for s, own in enumerate(map(teacher, range(5)))])
    assert np.ptp(standing.support.sum(0)) > 0.5
    one = standing.temper(np.stack([teacher(7)] * 5))[:1]
    same = np.repeat(one, 5, axis=0)
    unmoved = dataclasses.replace(standing, power=np.ones(5, np.float32))
    given = np.ones(same.shape[:2], bool)
    target = aggregate(same, given, RULES.get(rule), counts=standing.surest, standing=unmoved, smoothing=0.1)
    assert target == pytest.approx(one[0], abs=1e-4)
