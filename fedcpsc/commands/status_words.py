# SPDX-License-Identifier: Apache-2.0
"""A run's health on the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from fedcpsc.runs.health import Health, SiloHealth

__all__ = ["exit_code", "in_words"]

_GO_ON = "what is banked is kept: go on with --resume"
_EXIT_CODES = {"starting": 0, "running": 0, "finished": 0, "failed": 1, "stalled": 3}


def exit_code(health: Health) -> int:
    """1 where the run, or a later attempt at a finished one, has failed; 3 where it has stalled; else 0."""
    return 1 if health.error is not None else _EXIT_CODES[health.state]


def in_words(health: Health) -> Iterator[str]:
    """One line for each thing an operator asks; alarms last."""
    yield f"{health.name}: {health.state}{_progress(health)}"
    if health.state in ("running", "starting", "stalled"):
        yield f"last sign of life {_ago(health.silent_s)}; stalled after {_duration(health.stalled_after_s)}"
    if health.line_age_s is not None and health.state != "finished":
        kept = "none yet" if health.checkpoint_age_s is None else _ago(health.checkpoint_age_s)
        yield f"last line of metrics {_ago(health.line_age_s)}; last checkpoint {kept}"
    if health.seconds:
        yield f"waited for answers {health.waiting_share:.1%} of {_duration(health.seconds)}"
    for run in health.earlier_runs:
        commit = f", commit {run.commit}" if run.commit else ""
        counts = ", ".join(f"{silo} {count:,}" for silo, count in run.answers.items())
        yield f"answers from {run.name} ({run.folder}{commit}): {counts}"
    if health.refit:
        yield "a refit: no silo was asked anything"
    for silo in health.silos:
        left = "" if silo.answers_left is None else f"; {silo.answers_left:,} left of its budget"
        here = "" if silo.here is None or health.refit else f", {silo.here:,} of them in this run"
        yield f"{silo.id}: {silo.answers:,} of {health.answers_budget:,} answers{here}{left}{_belief(silo)}"
    if health.not_judged is not None:
        yield f"silos are not judged by their answers, because {health.not_judged}"
    if health.excluded:
        yield f"excluded: {', '.join(health.excluded)}"
    for name, why in health.turned_away.items():
        yield f"not let in: {name}: {why}"
    for alarm in health.alarms:
        yield f"alarm: {alarm}"
    yield from health.without_test_images
    if health.error is not None:
        yield f"error{' of a later attempt' if health.state == 'finished' else ''}: {health.error}"
    if health.state in ("failed", "stalled"):
        yield "make it again: fedcpsc refit --overwrite" if health.refit else _GO_ON


def _progress(health: Health) -> str:
    if health.phase is None:
        return ""
    where = f"round {health.round}/{health.rounds}" if health.phase == "round" else "final fit"
    shown = f", {where}, {health.share_done:.0%} done"
    if health.student_accuracy is not None:
        shown += f", student {health.student_accuracy:.1%}"
    if health.state == "running" and health.seconds_left is not None:
        shown += f", about {_duration(health.seconds_left)} left"
    return shown


def _belief(silo: SiloHealth) -> str:
    if silo.reputation is None:
        return ""
    agreement = "cannot be checked" if silo.agreement is None else f"agreement {silo.agreement:.2f}"
    return f"; reputation {silo.reputation:.2f}, {agreement}"


def _ago(seconds: float) -> str:
    return f"{_duration(max(0.0, seconds))} ago"


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
