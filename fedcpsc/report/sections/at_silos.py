# SPDX-License-Identifier: Apache-2.0
"""What the silos say of the student, on held-out images of their own."""

from __future__ import annotations

from fedcpsc.report.blocks import Block, Note, Section, Table, folded_where_long
from fedcpsc.runs.evaluation_words import in_one_sentence, judged_in_words, noise_in_words, right_in_words
from fedcpsc.runs.read import RunFacts

__all__ = ["at_silos"]


def at_silos(run: RunFacts) -> list[Section]:
    """A section where the run was to ask them (`evaluation.at_silos`) and has finished; else none.

    Why a silo gave no number may quote what it sent, and stands in result.json alone.
    """
    found = None if run.result is None else run.result.get("federated_evaluation")
    if found is None:
        return []
    blocks: list[Block] = [Note(in_one_sentence(found))]
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
    return [Section("at-silos", "Evaluated by the silos", tuple(blocks))]
