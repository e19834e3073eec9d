# SPDX-License-Identifier: Apache-2.0
"""Whether the silos that joined make a federation: before one of them is asked anything.

Their classes are united by name (`label_sets`), and the held-out images are labelled in the federation's classes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fedcpsc.aggregation.rule import RULES, LinearRule
from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet
from fedcpsc.distillation.information import Window
from fedcpsc.distillation.transport import SiloId
from fedcpsc.errors import FederationError, explain
from fedcpsc.label_sets import Aliases, LabelSets, SiloClasses, unite
from fedcpsc.models.student_check import check_student
from fedcpsc.models.students import Start
from fedcpsc.protocol.messages import AnswerForm, Description
from fedcpsc.protocol.recipe import check_sizes

__all__ = [
    "Federation",
    "answer_forms",
    "answer_windows",
    "check_federation",
    "describe_classes",
    "federated_labels",
    "forms_of_bank",
    "silo_classes",
]

_SHOWN = 20  # names, or silos, in a line


class Federation(NamedTuple):
    """What the silos that joined have in common.

    Attributes:
        label_sets: silos' label sets, in the order of the silos' names.
        image_shape: shape (C, H, W) of the images that all of them take.
        evaluation: held-out images with the federation's labels; None where there are none.
    """

    label_sets: LabelSets
    image_shape: tuple[int, int, int]
    evaluation: ImageSet | None


def check_federation(
    joined: Mapping[SiloId, Description],
    config: RunConfig,
    evaluation: ImageSet | None,
    tell: Callable[[str], None],
    start: Start | None = None,
) -> Federation:
    """What the silos that joined have in common; what an operator should know of their classes is told.

    Args:
        joined: descriptions of the silos that were let in (`admission.admit`), by name.
        start: what the student begins as; None for what the configuration alone says.

    Raises:
        FederationError: they do not fit together, and nobody can tell which of them is wrong.
        ConfigError: the student cannot be trained on such images.
        ProtocolError: such images cannot be asked about by recipe.
    """
    shapes = {silo: d.image_shape for silo, d in joined.items()}
    if len(set(shapes.values())) > 1:
        remedy = "let the silos' owners agree on one, or leave out those that differ"
        raise FederationError(explain("image_shape", shapes, "must be the same at every silo", remedy))
    shape = next(iter(shapes.values()))
    if evaluation is not None and evaluation.image_shape != shape:
        remedy = "set data.image_size and data.channels to what the silos take"
        constraint = f"must be the silos' image_shape {shape}"
        raise FederationError(explain("evaluation images", evaluation.image_shape, constraint, remedy))
    said = {silo: silo_classes(joined[silo]) for silo in sorted(joined)}
    label_sets = unite(said, config.aggregation.aliases, complete=len(joined) >= config.silos.count)
    if label_sets.classes > (most := config.aggregation.max_classes):
        constraint = f"all silos' classes together must be at most aggregation.max_classes={most}"
        raise FederationError(explain("classes", label_sets.classes, constraint, "raise it, or leave silos out"))
    if config.queries.recipes:
        check_sizes(shape, label_sets.classes, config.synthesis.latent, config.synthesis.width)
    check_student(config, label_sets.classes, shape, start, tell)
    if evaluation is not None:
        evaluation = federated_labels(evaluation, label_sets, config.aggregation.aliases)
    for line in describe_classes(label_sets, said, evaluation):
        tell(line)
    rule = RULES.get(config.aggregation.rule)
    if isinstance(rule, LinearRule) and not (label_sets.known.all() or all(label_sets.none)):
        tell(
            f"by aggregation.rule={rule.name} a silo also speaks where an image is of no class that it knows; by"
            " answer_peak_log each class is decided by the silos that know it"
        )
    return Federation(label_sets, shape, evaluation)


def silo_classes(description: Description) -> SiloClasses:
    """What a description says of the silo's classes."""
    own = description.classes - description.none_class
    return SiloClasses(own, description.class_names, description.none_class)


def federated_labels(evaluation: ImageSet, label_sets: LabelSets, aliases: Aliases) -> ImageSet:
    """Held-out images with the federation's labels; classes that no silo knows come after them.

    Images of such classes count as wrong: the student has no word for them.

    Args:
        evaluation: held-out images in their own classes.
        label_sets: the federation's classes.
        aliases: words that stand for others, also in the names of the held-out images' classes.

    Raises:
        FederationError: their classes cannot be told to be the federation's.
    """
    names = label_sets.names
    if names is None or evaluation.class_names is None:
        if not label_sets.known.all():
            constraint = "the held-out images' classes have no names, and the silos know different ones"
            remedy = "name their classes (folders, or the parquet file's ClassLabel), or set evaluation.held_out: false"
            raise FederationError(explain("evaluation images", evaluation.classes, constraint, remedy))
        return evaluation  # by number
    if evaluation.class_names == names:
        return evaluation
    places = label_sets.place_of(evaluation.class_names, aliases)
    if not places:
        shown = ", ".join(evaluation.class_names[:_SHOWN])
        constraint = f"none of these is a class of the federation ({', '.join(names[:_SHOWN])})"
        remedy = "say by aggregation.aliases which name is which, or set evaluation.held_out: false"
        raise FederationError(explain("evaluation images' classes", shown, constraint, remedy))
    twice = len(set(places.values())) < len(places)
    if twice:
        constraint = "two classes of the held-out images are one of the federation's"
        raise FederationError(explain("aggregation.aliases", dict(aliases), constraint, "fix the aliases"))
    others = [name for name in evaluation.class_names if name not in places]
    places |= {name: len(names) + index for index, name in enumerate(others)}
    table = np.array([places[name] for name in evaluation.class_names], np.int64)
    return replace(
        evaluation,
        labels=table[evaluation.labels],
        classes=len(names) + len(others),
        class_names=(*names, *others),
    )


def describe_classes(
    label_sets: LabelSets, said: Mapping[SiloId, SiloClasses], evaluation: ImageSet | None
) -> Iterator[str]:
    """What an operator should know of the classes, a line each; nothing where all silos name the same.

    Args:
        label_sets: the silos' label sets.
        said: what each silo said of its classes, in the same order.
        evaluation: held-out images, labelled in the federation's classes; None where there are none.
    """
    names, known, silos = label_sets.names, label_sets.known, list(said)
    unnamed = [silo for silo in silos if said[silo].names is None]
    if names is not None and unnamed:
        yield f"taken to number their classes as the others do, for they name none: {_some(unnamed)}"
    if names is not None and not known.all():
        yield f"{label_sets.classes} classes in all: {_some(names)}"
        lacking = [i for i in range(len(silos)) if not known[i].all()]
        for i in lacking[:_SHOWN]:
            unknown = [names[k] for k in np.flatnonzero(~known[i])]
            yield f"{silos[i]} knows {known[i].sum()} of them, not {_some(unknown)}"
        if len(lacking) > _SHOWN:
            yield f"and {len(lacking) - _SHOWN} more silos know a part of them"
    if strangers := _sure_of_foreign_classes(label_sets, silos):
        yield (
            f"each shares no class with some other silo, and is as sure of images of that one's classes as of its own:"
            f" {_some(strangers)}; with teachers that can say none of these (teachers.outliers) the student does better"
        )
    if evaluation is not None and names is not None and evaluation.classes > label_sets.classes:
        outside = int((evaluation.labels >= label_sets.classes).sum())
        others = (evaluation.class_names or ())[label_sets.classes :]
        if outside:
            yield f"{outside} held-out images are of classes that no silo knows ({_some(others)}): they count as wrong"


def _sure_of_foreign_classes(label_sets: LabelSets, silos: Sequence[SiloId]) -> list[SiloId]:
    """Silos that cannot say none of these, where another knows nothing of what they know."""
    known = label_sets.known.astype(np.int64)
    apart = (known @ known.T == 0).any(1) & ~np.array(label_sets.none)
    return [silo for silo, alone in zip(silos, apart, strict=True) if alone]


def answer_forms(joined: Mapping[SiloId, Description], wanted: str) -> dict[SiloId, AnswerForm]:
    """The form each silo is asked for.

    Args:
        wanted: value of `queries.form`: one form for all, or `best` for the richest of each silo's own.

    Raises:
        FederationError: a silo's policy does not offer the form.
    """
    if wanted == "best":
        return {silo: next(form for form in AnswerForm if form in d.forms) for silo, d in joined.items()}
    form = AnswerForm(wanted)
    for silo, description in joined.items():
        if form not in description.forms:
            offered = [f.value for f in description.forms]
            remedy = "ask for a form that every silo's policy offers, or for the best of each: queries.form=best"
            raise FederationError(explain("queries.form", form.value, f"{silo} offers {offered}", remedy))
    return dict.fromkeys(joined, form)


def forms_of_bank(
    said: Mapping[SiloId, Description], wanted: str, left: Collection[SiloId]
) -> dict[SiloId, AnswerForm]:
    """The form in which each silo of a bank answers, or has answered.

    Args:
        said: descriptions of the silos; of those that have left, with the one form that they were asked for.
        wanted: value of `queries.form` in the run that the bank is of.
        left: names of the silos that an earlier run alone has asked.

    Raises:
        FederationError: as `answer_forms`.
    """
    asked = answer_forms({silo: description for silo, description in said.items() if silo not in left}, wanted)
    return {silo: said[silo].forms[0] if silo in left else asked[silo] for silo in said}


def answer_windows(
    joined: Mapping[SiloId, Description], forms: Mapping[SiloId, AnswerForm], *, denoise: bool
) -> dict[SiloId, Window]:
    """How each silo shows its teacher's probabilities.

    Args:
        joined: descriptions of the silos, by name.
        forms: form that each is asked for.
        denoise: whether the noise that they state is accounted for (`aggregation.denoise`).
    """
    return {silo: Window(forms[silo], said.noise_sigma, denoise) for silo, said in joined.items()}


def _some(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
