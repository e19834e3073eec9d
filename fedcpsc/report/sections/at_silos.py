# SPDX-License-Identifier: Apache-2.0
"""What the silos say of the student, on held-out images of their own."""

from __future__ import annotations

from fedcpsc.report.blocks import Block, Note, Section, Table, class_label, folded_where_long, percent
from fedcpsc.runs.evaluation_words import (
    adjustment_in_words,
    in_one_sentence,
    judged_in_words,
    noise_in_words,
    right_in_words,
)
from fedcpsc.runs.read import RunFacts
from fedcpsc.runs.result import FederatedEvaluation, RunResult

__all__ = ["at_silos"]


def at_silos(run: RunFacts) -> list[Section]:
    """A section where the run was to ask them (`evaluation.at_silos`) and has finished; else none.

    Why a silo gave no number may quote what it sent, and stands in result.json alone.
    """
    result = run.result
    found = None if result is None else result.get("federated_evaluation")
    if result is None or found is None:
        return []
    blocks: list[Block] = [Note(in_one_sentence(found))]
    if told := adjustment_in_words(found, result["student"]["accuracy"]):
        blocks.append(Note(told))
    rows = [
        (entry["id"], judged_in_words(entry), right_in_words(entry), noise_in_words(entry)) for entry in found["silos"]
    ]
    if rows:
        columns = ("", "accuracy +- standard error", "right images", "noise")
        title = "How many of its own held-out images each silo calls right"
        blocks.append(folded_where_long(Table.of(title, columns, rows, words=2)))
        blocks.append(
            Note(
                "Each number is its silo's claim: nobody else sees the images. The standard error counts the number of "
                "images and the noise; it does not count that the silos' images differ."
            )
        )
    blocks += _by_class(result, found)
    return [Section("at-silos", "Evaluated by the silos", tuple(blocks))]


def _by_class(result: RunResult, found: FederatedEvaluation) -> list[Block]:
    """A row for each class, where silos tell their counts class by class: shares alone, never how many they have."""
    if (recall := found.get("recall")) is None:
        return []
    made = found.get("adjustment")
    biases = None if made is None else made["biases"]
    rows = [
        (
            class_label(result.get("class_names"), number),
            "too few to tell" if share is None else percent(share),
            "-" if biases is None else f"{biases[number]:+.2f}",
        )
        for number, share in enumerate(recall)
    ]
    columns = ("", "classified rightly", "added to the logit")
    return [folded_where_long(Table.of("Class by class, over the silos that tell it", columns, rows))]
