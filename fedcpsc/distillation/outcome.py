# SPDX-License-Identifier: Apache-2.0
"""What a finished run says of itself: its result, its details and the two pictures."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedcpsc.aggregation.rule import RULES
from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet
from fedcpsc.distillation.bank_fit import BankFit
from fedcpsc.distillation.belief import describe_beliefs, why_not_judged
from fedcpsc.distillation.contribution import contribution
from fedcpsc.distillation.curve import save_curve
from fedcpsc.distillation.estimate import estimate
from fedcpsc.distillation.evaluate import Ensemble, Matrix, SiloFacts, accuracy_of, confusion, predicted_classes
from fedcpsc.distillation.optimisers import optimiser_in_words
from fedcpsc.distillation.real_data import real_pictures
from fedcpsc.distillation.sample_sheet import save_samples
from fedcpsc.distillation.silo_state import SiloState
from fedcpsc.distillation.tones import find_tones
from fedcpsc.distillation.transport import SiloId, Traffic
from fedcpsc.models.generator import ConditionalGenerator
from fedcpsc.models.students import match_of
from fedcpsc.protocol.messages import AnswerForm
from fedcpsc.provenance import commit, peak_memory_mib, versions
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.details import DETAILS_SCHEMA, DetailsFile
from fedcpsc.runs.layout import CURVE_FILE, SAMPLES_FILE
from fedcpsc.runs.lineage import Lineage
from fedcpsc.runs.metrics import read_metrics
from fedcpsc.runs.real_pictures import PublicNote
from fedcpsc.runs.result import RESULT_SCHEMA, FederatedEvaluation, Network, RunResult, SiloResult
from fedcpsc.runs.timeline import QUERY, waiting_shares

__all__ = ["Outcome", "describe_details", "describe_run", "save_pictures", "student_confusion"]

_SAMPLE_ROWS, _SAMPLE_BYTES = 20_000, 2**28


@dataclass(frozen=True, eq=False)
class Outcome:
    """A run whose student is fitted.

    Attributes:
        fitted: committee, bank and clock of the run.
        silos: state of each silo of the bank, by its name.
        evaluation: held-out images; None where there are none.
        ensemble: what the teachers reach without a student; None outside a simulation.
        facts: private figures of a simulation's silos; None in a deployment.
        traffic: bytes of all messages of the run.
        generator: last generator that was trained; None where none was.
        lineage: where the bank's answers came from; None where the run asked for all of them itself.
        not_joined: number of silos that were expected and did not join.
        turned_away: reasons why silos were not let in, by name.
        public: the server's own pictures that query images were drawn from; None where there are none.
        predicted: classes that the student gave the held-out images, int64 [N]; None where it was not asked yet.
        at_silos: what the silos say of the student; None where they were not to be asked.
    """

    fitted: BankFit
    silos: Mapping[SiloId, SiloState]
    evaluation: ImageSet | None
    ensemble: Ensemble | None
    facts: Mapping[SiloId, SiloFacts] | None
    traffic: Traffic = field(default_factory=Traffic)
    generator: ConditionalGenerator | None = None
    lineage: Lineage | None = None
    not_joined: int = 0
    turned_away: Mapping[str, str] = field(default_factory=dict)
    public: PublicNote | None = None
    predicted: npt.NDArray[np.int64] | None = None
    at_silos: FederatedEvaluation | None = None

    @property
    def config(self) -> RunConfig:
        """The run's configuration."""
        return self.fitted.plan.config

    @property
    def bank(self) -> AnswerBank:
        """The run's bank."""
        return self.fitted.bank


def student_confusion(run: Outcome) -> Matrix | None:
    """On the held-out images; None where there are none."""
    if run.evaluation is None:
        return None
    predicted = run.predicted
    if predicted is None:  # a final fit of no steps has no last line of progress
        batch_size = run.config.evaluation.batch_size
        predicted = predicted_classes(run.fitted.student.network, run.evaluation, batch_size)
    return confusion(predicted, run.evaluation, run.bank.classes)


def describe_run(run: Outcome, student: Matrix | None, details: DetailsFile) -> RunResult:
    """The result.

    Args:
        run: run whose student is fitted.
        student: result of `student_confusion`.
        details: result of `describe_details`.
    """
    config, bank, timeline, plan = run.config, run.bank, run.fitted.timeline, run.fitted.plan
    total, spans = timeline.now, timeline.read()
    share, share_later = waiting_shares(spans, total)
    silos = _silo_results(run, details)
    standing = run.fitted.targets.standing
    result: RunResult = {
        "schema": RESULT_SCHEMA,
        "name": config.output.name,
        "student": _describe_student(run, student),
        "ensemble": {
            "accuracy": None if run.ensemble is None else run.ensemble.accuracy,
            "rule": config.aggregation.rule,
        },
        "silos": silos,
        "answers_per_silo": max(bank.answers_of(silo) for silo in bank.silos),
        "form": ", ".join(form for form in AnswerForm if form in {s.form for s in run.silos.values()}),
        "bytes_sent": run.traffic.bytes_sent,
        "bytes_received": run.traffic.bytes_received,
        "seconds": {
            "total": round(total, 2),
            "distillation": round(total - timeline.waited_s, 2),
            "waiting": round(timeline.waited_s, 2),
            "waiting_share": round(share, 4),
            "waiting_share_after_first_round": round(share_later, 4),
        },
        "peak_memory_mib": None if (peak := peak_memory_mib()) is None else round(peak, 1),
        "classes": bank.classes,
        "class_names": None if bank.label_sets.names is None else list(bank.label_sets.names),
        "image_shape": list(bank.image_shape),
        "images": bank.rows,
        "evaluation_images": None if run.evaluation is None else len(run.evaluation),
        "device": str(run.fitted.device),
        "seed": config.seed,
        "versions": versions(*(["timm"] if _stands_on_timm(run) else [])),
        "commit": commit(),
        "simulated": run.facts is not None,
        "not_joined": run.not_joined,
        "excluded": list(config.aggregation.exclude),
        "not_judged": why_not_judged(config.aggregation, len(bank.silos), standing),
    }
    if run.at_silos is not None:
        result["federated_evaluation"] = run.at_silos
    student_network = run.fitted.student.network
    if (estimated := estimate(standing, run.silos.values(), bank.rows, student_network)) is not None:
        result["estimate"] = estimated
    if run.turned_away:
        result["turned_away"] = dict(run.turned_away)
    if run.lineage is not None:
        result["refit"] = run.lineage.kind == "refit"
        result["earlier_runs"] = [earlier.as_result() for earlier in run.lineage.runs]
    if (run.lineage is None or run.lineage.kind != "refit") and (tones := find_tones(plan, bank, plan.rounds)):
        result["tones"] = {"mean": tones.mean, "spread": tones.spread}
    if real := real_pictures(config.synthesis.prior, run.public, bank, run.lineage):
        result["real_pictures"] = real
    return result


def _stands_on_timm(run: Outcome) -> bool:
    student = run.config.student
    named = [student.fellows, None if run.fitted.start.own is not None else student.architecture]
    return any(name is not None and name.startswith("timm/") for name in named)


def _describe_student(run: Outcome, student: Matrix | None) -> Network:
    config, own = run.config.student, run.fitted.start.own
    described: Network = {
        "accuracy": None if student is None else accuracy_of(student),
        "architecture": config.architecture if own is None else own.name,
        "parameters": sum(p.numel() for p in run.fitted.student.network.parameters()),
        "optimiser": optimiser_in_words(config),
    }
    if own is not None:
        described["own_module"] = True
    elif "/" not in config.architecture:
        described["width"] = config.width
    if (weights := run.fitted.start.weights) is not None:
        bank, stored = run.bank, run.fitted.student.network.stored
        matched = match_of(weights, stored, config, bank.classes, bank.image_shape)
        described["weights"] = {
            "file": weights.path.name,
            "sha256": weights.sha256,
            "tensors": len(matched.taken),
            "left": list(matched.left),
            "note": "starts from weights made with other data",
        }
    return described


def _silo_results(run: Outcome, details: DetailsFile) -> list[SiloResult]:
    bank, known, spans = run.bank, run.facts or {}, run.fitted.timeline.read()
    images, weights = (details["contribution"]["images"], details["contribution"]["weights"])
    silos: list[SiloResult] = []
    for silo in bank.silos:
        state = run.silos[silo]
        claim = state.description.claim
        told: SiloResult = {
            "id": silo,
            "teacher_accuracy": None if run.ensemble is None else run.ensemble.teacher_accuracy(silo),
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
        if run.lineage is not None:
            told["answers_here"] = told["answers"] - run.lineage.answers_of(silo)
        silos.append(told)
    standing = run.fitted.targets.standing
    if standing is None:
        return silos
    return [{**told, **belief} for told, belief in zip(silos, describe_beliefs(standing), strict=True)]


def describe_details(run: Outcome, student: Matrix | None) -> DetailsFile:
    """The content of the details: who mistakes what for what, and who had how much to say.

    Args:
        run: run whose student is fitted.
        student: result of `student_confusion`.
    """
    bank, ensemble = run.bank, run.ensemble
    rule, targets = RULES.get(run.config.aggregation.rule), run.fitted.targets
    images, weights = contribution(bank, rule, targets.counts, targets.information, targets.standing)
    together = None if ensemble is None else ensemble.together.tolist()
    each = {} if ensemble is None else {silo: matrix.tolist() for silo, matrix in ensemble.each.items()}
    details: DetailsFile = {
        "schema": DETAILS_SCHEMA,
        "class_names": _names_of_confusion(run),
        "confusion": None if student is None else {"student": student.tolist(), "ensemble": together, "teachers": each},
        "contribution": {
            "images": images.tolist(),
            "weights": {silo: np.round(weights[i], 4).tolist() for i, silo in enumerate(bank.silos)},
        },
    }
    if (standing := targets.standing) is not None:
        details["contradicted"] = {silo: standing.contradicted(i).tolist() for i, silo in enumerate(bank.silos)}
    return details


def _names_of_confusion(run: Outcome) -> list[str] | None:
    names, evaluation = run.bank.label_sets.names, run.evaluation
    if evaluation is not None and evaluation.class_names is not None:
        names = evaluation.class_names  # the federation's, then what only held-out images have
    return None if names is None or run.bank.label_sets.names is None else list(names)


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
