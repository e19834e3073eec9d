# SPDX-License-Identifier: Apache-2.0
"""What an attacker sees of a model: its output behind the gatekeeper's own answer form, and one number for each image.

The forms are `protocol.forms`, the decoding is the server's: nothing here makes a teacher look more or less private
than a policy lets it be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fedcpsc.audit.attacks.label_only import label_only_scores
from fedcpsc.audit.attacks.loss import loss_scores
from fedcpsc.audit.attacks.statistics import confidence_logit
from fedcpsc.audit.observations import Observations
from fedcpsc.data.augment import random_shift
from fedcpsc.protocol.forms import shape_answer
from fedcpsc.protocol.messages import Answer, AnswerForm, decode_answers
from fedcpsc.seeding import derive_seed

__all__ = ["VIEWS", "AnswerChannel", "public_views", "seen_by_labels", "seen_by_probabilities", "through_form"]

Floats32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

VIEWS = 16
_NOISE = 24.0  # standard deviation of the noise on half the views, in levels of 0..255


@dataclass(frozen=True)
class AnswerChannel:
    """What an answer keeps of a model's probabilities.

    Attributes:
        form: form of the answers.
        bits: bits of a probability, 8 or 32.
        top_k: number of classes shown by the form `top_k`, >= 1.
    """

    form: AnswerForm = AnswerForm.PROBABILITIES
    bits: int = 32
    top_k: int = 1

    @property
    def labels_only(self) -> bool:
        """Whether only labels are out."""
        return self.form is AnswerForm.LABEL


def through_form(probabilities: Floats32, channel: AnswerChannel) -> Floats32:
    """What a server decodes from a gatekeeper's answers: [..., K] in, [..., K] out, rows summing to 1."""
    flat = probabilities.reshape(-1, probabilities.shape[-1])
    values, indices = shape_answer(flat, channel.form, bits=channel.bits, top_k=channel.top_k)
    answer = Answer("0" * 32, channel.form, flat.shape[1], values, 0, indices)
    return decode_answers(answer).reshape(probabilities.shape)


def seen_by_probabilities(
    probabilities: Floats32, labels: npt.NDArray[np.int64], channel: AnswerChannel
) -> Observations:
    """What answers with probabilities say of each image.

    An answer of 8 bits is known up to half a level: a probability of 255 levels is taken for 254.5, so that rounding
    alone makes nothing look impossible.

    Args:
        probabilities: the models' own, [M, N, K].
        labels: labels that the models were trained on [N].
        channel: channel of the answers, of another form than `label`.
    """
    shown = through_form(probabilities, channel)
    labels = np.broadcast_to(labels, shown.shape[:-1])
    if channel.bits == 8:
        own = np.take_along_axis(shown, labels[..., None], -1)[..., 0].astype(np.float64).clip(1 / 510, 1 - 1 / 510)
        shown_pair, first = np.stack([own, 1 - own], -1), np.zeros(own.shape, np.int64)
        return Observations(confidence_logit(shown_pair, first), own, loss_scores(shown_pair, first))
    loss = loss_scores(shown, labels)
    return Observations(confidence_logit(shown, labels), np.exp(loss), loss)


def seen_by_labels(
    predict: Callable[[Images], Floats32], images: Images, labels: npt.NDArray[np.int64]
) -> Observations:
    """What labels alone say of each image, asked about `VIEWS` public views of it.

    Args:
        predict: the models' probabilities [M, N, K] of images [N, C, H, W].
        images: uint8 [N, C, H, W].
        labels: labels that the models were trained on [N].
    """
    answered = [
        through_form(predict(view), AnswerChannel(AnswerForm.LABEL)).argmax(-1) for view in public_views(images)
    ]
    table = np.stack(answered)  # [V, M, N]
    share = np.stack([label_only_scores(table[:, model], labels) for model in range(table.shape[1])])
    return Observations(share, (share * VIEWS + 0.5) / (VIEWS + 1), None)


def public_views(images: Images) -> list[Images]:
    """The image itself, views moved by up to a pixel, and noisy ones: `VIEWS` times [N, C, H, W], always the same."""
    stream = torch.Generator().manual_seed(derive_seed(0, "audit", "views"))
    pixels = torch.from_numpy(images).float()
    views = [images]
    for number in range(1, VIEWS):
        if number % 2:
            view = random_shift(pixels, 1, stream)
        else:
            view = pixels + _NOISE * torch.randn(pixels.shape, generator=stream)
        views.append(view.round().clamp(0, 255).to(torch.uint8).numpy())
    return views
