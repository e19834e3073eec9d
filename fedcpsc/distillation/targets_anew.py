# SPDX-License-Identifier: Apache-2.0
"""Targets of a run that is over, or of a part of its silos, made anew of what its bank holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from fedcpsc.aggregation.rule import RULES
from fedcpsc.config import RunConfig
from fedcpsc.distillation.aggregation import class_counts
from fedcpsc.distillation.federation import answer_windows, forms_of_bank
from fedcpsc.distillation.targets import TargetMaker
from fedcpsc.distillation.transport import SiloId
from fedcpsc.protocol.messages import Description
from fedcpsc.runs.bank_index import BankIndex

__all__ = ["target_maker"]


def target_maker(
    bank: BankIndex, config: RunConfig, said: Mapping[SiloId, Description], departed: Collection[SiloId] = ()
) -> TargetMaker:
    """Makes the targets that the run makes of these silos' answers, and has learnt from all of them.

    Args:
        bank: bank of the run, with the silos that are meant and no others.
        config: configuration of the run.
        said: descriptions of at least these silos, by name.
        departed: names of silos that an earlier run alone has asked.

    Raises:
        FederationError: the rule needs class counts that a silo has not shared, or a silo does not offer the form.
        BankError: answers that the journal lists are not on the disk.
    """
    own = {silo: said[silo] for silo in bank.silos}
    reports = {silo: description.class_report for silo, description in own.items()}
    counts = class_counts(RULES.get(config.aggregation.rule), bank.silos, reports, bank.label_sets)
    windows = answer_windows(own, forms_of_bank(own, config.queries.form, departed), denoise=config.aggregation.denoise)
    maker = TargetMaker(bank, config.aggregation, counts, windows)
    maker.learn()
    return maker
