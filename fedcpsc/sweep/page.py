# SPDX-License-Identifier: Apache-2.0
"""index.html: a sweep as one self-contained page, made of the blocks of a run's report."""

from __future__ import annotations

from collections.abc import Sequence

from fedcpsc.plain_yaml import dump_plain
from fedcpsc.report.blocks import Block, Chart, Code, Facts, Note, Section, Table, duration, folded_where_long
from fedcpsc.report.page import fill_page
from fedcpsc.runs.layout import REPORT_FILE
from fedcpsc.sweep.chart import dot_chart
from fedcpsc.sweep.expand import Sweep
from fedcpsc.sweep.layout import PLAN_FILE
from fedcpsc.sweep.scale import scale_of
from fedcpsc.sweep.table import Row, Summary, commits_of
from fedcpsc.sweep.words import points, share, shown_value, spread

__all__ = ["headline", "render"]

_CAPTION = (
    "Large dot: mean over the seeds; bar: one standard deviation to either side; rings: each seed; diamond: mean of the"
    " ensemble of the silos, which a student by answers alone can hope for, where it lies on the axis."
)

_FEW = 3  # seeds


def render(sweep: Sweep, rows: Sequence[Row], summaries: Sequence[Summary], notes: Sequence[str]) -> str:
    """The page.

    Args:
        sweep: the sweep.
        rows: one row for each run.
        summaries: one summary for each setting, in the plan's order.
        notes: what a reader of the table should know, as sentences.
    """
    sections = [
        _accuracy(sweep.plan.seeds, rows, summaries),
        _what_was_run(sweep, rows, notes),
        _runs(sweep, rows),
        _repeat(sweep, rows),
    ]
    return fill_page(
        title=f"Sweep {sweep.name}",
        headline=headline(sweep, summaries),
        sections=sections,
        footer="Drawn by fedcpsc sweep from the folders of its runs.",
    )


def headline(sweep: Sweep, summaries: Sequence[Summary]) -> str:
    """The sweep in one sentence.

    Args:
        sweep: the sweep.
        summaries: one summary for each setting.
    """
    measured = [summary for summary in summaries if summary.student["mean"] is not None]
    shape = f"{len(summaries)} settings with {len(sweep.plan.seeds)} seeds each"
    if not measured:
        return f"{shape}: no student was measured yet."
    if len(measured) == 1:
        return f"{measured[0].setting.name}: {spread(measured[0].student)} % of the held-out images right."
    best = max(measured, key=lambda summary: summary.student["mean"] or 0.0)
    return f"{shape}: the highest mean, {spread(best.student)} %, is that of {best.setting.name}."


def _accuracy(seeds: Sequence[int], rows: Sequence[Row], summaries: Sequence[Summary]) -> Section:
    blocks: list[Block] = [Note(f"{row.run}: {row.failure}", "Failed") for row in rows if row.state == "failed"]
    scale = scale_of(summaries)
    if scale is None:
        blocks.append(Note("No student was measured: the runs had no held-out images, or none has finished."))
    else:
        title = "Accuracy of the student by setting, in per cent"
        blocks.append(Chart(title, _CAPTION, dot_chart(title, scale, summaries), _each_seed(seeds, rows)))
    blocks.append(_summary(summaries))
    if len(summaries) > 1 and len(seeds) < _FEW:
        few = f"{len(seeds)} seed{'s' * (len(seeds) > 1)}"
        blocks.append(Note(f"With {few} a difference of a few points may be chance.", "Note"))
    return Section("accuracy", "Accuracy", tuple(blocks))


def _summary(summaries: Sequence[Summary]) -> Table:
    several = len(summaries) > 1
    caption = "Accuracy on held-out images, in per cent, mean ± standard deviation over the seeds"
    if several:
        caption += f"; difference to {summaries[0].setting.name}, seed by seed, in points"
    columns = (
        "setting",
        "student",
        *(("difference",) if several else ()),
        "ensemble",
        "best teacher",
        "answers",
        "runs",
    )
    cells = [
        (
            summary.setting.name,
            _together(spread(summary.student)),
            *((_together(points(summary.difference)),) if several else ()),
            _together(spread(summary.ensemble)),
            _together(spread(summary.best_teacher)),
            "-" if summary.answers is None else f"{summary.answers:,}",
            f"{summary.count}" + (f" of {summary.count + summary.missing}" if summary.missing else ""),
        )
        for summary in summaries
    ]
    return Table.of(caption, columns, cells)


def _together(words: str) -> str:
    """Words that stay on one line."""
    return words.replace(" ", "\N{NO-BREAK SPACE}")


def _each_seed(seeds: Sequence[int], rows: Sequence[Row]) -> Table:
    found = {(row.setting, row.seed): share(row.student) for row in rows}
    names = dict.fromkeys(row.setting for row in rows)
    cells = [(name, *(found.get((name, seed), "-") for seed in seeds)) for name in names]
    return Table.of("Accuracy of the student, in per cent", ("setting", *(f"seed {seed}" for seed in seeds)), cells)


def _what_was_run(sweep: Sweep, rows: Sequence[Row], notes: Sequence[str]) -> Section:
    done = [row for row in rows if row.state == "finished"]
    total = sum(row.seconds or 0.0 for row in done)
    answers = sorted({row.answers for row in done if row.answers is not None})
    ends = dict.fromkeys(answers[:1] + answers[-1:])
    items = [
        ("runs", f"{len(done)} of {len(rows)} finished, {duration(total)} of running in all"),
        ("varied", ", ".join(sweep.varied) or "nothing but the seed"),
        ("seeds", ", ".join(map(str, sweep.plan.seeds))),
        ("measured on", "validation images" if sweep.base.data.validation else "held-out images of the test split"),
        ("answers of each silo", " to ".join(f"{count:,}" for count in ends) or "-"),
        ("answers are", _whose(sweep)),
    ]
    told = [Note(f"{note[0].upper()}{note[1:]}.", "Note") for note in notes]
    return Section("what-was-run", "What was run", (Facts(tuple(items)), *told))


def _whose(sweep: Sweep) -> str:
    if not sweep.banks:
        return "each run's own: its silos began with the whole budget"
    return f"shared: of each seed the run {sweep.banks[0].setting.name!r} asked, and every setting was fitted to these"


def _runs(sweep: Sweep, rows: Sequence[Row]) -> Section:
    dp = any(row.epsilon is not None for row in rows)
    columns = ("run", *sweep.varied, "seed", "student", "ensemble", *(("epsilon",) if dp else ()), "time", "state")
    cells = [
        (
            row.run,
            *(shown_value(row.values.get(key)) or "-" for key in sweep.varied),
            str(row.seed),
            share(row.student),
            share(row.ensemble),
            *(("-" if row.epsilon is None else f"{row.epsilon:.2f}",) if dp else ()),
            "-" if row.seconds is None else duration(row.seconds),
            row.state,
        )
        for row in rows
    ]
    table = Table.of(f"Every run; its folder holds its own {REPORT_FILE}", columns, cells)
    return Section("runs", "Runs", (folded_where_long(table),))


def _repeat(sweep: Sweep, rows: Sequence[Row]) -> Section:
    options = "".join(f" --set {item}" for item in sweep.overrides)
    versions = next((row.versions for row in rows if row.versions), {}) or {}
    items = (
        ("commit", ", ".join(commits_of(rows)) or "-"),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items()) or "-"),
    )
    plan = sweep.plan.model_dump(mode="json", exclude_defaults=True)
    blocks = (
        Facts(items),
        Code("The command", f"fedcpsc sweep {PLAN_FILE}{options}"),
        Code(f"The plan, {PLAN_FILE}", dump_plain(plan)),
    )
    return Section("repeat", "Repeat it", blocks)
