# SPDX-License-Identifier: Apache-2.0
"""A run's answer bank as arrays: what was asked, what each silo answered, and what was made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from fedcpsc.runs.bank_view import BankView

__all__ = ["Answers", "RunBank"]

Floats = npt.NDArray[np.float32]


class Answers(Mapping[str, Floats]):
    """Each silo's answers by the silo's name, float32 [N, K] in the federation's classes, read when they are asked for.

    A row of zeros was not answered. The arrays are read-only.

    Args:
        view: bank to read from.
        owner: object whose end would remove the files; kept as long as this one.
    """

    def __init__(self, view: BankView, owner: object = None) -> None:
        self._view, self._owner = view, owner

    def __getitem__(self, silo: str) -> Floats:
        view = self._view
        if silo not in view.silos:
            raise KeyError(silo)
        if view.label_sets.alike and all(silo in batch.answered for batch in view.batches):
            return view.map_answers(silo)
        found = np.zeros((view.rows, view.classes), np.float32)
        number = view.silos.index(silo)
        for batch in view.batches:
            for rows in batch.answered_by(silo):
                own = view.own_answers(silo, rows)
                found[rows] = own if view.label_sets.alike else view.label_sets.federated(number, own)[0]
        found.flags.writeable = False
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._view.silos)

    def __len__(self) -> int:
        return len(self._view.silos)


class RunBank:
    """The N images that were asked about, in the order asked, and their answers; files are mapped, not loaded.

    Args:
        view: bank of the run.
        owner: object whose end would remove the files; kept as long as this one.

    Attributes:
        images: images, uint8 [N, C, H, W].
        targets: soft targets that the student was fitted to, float32 [N, K]; zeros where there is none yet.
        pseudo_labels: class that the generator made each image for, int64 [N]; -1 for images of the prior.
        answers: answers of each silo, float32 [N, K], by its name.
    """

    def __init__(self, view: BankView, owner: object = None) -> None:
        self._view = view
        self.images: npt.NDArray[np.uint8] = view.images
        self.targets: Floats = view.targets
        self.pseudo_labels: npt.NDArray[np.int64] = view.pseudo_labels
        self.answers = Answers(view, owner)

    def __len__(self) -> int:
        return self._view.rows

    @property
    def silos(self) -> tuple[str, ...]:
        """The silos' names."""
        return tuple(self._view.silos)

    @property
    def classes(self) -> int:
        """Number K of the federation's classes."""
        return self._view.classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self._view.image_shape

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the K classes, in the order of targets and answers; None where they go by number."""
        return self._view.label_sets.names

    @property
    def rounds(self) -> npt.NDArray[np.int64]:
        """Round in which each image was made, from 1, int64 [N]."""
        found = np.zeros(len(self), np.int64)
        for batch in self._view.batches:
            found[batch.rows] = batch.round + 1
        return found

    def answered(self, silo: str) -> npt.NDArray[np.bool_]:
        """Whether the silo has answered each image, bool [N].

        Args:
            silo: name of the silo.

        Raises:
            KeyError: no silo has that name.
        """
        if silo not in self._view.silos:
            raise KeyError(silo)
        found = np.zeros(len(self), bool)
        for batch in self._view.batches:
            for rows in batch.answered_by(silo):
                found[rows] = True
        return found

    def __repr__(self) -> str:
        shape = "x".join(map(str, self._view.image_shape))
        asked = f"{len(self):,} images {shape}, {self._view.classes} classes"
        return f"<bank of {asked}, answered by {', '.join(self.silos)}>"
