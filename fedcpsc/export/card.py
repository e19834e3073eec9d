# SPDX-License-Identifier: Apache-2.0
"""The model card, in the form that Hugging Face's hub reads: a YAML head and Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fedcpsc.errors import RunError, explain
from fedcpsc.export.formats import INPUT_SCALE
from fedcpsc.plain_yaml import dump_plain
from fedcpsc.printable import printable
from fedcpsc.report.audit_folder import AuditFacts
from fedcpsc.report.blocks import percent
from fedcpsc.runs.payments import origin_in_words, payments
from fedcpsc.runs.read import RunFacts
from fedcpsc.runs.result import RunResult
from fedcpsc.runs.student import Student

__all__ = ["CARD_FILE", "model_card"]

CARD_FILE = "README.md"
_TEMPLATES = Path(__file__).parent / "templates"
# of Markdown, with formulas; an underscore within a word, as in add_remove, is none. HTML is the template's to escape
_MARKUP = re.compile(r"[\\`*\[\]$~]|(?<!\w)_|_(?!\w)")


def model_card(
    run: RunFacts, student: Student, checks: Mapping[str, Mapping[str, object]], audit: AuditFacts | None
) -> str:
    """The card.

    Args:
        run: facts of a finished run.
        checks: checks by format, as in export.json.
        audit: public part of an audit of the run; None where there was none.

    Raises:
        RunError: the run has not finished.
    """
    result = run.result
    if result is None:
        raise RunError(explain("run", str(run.folder), "has not finished", "let it end with fedcpsc run --resume"))
    unprotected = [silo.id for silo in run.silos if not silo.dp]
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,  # what a silo calls itself is no markup
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["line"] = _line
    return environment.get_template("card.md.j2").render(
        head=dump_plain(_head(run, result)).strip(),
        run=run,
        result=result,
        student=student,
        checks=checks,
        audit=audit,
        unprotected=unprotected,
        payments=payments(run),
        origins=[] if run.origin is None else [origin_in_words(origin) for origin in run.origin.runs],
        input_scale=INPUT_SCALE,
        percent=percent,
    )


def _line(text: object) -> str:
    """What others named, on one line and in one cell of a table, without any markup; "-" where there is nothing."""
    if text is None:
        return "-"
    return _MARKUP.sub(r"\\\g<0>", " ".join(printable(str(text)).split()).replace("|", "/"))


def _head(run: RunFacts, result: RunResult) -> dict[str, Any]:
    """What the hub indexes. The licence is for whoever publishes the model to choose."""
    head: dict[str, Any] = {
        "license": "unknown",
        "pipeline_tag": "image-classification",
        "tags": ["fedcpsc", "federated-learning", "knowledge-distillation", "data-free"],
    }
    value = result["student"]["accuracy"]
    if value is not None:
        kind = "validation" if run.config.data.validation else "held-out"
        head["model-index"] = [
            {
                "name": run.name,
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"name": f"{run.config.data.source}, {kind} images", "type": run.config.data.source},
                        "metrics": [{"type": "accuracy", "value": round(float(value), 4)}],
                    }
                ],
            }
        ]
    return head
