# SPDX-License-Identifier: Apache-2.0
"""`fedcpsc.simulate`: silos around models of this process, each behind a gatekeeper with a policy and a ledger."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from torch import nn

from fedcpsc.api.members import Member, SiloStatus, check_fit, label_sets_of, status_of
from fedcpsc.api.models import (
    Classes,
    Model,
    NormalisationLike,
    Outputs,
    PolicyLike,
    Said,
    facts_of_modules,
    folders_of,
)
from fedcpsc.api.tables import Table
from fedcpsc.distillation.evaluate import SiloFacts
from fedcpsc.errors import SiloError, explain
from fedcpsc.gatekeeper.gatekeeper import Gatekeeper
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.label_sets import LabelSets
from fedcpsc.silos.modules import open_module_silo
from fedcpsc.simulated.silo_facts import facts_of_silo

__all__ = ["Federation", "simulate"]


class Federation:
    """Silos of this process. Made by `fedcpsc.simulate`.

    Budgets, refusals and privacy claims are those of a deployment: every answer that a run gets is charged to the
    silo's ledger, and stays charged for whatever runs come later. Close it, use it in a `with` statement, or let it go.

    Args:
        members: open silos, at least one.
        folder: folder of the silos' folders; None where all of them lie elsewhere.
        temporary: whether that folder goes with the federation.
    """

    def __init__(self, members: Sequence[Member], folder: Path | None, *, temporary: bool) -> None:
        self.members = tuple(members)
        self.folder = folder
        self.temporary = temporary
        gatekeepers = [member.gatekeeper for member in members]
        self._end = weakref.finalize(self, _close, gatekeepers, folder if temporary else None)

    @property
    def silos(self) -> tuple[SiloStatus, ...]:
        """Each silo as it stands now.

        Raises:
            SiloError: the federation is closed, or a ledger cannot be read.
        """
        self.check_open()
        return tuple(map(status_of, self.members))

    @property
    def names(self) -> tuple[str, ...]:
        """The silos' names, in the order of the models."""
        return tuple(member.manifest.silo for member in self.members)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that are asked about."""
        return self.members[0].manifest.image_shape

    @property
    def label_sets(self) -> LabelSets:
        """The federation's classes and each silo's own, in the order of the silos' names, as a run unites them."""
        return label_sets_of(self.members)

    @property
    def classes(self) -> int:
        """Number K of the federation's classes."""
        return self.label_sets.classes

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the K classes in the order of the student's outputs; None where they go by number."""
        return self.label_sets.names

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return not self._end.alive

    def check_open(self) -> None:
        """Does nothing while silos can be asked.

        Raises:
            SiloError: it was closed.
        """
        if self.closed:
            raise SiloError(explain("federation", self.names, "is closed", "simulate it again"))

    def close(self) -> None:
        """Closes ledgers and removes a temporary folder. Closing it again does nothing."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.closed:
            return f"<Federation of {len(self.members)} silos, closed>"
        return self._table().as_text()

    def _repr_html_(self) -> str:
        return repr(self) if self.closed else self._table().as_html()

    def _table(self) -> Table:
        where = "temporary, gone with the federation" if self.temporary else str(self.folder or "their own")
        title = f"{len(self.members)} silos, images {'x'.join(map(str, self.image_shape))}, {self.classes} classes"
        rows = [
            (
                silo.name,
                f"{silo.answers_left:,} of {silo.answers_total:,}",
                f"epsilon {silo.epsilon:g}" if silo.dp and silo.epsilon is not None else "no dp",
                silo.mechanism or "none",
            )
            for silo in self.silos
        ]
        notes = [f"{silo.name}: {note}" for silo in self.silos for note in silo.notes]
        return Table(title, ("silo", "answers left", "privacy", "mechanism"), rows, (f"folders: {where}", *notes))


def simulate(
    models: Sequence[Model],
    *,
    classes: Classes | None = None,
    image_shape: tuple[int, int, int] | None = None,
    normalisation: NormalisationLike | None = None,
    outputs: Outputs | None = None,
    policy: PolicyLike | Sequence[PolicyLike] | None = None,
    class_counts: Sequence[Sequence[int] | None] | None = None,
    names: Sequence[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Federation:
    """A federation in this process, a silo for each model.

    A module becomes the teacher of a new silo: it is copied as it is now, tried on invented images, and answers from
    behind a gatekeeper, with a policy and a ledger in the silo's folder. In a folder that is kept the same module
    goes on with the same ledger, and another one takes its place there, with what was spent before. A path is the
    folder of a silo that is there already, with its own policy, ledger and names.

    Args:
        models: models of the silos: torch modules that map float32 [N, C, H, W] to [N, K], or paths of silos' folders.
        classes: names of the K classes in the order of the models' outputs, or their number; a list of lists where
            models know different ones. May be left out beside a silo's folder.
        image_shape: shape (C, H, W) of the images; may be left out beside a silo's folder, or where the modules have an
            attribute of that name.
        normalisation: what the modules expect of a pixel x in [0, 1]: (mean, std), each a number or one for each
            channel, of (x - mean) / std; or "none" ([0, 1]), "half" ([-1, 1]), "imagenet", "bytes". May be left out for
            networks of this project, which take [-1, 1].
        outputs: meaning of the modules' outputs, "logits" or "probabilities"; None finds out by a trial.
        policy: policy of every new silo, as `policy.yaml` has it: a mapping, a `Policy`, or the path of a file; or one
            for each model. None is the default policy: 20,000 answers, no differential privacy.
        class_counts: for each model the number of its private images in each class, or None: needed where the policy
            shares them, or promises differential privacy.
        names: name of each silo; None: silo-0, silo-1, ...
        folder: folder of the new silos' folders `0`, `1`, ...; None makes a temporary one, gone with the federation.

    Raises:
        ConfigError: where something is said wrong, or must be said.
        TeacherError: where a model fails its trial.
        PolicyError: where a policy cannot be honoured with its model.
        FederationError: where the silos do not fit together.
        SiloError: where a folder holds something else, is damaged, or cannot be written.
    """
    folders = folders_of(models)
    said = Said(
        classes=classes,
        image_shape=image_shape,
        normalisation=normalisation,
        outputs=outputs,
        policy=policy,
        class_counts=class_counts,
        names=names,
    )
    facts = facts_of_modules(models, folders, said)
    with contextlib.ExitStack() as undo:
        base, temporary = _base(folder, undo) if facts else (None, False)
        members: list[Member] = []
        for number, model in enumerate(models):
            if base is not None and isinstance(model, nn.Module):
                silo = open_module_silo(model, facts[number], base / str(number))
                measured = SiloFacts(silo.manifest.train_size, silo.teacher.predict)
                member = Member(silo.folder, silo.manifest, silo.gatekeeper, measured, silo.notes)
            else:
                path, manifest = folders[number]
                member = Member(path, manifest, open_gatekeeper(path), facts_of_silo(path, manifest))
            undo.callback(member.gatekeeper.close)
            members.append(member)
        check_fit(members)
        undo.pop_all()
    return Federation(members, base, temporary=temporary)


def _base(folder: str | os.PathLike[str] | None, undo: contextlib.ExitStack) -> tuple[Path, bool]:
    if folder is not None:
        return Path(folder).absolute(), False
    made = Path(tempfile.mkdtemp(prefix="fedcpsc-silos-"))
    undo.callback(shutil.rmtree, made, ignore_errors=True)
    return made, True


def _close(gatekeepers: Sequence[Gatekeeper], folder: Path | None) -> None:
    for gatekeeper in gatekeepers:
        gatekeeper.close()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
