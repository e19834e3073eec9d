# SPDX-License-Identifier: Apache-2.0
"""Images and labels as a program holds them, NumPy arrays or torch tensors, checked and made into an `ImageSet`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fedcpsc.data.images import ImageSet
from fedcpsc.errors import DataError, explain

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Images", "Labelled", "Labels", "as_image_set", "as_images"]

Images: TypeAlias = "npt.NDArray[Any] | Tensor"
"""uint8 [N, C, H, W]; grey images may be [N, H, W]."""

Labels: TypeAlias = "npt.NDArray[Any] | Tensor | Sequence[int] | Sequence[str]"
"""Class of each image: its number in [0, K), or its name."""

Labelled: TypeAlias = tuple[Images, Labels]
"""Images, and the label of each."""

_CHANNELS = (1, 2, 3, 4)


def as_images(given: Images, name: str, image_shape: tuple[int, int, int] | None = None) -> npt.NDArray[np.uint8]:
    """uint8 [N, C, H, W] of what was given.

    Args:
        given: images; of uint8, since what a silo answers is a question of exact pixels.
        name: name of the argument in messages.
        image_shape: shape (C, H, W) that they must have; None takes any.

    Raises:
        DataError: where they are of another type or shape, or none.
    """
    images = _array(given, name)
    got = f"{images.dtype}{list(images.shape)}"
    if images.dtype != np.uint8:
        remedy = "convert pixels in [0, 1] by (255 * x).round().astype('uint8'), a tensor by .round().to(torch.uint8)"
        raise DataError(explain(name, got, "must be uint8", remedy))
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or not len(images):
        raise DataError(explain(name, got, "must be [N, C, H, W], N >= 1", "give images, channels first"))
    shape = tuple(images.shape[1:])
    if image_shape is not None and shape != image_shape:
        last = images.shape[3] in _CHANNELS and (shape[2], shape[0], shape[1]) == image_shape
        remedy = "move the channels to the front: images.transpose(0, 3, 1, 2)" if last else "bring them to that shape"
        raise DataError(explain(name, got, f"must be images of the silos' shape {image_shape}", remedy))
    writeable = images.flags.writeable  # torch takes no array that is read-only, such as a bank's
    return np.ascontiguousarray(images) if writeable else np.array(images, order="C")


def as_image_set(
    given: Labelled, name: str, classes: int, class_names: tuple[str, ...] | None, image_shape: tuple[int, int, int]
) -> ImageSet:
    """Labelled images.

    Args:
        given: images and labels.
        name: name of the argument in messages.
        classes: number K of classes.
        class_names: names of the K classes; None where they go by number.
        image_shape: shape (C, H, W) that the images must have.

    Raises:
        DataError: where images or labels are not as they must be.
    """
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise DataError(explain(name, type(given).__name__, "must be (images, labels)", "give a pair"))
    images = as_images(given[0], f"{name}: images", image_shape)
    labels = _labels(given[1], f"{name}: labels", classes, class_names)
    if len(labels) != len(images):
        constraint = f"must be one for each of {len(images)} images"
        raise DataError(explain(f"{name}: labels", len(labels), constraint, "give as many"))
    return ImageSet(images, labels, classes, class_names=class_names)


def _labels(given: Labels, name: str, classes: int, class_names: tuple[str, ...] | None) -> npt.NDArray[np.int64]:
    labels = _array(given, name)
    if labels.ndim != 1:
        raise DataError(explain(name, list(labels.shape), "must be [N], one for each image", "flatten them"))
    if labels.dtype.kind in "UOT":
        places = {label: place for place, label in enumerate(class_names or ())}
        unknown = [label for label in labels.tolist() if label not in places]
        if unknown:
            known = "the classes have no names" if class_names is None else f"is none of {', '.join(class_names[:20])}"
            raise DataError(explain(name, unknown[0], known, "give numbers, or name the classes to simulate"))
        return np.array([places[label] for label in labels.tolist()], np.int64)
    if labels.dtype.kind not in "iu":
        raise DataError(explain(name, str(labels.dtype), "must be whole numbers or names of classes", "convert them"))
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        shown = f"{labels.min()} to {labels.max()}"
        raise DataError(explain(name, shown, f"must be in [0, {classes})", "number them as the models' outputs go"))
    return labels.astype(np.int64)


def _array(given: Any, name: str) -> npt.NDArray[Any]:
    if hasattr(given, "detach"):  # a tensor, wherever it lies
        given = given.detach().cpu().numpy()
    try:
        return np.asarray(given)
    except (ValueError, TypeError) as error:
        raise DataError(explain(name, type(given).__name__, f"is no array ({error})", "give an array")) from error
