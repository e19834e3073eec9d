# SPDX-License-Identifier: Apache-2.0
"""`fedcpsc.audit`: attacks on a finished run's student and silos, held against what the silos claim."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from fedcpsc.api.arrays import Labelled, as_image_set
from fedcpsc.api.federation import Federation
from fedcpsc.api.members import Member
from fedcpsc.api.run import Run, open_run
from fedcpsc.api.settings import Settings, merged
from fedcpsc.api.tables import Table
from fedcpsc.audit.figures import AuditFile, AuditRow, Bound
from fedcpsc.audit.finished_run import FinishedRun
from fedcpsc.audit.over_run import audit_run
from fedcpsc.audit.plan import AuditConfig
from fedcpsc.audit.silo_under_audit import OwnersSilo
from fedcpsc.audit.verdict import strongest
from fedcpsc.errors import AuditError, explain
from fedcpsc.runs.layout import AUDIT_FOLDER

__all__ = ["Audit", "Members", "audit"]

Members: TypeAlias = "Mapping[str, Labelled] | Sequence[Labelled]"
"""What each silo's teacher was trained on: images and labels, by the silo's name or in the order of the models."""


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        violation: whether a claim was refuted: a lower bound on epsilon exceeds a claimed epsilon.
        testable: whether every claim could have been refuted.
        text: verdict in words.
        rows: how well each attack tells members from the others, on each teacher and on the student.
        bounds: lower bounds on epsilon, where there are canaries or claims.
        warnings: claims that this audit could not refute whatever it found, in words.
        folder: path of the audit's folder.
        file: content of audit.json, all of it.
    """

    violation: bool
    testable: bool
    text: str
    rows: tuple[AuditRow, ...] = field(repr=False)
    bounds: tuple[Bound, ...] = field(repr=False)
    warnings: tuple[str, ...]
    folder: Path
    file: AuditFile = field(repr=False)

    @property
    def strongest(self) -> tuple[AuditRow, ...]:
        """Of each teacher and of the student the attack that finds most members at the least false positive rate."""
        return tuple(strongest(self.rows))

    def table(self) -> Table:
        """The strongest attacks."""
        rows = [
            (
                row["policy"],
                row["surface"],
                row["attack"],
                f"{row['auc']:.3f}",
                *(f"{share:.1%}" for share in row["tpr_at"].values()),
            )
            for row in self.strongest
        ]
        rates = next((list(row["tpr_at"]) for row in self.rows), [])
        heads = ("", "surface", "attack", "AUC", *(f"TPR at {float(rate):.1%}" for rate in rates))
        return Table("VIOLATION" if self.violation else "audit", heads, rows, (self.text,))

    def __str__(self) -> str:
        return self.table().as_text()

    def _repr_html_(self) -> str:
        return self.table().as_html()


def audit(
    run: Run | str | os.PathLike[str],
    silos: Federation | str | os.PathLike[str] | None = None,
    *,
    members: Members | None = None,
    non_members: Labelled | None = None,
    config: Settings | None = None,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> Audit:
    """Attacks a finished run as `fedcpsc audit --run` does; charges nothing.

    The owners of the silos audit: it takes their private images. Of modules behind `fedcpsc.simulate` they are given
    here, and the owner's word counts that the modules were trained on them. Of silos that `fedcpsc run` made, the run's
    configuration finds them, and only `silos` is given.

    Args:
        run: finished run, or its folder.
        silos: federation that the run asked, or the folder of its silos' folders; None: the run's own federation.
        members: for each silo the images and labels that its teacher was trained on; needed with a federation. Labels
            are names, or numbers in the order of that silo's own classes.
        non_members: images that no teacher was trained on, of the same classes, and their labels; needed with a
            federation. Labels are names, or numbers in the order of the federation's classes. A false positive rate of
            0.001 needs 10,000 of them (`fprs` says which rates are reported).
        config: settings of the audit, as {"shadows.count": 32}, or a YAML file; data, pool and policies are the run's.
        folder: folder of the audit; None: `audit/` in the run's folder.
        resume: whether to go on with the audit that lies there.
        progress: function called with the number of stages done, the number of all, and what comes.

    Raises:
        AuditError: too few images for what is asked, the folder holds another audit, or something was not given.
        RunError: the run has not finished.
        DataError: the images are not those of the silos.
        SiloError: a silo claims what it cannot prove, or its files do not fit together.
        ConfigError: a setting is wrong.
    """
    found = run if isinstance(run, Run) else open_run(run)
    plan = merged(AuditConfig, config, "config")
    out = found.folder / AUDIT_FOLDER if folder is None else Path(folder)
    warned: list[str] = []
    tell = progress or (lambda done, total, text: None)
    given = silos if silos is not None else found.federation
    if given is None:
        remedy = "give the folder of its silos' folders, for example silos/digits"
        raise AuditError(explain("silos", None, "must be given: this run was another process's", remedy))
    if isinstance(given, Federation):
        opened = _opened(found, given, members, non_members)
    elif members is not None or non_members is not None:
        shown = "are those that the run's configuration deals to the silos' folders"
        raise AuditError(explain("members, non_members", "given", shown, "leave both out"))
    else:
        opened = FinishedRun.open(found.folder, Path(given))
    file = audit_run(plan, opened, out, resume=resume, tell=tell, warn=warned.append)
    verdict = file["verdict"]
    return Audit(
        violation=verdict["violation"],
        testable=verdict["testable"],
        text=verdict["text"],
        rows=tuple(file["rows"]),
        bounds=tuple(file["bounds"]),
        warnings=tuple(warned),
        folder=out,
        file=file,
    )


def _opened(run: Run, federation: Federation, members: Members | None, non_members: Labelled | None) -> FinishedRun:
    """The run with what the federation's owners bring.

    Raises:
        AuditError: something was not given.
    """
    federation.check_open()
    if members is None or non_members is None:
        missing = "members" if members is None else "non_members"
        shown = "must be given: only the silos' owners know what their models were trained on"
        remedy = "give (images, labels) of each silo as members, and images that no model saw as non_members"
        raise AuditError(explain(missing, None, shown, remedy))
    if not isinstance(members, Mapping):
        if len(members) != len(federation.names):
            constraint = f"must be (images, labels) for each of {len(federation.names)} silos"
            raise AuditError(explain("members", len(members), constraint, "give a list with one pair for each"))
        members = dict(zip(federation.names, members, strict=True))
    if unknown := set(federation.names) ^ set(members):
        shown = f"must be given for exactly the silos {', '.join(federation.names)}"
        raise AuditError(explain("members", sorted(unknown), shown, "give one pair for each"))
    if left_out := [name for name in run.bank.silos if name not in members]:
        shown = f"the run asked silos that are not of this federation ({', '.join(federation.names)})"
        raise AuditError(explain("silos", left_out, shown, "give the federation that was asked"))
    owners = {member.manifest.silo: _owner(member, members[member.manifest.silo]) for member in federation.members}
    sets = federation.label_sets
    outside = as_image_set(non_members, "non_members", sets.classes, sets.names, federation.image_shape)
    return FinishedRun.given(run.folder, owners, outside)


def _owner(member: Member, given: Labelled) -> OwnersSilo:
    manifest = member.manifest
    name = f"members of {manifest.silo}"
    images = as_image_set(given, name, manifest.classes, manifest.class_names, manifest.image_shape)
    return OwnersSilo(member.folder, images, member.gatekeeper.teacher, by_word=True)
