# SPDX-License-Identifier: Apache-2.0
"""How much silos say that answer in unlike forms, or under unlike noise.

Every silo s shows its teacher's probabilities p through a *window*: an answer form and a noise, both public. What is
read of it is q = p + e, with a mean squared error u_s = E |e|^2 that depends on the window alone and is measured, not
assumed: the answers of the silos with the widest window are looked at through the window of s, noise, decoding and all,
and compared with what they were. A label is read as what it was found to mean there: mass 1 - h on the class named and
h spread over the others, h being the mean mass that the named class lacks. Taken for certain, as among labels alone, it
would outweigh every silo that admits a doubt.

Silos also differ because their teachers do, by a variance t^2 that no window shows. With q_s = mu + d_s + e_s the best
linear estimate of mu weighs by the inverse of the whole variance,

    w_s = 1 / (t^2 + u_s),    t^2 = max(0, E sum_s |q_s - mean q|^2 / (S - 1) - mean u),

the random-effects weights of meta-analysis (DerSimonian and Laird 1986) with the unweighted moment estimate of t^2
(Hedges and Olkin 1985), taken among the silos with the widest window where there are several: there u is least, and
least in the way. Skewed silos have a large t^2: noise then hardly matters beside who knows what, and the rule's
own weights decide. Each rule multiplies its weights by w_s. Where all windows are alike nothing is multiplied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedcpsc.distillation.denoising import read_answer
from fedcpsc.protocol.forms import shape_answer
from fedcpsc.protocol.messages import Answer, AnswerForm
from fedcpsc.runs.bank_index import BankIndex
from fedcpsc.seeding import numpy_generator

__all__ = ["Information", "Window", "measure", "sample_answers"]

Floats = npt.NDArray[np.float32]

_ROWS = 2000  # of the bank, evenly spread, that are measured on
_ROUNDING = 1 / (12 * 255**2)  # variance of a probability in 8 bits: what even the widest window hides of each class
_FORMS = list(AnswerForm)


@dataclass(frozen=True)
class Window:
    """How a silo shows its teacher's probabilities, and how that is read.

    Attributes:
        form: the answer form.
        noise: standard deviation of the noise on each probability.
        denoise: whether the noise is accounted for.
    """

    form: AnswerForm
    noise: float = 0.0
    denoise: bool = True

    def look(self, probabilities: Floats, top_k: int, rng: np.random.Generator) -> Floats:
        """What a server reads of [N, K] through the window; `top_k` classes are shown where that is the form."""
        noisy = probabilities + rng.normal(0, self.noise, probabilities.shape).astype(np.float32)
        values, indices = shape_answer(noisy, self.form, bits=32, top_k=top_k)
        answer = Answer("0" * 32, self.form, probabilities.shape[1], values, 0, indices)
        return read_answer(answer, self.noise if self.denoise else 0.0)


@dataclass(frozen=True, eq=False)
class Information:
    """What the windows leave of each silo's answers.

    Attributes:
        weight: w_s relative to the best silo's, float32 [S], in (0, 1].
        hidden: h of silos that show labels, 0 of others, float32 [S], in [0, 1].
        known: which classes each silo knows, bool [S, K]; None where all know all.
    """

    weight: Floats
    hidden: Floats
    known: npt.NDArray[np.bool_] | None = None

    def read(self, answers: Floats) -> Floats:
        """Answers [S, N, K] with labels as what they mean; absent answers, all zero, stay so."""
        others: int | npt.NDArray[np.int64] = answers.shape[2] - 1
        hidden = self.hidden[:, None, None]
        said = answers.sum(2, keepdims=True)
        if self.known is not None:  # what a label hides can only be of the silo's own classes
            others = np.maximum(self.known.sum(1) - 1, 1)[:, None, None]
        softened = np.where(hidden > 0, answers * (1 - hidden) + (said - answers) * hidden / others, answers)
        if self.known is not None:
            softened = softened * self.known[:, None, :]
        read: Floats = softened.astype(np.float32)
        return read


def measure(bank: BankIndex, windows: Mapping[str, Window], before: int | None = None) -> Information | None:
    """What the bank's answers show of the windows; None where all are alike, or nothing was answered.

    Args:
        windows: one window for every silo of the bank.
        before: number of the first round whose answers are left out; None: none are.
    """
    shown = [windows[silo] for silo in bank.silos]
    if len(set(shown)) == 1:
        return None
    answers, given, mass = _sample(bank, before)
    if mass is not None:  # of an image that is none of its classes, an answer says little of them
        given &= mass >= 0.5
    if not given.any():
        return None
    answered = [s for s in range(len(shown)) if given[s].any()]
    widest = min((_FORMS.index(shown[s].form), shown[s].noise) for s in answered)
    of_widest = [s for s in answered if (_FORMS.index(shown[s].form), shown[s].noise) == widest]
    teachers = np.concatenate([answers[s][given[s]] for s in of_widest])
    teachers = teachers[:: max(1, len(teachers) // _ROWS)]
    lost, hidden = np.zeros(len(shown)), np.zeros(len(shown))
    for s, window in enumerate(shown):
        rng = numpy_generator(0, "window", s)  # the same at every refresh: targets follow from the answers alone
        read = window.look(teachers, _top_k(answers[s][given[s]]), rng)
        if window.form is AnswerForm.LABEL:
            hidden[s] = max(0.0, 1.0 - float((teachers * read).sum(1).mean()))
            read = Information(np.ones(1, np.float32), hidden[s : s + 1].astype(np.float32)).read(read[None])[0]
        if window.form is not AnswerForm.PROBABILITIES or window.noise:
            lost[s] = float(((read - teachers) ** 2).sum(1).mean())
    known = None if bank.label_sets.known.all() else bank.label_sets.known
    facts = Information(np.ones(len(shown), np.float32), hidden.astype(np.float32), known)
    group = of_widest if len(of_widest) > 1 else answered
    own = _between(facts.read(answers)[group], given[group]) - float(lost[group].mean())
    variance = max(0.0, own) + lost + bank.classes * _ROUNDING
    return Information((variance.min() / variance).astype(np.float32), facts.hidden, known)


def sample_answers(bank: BankIndex, before: int | None = None) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Answers [S, n, K] and who gave one [S, n], of some thousand rows spread evenly over what was answered.

    A row sums to 1, or to less where a silo's answer says "none of my classes": to the part that says otherwise.

    Args:
        before: number of the first round that is left out; None: none is.
    """
    answers, given, _ = _sample(bank, before)
    return answers, given


def _sample(bank: BankIndex, before: int | None) -> tuple[Floats, npt.NDArray[np.bool_], Floats | None]:
    """The same, and what the rows sum to, [S, n]; None where all sum to 1."""
    batches = bank.batches_before(before)
    step = max(1, sum(batch.count for batch in batches) // _ROWS)
    sampled: list[tuple[Floats, npt.NDArray[np.bool_], Floats]] = []
    for batch in batches:
        if not batch.heard:
            continue
        for rows, answers, given, mass in bank.pieces(batch):
            own = slice((batch.first - rows.start) % step, None, step)  # every step-th row of the batch
            of_all = np.ones((len(bank.silos), 0), np.float32) if mass is None else mass[:, own].copy()
            sampled.append(
                (answers[:, own].copy(), given[:, own].copy(), of_all)
            )  # a view would keep the whole piece in memory
    if not sampled:
        return np.zeros((len(bank.silos), 0, bank.classes), np.float32), np.zeros((len(bank.silos), 0), bool), None
    answers, given, mass = (np.concatenate([part[i] for part in sampled], axis=1) for i in range(3))
    return answers, given, mass if any(bank.label_sets.none) else None


def _top_k(answers: Floats) -> int:
    """Classes that an answer shows: those above the level at which the rest is spread."""
    if not len(answers):
        return 1
    return max(1, int((answers > answers.min(1, keepdims=True)).sum(1).max()))


def _between(answers: Floats, given: npt.NDArray[np.bool_]) -> float:
    """Mean over images of the unbiased variance among the silos that answered, summed over classes."""
    present = given[:, :, None]
    count = given.sum(0)
    several = count > 1
    if not several.any():
        return 0.0
    mean = (answers * present).sum(0) / np.maximum(count, 1)[:, None]
    squares = (((answers - mean) ** 2) * present).sum((0, 2))
    return float((squares[several] / (count[several] - 1)).mean())
