# SPDX-License-Identifier: Apache-2.0
"""How far a run is: one line a round and one a part of the final fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from fedcpsc.aggregation.reputation import Standing
from fedcpsc.config import RunConfig
from fedcpsc.distillation.belief import describe_beliefs, why_not_judged
from fedcpsc.distillation.query_scheduler import QueryScheduler
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.metrics import MetricsLine, SiloLine
from fedcpsc.runs.timeline import Timeline

__all__ = ["describe_progress"]


def describe_progress(
    config: RunConfig,
    bank: AnswerBank,
    scheduler: QueryScheduler,
    timeline: Timeline,
    *,
    phase: Literal["round", "final"],
    rounds_done: int,
    final_steps_done: int,
    entropy: float,
    standing: Standing | None,
    turned_away: Mapping[str, str],
) -> MetricsLine:
    """A line of metrics.jsonl, but for accuracies. The share of the work that is done is counted in optimiser steps.

    Args:
        config: configuration of the run.
        bank: answer bank of the run.
        scheduler: scheduler of the queries, which knows each silo's state.
        timeline: clock of the run.
        phase: part of the run that the line describes.
        rounds_done: number of rounds that are done, >= 1.
        final_steps_done: number of steps of the final fit that are done, >= 0.
        entropy: entropy of the classes that the silos see in the images, in [0, 1].
        standing: how far each silo is believed; None where that is not judged.
        turned_away: reasons why silos were not let in, by name.
    """
    per_round = config.steps_per_round * config.student.committee + 2 * config.synthesis.steps
    total = per_round * config.queries.rounds + config.final_steps
    share_done, seconds = (per_round * rounds_done + final_steps_done) / total, timeline.now
    line: MetricsLine = {
        "phase": phase,
        "round": rounds_done,
        "rounds": config.queries.rounds,
        "bank": bank.rows,
        "answers_used": max(bank.answers_of(silo) for silo in bank.silos),
        "answers_budget": config.queries.answers_per_silo,
        "entropy": round(entropy, 4),
        "alarm": entropy < config.output.alarm_entropy,
        "seconds": round(seconds, 2),
        "waiting_s": round(timeline.waited_s, 2),
        "active_silos": len(scheduler.active),
        "share_done": share_done,
        "seconds_left": round(seconds * (1 / max(share_done, 1e-6) - 1), 1),
    }
    if phase == "round":
        line["silos"] = _silo_lines(bank, scheduler, standing)
        line["not_judged"] = why_not_judged(config.aggregation, len(bank.silos), standing)
        if turned_away:
            line["turned_away"] = dict(turned_away)
    return line


def _silo_lines(bank: AnswerBank, scheduler: QueryScheduler, standing: Standing | None) -> dict[str, SiloLine]:
    states = scheduler.silos
    lines: dict[str, SiloLine] = {
        silo: {
            "answers": bank.answers_of(silo),
            "answers_left": states[silo].answers_left,
            "stopped": states[silo].left or None,
        }
        for silo in bank.silos
    }
    if standing is not None:
        for silo, belief in zip(bank.silos, describe_beliefs(standing), strict=True):
            lines[silo] = {**lines[silo], **belief}
    return lines
