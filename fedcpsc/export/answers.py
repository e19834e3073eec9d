# SPDX-License-Identifier: Apache-2.0
"""What `fedcpsc bank export` does: a run's answers as a data set, with a card; of silos that agreed, and no others.

The targets are made anew of the answers that go along. Those that the run keeps were computed from every silo's
answers, and would disclose what a silo said that has not agreed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedcpsc.answer_set.facts import (
    AnswerSetFacts,
    SharedFile,
    SharedRun,
    SharedSilo,
    without_class_counts,
)
from fedcpsc.answer_set.parquet_writer import check_channels, column_of, write_parquet
from fedcpsc.answer_set.rows import AnswerRows
from fedcpsc.answer_set.set_format import SetFormat
from fedcpsc.answer_set.tensor_files import tensor_of, write_tensors
from fedcpsc.distillation.targets_anew import target_maker
from fedcpsc.errors import ConfigError, RunError, explain
from fedcpsc.export.answers_card import answers_card
from fedcpsc.export.banked_rows import banked_rows, count_origins
from fedcpsc.export.card import CARD_FILE
from fedcpsc.export.consent import agreed_silos
from fedcpsc.protocol.messages import Description
from fedcpsc.runs.bank_view import BankView
from fedcpsc.runs.descriptions import read_descriptions
from fedcpsc.runs.read import RunFacts, gather

__all__ = ["export_answers"]

_Writer = Callable[[Path, AnswerSetFacts, Iterator[AnswerRows]], tuple[SharedFile, ...]]
_WRITERS: dict[SetFormat, _Writer] = {SetFormat.PARQUET: write_parquet, SetFormat.SAFETENSORS: write_tensors}


def export_answers(
    run_dir: Path,
    out: Path,
    file_format: SetFormat = SetFormat.PARQUET,
    *,
    exclude: Sequence[str] = (),
    silo_answers: bool = True,
) -> AnswerSetFacts:
    """Writes a run's answers, finished or not, as a data set; whole or not at all.

    Args:
        run_dir: folder of the run.
        out: folder to make; it must not exist, or be empty.
        file_format: format of the rows.
        exclude: names of silos whose answers are left out, as if they had never been asked.
        silo_answers: whether each silo's answers go along; else the targets that are made of them alone.

    Returns:
        What was written.

    Raises:
        ConfigError: an excluded name is no silo's, none is left, or the images do not fit the format.
        RunError: a silo has not agreed, nothing was answered, the run's files are damaged, or `out` holds something or
            cannot be written.
        BankError: the run's bank is damaged.
    """
    _check_free(out)
    run = gather(run_dir)
    if run.bank is None:
        raise RunError(explain("run", str(run_dir), "has asked nothing yet", "let it begin first"))
    if file_format is SetFormat.PARQUET:
        check_channels(run.bank.image_shape)
    said, gone = read_descriptions(run_dir), run.config.aggregation.exclude  # whom the run itself leaves out
    left_out, lineage = [name for name in exclude if name not in gone], run.lineage
    owners = {} if lineage is None else {one.column: one.silo for one in lineage.earlier}
    silos = agreed_silos(run.bank.silos, said, left_out, str(run_dir), owners)
    run.bank.check_sums()
    before = len(run.bank.silos), run.bank.classes
    bank, places = _bank_of(run.bank, silos)
    facts = _facts(run, bank, said or {}, file_format, before, silo_answers=silo_answers)
    maker = target_maker(bank, run.config, said or {}, () if lineage is None else lineage.left)
    with _staged(out) as staged:
        files = _WRITERS[file_format](staged, facts, banked_rows(bank, maker, facts, places))
        whole = facts.model_copy(update={"files": files})
        whole.save(staged)
        (staged / CARD_FILE).write_text(answers_card(whole), encoding="utf-8")
    return whole


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A folder to write into that takes the place of `out` when all is there; nothing is left of it otherwise.

    Raises:
        RunError: it cannot be written.
    """
    out, beside = out.resolve(), None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        made = beside / out.name
        made.mkdir()  # with the usual rights: what is in it is meant for others
        yield made
        made.rename(out)
    except OSError as error:
        remedy = "free space, fix the permissions or choose another folder"
        raise RunError(explain("OUT", str(out), f"cannot be written ({error.strerror})", remedy)) from error
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)


def _check_free(out: Path) -> None:
    try:
        there = sorted(path.name for path in out.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(explain("OUT", str(out), f"is no folder ({error.strerror})", "name a new folder")) from error
    if there:
        shown = ", ".join(there[:3]) + (", ..." if len(there) > 3 else "")
        constraint = f"holds {shown}, and nothing is overwritten"
        raise RunError(explain("OUT", str(out), constraint, "name a new or empty folder"))


def _bank_of(bank: BankView, silos: Sequence[str]) -> tuple[BankView, npt.NDArray[np.int64]]:
    """The bank as if these silos alone had been asked; and the class there of each of the run's, -1 where it is gone.

    Raises:
        ConfigError: they know fewer than two classes.
    """
    bank.leave_out([silo for silo in bank.silos if silo not in silos])
    known = bank.label_sets.known.any(0)
    if known.sum() < 2:
        constraint = f"the silos that are left know {known.sum()} of the run's classes"
        raise ConfigError(explain("--exclude", ", ".join(silos), constraint, "leave out fewer"))
    places = np.where(known, np.cumsum(known) - 1, -1)
    bank.label_sets = bank.label_sets.of_known_classes()
    bank.classes = bank.label_sets.classes
    return bank, places


def _facts(
    run: RunFacts,
    bank: BankView,
    said: Mapping[str, Description],
    file_format: SetFormat,
    before: tuple[int, int],
    *,
    silo_answers: bool,
) -> AnswerSetFacts:
    """What is to be written, without its files; `before` are the numbers of silos and classes of the run."""
    rows, sets = len(bank.answered_rows()), bank.label_sets
    if not rows:
        constraint = "none of its silos that are handed on has answered anything"
        raise RunError(explain("run", str(run.folder), constraint, "let it go on with --resume"))
    silos = tuple(
        SharedSilo(
            name=silo,
            column=_column(silo, place, file_format) if silo_answers else None,
            answers=bank.answers_of(silo),
            places=sets.places[place],
            none_class=sets.none[place],
            description=without_class_counts(said[silo]),
        )
        for place, silo in enumerate(bank.silos)
    )
    return AnswerSetFacts(
        format=file_format,
        rows=rows,
        image_shape=bank.image_shape,
        classes=sets.classes,
        class_names=sets.names,
        aliases=_aliases(run, [said[silo] for silo in bank.silos]),
        silos=silos,
        origins=count_origins(bank),
        files=(),
        run=_run(run),
        silos_left_out=before[0] - len(silos),
        classes_left_out=before[1] - sets.classes,
        images_left_out=bank.rows - rows,
    )


def _aliases(run: RunFacts, said: Sequence[Description]) -> dict[str, str]:
    """The run's names for words of these silos; what others call their classes is not theirs to tell."""
    words = {name for own in said for name in own.class_names or ()}
    return {word: name for word, name in run.config.aggregation.aliases.items() if word in words}


def _column(silo: str, place: int, file_format: SetFormat) -> str:
    return column_of(silo) if file_format is SetFormat.PARQUET else tensor_of(place)


def _run(run: RunFacts) -> SharedRun:
    """What others need to know to judge how the answers came about; no path of this machine, and no silo's name."""
    config, result = run.config, run.result
    return SharedRun(
        name=run.name,
        seed=config.seed,
        commit=None if result is None else result["commit"],
        versions={} if result is None else result["versions"],
        finished=result is not None,
        simulated=run.simulated,
        settings={
            "queries.answers_per_silo": config.queries.answers_per_silo,
            "queries.rounds": config.queries.rounds,
            "queries.form": config.queries.form,
            "synthesis.prior": ", ".join(f"{name} {share:g}" for name, share in config.synthesis.prior.items()),
            "synthesis.prior_share": config.synthesis.prior_share,
            "synthesis.candidates": config.synthesis.candidates,
            "aggregation.rule": config.aggregation.rule,
            "aggregation.robust": config.aggregation.robust,
            "aggregation.smoothing": config.aggregation.smoothing,
            "aggregation.denoise": config.aggregation.denoise,
        },
    )
