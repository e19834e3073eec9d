# SPDX-License-Identifier: Apache-2.0
"""A run's folder made of a data set of answers, with whose bank another run can begin."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from fedcpsc.answer_set.facts import FACTS_FILE, AnswerSetFacts, read_facts
from fedcpsc.answer_set.reading import read_rows
from fedcpsc.answer_set.rows import AnswerRows
from fedcpsc.config import RunConfig
from fedcpsc.errors import BankError, ConfigError, explain
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.descriptions import write_descriptions
from fedcpsc.runs.layout import BANK_FOLDER, CONFIG_FILE
from fedcpsc.runs.origins import BASIC_ORIGINS, Codes, translated
from fedcpsc.typed_yaml import save_config, validate

__all__ = ["import_bank"]

_PARTIAL: Final = f"{BANK_FOLDER}.partial"
_CLASSES: Final = 1000  # `aggregation.max_classes` by default


def import_bank(folder: Path, into: Path) -> AnswerSetFacts:
    """Makes the folder of a run that has asked all this and not finished: `bank/`, descriptions.json and config.yaml.

    Images, answers, targets, rounds and what each image was made for are those of the data set. Query ids are new, for
    no silo knows this bank. The descriptions hold what the silos said of themselves, without class counts. Of the
    configuration only what says how the answers were asked for and aggregated is the run's that asked.

    Args:
        folder: folder that `fedcpsc bank export` wrote, in either format.
        into: folder to make; it must not hold a bank or a run.

    Returns:
        What the data set says of itself: whose answers, and of which run.

    Raises:
        BankError: the folder holds no data set of answers, one with targets alone, or a row that cannot stand in a
            bank; or `into` holds a bank, or cannot be written. No bank is left in `into` then.
    """
    facts = read_facts(folder)
    if not facts.with_answers:
        constraint = "holds targets alone, and a bank is made of each silo's answers"
        raise BankError(explain("answers", str(folder), constraint, "export it with --silo-answers full"))
    config = _config(facts)
    for name in (BANK_FOLDER, CONFIG_FILE):
        if (into / name).exists():
            raise BankError(explain("bank", str(into / name), "is there already", "import into another folder"))
    staged = into / _PARTIAL
    try:
        into.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(staged, ignore_errors=True)
        silos, words = [silo.name for silo in facts.silos], tuple(facts.origins)
        table = (*BASIC_ORIGINS, *(word for word in words if word not in BASIC_ORIGINS))
        bank = AnswerBank(staged, facts.image_shape, facts.classes, silos, facts.label_sets, origins=table)
        for rows in read_rows(folder, facts):
            _add(bank, rows, translated(rows.origins.astype(np.uint8), words, table))
        write_descriptions(into, facts.descriptions)
        save_config(config, staged / CONFIG_FILE)
        staged.rename(into / BANK_FOLDER)
        (into / BANK_FOLDER / CONFIG_FILE).rename(into / CONFIG_FILE)  # last: it makes the folder a run's
    except OSError as error:
        constraint = f"cannot be written ({error.strerror})"
        raise BankError(explain("bank", str(into), constraint, "free space or fix the permissions")) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return facts


def _config(facts: AnswerSetFacts) -> RunConfig:
    """The configuration of a run that would have asked so.

    Raises:
        BankError: this installation knows no such run.
    """
    settings = facts.run.settings
    aggregation = {key: settings.get(f"aggregation.{key}") for key in ("rule", "robust", "smoothing", "denoise")}
    queries = {key: settings.get(f"queries.{key}") for key in ("answers_per_silo", "rounds", "form")}
    tree = {
        "seed": facts.run.seed,
        "silos": {"count": len(facts.silos)},
        "queries": queries,
        "aggregation": {**aggregation, "aliases": facts.aliases, "max_classes": max(_CLASSES, facts.classes)},
        "evaluation": {"held_out": False},
        "output": {"name": facts.run.name},
    }
    try:
        return validate(RunConfig, tree, FACTS_FILE)
    except ConfigError as error:
        raise BankError(str(error)) from error


def _add(bank: AnswerBank, rows: AnswerRows, origins: Codes) -> None:
    """One batch for the rows of each round; `origins` are their codes in the bank's table, uint8 [n]."""
    starts = [0, *(i for i in range(1, len(rows)) if rows.rounds[i] != rows.rounds[i - 1]), len(rows)]
    for first, stop in pairwise(starts):
        part = rows[first:stop]
        if not len(part):
            continue
        batch = bank.add_batch(int(part.rounds[0]), part.images, part.pseudo_labels, origins[first:stop])
        for silo, answers, given in zip(bank.silos, part.answers, part.given, strict=True):
            for begun, ended in _stretches(given.tolist()):
                own = slice(batch.first + begun, batch.first + ended)
                bank.add_answers(batch.query_id, silo, answers[begun:ended], own)
        bank.set_targets(batch, part.targets)


def _stretches(flags: list[bool]) -> list[tuple[int, int]]:
    """First and end of each stretch of flags that are set."""
    edges = [i for i in range(len(flags) + 1) if (i > 0 and flags[i - 1]) != (i < len(flags) and flags[i])]
    return list(zip(edges[::2], edges[1::2], strict=True))
