# SPDX-License-Identifier: Apache-2.0
"""How good a student is by the silos' word or their agreement: for terminal, log, status, page and card alike."""

from __future__ import annotations

from fedcpsc.printable import printable
from fedcpsc.runs.result import Estimate, FederatedEvaluation, RunResult, SiloEvaluation

__all__ = [
    "adjustment_in_words",
    "estimate_in_words",
    "in_one_sentence",
    "judged_in_words",
    "noise_in_words",
    "right_in_words",
    "without_test_images",
]

_MOST_SILOS = 20  # that are named one by one


def in_one_sentence(found: FederatedEvaluation) -> str:
    """The pooled estimate, or why there is none.

    Args:
        found: entry `federated_evaluation` of a result.
    """
    judged = [entry for entry in found["silos"] if entry["right"] is not None and entry["reason"] is None]
    if found["reason"] is not None:
        return f"No silo has evaluated the student: {found['reason']}."
    if not judged:
        return "No silo has evaluated the student."
    pooled = found["pooled"]
    if pooled is None:
        count = "1 silo has" if len(judged) == 1 else f"{len(judged)} silos have"
        return f"{count} evaluated the student, and none tells how many images it has."
    silos = "1 silo has" if pooled["silos"] == 1 else f"{pooled['silos']} silos have"
    return (
        f"{100 * pooled['accuracy']:.1f} % right, standard error {100 * pooled['standard_error']:.1f} points, on"
        f" {pooled['images']:,} held-out images that {silos}, by their own word."
    )


def adjustment_in_words(found: FederatedEvaluation, accuracy: float | None = None) -> str:
    """What was done to the student's class biases, and what it brought; "" where silos told nothing class by class.

    Args:
        found: entry `federated_evaluation` of a result.
        accuracy: the student's accuracy on the server's held-out images, in [0, 1]; None where it is not told.
    """
    if (made := found.get("adjustment")) is None:
        return ""
    if made["biases"] is None:
        return f"The student's class biases are as they were fitted: {made['reason']}."
    before, after, measured = made["before"], made["after"], made["accuracy_before"]
    steps = []
    if before is not None and after is not None:
        steps.append(
            f"{100 * after['accuracy']:.1f} % right on the silos' images, which chose it,"
            f" {100 * before['accuracy']:.1f} % before"
        )
    if measured is not None and accuracy is not None:
        steps.append(f"{100 * accuracy:.1f} % on the server's, {100 * measured:.1f} % before")
    brought = f": {'; '.join(steps)}" if steps else ", which then called more images right"
    return f"The student's class biases were shifted by the silos' counts class by class{brought}."


def without_test_images(result: RunResult) -> list[str]:
    """What is known of the student beside the server's own test images, a line each, fit to be printed.

    That is what the silos say of it where they were to be asked, else the estimate where nothing was measured.

    Args:
        result: result of a run.
    """
    found, accuracy = result.get("federated_evaluation"), result["student"]["accuracy"]
    if found is None:
        estimated = result.get("estimate")
        return [] if estimated is None or accuracy is not None else [f"student: {estimate_in_words(estimated)}"]
    lines = [f"evaluated by the silos: {in_one_sentence(found)}"]
    if told := adjustment_in_words(found, accuracy):
        lines.append(told)
    for entry in found["silos"][:_MOST_SILOS]:
        why = printable(str(entry["reason"]))
        if entry["right"] is None:
            lines.append(f"{entry['id']} has not evaluated: {why}")
        else:
            doubt = "" if entry["reason"] is None else f" ({why})"
            lines.append(f"{entry['id']} evaluated: {judged_in_words(entry)}, {right_in_words(entry)}{doubt}")
    more = len(found["silos"]) - _MOST_SILOS
    return lines if more <= 0 else [*lines, f"and {more} more silos in the report"]


def estimate_in_words(found: Estimate) -> str:
    """An estimate without test images, and how far to trust it.

    Args:
        found: entry `estimate` of a result.
    """
    share, error = (f"{100 * found[key]:.0f}" for key in ("share", "error"))
    return (
        f"estimated without test images, its accuracy is about {share} % of the silos' ensemble's (such estimates err"
        f" by {error} points in the mean)"
    )


def right_in_words(entry: SiloEvaluation) -> str:
    """A silo's number, such as "93 of 120"; "-" where there is none.

    Args:
        entry: entry of one silo.
    """
    if entry["right"] is None:
        return "-"
    return f"{entry['right']:,} of {'an untold number' if entry['images'] is None else format(entry['images'], ',')}"


def noise_in_words(entry: SiloEvaluation) -> str:
    """The noise on a silo's number, and whether a guarantee covers it.

    Args:
        entry: entry of one silo.
    """
    if entry["right"] is None:
        return "-"
    if not entry["sigma"]:
        return "none: the number is exact, and not differentially private"
    claim = f"epsilon {entry['epsilon']:.4g} for all that it releases" if entry["epsilon"] else "no guarantee"
    return f"standard deviation {entry['sigma']:g} images ({claim})"


def judged_in_words(entry: SiloEvaluation) -> str:
    """A silo's accuracy with its standard error; else that it tells none, or is not believed.

    Args:
        entry: entry of one silo.
    """
    if entry["reason"] is not None:
        return "none" if entry["right"] is None else "not believed"
    if entry["accuracy"] is None or entry["standard_error"] is None:
        return "not known"
    return f"{100 * entry['accuracy']:.1f} % +- {100 * entry['standard_error']:.1f}"
