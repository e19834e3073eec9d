# SPDX-License-Identifier: Apache-2.0
"""How to repeat the run: commit, versions, commands and the configuration, without the machine's own paths."""

from __future__ import annotations

from pathlib import Path

from fedcpsc.config import RunConfig
from fedcpsc.plain_yaml import dump_plain
from fedcpsc.report.blocks import Block, Code, Facts, Folded, Note, Section
from fedcpsc.runs.layout import CONFIG_FILE
from fedcpsc.runs.read import RunFacts

__all__ = ["public_config", "repeat"]


def repeat(run: RunFacts) -> Section:
    """Everything needed to run it again."""
    config, left_out = public_config(run.config)
    result = run.result
    commit = (result and result["commit"]) or ""
    options = "".join(f" --set {key}=..." for key in left_out)
    steps = [f"git checkout {commit.removesuffix('-dirty')}"] if commit else []
    steps += [f"# save the configuration below as {CONFIG_FILE}"]
    if run.config.data.source == "arrays":
        steps += ["# in the program that has the models, from Python:"]
        steps += [f'fedcpsc.distill(federation, config="{CONFIG_FILE}", folder="runs/again")']
    else:
        steps += [f"fedcpsc run {CONFIG_FILE}{options}"]
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
    if config.synthesis.public is not None:
        tree["synthesis"]["public"].pop("path")  # whose last part result.json tells
        left_out.append("synthesis.public.path")
    for section, weights in (("teachers", config.teachers.weights), ("student", config.student.weights)):
        if weights:
            tree[section]["weights"] = None
            left_out.append(f"{section}.weights")
    for section in ("silos", "output"):
        if Path(tree[section]["root"]).is_absolute():
            tree[section].pop("root")  # the default serves as well
    return dump_plain(tree), left_out
