# SPDX-License-Identifier: Apache-2.0
"""What a finished run leaves in its folder, the result last."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save

from fedcpsc.aggregation.rule import RULES
from fedcpsc.data.images import ImageSet
from fedcpsc.distillation.bank_fit import BankFit
from fedcpsc.distillation.evaluate import Ensemble, SiloFacts, evaluate_ensemble
from fedcpsc.distillation.outcome import Outcome, describe_details, describe_run, save_pictures, student_confusion
from fedcpsc.distillation.steps import check_finite
from fedcpsc.distillation.transport import SiloId
from fedcpsc.files import durable, explained_writes, write_whole
from fedcpsc.models.adapted import stored_tensors
from fedcpsc.runs.layout import DETAILS_FILE, GENERATOR_FILE, RESULT_FILE, STUDENT_FILE
from fedcpsc.runs.result import RunResult
from fedcpsc.strict_json import format_json

__all__ = ["leave", "measure_ensemble"]


def leave(run_dir: Path, run: Outcome) -> RunResult:
    """Writes what a finished run leaves; returns the result.

    Args:
        run_dir: folder of the run.
        run: run whose student is fitted.

    Raises:
        RunError: the student holds numbers that are not finite, or a file cannot be written.
    """
    network = run.fitted.student.network
    check_finite(list(network.state_dict().values()), "student's weights")
    with explained_writes(run_dir):
        _save_tensors(run_dir / STUDENT_FILE, stored_tensors(network))
        if run.generator is not None:
            _save_tensors(run_dir / GENERATOR_FILE, run.generator.state_dict())
        student = student_confusion(run)
        details = describe_details(run, student)
        result = describe_run(run, student, details)
        write_whole(run_dir / DETAILS_FILE, format_json(details, run_dir / DETAILS_FILE) + "\n")
        save_pictures(run_dir, run.bank, result)
        write_whole(run_dir / RESULT_FILE, format_json(result, run_dir / RESULT_FILE, indent=2) + "\n")
    return result


def measure_ensemble(
    fitted: BankFit, evaluation: ImageSet | None, facts: Mapping[SiloId, SiloFacts] | None
) -> Ensemble | None:
    """The teachers together, weighed as at the end: what the silos' answers alone tell of them is known then.

    Args:
        fitted: committee of a run, with its bank and targets.
        evaluation: held-out images; None where there are none.
        facts: private figures of a simulation's silos, by name; None in a deployment.

    Returns:
        None without held-out images, or where a silo's teacher is not at hand.
    """
    bank, targets = fitted.bank, fitted.targets
    if evaluation is None or facts is None or any(silo not in facts for silo in bank.silos):
        return None
    rule = RULES.get(fitted.plan.config.aggregation.rule)
    return evaluate_ensemble(
        facts, bank.silos, evaluation, rule, targets.counts, targets.smoothing, bank.label_sets, targets.standing
    )


def _save_tensors(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with durable(path) as file:
        file.write(save(tensors))
