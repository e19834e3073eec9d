# SPDX-License-Identifier: Apache-2.0
"""Who takes part in a run, and what they have in common: settled before one of them is asked anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet
from fedcpsc.distillation.admission import admit
from fedcpsc.distillation.exclusion import banked_silos, check_classes_remain, connect_silos, without_excluded
from fedcpsc.distillation.federation import Federation, check_federation, forms_of_bank
from fedcpsc.distillation.inheritance import Continuation, check_same_classes, check_same_domain, continue_with
from fedcpsc.distillation.transport import SiloId, SiloTransport
from fedcpsc.errors import RunError, explain
from fedcpsc.models.students import Start
from fedcpsc.protocol.messages import AnswerForm, Description
from fedcpsc.runs.descriptions import read_descriptions
from fedcpsc.runs.inherited import Inherited, check_continuation, inheriting
from fedcpsc.runs.layout import BANK_FOLDER, LINEAGE_FILE
from fedcpsc.runs.lineage import Lineage, read_lineage

__all__ = ["Participants", "earlier_answers", "take_part"]


@dataclass(frozen=True, eq=False)
class Participants:
    """The silos of a run.

    Attributes:
        silos: descriptions of the silos whose answers count, by name, in the bank's order.
        forms: answer form of each.
        absent: reasons why silos among them are not asked, by name.
        departed: names of those among them that an earlier run alone has asked.
        turned_away: reasons why silos were not let in, by name.
        federation: what they have in common.
        not_joined: number of silos that were expected and did not join.
        lineage: where the bank's answers came from; None where this run asks for all of them.
        continuation: how they stand to an earlier run's silos, where its answers are yet to be copied; else None.
    """

    silos: dict[SiloId, Description]
    forms: dict[SiloId, AnswerForm]
    absent: dict[SiloId, str]
    departed: frozenset[SiloId]
    turned_away: dict[str, str]
    federation: Federation
    not_joined: int
    lineage: Lineage | None
    continuation: Continuation | None


@contextmanager
def earlier_answers(config: RunConfig, run_dir: Path, tell: Callable[[str], None]) -> Iterator[Inherited | None]:
    """The run that this one begins with, as long as its bank is to be copied; None where none is, or it was done.

    Args:
        config: configuration of the run.
        run_dir: folder of the run.
        tell: function called with one line for each event an operator should know.

    Raises:
        RunError, BankError: the earlier run cannot be begun with, see `inheriting`.
        ConfigError: the configuration does not go together with its answers.
    """
    source = config.queries.start_from
    if source is None:
        yield None
    elif (run_dir / BANK_FOLDER).exists():
        if read_lineage(run_dir) is None:
            constraint = f"began with the answers of {source}, and its bank does not say so"
            remedy = f"restore {BANK_FOLDER}/{LINEAGE_FILE} from a backup"
            raise RunError(explain("run", str(run_dir), constraint, remedy))
        yield None
    else:
        with inheriting(Path(source), run_dir, tell) as inherited:
            check_continuation(inherited, config)
            tell(inherited.in_words())
            yield inherited


def take_part(
    config: RunConfig,
    transport: SiloTransport,
    run_dir: Path,
    evaluation: ImageSet | None,
    inherited: Inherited | None,
    start: Start,
    tell: Callable[[str], None],
    *,
    resume: bool,
) -> Participants:
    """Waits for the silos, and lets in those that may take part; nothing is written.

    Args:
        config: configuration of the run.
        transport: way to the silos.
        run_dir: folder of the run.
        evaluation: held-out images in their own classes; None where there are none.
        inherited: run whose answers are yet to be copied; None where there is none.
        start: what the student begins as.
        tell: function called with one line for each event an operator should know.
        resume: whether the folder holds an earlier attempt.

    Raises:
        FederationError: too few silos, or silos that do not fit together, or not with the answers that are banked.
        ConfigError: a value that only the silos show to be wrong.
        RunError, BankError: a file of an earlier attempt is damaged.
    """
    exclude = set(config.aggregation.exclude)
    lineage = None if inherited is not None else read_lineage(run_dir)
    begun_with = read_descriptions(run_dir) if resume and inherited is None else None
    if begun_with is not None:
        begun_with = {silo: said for silo, said in begun_with.items() if silo not in exclude}
    present = connect_silos(transport, config, run_dir)
    banked = banked_silos(run_dir) if inherited is None else set(inherited.bank.silos)
    joined = without_excluded(present, config, banked, tell)
    gone: set[SiloId] = set() if lineage is None else lineage.left.keys() - present.keys()
    if inherited is not None:
        gone = exclude & banked - present.keys()
    expected = config.of_remaining_silos(gone)
    held_out_names = None if evaluation is None else evaluation.class_names
    admitted = admit(joined, expected, held_out_names, transport.turned_away, tell, begun_with)
    silos, absent, continuation = dict(admitted.silos), dict(admitted.absent), None
    if inherited is not None:
        check_same_domain(inherited, silos)
        continuation = continue_with(inherited, silos, config, tell)
        lineage = continuation.lineage
        silos = {silo: said for silo, said in continuation.descriptions.items() if silo not in exclude}
        absent = {silo: why for silo, why in lineage.left.items() if silo in silos}
    departed: frozenset[SiloId] = frozenset() if lineage is None else frozenset(absent.keys() & lineage.left.keys())
    if lineage is not None:
        absent |= {silo: lineage.left[silo] for silo in departed}
    silos = {silo: silos[silo] for silo in sorted(silos)}
    federation = check_federation(silos, expected, evaluation, tell, start)
    check_classes_remain(run_dir, config, federation.label_sets.classes)
    if inherited is not None:
        check_same_classes(inherited, federation.label_sets)
    return Participants(
        silos=silos,
        forms=forms_of_bank(silos, config.queries.form, departed),
        absent=absent,
        departed=departed,
        turned_away=admitted.turned_away,
        federation=federation,
        not_joined=max(0, expected.silos.count - (len(silos) - len(departed))),
        lineage=lineage,
        continuation=continuation,
    )
