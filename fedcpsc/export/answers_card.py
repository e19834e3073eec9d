# SPDX-License-Identifier: Apache-2.0
"""The data card of a data set of answers, in the form that Hugging Face's hub reads: a YAML head and Markdown."""

from __future__ import annotations

from typing import Any

from fedcpsc.aggregation.rule import RULES
from fedcpsc.answer_set.facts import AnswerSetFacts
from fedcpsc.answer_set.parquet_writer import features
from fedcpsc.answer_set.set_format import SetFormat
from fedcpsc.choices import PRIORS
from fedcpsc.export.markdown import template
from fedcpsc.plain_yaml import dump_plain
from fedcpsc.priors.prior import PRIOR_KINDS
from fedcpsc.protocol.messages import AnswerForm
from fedcpsc.runs.origins import BASIC_ORIGINS, GENERATOR, PRIOR, of_prior

__all__ = ["answers_card"]

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def answers_card(facts: AnswerSetFacts) -> str:
    """The card.

    Args:
        facts: what the data set is, with its files.
    """
    said = facts.descriptions
    rule = RULES.get(str(facts.run.settings["aggregation.rule"]))
    return template("answers.md.j2").render(
        head=dump_plain(_head(facts)).strip(),
        facts=facts,
        said=said,
        forms={name: _form(facts, own.forms) for name, own in said.items()},
        unprotected=[name for name, own in said.items() if not own.claim.dp],
        unclear=_unclear_origins(facts),
        parquet=facts.format is SetFormat.PARQUET,
        by_class_counts=rule.needs_class_reports,
    )


def _unclear_origins(facts: AnswerSetFacts) -> list[str]:
    """Where images come from that may have been made of real pictures: whatever is not known to need none."""
    procedural = [name for name in PRIORS.built_in() if not PRIOR_KINDS.get(name).real_data]
    known = {BASIC_ORIGINS[GENERATOR], BASIC_ORIGINS[PRIOR], *(of_prior(name) for name in procedural)}
    found = [name for name, count in facts.origins.items() if count and name not in known]
    if facts.origins.get(BASIC_ORIGINS[PRIOR]):
        mixture = str(facts.run.settings["synthesis.prior"]).split(", ")
        found += [name for part in mixture if (name := part.rpartition(" ")[0]) not in procedural]
    return found


def _form(facts: AnswerSetFacts, offered: tuple[AnswerForm, ...]) -> str:
    """The form that a silo was asked for."""
    asked = facts.run.settings["queries.form"]
    return next(form for form in AnswerForm if form in offered).value if asked == "best" else str(asked)


def _head(facts: AnswerSetFacts) -> dict[str, Any]:
    """What the hub indexes. The licence is for whoever publishes the answers to settle with the silos' owners."""
    head: dict[str, Any] = {
        "license": "other",
        "pretty_name": f"Answers of {_count(len(facts.silos), 'private classifier')} ({facts.run.name})",
        "task_categories": ["image-classification"],
        "size_categories": [next((name for most, name in _SIZES if facts.rows < most), "n>1M")],
        "tags": ["fedcpsc", "knowledge-distillation", "federated-learning", "data-free", "synthetic"],
    }
    if facts.format is SetFormat.PARQUET:
        head["configs"] = [
            {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}
        ]
        head["dataset_info"] = {
            "features": [{"name": name, **_in_yaml(feature)} for name, feature in features(facts).items()]
        }
    return head


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("s" if number != 1 else "")


def _in_yaml(feature: dict[str, Any]) -> dict[str, Any]:
    """A feature as the head of a card has it, which is another form than that in the files."""
    if feature["_type"] == "Image":
        return {"dtype": "image"}
    if feature["_type"] == "Sequence":
        return {"sequence": feature["feature"]["dtype"], "length": feature["length"]}
    if feature["_type"] == "ClassLabel":
        return {"dtype": {"class_label": {"names": {str(k): name for k, name in enumerate(feature["names"])}}}}
    return {"dtype": feature["dtype"]}
