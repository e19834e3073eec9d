# SPDX-License-Identifier: Apache-2.0
"""What a teacher's mechanism lets out: one function for the gatekeeper, which answers, and the audit, which attacks.

The ledger is not asked here: whoever lets scores leave has charged for them before.
"""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

from fedcpsc.errors import TeacherError, explain
from fedcpsc.logs import fields
from fedcpsc.privacy.mechanisms import Floats, Mechanism
from fedcpsc.teachers.protocol import ShardTeacher, Teacher

__all__ = ["released_scores", "teacher_outputs"]

log = logging.getLogger("fedcpsc.gatekeeper")


def teacher_outputs(mechanism: Mechanism, teacher: Teacher, images: npt.NDArray[np.uint8]) -> Floats:
    """What the mechanism is given.

    | teacher | what comes of it |
    |---|---|
    | its shards are needed | each shard's probabilities; a broken shard's may be NaN |
    | it fails on an image, under noise | NaN: an error would disclose something that the noise does not cover |
    | it fails on an image, without noise | the error |

    Args:
        mechanism: mechanism of the policy.
        teacher: private classifier over K classes.
        images: uint8 [N, C, H, W], N >= 1.

    Returns:
        float32 [T, N, K], of T shards, or T = 1.

    Raises:
        TeacherError: where the teacher fails without noise, or has no shards where the mechanism needs them.
    """
    if mechanism.shards:
        if not isinstance(teacher, ShardTeacher):
            raise TeacherError(explain("teacher", type(teacher).__name__, "has no shards", "train with kind: shards"))
        return teacher.predict_shards(images)
    try:
        outputs = teacher.predict(images)
    except TeacherError as error:
        if not mechanism.cost():
            raise
        # for the owner alone, who must stop the gatekeeper: the asker sees answers, which are charged
        log.error("the teacher failed, and abstained", extra=fields(images=len(images), note=str(error)))
        outputs = np.full((len(images), teacher.classes), np.nan, np.float32)  # it abstains, under the same noise
    return outputs[np.newaxis]


def released_scores(mechanism: Mechanism, teacher: Teacher, images: npt.NDArray[np.uint8]) -> Floats:
    """What is let out of a teacher's outputs, before the answer form.

    Args:
        mechanism: mechanism of the policy.
        teacher: private classifier over K classes.
        images: uint8 [N, C, H, W], N >= 1.

    Returns:
        float32 [N, K].

    Raises:
        TeacherError: as `teacher_outputs`.
    """
    return mechanism.release(teacher_outputs(mechanism, teacher, images))
