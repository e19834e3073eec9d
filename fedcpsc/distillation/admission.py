# SPDX-License-Identifier: Apache-2.0
"""Which of the silos that described themselves are let into a run: before one of them is asked anything.

A description is the claim of a stranger. One that is out of bounds (`claims`), offers less than the run asks for, or
does not go together with those of most silos costs its own silo the place, and no other. Where silos differ and neither
value is that of more than half of them, nobody can tell who is wrong: all are let in here, and `check_federation`
refuses them together, with the list.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Set
from functools import cache
from typing import NamedTuple

from fedcpsc.aggregation.rule import RULES
from fedcpsc.class_names import folded
from fedcpsc.config import RunConfig
from fedcpsc.distillation.claims import fault_of_description
from fedcpsc.distillation.transport import SiloId
from fedcpsc.errors import FederationError, explain
from fedcpsc.logs import fields
from fedcpsc.printable import printable
from fedcpsc.protocol.messages import AnswerForm, Description

__all__ = ["Admitted", "admit"]

log = logging.getLogger("fedcpsc.server")

Reasons = dict[SiloId, str]
Silos = dict[SiloId, Description]

_LONGEST = 400  # characters of a reason
_SHOWN = 20  # silos in an error


class Admitted(NamedTuple):
    """The silos of a run.

    Attributes:
        silos: descriptions of the run's silos, by name.
        absent: reasons why silos among them are not asked, by name: those of a resumed run that did not come again, or
            describe themselves otherwise than when it began. What they answered before stays.
        turned_away: reasons why those that answered were not let in, by name, or by node where the transport let none
            in.
    """

    silos: Silos
    absent: Reasons
    turned_away: Reasons


def admit(
    joined: Mapping[SiloId, Description],
    config: RunConfig,
    held_out_names: tuple[str, ...] | None,
    unheard: Mapping[str, str],
    tell: Callable[[str], None],
    begun_with: Mapping[SiloId, Description] | None = None,
) -> Admitted:
    """The silos that a run may ask; each that is turned away is told of, with the reason.

    Args:
        joined: descriptions by name, in the order in which the silos joined.
        config: configuration of the run.
        held_out_names: names of the held-out images' classes; None where there are none.
        unheard: reasons by node of those that the transport could not let in (`SiloTransport.turned_away`).
        tell: function called with one line for each silo that is turned away.
        begun_with: descriptions of the silos that a resumed run began with; None for a new run.

    Raises:
        FederationError: fewer are left than `queries.quorum` asks for; nobody has been asked or charged then.
    """
    away: Reasons = {}
    silos: Silos = dict(joined)
    silos = _without(silos, _out_of_bounds(silos, config.aggregation.max_classes), away)
    aliases = config.aggregation.aliases
    held_out = {aliases.get(name, name) for name in held_out_names or ()}
    if begun_with is not None:
        silos = _without(silos, _changed(silos, begun_with, config), away)
    silos = _without(silos, _names_alike(silos), away)
    silos = _without(silos, _unfit_for_the_run(silos, config), away)
    silos = _without(silos, _other_shapes(silos), away)
    silos = _without(silos, _unplaced(silos, aliases, held_out), away)
    silos = _without(silos, _spelt_otherwise(silos, aliases, held_out), away)
    silos = _without(silos, _too_many_classes(silos, config), away)
    reasons = {who: printable(why, _LONGEST) for who, why in {**unheard, **away}.items()}
    for who, why in reasons.items():
        shown = printable(who, _LONGEST)
        log.warning("a silo is not let in", extra=fields(run=config.output.name, silo=shown))  # why may quote it
        tell(f"{shown} is not let in: {why}")
    _check_quorum(silos, reasons, config, resumed=begun_with is not None)
    missing = {silo: said for silo, said in (begun_with or {}).items() if silo not in silos}
    absent = {silo: reasons.get(silo, "it did not join again") for silo in missing}
    return Admitted(silos | missing, absent, {printable(who, _LONGEST): why for who, why in reasons.items()})


def _without(silos: Silos, reasons: Reasons, away: Reasons) -> Silos:
    away |= reasons
    return {silo: said for silo, said in silos.items() if silo not in reasons}


def _out_of_bounds(silos: Silos, most: int) -> Reasons:
    found: Reasons = {}
    for silo, said in silos.items():
        fault = fault_of_description(said)
        if fault is None and said.classes - said.none_class > most:
            constraint = f"must be at most aggregation.max_classes={most} at one silo"
            fault = explain("classes", said.classes, constraint, "raise it, or let the silo know fewer")
        if fault is None and said.silo != silo:
            fault = explain("silo", said.silo, f"joined as {silo!r}", "give each silo one name")
        if fault is not None:
            found[silo] = fault
    return found


def _changed(silos: Silos, begun_with: Mapping[SiloId, Description], config: RunConfig) -> Reasons:
    """Silos of a resumed run that it did not begin with, or whose answers would now mean something else.

    A run that keeps teachers apart which were replaced between two runs lets none be replaced in its midst.
    """
    found: Reasons = {}
    facts = ["image_shape", "classes", "none_class", "class_names"]
    if config.queries.start_from is not None:
        facts.append("teacher")
    for silo, said in silos.items():
        before = begun_with.get(silo)
        if before is None:
            constraint = "is not one of the silos that the run began with"
            found[silo] = explain("silo", silo, constraint, "let it take part in a new run")
            continue
        for name in facts:
            then, now = getattr(before, name), getattr(said, name)
            if name == "teacher" and now is None:
                continue
            if then != now and then is not None:  # a silo may begin to name its classes
                remedy = "let its owner serve the teacher that the run began with"
                found[silo] = explain(name, now, f"was {printable(repr(then), 120)} when the run began", remedy)
                break
    return found


def _names_alike(silos: Silos) -> Reasons:
    """A silo whose name differs from an earlier one's by case, space or width alone; the first keeps the name."""
    first: dict[str, SiloId] = {}
    found: Reasons = {}
    for silo in silos:
        before = first.setdefault(folded(silo), silo)
        if before != silo:
            constraint = f"differs by case or space alone from {before!r}, which joined before"
            found[silo] = explain("silo", silo, constraint, "give each silo a name of its own")
    return found


def _unfit_for_the_run(silos: Silos, config: RunConfig) -> Reasons:
    """Silos that do not offer the form asked for, or the class counts that the rule needs.

    None where that is every silo: then it is the configuration that asks for too much, and it is refused as such.
    """
    rule, wanted = RULES.get(config.aggregation.rule), config.queries.form
    found: Reasons = {}
    for silo, said in silos.items():
        offered = [form.value for form in said.forms]
        if wanted != "best" and AnswerForm(wanted) not in said.forms:
            remedy = "ask for a form that every silo's policy offers, or for the best of each: queries.form=best"
            found[silo] = explain("queries.form", wanted, f"the silo offers {offered}", remedy)
        elif rule.needs_class_reports and said.class_report is None:
            remedy = "ask its owner for policy.share_class_counts, or use aggregation.rule=answer_peak_log"
            found[silo] = explain("aggregation.rule", rule.name, "the silo shares no class counts", remedy)
    return found if len(found) < len(silos) else {}


def _other_shapes(silos: Silos) -> Reasons:
    shapes = {silo: said.image_shape for silo, said in silos.items()}
    usual = _of_most(shapes)
    if usual is None:
        return {}
    remedy = "let its owner agree with the others, or leave it out"
    return {
        silo: explain("image_shape", shape, f"must be that of most silos, {usual}", remedy)
        for silo, shape in shapes.items()
        if shape != usual
    }


def _unplaced(silos: Silos, aliases: Mapping[str, str], held_out: Set[str]) -> Reasons:
    """Silos outside the largest group whose classes can be told to be the same, where it holds more than half of all.

    A group is all silos that name their classes; or those that name the same, with the unnamed of equally many
    classes; or the unnamed of equally many. Names that no held-out image has, from fewer than half of the silos, are
    not taken for the classes of those that name none.
    """
    number = {silo: said.classes - said.none_class for silo, said in silos.items()}
    named = {silo: said.class_names for silo, said in silos.items() if said.class_names is not None}
    unnamed = [silo for silo in silos if silo not in named]
    groups = [set(named)]
    for names in dict.fromkeys(named.values()):
        strange = held_out and held_out.isdisjoint(aliases.get(name, name) for name in names)
        if strange and 2 * len(named) < len(silos):
            continue
        alike = {silo for silo, own in named.items() if own == names}
        groups.append(alike | {silo for silo in unnamed if number[silo] == len(names)})
    groups += [{silo for silo in unnamed if number[silo] == count} for count in {number[silo] for silo in unnamed}]
    largest = max(groups, key=len)
    if 2 * len(largest) <= len(silos):
        return {}
    remedy = "let its owner name the classes in manifest.json as the others do, or leave it out"
    return {
        silo: explain("classes", _classes(said), "do not go together with those of most silos", remedy)
        for silo, said in silos.items()
        if silo not in largest
    }


def _spelt_otherwise(silos: Silos, aliases: Mapping[str, str], held_out: Set[str]) -> Reasons:
    """Silos with a class whose name differs by case or space alone from how most spell it, or that have one twice.

    How the held-out images spell a name decides, where fewer than half of the silos spell it otherwise.
    """
    fold = cache(folded)  # silos mostly have the same words
    spelt: dict[str, dict[str, list[SiloId]]] = defaultdict(lambda: defaultdict(list))
    found: Reasons = {}
    for silo, said in silos.items():
        words = [aliases.get(name, name) for name in said.class_names or ()]
        if len(set(words)) < len(words):
            twice = next(word for word in words if words.count(word) > 1)
            constraint = "the silo would have this class twice"
            found[silo] = explain("aggregation.aliases", twice, constraint, "give each class one word")
            continue
        for word in words:
            spelt[fold(word)][word].append(silo)
    wanted = {folded(word): word for word in held_out}
    for name, spellings in spelt.items():
        usual = _of_most({silo: word for word, own in spellings.items() for silo in own})
        given = wanted.get(name)
        if given is not None and 2 * sum(len(own) for word, own in spellings.items() if word != given) < len(silos):
            usual = given
        if usual is None:
            continue
        for word in spellings.keys() - {usual}:
            constraint = f"differs by case or space alone from {usual!r}, as the others say"
            remedy = f"say so by aggregation.aliases: {{{word!r}: {usual!r}}}, or let its owner rename it"
            found |= dict.fromkeys(spellings[word], explain("class", word, constraint, remedy))
    return found


def _too_many_classes(silos: Silos, config: RunConfig) -> Reasons:
    """Silos that name most of what nobody else knows, until the classes of the others are few enough."""
    most, aliases = config.aggregation.max_classes, config.aggregation.aliases
    words = {silo: {aliases.get(name, name) for name in said.class_names or ()} for silo, said in silos.items()}
    known_by = Counter(word for own in words.values() for word in own)
    found: Reasons = {}
    while len(known_by) > most and 2 * (len(found) + 1) < len(silos):
        alone = {silo: sum(known_by[word] == 1 for word in own) for silo, own in words.items()}
        silo = max(alone, key=lambda one: alone[one])
        constraint = (
            f"no other silo knows these, and all classes together must be at most aggregation.max_classes={most}"
        )
        found[silo] = explain("classes", alone[silo], constraint, "raise it, or leave the silo out")
        known_by -= Counter(words.pop(silo))
    return found


def _check_quorum(silos: Silos, away: Mapping[str, str], config: RunConfig, *, resumed: bool) -> None:
    count, quorum = config.silos.count, config.queries.quorum
    wanted = max(1, round(quorum * count))
    if len(silos) >= wanted:
        return
    constraint = f"at least {wanted} of {count} must join within {config.queries.hello_timeout_s:g} s"
    remedy = "start the missing silos, raise queries.hello_timeout_s, or lower queries.quorum"
    if config.queries.start_from is not None and silos and not resumed:
        remedy += f"; or, where others have left, set silos.count={len(silos)}: their answers stay"
    if away:
        shown = [f"{who}: {why}" for who, why in list(away.items())[:_SHOWN]]
        shown += [f"and {len(away) - _SHOWN} more"] if len(away) > _SHOWN else []
        constraint += f" and be let in; not let in: {' | '.join(shown)}"
        remedy = "nobody was asked or charged: let their owners fix it"
        if silos and not resumed:  # which keeps its configuration
            share = math.floor(1000 * len(silos) / count) / 1000
            remedy += f", or go on without them by a lower queries.quorum (here {share:g}) or silos.count={len(silos)}"
    raise FederationError(explain("silos joined", sorted(silos), constraint, remedy))


def _of_most(values: Mapping[SiloId, Hashable]) -> Hashable | None:
    """The value of more than half of the silos; None where there is no such value."""
    value, count = Counter(values.values()).most_common(1)[0] if values else (None, 0)
    return value if 2 * count > len(values) else None


def _classes(said: Description) -> object:
    return said.classes - said.none_class if said.class_names is None else list(said.class_names)
