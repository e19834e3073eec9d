# SPDX-License-Identifier: Apache-2.0
"""How the silos that have joined stand to those that an earlier run has asked (`queries.start_from`).

- A silo that is in the bank and has joined goes on: it is asked about what it has not answered.
- A newcomer is asked about all that is banked first. It alone is charged for that.
- A silo that has not joined has left: its answers stay and count, and it is neither asked nor waited for.
- A silo whose teacher was replaced is a newcomer by its name. What the old teacher answered is kept apart, under a name
  of its own, and counts on like the answers of a silo that has left.
- A silo whose teacher is the same and whose answers are now of another form, or under other noise, is not asked about
  the same images again: one column of a bank is of one form and one noise. Its earlier answers are kept apart likewise.

A silo of an earlier version does not say which teacher answers. It is taken for the one that answered before, unless
its classes are others, and that is told.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from fedcpsc.config import RunConfig
from fedcpsc.distillation.federation import answer_forms, forms_of_bank
from fedcpsc.distillation.real_data import real_pictures_of_source
from fedcpsc.distillation.transport import SiloId
from fedcpsc.errors import FederationError, explain
from fedcpsc.label_sets import LabelSets
from fedcpsc.protocol.messages import AnswerForm, Description
from fedcpsc.runs.bank_copy import copy_bank
from fedcpsc.runs.inherited import Inherited
from fedcpsc.runs.lineage import EarlierColumn, Lineage, SourceRun
from fedcpsc.runs.suspicion import exclusion

__all__ = ["Continuation", "check_same_classes", "check_same_domain", "continue_with", "copy_inherited"]

Places: TypeAlias = tuple[int, ...]

_SHOWN = 20  # classes in an error
_LONGEST = 150  # characters of a silo's name that the name of its earlier answers begins with
_VERSION = 8  # characters of a teacher's version that it ends with


@dataclass(frozen=True, eq=False)
class Continuation:
    """The silos of the new run's bank.

    Attributes:
        descriptions: descriptions of all of them, by the name of their answers: of those that have joined what they say
            now, of the others what they said, with the one form that they were asked for.
        renamed: new names of inherited answers that are kept apart.
        lineage: where the inherited answers came from, and who of those that gave them is not asked.
    """

    descriptions: dict[SiloId, Description]
    lineage: Lineage
    renamed: dict[str, str] = field(default_factory=dict)


def continue_with(
    inherited: Inherited,
    joined: Mapping[SiloId, Description],
    config: RunConfig,
    tell: Callable[[str], None] = lambda line: None,
) -> Continuation:
    """Matches the silos that have joined with those of an earlier run's bank.

    Args:
        inherited: the earlier run and its bank.
        joined: descriptions of the silos that were let in, by name, without those that are excluded.
        config: configuration of the new run.
        tell: function called with one line for each silo that has left, joined anew, or changed.

    Raises:
        FederationError: a silo does not offer the form that the configuration asks for.
    """
    bank, before, source = inherited.bank, inherited.run.lineage, inherited.run.name
    left_before = () if before is None else before.left
    forms_before = forms_of_bank(inherited.descriptions, inherited.config.queries.form, left_before)
    forms = answer_forms(joined, config.queries.form)
    descriptions, renamed, left = dict(joined), dict[str, str](), dict[str, str]()
    earlier = list(before.earlier if before is not None else ())
    known = {} if before is None else before.left
    rounds, stay = bank.group_ends[-1], f"its answers from {source} stay and count"
    for silo in bank.silos:
        then = replace(inherited.descriptions[silo], forms=(forms_before[silo],))
        now = joined.get(silo)
        if now is None:
            descriptions[silo] = then
            why = "is excluded" if silo in config.aggregation.exclude else "has not joined this run"
            left[silo] = known.get(silo, f"it {why}; its answers from {source} stay")
            if silo not in config.aggregation.exclude and silo not in known:
                tell(f"{silo} has not joined: {stay}; {exclusion([silo])} leaves them out")
            continue
        replaced = _is_replaced(then, now)
        if not replaced and _same_terms(then, forms_before[silo], now, forms[silo]):
            if then.teacher is None or now.teacher is None:
                tell(f"{silo} does not say which teacher answers: it is taken for the one that answered in {source}")
            continue
        name = _name(silo, then, forms_before[silo], [*bank.silos, *joined, *descriptions], replaced=replaced)
        renamed[silo] = name
        descriptions[name] = replace(then, silo=name)
        earlier.append(EarlierColumn(column=name, silo=silo, rounds=rounds, replaced=replaced))
        what = "has another teacher" if replaced else "answers in another form, or under other noise,"
        left[name] = f"{silo} {what} now; these are its answers from {source}"
        tell(f"{silo} {what} now: its answers from {source} are kept apart as {name}")
        tell(f"{name}: {stay}; {exclusion([name])} leaves them out")
        again = "is asked about all images, at its own expense" if replaced else "is asked about new images alone"
        tell(f"{silo} {again}")
    for silo in joined:
        if silo not in bank.silos:
            tell(f"{silo} joins anew: it is asked about the {bank.rows:,} images from {source} first")
    lineage = Lineage(
        kind="continued",
        runs=tuple(_renamed(one, renamed) for one in inherited.earlier_runs),
        ends=bank.group_ends,
        images=bank.rows,
        left=left,
        earlier=tuple(earlier),
        real_pictures=tuple(real_pictures_of_source(inherited)),
    )
    return Continuation(descriptions, lineage, renamed)


def check_same_domain(inherited: Inherited, joined: Mapping[SiloId, Description]) -> None:
    """Does nothing where the silos that have joined take the bank's images.

    Args:
        inherited: the earlier run and its bank.
        joined: descriptions of the silos that were let in.

    Raises:
        FederationError: their images are of another shape.
    """
    shape = inherited.bank.image_shape
    if other := {silo: said.image_shape for silo, said in joined.items() if said.image_shape != shape}:
        constraint = f"the images that {inherited.run.name} has banked are {list(shape)}"
        remedy = "begin a new run with these silos, without queries.start_from"
        raise FederationError(explain("image_shape", other, constraint, remedy))


def copy_inherited(
    inherited: Inherited,
    continuation: Continuation,
    silos: Collection[SiloId],
    sets: LabelSets,
    folder: Path,
    priors: Collection[str],
) -> None:
    """Makes the new run's bank of the earlier one's, with a place for every silo that has joined.

    Args:
        inherited: the earlier run and its bank.
        continuation: how the new run's silos stand to that run's.
        silos: names of the silos that are not excluded, in the order of `sets`.
        sets: their label sets.
        folder: folder of the new bank, which must not exist.
        priors: names of the priors that the new run draws from.

    Raises:
        FederationError: these are not the classes of the bank.
        BankError: it cannot be written.
    """
    places = _places(inherited, sets, continuation.renamed) | {
        silo: (sets.places[index], sets.none[index]) for index, silo in enumerate(silos)
    }
    names = sorted(places)
    everyone = replace(
        sets,
        places=tuple(places[silo][0] for silo in names),
        none=tuple(places[silo][1] for silo in names),
    )
    copy_bank(inherited.bank, folder, names, everyone, continuation.lineage, continuation.renamed, priors)


def check_same_classes(inherited: Inherited, sets: LabelSets) -> None:
    """Does nothing where the silos' classes are those of the bank, in whatever order.

    Args:
        inherited: the earlier run and its bank.
        sets: label sets of the silos that are not excluded.

    Raises:
        FederationError: they are others.
    """
    before = inherited.bank.label_sets
    same = before.classes == sets.classes
    if same and before.names is not None and sets.names is not None:
        same = set(before.names) == set(sets.names)
    if not same:
        shown = sets.classes if sets.names is None else ", ".join(sets.names[:_SHOWN])
        was = before.classes if before.names is None else ", ".join(before.names[:_SHOWN])
        constraint = f"the answers that {inherited.run.name} has banked are about other classes ({was})"
        remedy = "leave out the silos that know others, exclude none that alone knows one, or begin a new run"
        raise FederationError(explain("classes", shown, constraint, remedy))


def _places(inherited: Inherited, sets: LabelSets, renamed: Mapping[str, str]) -> dict[SiloId, tuple[Places, bool]]:
    """Places and the column for "none" of the inherited silos, in the classes' new order, under their new names."""
    before, order = inherited.bank.label_sets, list(range(sets.classes))
    if before.names is not None and sets.names is not None:
        order = [sets.names.index(name) for name in before.names]
    return {
        renamed.get(silo, silo): (tuple(order[place] for place in before.places[index]), before.none[index])
        for index, silo in enumerate(inherited.bank.silos)
    }


def _is_replaced(then: Description, now: Description) -> bool:
    """Whether another teacher answers now, as far as the descriptions tell."""
    if then.teacher is not None and now.teacher is not None and then.teacher != now.teacher:
        return True
    named = then.class_names is not None and then.class_names != now.class_names  # a silo may begin to name them
    return named or (then.classes, then.none_class) != (now.classes, now.none_class)


def _same_terms(then: Description, form_then: AnswerForm, now: Description, form_now: AnswerForm) -> bool:
    return form_then is form_now and then.noise_sigma == now.noise_sigma


def _name(silo: str, then: Description, form: AnswerForm, taken: Collection[str], *, replaced: bool) -> str:
    """A name for a silo's earlier answers that no other silo has."""
    version = (then.teacher or "earlier")[:_VERSION]
    base = f"{silo[:_LONGEST]}@{version if replaced else form.value}"
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    return name


def _renamed(run: SourceRun, renamed: Mapping[str, str]) -> SourceRun:
    answers = {renamed.get(silo, silo): count for silo, count in run.answers.items()}
    return run.model_copy(update={"answers": answers})
