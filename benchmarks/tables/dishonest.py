# SPDX-License-Identifier: Apache-2.0
"""What silos that lie take from ensembles and students."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.tables.markdown import read, table

__all__ = ["attacks", "federations", "rules"]

_JUDGED, _PLAIN = "answer_peak_log robust", "answer_peak_log"
_ADAPTIVE, _COUNTS = "adaptive", "lied counts, shifted labels"
_NOTHING = "-"
Row = dict[str, Any]


def federations() -> list[str]:
    """Each federation, over all lies."""
    rows, students = _rows("ensemble"), _rows("student")
    named = list(dict.fromkeys(row["setting"] for row in rows))
    return table(
        "silos | no liar | one liar, not judged | one liar, certain | soft | on classes with two witnesses "
        "| its student | one that knows the rule | its student | two of 5, three of 10 | liar named "
        "| honest accused, no liar | beside a liar",
        (
            _federation(*([row for row in found if row["setting"] == name] for found in (rows, students)))
            for name in named
        ),
    )


def attacks() -> list[str]:
    """Each lie, over federations of five silos: by one of them, or two."""
    rows = [row for row in _rows("ensemble") if ", 5 silos, " in row["setting"] and row["liars"]]
    students = [row for row in _rows("student") if row["liars"]]
    named = list(dict.fromkeys(row["attack"] for row in rows if row["attack"] != _COUNTS))
    return table(
        "lie | one liar, not judged | one liar, judged | its student | two liars, judged | named, of one",
        (
            (
                name + _opened([row for row in rows if row["attack"] == name and row["liars"] == 1]),
                _forms([row for row in rows if row["attack"] == name and row["liars"] == 1], _PLAIN),
                _forms([row for row in rows if row["attack"] == name and row["liars"] == 1]),
                _forms([row for row in students if row["attack"] == name], key="mean", worst="worst"),
                _forms([row for row in rows if row["attack"] == name and row["liars"] == 2]),
                _share([row for row in rows if row["attack"] == name and row["liars"] == 1], "named"),
            )
            for name in named
        ),
    )


def rules() -> list[str]:
    """Each rule, over federations of five silos."""
    rows = [row for row in _rows("ensemble") if ", 5 silos, " in row["setting"] and row["attack"] != _ADAPTIVE]
    names = list(dict.fromkeys(name for row in rows if not row["liars"] for name in row["rules"]))

    def cells(name: str) -> Sequence[str]:
        rule, _, judged = name.partition(" ")
        lied = [row for row in rows if name in row["rules"]]
        honest = [row["rules"][name] for row in lied if not row["liars"]]
        accuracy = sum(figures["accuracy"] for figures in honest) / len(honest)
        others = [row for row in lied if row["attack"] != _COUNTS]
        return (
            f"`{rule}`, {'judged' if judged else 'not judged'}",
            f"{accuracy:.1f}",
            *(_change([row for row in others if row["liars"] == liars], name) for liars in (1, 2)),
            *(_change([row for row in lied if row["attack"] == _COUNTS and row["liars"] == n], name) for n in (1, 2)),
        )

    return table(
        "rule | accuracy, no liar | one liar | two liars | one that lies of its counts | two such",
        (cells(name) for name in names),
    )


def _rows(what: str) -> list[Row]:
    return [row for row in read("dishonest.json") or [] if row["what"] == what]


def _federation(rows: Sequence[Row], students: Sequence[Row]) -> Sequence[str]:
    lied_to = [
        [row for row in students if row["liars"] and (row["attack"] == _ADAPTIVE) is knows] for knows in (False, True)
    ]
    listed_student, adaptive_student = (_change(found, key="mean", worst="worst") for found in lied_to)
    honest = next((row["rules"] for row in rows if not row["liars"]), None)
    listed = [row for row in rows if row["liars"] and row["attack"] not in {_ADAPTIVE, _COUNTS}]
    one, several = ([row for row in listed if (row["liars"] == 1) == single] for single in (True, False))
    adaptive = [row for row in rows if row["attack"] == _ADAPTIVE and row["liars"] == 1]
    judged = honest[_JUDGED] if honest else {}
    return (
        rows[0]["setting"],
        f"{judged['mean']:+.1f}" if honest else _NOTHING,
        _change(one, _PLAIN),
        _change([row for row in one if row["form"] == "certain"]),
        _change([row for row in one if row["form"] == "soft"]),
        _change(one, key="witnessed", worst="witnessed_worst"),
        listed_student,
        _change(adaptive),
        adaptive_student,
        _change(several),
        _share(one, "named"),
        f"{judged['accused']} of {judged['judged']}" if "accused" in judged else _NOTHING,
        _share(one, "accused"),
    )


def _forms(rows: Sequence[Row], rule: str = _JUDGED, key: str = "same", worst: str = "same_worst") -> str:
    """Certain / soft, or what the adaptive liar chose."""
    told = [[row for row in rows if row["form"] == form] for form in ("certain", "soft", "chosen")]
    return " / ".join(_change(found, rule, key, worst) for found in told if found) or _NOTHING


def _opened(rows: Sequence[Row]) -> str:
    """Of a backdoor: how many of the images with its trigger are taken for its class."""
    if not any("backdoor" in row["rules"].get(_JUDGED, {}) for row in rows):
        return ""
    by_rule = []
    for rule in (_PLAIN, _JUDGED):
        found = [row["rules"][rule] for row in rows]
        by_rule.append(f"{sum(f['backdoor'] * f['runs'] for f in found) / sum(f['runs'] for f in found):.0f} %")
    return f" (opens for {by_rule[0]} of images, judged {by_rule[1]})"


def _change(rows: Iterable[Row], rule: str = _JUDGED, key: str = "same", worst: str = "same_worst") -> str:
    """Mean over runs, and the worst."""
    found = [row["rules"][rule] for row in rows if key in row["rules"].get(rule, {})]
    if not found:
        return _NOTHING
    runs = sum(figures["runs"] for figures in found)
    mean = sum(figures[key] * figures["runs"] for figures in found) / runs
    return f"{mean:+.1f} ({min(figures[worst] for figures in found):+.0f})"


def _share(rows: Sequence[Row], key: str) -> str:
    found = [row["rules"][_JUDGED] for row in rows if key in row["rules"].get(_JUDGED, {})]
    if not found:
        return _NOTHING
    return f"{100 * sum(f[key] * f['runs'] for f in found) / sum(f['runs'] for f in found):.0f} %"
