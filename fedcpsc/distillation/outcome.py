# SPDX-License-Identifier: Apache-2.0
"""What a finished run says of itself: its result, its details and the two pictures."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fedcpsc.aggregation.rule import RULES
from fedcpsc.distillation.belief import describe_beliefs, why_not_judged
from fedcpsc.distillation.contribution import contribution
from fedcpsc.distillation.curve import save_curve
from fedcpsc.distillation.evaluate import Ensemble, Matrix, SiloFacts, accuracy_of, confusion, predicted_classes
from fedcpsc.distillation.loop import RoundLoop
from fedcpsc.distillation.sample_sheet import save_samples
from fedcpsc.distillation.transport import SiloId, Traffic
from fedcpsc.protocol.messages import AnswerForm
from fedcpsc.provenance import commit, peak_memory_mib, versions
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.details import DETAILS_SCHEMA, DetailsFile
from fedcpsc.runs.layout import CURVE_FILE, SAMPLES_FILE
from fedcpsc.runs.metrics import read_metrics
from fedcpsc.runs.result import RESULT_SCHEMA, RunResult, SiloResult
from fedcpsc.runs.timeline import QUERY, waiting_shares

__all__ = ["describe_details", "describe_run", "save_pictures", "student_confusion"]

_SAMPLE_ROWS, _SAMPLE_BYTES = 20_000, 2**28


def student_confusion(engine: RoundLoop) -> Matrix | None:
    """On the held-out images; None where there are none."""
    if engine.evaluation is None:
        return None
    batch_size = engine.config.evaluation.batch_size
    predicted = predicted_classes(engine.student.network, engine.evaluation, batch_size)
    return confusion(predicted, engine.evaluation, engine.bank.classes)


def describe_run(
    engine: RoundLoop,
    traffic: Traffic,
    student: Matrix | None,
    ensemble: Ensemble | None,
    facts: Mapping[SiloId, SiloFacts] | None,
    details: DetailsFile,
) -> RunResult:
    """The result after `RoundLoop.run`.

    Args:
        student: result of `student_confusion`.
        details: result of `describe_details`.
        facts: private figures of a simulation's silos; None in a deployment.
    """
    config, bank = engine.config, engine.bank
    known = facts or {}
    total, spans = engine.seconds, engine.timeline.read()
    share, share_later = waiting_shares(spans, total)
    images, weights = (details["contribution"]["images"], details["contribution"]["weights"])
    silos: list[SiloResult] = []
    for silo in bank.silos:
        state = engine.scheduler.silos[silo]
        claim = state.description.claim
        silos.append(
            {
                "id": silo,
                "teacher_accuracy": None if ensemble is None else ensemble.teacher_accuracy(silo),
                "train_size": known[silo].train_size if silo in known else None,
                "form": state.form.value,
                "noise_sigma": state.description.noise_sigma,
                "answers": bank.answers_of(silo),
                "answers_left": state.answers_left,
                "refusals": dict(state.refusals),
                "replies": dict(Counter(s.outcome for s in spans if s.what == QUERY and s.silo == silo)),
                "stopped": state.left or None,
                "weight": round(float(np.dot(weights[silo], images)) / max(sum(images), 1), 4),
                "class_names": None if (own := state.description.class_names) is None else list(own),
                "none_class": state.description.none_class,
                "reply_seconds": round(statistics.median(state.seconds), 4) if state.seconds else None,
                "dp": claim.dp,
                "epsilon": claim.epsilon,
                "delta": claim.delta,
                "unit": claim.unit,
                "relation": claim.relation,
                "mechanism": claim.mechanism,
            }
        )
    standing = engine.targets.standing
    if standing is not None:
        silos = [{**told, **belief} for told, belief in zip(silos, describe_beliefs(standing), strict=True)]
    result: RunResult = {
        "schema": RESULT_SCHEMA,
        "name": config.output.name,
        "student": {
            "accuracy": None if student is None else accuracy_of(student),
            "architecture": config.student.architecture,
            "width": config.student.width,
            "parameters": sum(p.numel() for p in engine.student.network.parameters()),
        },
        "ensemble": {"accuracy": None if ensemble is None else ensemble.accuracy, "rule": config.aggregation.rule},
        "silos": silos,
        "answers_per_silo": max(bank.answers_of(silo) for silo in bank.silos),
        "form": ", ".join(form for form in AnswerForm if form in {s.form for s in engine.scheduler.silos.values()}),
        "bytes_sent": traffic.bytes_sent,
        "bytes_received": traffic.bytes_received,
        "seconds": {
            "total": round(total, 2),
            "distillation": round(total - engine.timeline.waited_s, 2),
            "waiting": round(engine.timeline.waited_s, 2),
            "waiting_share": round(share, 4),
            "waiting_share_after_first_round": round(share_later, 4),
        },
        "peak_memory_mib": None if (peak := peak_memory_mib()) is None else round(peak, 1),
        "classes": bank.classes,
        "class_names": None if bank.label_sets.names is None else list(bank.label_sets.names),
        "image_shape": list(bank.image_shape),
        "evaluation_images": None if engine.evaluation is None else len(engine.evaluation),
        "device": str(engine.device),
        "seed": config.seed,
        "versions": versions(),
        "commit": commit(),
        "simulated": facts is not None,
        "not_joined": config.of_remaining_silos().silos.count - len(bank.silos),
        "excluded": list(config.aggregation.exclude),
        "not_judged": why_not_judged(config.aggregation, len(bank.silos), standing),
    }
    if engine.turned_away:
        result["turned_away"] = dict(engine.turned_away)
    return result


def describe_details(engine: RoundLoop, student: Matrix | None, ensemble: Ensemble | None) -> DetailsFile:
    """The content of the details: who mistakes what for what, and who had how much to say.

    Args:
        student: result of `student_confusion`.
    """
    bank = engine.bank
    rule, targets = RULES.get(engine.config.aggregation.rule), engine.targets
    images, weights = contribution(bank, rule, targets.counts, targets.information, targets.standing)
    together = None if ensemble is None else ensemble.together.tolist()
    each = {} if ensemble is None else {silo: matrix.tolist() for silo, matrix in ensemble.each.items()}
    details: DetailsFile = {
        "schema": DETAILS_SCHEMA,
        "class_names": _names_of_confusion(engine),
        "confusion": None if student is None else {"student": student.tolist(), "ensemble": together, "teachers": each},
        "contribution": {
            "images": images.tolist(),
            "weights": {silo: np.round(weights[i], 4).tolist() for i, silo in enumerate(bank.silos)},
        },
    }
    if (standing := targets.standing) is not None:
        details["contradicted"] = {silo: standing.contradicted(i).tolist() for i, silo in enumerate(bank.silos)}
    return details


def _names_of_confusion(engine: RoundLoop) -> list[str] | None:
    names, evaluation = engine.bank.label_sets.names, engine.evaluation
    if evaluation is not None and evaluation.class_names is not None:
        names = evaluation.class_names  # the federation's, then what only held-out images have
    return None if names is None or engine.bank.label_sets.names is None else list(names)


def save_pictures(run_dir: Path, bank: AnswerBank, result: RunResult) -> None:
    """Draws some of the query images, and, where there is an accuracy, its curve."""
    rows = bank.answered_rows()
    rows = rows[-min(_SAMPLE_ROWS, _SAMPLE_BYTES // math.prod(bank.image_shape)) :]
    save_samples(run_dir / SAMPLES_FILE, bank.images[rows], bank.targets[rows], bank.label_sets.names)
    if result["student"]["accuracy"] is None:
        return
    references: dict[str, float] = {}
    if result["ensemble"]["accuracy"] is not None:
        references["ensemble of the silos"] = result["ensemble"]["accuracy"]
        references["best single teacher"] = max(
            accuracy for silo in result["silos"] if (accuracy := silo["teacher_accuracy"]) is not None
        )
    save_curve(run_dir / CURVE_FILE, read_metrics(run_dir), references)
