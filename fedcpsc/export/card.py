# SPDX-License-Identifier: Apache-2.0
"""The model card, in the form that Hugging Face's hub reads: a YAML head and Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedcpsc.errors import RunError, explain
from fedcpsc.export.class_shares import FittedBiases
from fedcpsc.export.markdown import template
from fedcpsc.models.student_file import INPUT_SCALE
from fedcpsc.plain_yaml import dump_plain
from fedcpsc.report.audit_folder import AuditFacts
from fedcpsc.report.blocks import percent
from fedcpsc.runs.evaluation_words import (
    adjustment_in_words,
    estimate_in_words,
    in_one_sentence,
    judged_in_words,
    noise_in_words,
    right_in_words,
)
from fedcpsc.runs.payments import payments, run_in_words
from fedcpsc.runs.read import RunFacts
from fedcpsc.runs.real_pictures import not_free_of_data
from fedcpsc.runs.result import RunResult
from fedcpsc.runs.student import Student

__all__ = ["CARD_FILE", "model_card"]

CARD_FILE = "README.md"


def model_card(
    run: RunFacts,
    student: Student,
    checks: Mapping[str, Mapping[str, object]],
    audit: AuditFacts | None,
    fitted: FittedBiases | None = None,
) -> str:
    """The card.

    Args:
        run: facts of a finished run.
        checks: checks by format, as in export.json.
        audit: public part of an audit of the run; None where there was none.
        fitted: how the class biases of what was written were fitted to unlabelled pictures; None where they were not.

    Raises:
        RunError: the run has not finished.
    """
    result = run.result
    if result is None:
        raise RunError(explain("run", str(run.folder), "has not finished", "let it end with fedcpsc run --resume"))
    unprotected = [silo.id for silo in run.silos if not silo.dp]
    accuracy = result["student"]["accuracy"] if fitted is None else fitted.accuracy
    real_data = not_free_of_data(result.get("real_pictures", ()), result.get("images", 0))
    data_free = fitted is None and not real_data
    return template("card.md.j2").render(
        head=dump_plain(_head(run, result, accuracy, data_free=data_free)).strip(),
        accuracy=accuracy,
        fitted=None if fitted is None else fitted.in_words(result["student"]["accuracy"]),
        run=run,
        result=result,
        student=student,
        checks=checks,
        audit=audit,
        unprotected=unprotected,
        real_data=real_data,
        data_free=data_free,
        payments=payments(run),
        judged=_judged(result),
        estimate=None if (estimated := result.get("estimate")) is None else estimate_in_words(estimated),
        earlier_runs=[] if run.lineage is None else [run_in_words(one) for one in run.lineage.runs],
        input_scale=INPUT_SCALE,
        percent=percent,
        loading=_loading(student),
    )


def _judged(result: RunResult) -> dict[str, Any] | None:
    """What the silos say of the student: a sentence, and a row for each; None where they were not to be asked."""
    found = result.get("federated_evaluation")
    if found is None:
        return None
    rows = [
        (entry["id"], judged_in_words(entry), right_in_words(entry), noise_in_words(entry)) for entry in found["silos"]
    ]
    told = adjustment_in_words(found, result["student"]["accuracy"])
    return {"sentence": " ".join(filter(None, (in_one_sentence(found), told))), "rows": rows}


def _loading(student: Student) -> str:
    """Lines of Python that make the network of the safetensors file."""
    sizes = f"{student.classes}, {student.image_shape}"
    constants = student.plan.normalisation
    if student.width is not None and constants is None:
        return (
            "from fedcpsc.models.registry import build_classifier\n"
            f'network = build_classifier("{student.architecture}", {sizes}, {student.width})\n'
            'network.load_state_dict(load_file("student.safetensors"))'
        )
    if student.start.own is not None and constants is None:
        return (
            f"network = {student.architecture}(...)  # made as it was for the run\n"
            'network.load_state_dict(load_file("student.safetensors"))'
        )
    own = student.start.own is not None
    given: dict[str, object] = {} if own else {"architecture": student.architecture}
    if student.width is not None:
        given["width"] = student.width
    if constants is not None:
        given["normalisation"] = constants.model_dump(mode="json")
    plan = ", ".join(f"{key}={value!r}" for key, value in given.items())
    start = f", Start(own_module({student.architecture}(...)))" if own else ""
    return (
        f"from fedcpsc.models.students import {'Start, ' if own else ''}build_student\n"
        + ("from fedcpsc.models.own_module import own_module\n" if own else "")
        + "from fedcpsc.student_config import StudentConfig\n"
        f"network = build_student(StudentConfig({plan}), {sizes}, 0{start})\n"
        'network.stored.load_state_dict(load_file("student.safetensors"))'
    )


def _head(run: RunFacts, result: RunResult, accuracy: float | None, *, data_free: bool) -> dict[str, Any]:
    """What the hub indexes. The licence is for whoever publishes the model to choose."""
    head: dict[str, Any] = {
        "license": "unknown",
        "pipeline_tag": "image-classification",
        "tags": ["fedcpsc", "federated-learning", "knowledge-distillation"],
    }
    if data_free:
        head["tags"].append("data-free")
    if accuracy is not None:
        kind = "validation" if run.config.data.validation else "held-out"
        head["model-index"] = [
            {
                "name": run.name,
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"name": f"{run.config.data.source}, {kind} images", "type": run.config.data.source},
                        "metrics": [{"type": "accuracy", "value": round(float(accuracy), 4)}],
                    }
                ],
            }
        ]
    return head
