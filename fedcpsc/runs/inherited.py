# SPDX-License-Identifier: Apache-2.0
"""What an earlier run has banked, for another one to begin with: looked at in full before anything is copied or asked.

The earlier run's folder is only read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedcpsc.config import RunConfig
from fedcpsc.errors import BankError, ConfigError, RunError, explain
from fedcpsc.protocol.messages import AnswerForm, Description, DpClaim
from fedcpsc.runs.bank_view import BankView, read_bank
from fedcpsc.runs.claim import left_alone
from fedcpsc.runs.config_changes import changed_values, in_words
from fedcpsc.runs.descriptions import read_descriptions
from fedcpsc.runs.layout import BANK_FOLDER, DESCRIPTIONS_FILE, JOURNAL_FILE, RESULT_FILE
from fedcpsc.runs.lineage import SourceRun
from fedcpsc.runs.read import RunFacts, gather
from fedcpsc.runs.result import SiloResult
from fedcpsc.runs.round_plan import RoundPlan

__all__ = ["Inherited", "check_changes_of_refit", "check_continuation", "inheriting"]

_FITTING = ("student.", "evaluation.", "output.", "runtime.")
_FITTING_KEYS = {"aggregation.rule", "aggregation.robust", "aggregation.smoothing", "aggregation.exclude"}
_SETTLED = {"aggregation.denoise", "aggregation.aliases"}  # by which answers were read, and which classes they are of


@dataclass(frozen=True, eq=False)
class Inherited:
    """A run and its bank.

    Attributes:
        run: facts of the run.
        bank: its bank with every silo, also those that its configuration leaves out.
        descriptions: what each silo of the bank said of itself, by the name of its answers.
    """

    run: RunFacts
    bank: BankView
    descriptions: dict[str, Description]

    @property
    def config(self) -> RunConfig:
        """The run's configuration."""
        return self.run.config

    @property
    def earlier_runs(self) -> tuple[SourceRun, ...]:
        """The runs that the answers came from, the earliest first: those before this one, and this one itself."""
        before, result = self.run.lineage, self.run.result
        paid = {silo: self.bank.answers_of(silo) for silo in self.bank.silos}
        images = self.bank.rows
        if before is not None:
            paid = {silo: count - before.answers_of(silo) for silo, count in paid.items()}
            images -= sum(run.images for run in before.runs)
        own = SourceRun(
            run=self.run.name,
            folder=str(self.run.folder.absolute()),
            commit=None if result is None else result["commit"],
            finished=result is not None,
            images=max(0, images),
            answers={silo: count for silo, count in paid.items() if count},
        )
        return (*(before.runs if before is not None else ()), *((own,) if own.answers else ()))

    def in_words(self) -> str:
        """How much is there, and whether that is all that the run was to ask for."""
        bank, queries = self.bank, self.config.queries
        most = max(bank.answers_of(silo) for silo in bank.silos)
        there = f"{bank.rows:,} images, to which a silo gave up to {most:,} answers"
        if self.run.result is not None:
            return f"{self.run.name} banked {there}"
        done = f"{bank.group_ends[-1]} of its {RoundPlan.of(self.config, self.run.lineage).rounds} rounds"
        return (
            f"{self.run.name} has not finished: it has banked {there}, in {done}; it was to ask about "
            f"{queries.answers_per_silo:,} images"
        )


@contextmanager
def inheriting(source: Path, run_dir: Path, tell: Callable[[str], None] = lambda line: None) -> Iterator[Inherited]:
    """The run in `source` and its bank, which nobody goes on with meanwhile.

    Args:
        source: folder of the run.
        run_dir: folder of the run that is to begin with what it has banked.
        tell: function called with one line for each matter that an operator should know.

    Raises:
        RunError: it is no run's folder, is `run_dir` itself, is being worked on, or holds no answers; or nothing says
            how its silos answered.
        BankError: its bank is damaged, or not there.
    """
    if source.resolve() == run_dir.resolve():
        remedy = "give the new run a --name of its own"
        raise RunError(explain("run", str(source), "cannot begin with its own answers", remedy))
    run = gather(source)
    with left_alone(source):
        journal = source / BANK_FOLDER / JOURNAL_FILE
        if not journal.exists() or b"\n" not in journal.read_bytes():
            remedy = "give a run whose silos have answered"
            raise RunError(explain("run", str(source), "has no answer bank", remedy))
        run, bank = gather(source), read_bank(source / BANK_FOLDER)  # again: another may have gone on with it till now
        if not any(batch.heard for batch in bank.batches):
            remedy = "let it go on with --resume: no silo has answered yet"
            raise RunError(explain("run", str(source), "has banked no answers", remedy))
        if not bank.check_sums():
            tell(f"{bank.folder}: what an earlier version wrote has no checksums, and damage in it cannot be seen")
        yield Inherited(run, bank, _descriptions(run, bank))


def check_changes_of_refit(before: RunConfig, now: RunConfig) -> None:
    """Does nothing where two configurations differ in what concerns the student's fit alone.

    Args:
        before: configuration of the run whose answers are fitted to.
        now: configuration of the refit.

    Raises:
        ConfigError: they differ in something else.
    """
    changed = {
        key: values
        for key, values in changed_values(before, now).items()
        if not key.startswith(_FITTING) and key not in _FITTING_KEYS
    }
    if not changed:
        return
    if settled := {key: values for key, values in changed.items() if key in _SETTLED}:
        constraint = "cannot be changed any more: the banked answers were read by it"
        raise ConfigError(explain("refit", in_words(settled), constraint, "leave it as it was, or begin a new run"))
    constraint = (
        "does not concern the fit: a refit changes student, evaluation, output, runtime, and of aggregation "
        "rule, robust, smoothing and exclude"
    )
    remedy = "begin a run with these answers: fedcpsc run --from"
    raise ConfigError(explain("refit", in_words(changed), constraint, remedy))


def check_continuation(inherited: Inherited, now: RunConfig) -> None:
    """Does nothing where a run can begin with these answers and go on with more.

    Args:
        inherited: run and bank that it begins with.
        now: configuration of the new run.

    Raises:
        ConfigError: it asks about fewer images than are banked, or would read answers otherwise than these were read.
    """
    changed = changed_values(inherited.config, now)
    if settled := {key: values for key, values in changed.items() if key in _SETTLED}:
        remedy = f"leave it as it was in {inherited.run.name}, or begin a new run"
        constraint = "cannot be changed any more: the banked answers were read by it"
        raise ConfigError(explain("queries.start_from", in_words(settled), constraint, remedy))
    banked, wanted = inherited.bank.rows, now.queries.answers_per_silo
    if wanted < banked:
        constraint = f"counts the images of {inherited.run.name} too, which has banked {banked:,}"
        remedy = f"set it to {banked} to ask about no new image, or higher to ask about more"
        raise ConfigError(explain("queries.answers_per_silo", wanted, constraint, remedy))


def _descriptions(run: RunFacts, bank: BankView) -> dict[str, Description]:
    """What the silos said of themselves; of a run of an earlier version, as its result tells of them.

    Raises:
        RunError: neither is there for a silo.
    """
    said = dict(read_descriptions(run.folder) or {})
    results = {} if run.result is None else {silo["id"]: silo for silo in run.result["silos"]}
    for index, silo in enumerate(bank.silos):
        if silo not in said and silo in results and results[silo].get("form"):
            said[silo] = _of_result(results[silo], bank, bank.label_sets.widths[index])
    if missing := [silo for silo in bank.silos if silo not in said]:
        constraint = f"{DESCRIPTIONS_FILE} and {RESULT_FILE} do not say how {', '.join(missing[:20])} answered"
        remedy = "restore them from a backup; a run of an earlier version has to end first: fedcpsc run --resume"
        raise RunError(explain("run", str(run.folder), constraint, remedy))
    return {silo: said[silo] for silo in bank.silos}


def _of_result(told: SiloResult, bank: BankView, width: int) -> Description:
    try:
        left, names = told.get("answers_left") or 0, told.get("class_names")
        return Description(
            told["id"],
            width,
            bank.image_shape,
            (AnswerForm(str(told.get("form"))),),
            1,
            told["answers"] + left,
            left,
            claim=DpClaim(
                told["dp"],
                told["epsilon"],
                told.get("delta"),
                told.get("unit"),
                told.get("relation"),
                told.get("mechanism") or "none",
            ),
            noise_sigma=told.get("noise_sigma") or 0.0,
            class_names=None if names is None else tuple(names),
            none_class=told.get("none_class", False),
        )
    except ValueError as error:
        raise BankError(
            explain("silo", told["id"], f"its result is damaged ({error})", "restore the folder")
        ) from error
