"""The report's end: the audit's verdict, the owner's private part, and how to repeat the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from fedcpsc.config import RunConfig
from fedcpsc.report.audit_folder import AuditFacts, Value
from fedcpsc.report.blocks import Block, Code, Facts, Folded, Note, Picture, Section, Table
from fedcpsc.report.owner import OwnerFacts
from fedcpsc.report.query_pictures import data_uri
from fedcpsc.runs.layout import CONFIG_FILE
from fedcpsc.runs.read import RunFacts

__all__ = ["audited", "owners_part", "public_config", "repeat"]


_OLD_AUDIT = (
    "This audit was made before audits told the largest bound that their guesses could have shown: a bound below a "
    "claim may only mean that there were too few guesses. Run the audit again to know."
)
_NOT_TESTED = (
    "At least one claim lies above the largest bound that the audit's guesses could have shown (reachable epsilon), or "
    "was put to no test at all: whatever leaked, it could not have been refuted. That it was not says nothing for it."
)


def audited(audit: AuditFacts | None) -> Section:
    """What an audit found."""
    title = "Privacy audit"
    if audit is None:
        text = (
            "No audit belongs to this report: claims above are what the silos say, and nobody tried to disprove them."
        )
        return Section("audit", title, (Note(text),))
    blocks: list[Block] = [Note(audit.verdict.text, audit.verdict.in_short)]
    if audit.verdict.testable is None and audit.bounds:
        blocks.append(Note(_OLD_AUDIT, "Note"))
    elif audit.verdict.testable is False:
        blocks.append(Note(_NOT_TESTED, "Not tested"))
    if audit.run is None:
        blocks.append(Note("The audit made teachers and students of its own; it did not attack those of this run."))
    blocks += [_values("Attacks", audit.rows)] if audit.rows else []
    blocks += [_values("Lower bounds on epsilon, each with the unit it is about", audit.bounds)] if audit.bounds else []
    blocks += [Picture(plot.title, plot.alt, data_uri(plot.content, plot.kind)) for plot in audit.plots]
    return Section("audit", title, tuple(blocks))


def owners_part(owner: OwnerFacts) -> Section:
    """For one silo's owner alone."""
    ledger, answers = owner.ledger, owner.ledger["answers"]
    spent, realised = ledger["epsilon_spent"], owner.epsilon_realised
    items = (
        ("population", str(ledger["population"])),
        ("answers over all time", f"{answers['spent']:,} of {answers['budget']:,}; {answers['left']:,} left"),
        ("queries", f"{ledger['queries']:,} answered, {ledger['refused']:,} refused"),
        ("answers without a guarantee", f"{ledger['answers_without_guarantee']:,}"),
        (
            "epsilon of all that has left",
            _epsilon(spent, ledger, "no guarantee"),
        ),
        ("epsilon realised on the real votes (itself private)", _epsilon(realised, ledger, "-")),
        ("class counts", "told to the server" if owner.shares_class_counts else "told to nobody"),
        ("training", ", ".join(f"{key} {value}" for key, value in owner.training.items())),
    )
    counts = [(f"class {k}", f"{count:,}") for k, count in enumerate(owner.class_counts)]
    return Section(
        "owner",
        f"For the owner of {owner.silo} alone",
        (
            Note(
                "Ledger, realised epsilon and class counts are the silo's own: do not pass this page on.",
                "Private",
            ),
            Facts(items),
            Folded("Private images by class", (Table.of("Private images", ("class", "images"), counts),)),
        ),
    )


def repeat(run: RunFacts) -> Section:
    """Everything needed to run it again."""
    config, left_out = public_config(run.config)
    result = run.result
    commit = (result and result["commit"]) or ""
    options = "".join(f" --set {key}=..." for key in left_out)
    steps = [f"git checkout {commit.removesuffix('-dirty')}"] if commit else []
    steps += [f"# save the configuration below as {CONFIG_FILE}", f"fedcpsc run {CONFIG_FILE}{options}"]
    versions = ", ".join(f"{name} {version}" for name, version in (result["versions"] if result else {}).items())
    unknown = "written when a run ends"
    items = [
        ("commit", commit or ("unknown: the package lay in no repository" if result else unknown)),
        ("versions", versions or unknown),
        ("device", result.get("device", unknown) if result else unknown),
        ("seed", f"{run.config.seed}; every random stream is derived from it, except privacy noise"),
    ]
    blocks: list[Block] = [Facts(tuple(items)), Code("The commands", "\n".join(steps))]
    if commit.endswith("-dirty"):
        blocks.append(Note("The source had uncommitted changes: the commit alone does not repeat the run.", "Note"))
    if left_out:
        blocks.append(Note(f"Paths of the machine it ran on are left out: {', '.join(left_out)}."))
    blocks.append(Folded("The whole configuration", (Code(CONFIG_FILE, config),)))
    return Section("repeat", "Repeat it", tuple(blocks))


def public_config(config: RunConfig) -> tuple[str, list[str]]:
    """The configuration as YAML without the machine's absolute paths; and the keys that must be given anew."""
    tree = config.model_dump(mode="json")
    left_out = []
    if config.data.path:
        tree["data"]["path"] = None
        left_out.append("data.path")
    for section in ("silos", "output"):
        if Path(tree[section]["root"]).is_absolute():
            tree[section].pop("root")  # the default serves as well
    return yaml.safe_dump(tree, sort_keys=False), left_out


def _epsilon(value: float | None, ledger: dict[str, Any], without: str) -> str:
    return without if value is None else f"{value:.4g} at delta {ledger['delta']:g}, per {ledger['unit']}"


def _values(caption: str, rows: Sequence[dict[str, Value]]) -> Table:
    columns = list(dict.fromkeys(key for row in rows for key, value in row.items() if value is not None))
    cells = [[_text(row.get(column)) for column in columns] for row in rows]
    return Table.of(caption, [column.replace("_", " ") for column in columns], cells)


def _text(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
