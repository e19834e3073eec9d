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


def idiosyncratic(seed, share, images=IMAGES):
    """A teacher that sees in `share` of the images what all see, and in the others, as surely, what it alone does."""
    rng = np.random.default_rng(200 + seed)
    alike = rng.random(images) < share
    seen = np.where(alike, truth(images=images), rng.integers(0, CLASSES, images))
    logits = rng.normal(0, 1, (images, CLASSES))
    logits[np.arange(images), seen] += 5
    p = np.exp(logits)
    return (p / p.sum(1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(
    "shares", [(0.65, 0.65, 0.35), (0.6, 0.6, 0.4), (0.5, 0.5, 0.5), (0.6, 0.6, 0.4, 0.6), (0.6, 0.5, 0.4, 0.5, 0.6)]
)
def test_honest_silos_that_seldom_see_the_same_accuse_none_of_them(shares):
    """As teachers of photographs, which agree on few of the images that priors draw."""
    for first in (0, 10, 20, 30):
        standing = standing_of([idiosyncratic(first + seed, share) for seed, share in enumerate(shares)])
        assert standing.suspicions() == [None] * len(shares)
        assert standing.weights.min() > 0.5


def test_three_that_agree_on_much_still_outvote_one_whose_answers_are_half_lies():
    said = [teacher(seed) for seed in range(3)]
    half = np.random.default_rng(7).random(IMAGES) < 0.7
    said[1] = np.where(half[:, None], np.roll(said[1], 1, axis=1), said[1])
    standing = standing_of(said)
    assert standing.reputation[1] < 0.3
    assert standing.suspicions()[1] is not None


def exchanged(others):
    """A silo that swaps classes 3 and 8, after others that see in images of 8 what `others` says of each."""
    said = [teacher(seed) for seed in range(len(others))]
    for silo, seen in enumerate(others):
        of_8 = truth() == 8
        said[silo][of_8] = swapped(said[silo][of_8], 8, seen)
    return [*said, swapped(teacher(20), 3, 8)]


@pytest.mark.parametrize(
    ("others", "contradicted"),
    [((8, 8), True), ((8, 5), False), ((5, 6), False), ((8, 8, 8, 5), True)],
)
def test_a_class_is_contradicted_only_with_one_voice(others, contradicted):
    """What the silo takes for 3 is of 8: for most of the others that is another class, or each sees another one."""
    standing = standing_of(exchanged(others))
    assert standing.support[-1, 3] < 0.25  # it hardly counts there in any case
    assert (3 in standing.contradicted(len(others))) is contradicted


@pytest.mark.parametrize("silos", [3, 4, 5, 30])
@pytest.mark.parametrize("images", [500, 526, 1490])
def test_however_many_silos_and_images_one_that_swaps_is_named_and_no_other(silos, images):
    said = [teacher(seed, images=images) for seed in range(silos)]
    said[1] = swapped(said[1], 3, 8)
    standing = standing_of(said)
    assert standing.contradicted(1).tolist() == [3, 8]
    assert [s for s, why in enumerate(standing.suspicions()) if why] == [1]


def test_on_fewer_than_500_images_no_class_is_contradicted():
    said = [teacher(seed, images=490) for seed in range(3)]
    said[2] = swapped(said[2], 3, 8)
    assert standing_of(said).contradicted(2).tolist() == []


def test_a_silo_that_left_some_images_unanswered_is_named_all_the_same():
    said, given = [teacher(seed) for seed in range(5)], np.ones((5, IMAGES), bool)
    said[2] = swapped(said[2], 3, 8)
    given[2, 7] = False
    said[2][7] = 0
    assert standing_of(said, given=given).contradicted(2).tolist() == [3, 8]


def test_silos_that_answered_different_images_accuse_none_of_them():
    for seed in range(6):
        given = np.random.default_rng(seed).random((5, 2000)) < 0.3
        said = np.stack([idiosyncratic(10 * seed + s, 0.6, images=2000) for s in range(5)]) * given[:, :, None]
        standing = standing_of(said, given=given)
        assert [standing.contradicted(silo).tolist() for silo in range(5)] == [[]] * 5


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


def dipped(first, last, windows=10, size=500):
    """Standing of five honest silos of which one says something else in windows `first` to `last`."""
    said = [teacher(seed, images=windows * size) for seed in range(5)]
    rows = slice(first * size, (last + 1) * size)
    said[1][rows] = np.roll(said[1][rows], 1, axis=1)
    return standing_of(said)


@pytest.mark.parametrize("where", [(3, 3), (4, 6), (2, 7)])
def test_one_that_agrees_again_has_not_turned(where):
    standing = dipped(*where)
    assert standing.steadiness[:, 1].min() == 1
    assert "turned" not in str(standing.suspicions()[1])


@pytest.mark.parametrize("where", [(5, 9), (5, 8), (0, 4), (1, 4)])
def test_one_that_agrees_in_fewer_than_two_windows_before_or_after_has(where):
    standing = dipped(*where)
    assert standing.steadiness[where[0] : where[1] + 1, 1].max() < 0.3
    assert "turned" in standing.suspicions()[1] or standing.reputation[1] < 0.3


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
