# SPDX-License-Identifier: Apache-2.0
"""How far each silo may be believed, found out from the answers alone.

Among skewed silos an honest expert disagrees with most others: a median, a trimmed mean, or weights by agreement with
the mean of the others drop it, and let a few that lie vouch for each other. Here two silos are compared on one class
at a time, on the images of which each is surest:

1. **Confidence buys no weight.** Answers are raised to a power p_s <= 1 and normalised, so that no silo is on average
   more confident than the median silo.
2. **Agreement.** a_st(c) says how far the images that t is surest of are of class c are also those that s is: s's mean
   answer on c over t's highest 2 %, less s's mean over all images, relative to the same over s's own highest 2 %; then
   the geometric mean with what it is the other way round. Two silos agree as they do on the fifth of their common
   classes on which they agree best, for of the others one of them may know nothing.
3. **Reputation.** Agreements become edges between silos: 0 below half of what is usual, 1 from 0.2 above that; where
   three or four silos agree on little, only what is far below the usual is none. A silo's reputation is its
   eigenvector centrality (Bonacich 1972), doubled and cut at 1. A silo that some others understand keeps its weight,
   however few share its classes; those who vouch for each other alone are a small component beside the large one of
   the honest, who are taken to be the majority.
4. **Support.** On each class a silo counts by how far those that know the class agree with it there: one that swaps two
   classes loses these and keeps the others. A class that nobody else knows stays with the silo that does.
5. **Steadiness.** In every window of some hundred images, in the order in which they were asked, a silo whose agreement
   falls far below its own in other windows, while that of the others does not, counts for nothing: it turned.

Nothing here is a proof: where more than half of those who know a class lie, they win.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedcpsc.aggregation.rule import Answered, AnswersSoFar, Floats

__all__ = ["FEWEST_SILOS", "Standing", "believed_counts", "judge"]

FEWEST_SILOS = 3  # two cannot outvote each other
_FEWEST_IMAGES = 200  # below, chance agrees with anybody
_PEAK, _LEAST_IN_PEAK = 0.02, 10  # share, and least number, of the images that a silo is surest of are of a class
_BEST = 0.2  # share of two silos' common classes on which they are compared
_USUAL, _LEAST_EDGE, _SPAN = 0.5, 0.2, 0.2  # an edge is 0 up to max(0.5 x the usual agreement, 0.2), 1 from 0.2 above
_FAR_BELOW = 0.35  # with three or four silos only an agreement so far below the usual one is none
_DOUBLED = 2.0  # an expert at the rim of the graph keeps its weight
_AGREED = 0.4  # agreement on a class from which it counts as full support
_ALONE = 0.3  # weight, beside the reputations of those who know a class, of a silo's own word on it
_WINDOW = 500  # images of a window
_TURNED, _STEADY = 0.4, 0.6  # agreement in a window relative to what it was: nothing counts below, all above
_MOST_COUNTED = 4.0  # times the median silo's images
_NO_WORD = 1e-3  # least weight, so that an image that nobody else answered still gets a target
_GOOD_PART = 0.4  # of a silo's peers: less than one liar's fellow makes up, no more than half the honest
_DOUBTED = 0.3  # a reputation, or steadiness, below which a silo is named
_SURE, _WITNESSES, _CONTRADICTED, _AGREED_ON = 0.75, 1.2, 0.25, 0.5  # when a silo is named for a class
_RISE, _ONE_VOICE = 0.2, 2 / 3  # and others, who answered half of these images, see one other class there
_CERTAIN = 1e-6  # a probability of 0, so that certainty can be tempered
_ITERATIONS = 100


@dataclass(frozen=True, eq=False)
class Standing:
    """How far each silo may be believed.

    Attributes:
        power: exponent of each silo's answers, float32 [S] in (0, 1].
        reputation: float32 [S] in [0, 1].
        support: float32 [S, K] in [0, 1].
        steadiness: float32 [W, S] in [0, 1], one row for each window of the answered images, oldest first.
        agreement: agreement of each two silos, float32 [S, S] in [0, 1]; 0 on the diagonal.
        surest: mean of each silo's highest 2 % of answers on each class, float32 [S, K].
        known: which classes each silo knows, bool [S, K].
        unchecked: whether nobody shares a class with the silo, bool [S].
        contradictions: classes that a silo is sure of while others, who agree on them, say with one voice that what it
            takes for one is of another, bool [S, K].
    """

    power: Floats
    reputation: Floats
    support: Floats
    steadiness: Floats
    agreement: Floats
    surest: Floats
    known: Answered
    unchecked: Answered
    contradictions: Answered

    def temper(self, answers: Floats) -> Floats:
        """Answers [S, N, K] no more confident than the median silo's; each row keeps its sum."""
        return _tempered(answers, self.power, self.known)

    def weight(self, place: float) -> Floats:
        """How much each silo counts for images that come at `place`, in [0, 1), of those answered: float32 [S]."""
        window = min(int(place * len(self.steadiness)), len(self.steadiness) - 1)
        return self._weighed(self.steadiness[window])

    @property
    def weights(self) -> Floats:
        """The same for images that are not among those answered."""
        return self._weighed(self.steadiness.min(0))

    def _weighed(self, steadiness: Floats) -> Floats:
        weight: Floats = np.maximum(self.reputation * steadiness, _NO_WORD).astype(np.float32)
        return weight

    @property
    def nobody_agrees(self) -> bool:
        """Whether no two of the silos that share a class agree: then nobody can tell whom to believe."""
        return not self.unchecked.all() and bool(self.agreement.max() <= _LEAST_EDGE)

    @property
    def usual_agreement(self) -> float | None:
        """Median over pairs of silos that share a class of their agreement, in [0, 1]; None where no two do."""
        first, second = np.triu_indices(len(self.agreement), 1)
        sharing = (self.known[first] & self.known[second]).any(1)
        return float(np.median(self.agreement[first, second][sharing])) if sharing.any() else None

    def suspicions(self) -> list[str | None]:
        """For each silo what speaks against it, in words; None where nothing does."""
        return [self._suspicion(silo) for silo in range(len(self.reputation))]

    def contradicted(self, silo: int) -> npt.NDArray[np.int64]:
        """Classes on which the silo is contradicted: int64 [n]."""
        return np.flatnonzero(self.contradictions[silo])

    def _suspicion(self, silo: int) -> str | None:
        if self.reputation[silo] < _DOUBTED:
            return "the others do not see in images what it does"
        if self.steadiness[:, silo].min() < _DOUBTED:
            return "its answers turned in the course of the run"
        if len(classes := self.contradicted(silo)):
            return f"contradicted on {len(classes)} of its classes"
        return None


def judge(answers: AnswersSoFar, known: npt.NDArray[np.bool_]) -> Standing | None:
    """The standing of every silo; None where they are fewer than three, or have answered too little to tell.

    Args:
        answers: answers so far.
        known: which classes each silo knows, bool [S, K].
    """
    if answers.shape[0] < FEWEST_SILOS:
        return None
    said, given = answers.sample()
    given = given & (said.sum(2) > 0)
    if np.sort(given.sum(1))[-FEWEST_SILOS] < _FEWEST_IMAGES:
        return None
    power = _powers(said, given, known)
    evened = _tempered(said, power, known)  # both ways, so that a timid silo's surest images stand out as much
    by_class, peaks = _agreement_by_class(evened, given)
    shared = known.astype(np.int64) @ known.T
    agreement = _best(by_class, shared)
    unchecked: Answered = (shared - np.diag(np.diag(shared))).max(1) == 0
    reputation = np.where(unchecked, 1.0, _reputation(agreement))
    know = peaks * reputation[:, None]
    others = know.sum(0) - know
    backing = np.clip(by_class / _AGREED, 0, 1)
    backing[np.arange(len(said)), np.arange(len(said))] = 0
    support = (_ALONE + np.einsum("tc,stc->sc", know, backing)) / (_ALONE + others)
    doubted = _doubted(support, peaks, others)
    single = np.float32
    return Standing(
        power=np.minimum(power, 1).astype(single),
        reputation=reputation.astype(single),
        support=support.clip(0, 1).astype(single),
        steadiness=_steadiness(evened, given, shared, reputation),
        agreement=agreement.astype(single),
        surest=peaks.astype(single),
        known=known,
        unchecked=unchecked,
        contradictions=_seen_as_another(doubted, evened, given, peaks, know),
    )


def _doubted(support: Floats, surest: Floats, others: Floats) -> Answered:
    """Classes that a silo is sure of, and that others, who agree on them, do not see where it does: bool [S, K].

    Args:
        support, surest: attributes of the standing.
        others: how far others know each class, [S, K].
    """
    sure = surest > _SURE * surest.max(1, keepdims=True)
    agreed = np.stack([np.delete(support, silo, axis=0).max(0) for silo in range(len(support))]) > _AGREED_ON
    return np.asarray(sure & agreed & (others > _WITNESSES) & (support < _CONTRADICTED), bool)


def _seen_as_another(asked: Answered, said: Floats, given: Answered, surest: Floats, know: Floats) -> Answered:
    """Of pairs of silo and class, those where most others see one other class in what the silo takes for this one.

    In images that are nothing in particular, teachers of the same classes often see each another one, and contradict
    nobody. One that exchanges classes is contradicted with one voice: by two thirds of those that know the other class,
    weighted, whose answers on it rise there by a fifth of what they rise by where they are surest of it. Who answered
    fewer than half of these images has no voice.

    Args:
        asked: pairs to look at, bool [S, K].
        said: answers as confident as the median silo's, [S, N, K].
        given: who answered what, [S, N].
        surest: mean of each silo's highest answers on each class, [S, K].
        know: the same, times the silo's reputation.

    Returns:
        bool [S, K]; False for pairs that were not asked about.
    """
    found = np.zeros_like(asked)
    mean = _mean_answers(said, given)
    for silo, own in np.argwhere(asked):
        rows = np.flatnonzero(given[silo])
        if _PEAK * len(rows) < _LEAST_IN_PEAK:
            continue  # of few images some of the highest are hardly high
        top = rows[_highest(said[silo, rows, own])]
        both = given[:, top]
        count = both.sum(1)[:, None]
        rise = (said[:, top] * both[:, :, None]).sum(1) / np.maximum(count, 1) - mean
        weight = know * (2 * count >= len(top))
        weight[silo], weight[:, own] = 0, 0
        seen = weight * (rise > _RISE * (surest - mean + 0.05))
        enough = weight.sum(0) > _WITNESSES
        found[silo, own] = bool((enough & (seen.sum(0) > _ONE_VOICE * weight.sum(0))).any())
    return found


def _mean_answers(said: Floats, given: Answered) -> Floats:
    """Mean of each silo's answers on each class, [S, K]; 0 for a silo that gave none."""
    mean: Floats = (said * given[:, :, None]).sum(1) / np.maximum(given.sum(1), 1)[:, None]
    return mean


def _highest(values: Floats) -> npt.NDArray[np.int64]:
    """Places of the highest 2 % of a silo's answers on a class, or of the highest 10: int64 [n]."""
    count = min(len(values), max(_LEAST_IN_PEAK, round(_PEAK * len(values))))
    return np.argsort(-values, kind="stable")[:count]


def believed_counts(reported: Floats, surest: Floats) -> Floats:
    """Class counts as far as answers bear them out, [S, K]: a claim to hold millions buys no more than the next.

    A silo's total is at most four times the median total, and each count is multiplied by how sure the silo ever gets
    of the class.

    Args:
        reported: class counts that silos report, [S, K] >= 0.
        surest: mean of each silo's highest answers on each class, [S, K] in [0, 1].
    """
    total = reported.sum(1, keepdims=True)
    most = _MOST_COUNTED * np.median(total)
    believed: Floats = (reported * np.minimum(1, most / np.maximum(total, 1e-12)) * surest).astype(np.float32)
    return believed


def _confidence(rows: Floats) -> float:
    """Mean of the highest probability, from 0 where a row is even to 1 where it is certain: [n, K] -> [0, 1]."""
    if not len(rows) or rows.shape[1] < 2:
        return 1.0
    return float((rows.max(1).mean() - 1 / rows.shape[1]) / (1 - 1 / rows.shape[1]))


def _power(rows: Floats, wanted: float) -> float:
    """The exponent that makes answers [n, K] as confident as wanted, in [0.02, 50]."""
    logs = np.log(np.maximum(rows, _CERTAIN))
    low, high = 0.02, 50.0
    if not len(rows) or rows.shape[1] < 2:
        return 1.0
    for _ in range(25):
        middle = float(np.sqrt(low * high))
        raised = np.exp(middle * (logs - logs.max(1, keepdims=True)))
        if _confidence(raised / raised.sum(1, keepdims=True)) < wanted:
            low = middle
        else:
            high = middle
    return float(np.sqrt(low * high))


def _powers(said: Floats, given: Answered, known: npt.NDArray[np.bool_]) -> Floats:
    """The exponent that makes each silo's answers as confident as the median silo's, float32 [S]."""
    own = []
    for one, present, columns in zip(said, given, known, strict=True):
        rows = one[present][:, columns]
        own.append(rows / rows.sum(1, keepdims=True).clip(1e-12))
    middle = float(np.median([_confidence(rows) for rows in own if len(rows)]))
    return np.array([_power(rows, middle) for rows in own], np.float32)


def _tempered(answers: Floats, power: Floats, known: npt.NDArray[np.bool_]) -> Floats:
    """Answers [S, N, K] raised to each silo's power; classes that it lacks stay 0, and each row keeps its sum."""
    logs = np.log(np.maximum(answers, _CERTAIN))
    highest = np.where(known[:, None, :], logs, -np.inf).max(
        2, keepdims=True
    )  # of a row: its power is 1, and none underflows
    raised = np.exp(power[:, None, None] * np.minimum(logs - highest, 0)) * known[:, None, :]
    total = raised.sum(2, keepdims=True)
    tempered: Floats = (raised * (answers.sum(2, keepdims=True) / np.where(total > 0, total, 1))).astype(np.float32)
    return tempered


def _agreement_by_class(said: Floats, given: Answered) -> tuple[Floats, Floats]:
    """a_st(c), [S, S, K] in [0, 1], and the mean of each silo's highest answers on each class, [S, K]."""
    silos, _, classes = said.shape
    mean = _mean_answers(said, given)
    peaks = np.zeros((silos, classes), np.float32)
    over_highest = np.zeros((silos, silos, classes))  # of s, over the highest of t
    for t in range(silos):
        rows = np.flatnonzero(given[t])
        if not len(rows):
            continue
        for c in range(classes):
            top = rows[_highest(said[t, rows, c])]
            both = given[:, top]
            own = (said[:, top, c] * both).sum(1) / np.maximum(both.sum(1), 1)
            over_highest[:, t, c] = np.where(both.any(1), own - mean[:, c], 0)
        peaks[t] = mean[t] + over_highest[t, t]
    relative = np.maximum(over_highest / (peaks - mean + 0.05)[:, None, :], 0)
    by_class: Floats = np.sqrt(relative * relative.transpose(1, 0, 2)).clip(0, 1)
    return by_class, peaks


def _best(by_class: Floats, shared: npt.NDArray[np.int64]) -> Floats:
    """Mean agreement of each two silos on the classes on which they agree best, [S, S]; 0 with themselves."""
    ranked = -np.sort(-by_class, axis=2)
    best = np.maximum(1, np.rint(_BEST * shared)).astype(np.int64)
    mean = np.take_along_axis(np.cumsum(ranked, axis=2), best[:, :, None] - 1, axis=2)[:, :, 0] / best
    mean = np.where(shared > 0, mean, 0)
    np.fill_diagonal(mean, 0)
    agreement: Floats = mean
    return agreement


def _reputation(agreement: Floats) -> Floats:
    """Centrality of each silo, [S] in [0, 1]; 1 for all where no two agree."""
    silos = len(agreement)
    peers = max(1, (silos - 1) // 2)  # as many as an honest majority leaves at least
    usual = float(np.median(-np.sort(-agreement, axis=1)[:, :peers].mean(1)))
    none = _USUAL * usual
    if peers == 1:  # the best of two or three, which is more than usual: where silos agree on little, it proves little
        none = min(none, usual - _FAR_BELOW)
    edges = np.clip((agreement - max(_LEAST_EDGE, none)) / _SPAN, 0, 1)
    if not edges.any():
        return np.ones(silos, np.float32)
    central = np.ones(silos)
    for _ in range(_ITERATIONS):  # with a part of its own, so that it comes to rest on graphs of two parts, too
        central = edges @ central + 0.05 * central
        central /= central.max()
    reputation: Floats = np.minimum(1, _DOUBLED * central)
    return reputation


def _steadiness(said: Floats, given: Answered, shared: npt.NDArray[np.int64], reputation: Floats) -> Floats:
    """For each window of the images and each silo whether its agreement is what it was: [W, S] in [0, 1].

    What is left of a silo's agreement with each other one counts by how large that was at best; a silo keeps what it
    has kept with a good part of them, so that one is not taken to have turned because some that it knows have. Nor has
    one turned that agreed as usual in two windows before and again in two after: what is asked about changes as well.
    """
    silos, windows = len(said), max(1, said.shape[1] // _WINDOW)
    if windows == 1:
        return np.ones((1, silos), np.float32)
    held = np.full((windows, silos, silos), np.nan)
    for w, rows in enumerate(np.array_split(np.arange(said.shape[1]), windows)):
        enough = given[:, rows].sum(1) >= _FEWEST_IMAGES
        agreement = _best(_agreement_by_class(said[:, rows], given[:, rows])[0], shared)
        held[w] = np.where(enough[:, None] & enough[None, :], agreement, np.nan)
    best = np.max(held, axis=0, initial=1e-12, where=~np.isnan(held))
    weight = best * reputation[None, :]
    kept = np.ones((windows, silos))
    for w in range(windows):
        for s in range(silos):
            peers = np.flatnonzero(~np.isnan(held[w, s]) & (np.arange(silos) != s))
            if weight[s, peers].sum() > 0:
                kept[w, s] = _upper(held[w, s, peers] / best[s, peers], weight[s, peers])
    usual = np.median(kept, axis=1, keepdims=True)
    steady = np.clip((kept / np.maximum(usual, 1e-12) - _TURNED) / (_STEADY - _TURNED), 0, 1)
    again: Floats = np.maximum(steady, np.minimum(_second_so_far(steady), _second_so_far(steady[::-1])[::-1]))
    return again.astype(np.float32)


def _second_so_far(steady: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The second highest value before each window, [W, S]; 0 where there are fewer than two."""
    seconds = np.zeros_like(steady)
    for w in range(2, len(steady)):
        seconds[w] = np.sort(steady[:w], axis=0)[-2]
    return seconds


def _upper(values: npt.NDArray[np.float64], weight: npt.NDArray[np.float64]) -> float:
    """The largest value that a share `_GOOD_PART` of the weight reaches."""
    order = np.argsort(-values)
    reached = np.cumsum(weight[order]) >= _GOOD_PART * weight.sum()
    return float(values[order[int(np.argmax(reached))]])
