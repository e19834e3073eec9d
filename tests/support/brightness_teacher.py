# SPDX-License-Identifier: Apache-2.0
"""A teacher as a silo's owner might install it: the silo's manifest names `support.brightness_teacher:make`."""

import numpy as np
import numpy.typing as npt


def make(weights: bytes):
    """Two classes, dark and bright; `weights` says from which mean on an image is bright."""
    threshold = float(weights)

    def predict(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        bright = 1 / (1 + np.exp(threshold - images.reshape(len(images), -1).mean(1)))
        return np.stack([1 - bright, bright], 1).astype(np.float32)

    return predict


def broken(weights: bytes):
    """What a faulty installation gives."""

    def predict(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        raise ValueError(f"private pixel {images.max()}")

    return predict


def one_at_a_time(weights: bytes):
    """As `make`, of a model that takes one image at a time, as it was exported."""
    whole = make(weights)

    def predict(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        if len(images) > 1:
            raise ValueError("Got: 2 Expected: 1")
        return whole(images)

    return predict


def make_with_none(weights: bytes):
    """The same teacher with a third output, "none of these": the share of the less probable of its two classes."""
    of_two = make(weights)

    def predict(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        both = of_two(images)
        none = both.min(1, keepdims=True)
        return np.concatenate([both * (1 - none), none], 1).astype(np.float32)

    return predict
