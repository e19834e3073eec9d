"""Writes the tables of README and docs from the JSON under `benchmarks/results/`.

python -m benchmarks.tables            # rewrite
python -m benchmarks.tables --check    # exit 1 where a page is out of date
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def read(name: str) -> Any:
    """One result file's content; None where it has not been measured."""
    path = RESULTS / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def accuracy() -> list[str]:
    """Accuracy per answer."""
    return accuracy_table(read("accuracy_per_answer.json") or [])


def dp_sgd() -> list[str]:
    """The same, of the settings whose teachers are trained by DP-SGD."""
    return accuracy_table([row for row in read("accuracy_per_answer.json") or [] if "DP-SGD" in row["setting"]])


def accuracy_table(rows: list[dict[str, Any]]) -> list[str]:
    """One line a setting."""
    lines = [
        "| setting | silos | answers | best single teacher | ensemble | **student** | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['setting']} | {row['silos']} | {row['answers']:,} | {row['teacher']:.1f} "
            f"| {row['ensemble']:.1f} | **{row['mean']:.1f} +- {row['std']:.1f}** | {len(row['seeds'])} |"
        )
    return lines


def overheads() -> list[str]:
    """What the machinery costs."""
    lines = ["| what | figure |", "|---|---|"]
    gate = read("gatekeeper_overhead.json")
    if gate:
        lines.append(
            f"| gatekeeper + protocol over bare teacher inference, {gate['batch']:,} images of "
            f"{'x'.join(map(str, gate['image_shape'][1:]))} | {100 * (gate['ratio'] - 1):+.1f} % "
            f"({gate['added_ms']:.0f} ms a batch) |"
        )
    memory = read("bank_memory.json")
    if memory:
        for size in memory["sizes"]:
            lines.append(
                f"| server memory with {size['rows']:,} banked images ({size['disk_MiB']:.0f} MiB on disk) | "
                f"{size['anonymous_MiB']:.0f} MiB |"
            )
    return lines


def ablation() -> list[str]:
    """What each part of the recipe brings."""
    return ablation_table("digits, 2,000 answers, validation images", "ablation.json")


def priors() -> list[str]:
    """What the priors and the generator's share bring."""
    return ablation_table("MNIST 16x16, one teacher, 5,000 answers, validation images", "ablation_priors.json")


def ablation_table(about: str, name: str) -> list[str]:
    """One line a setting, the best first."""
    lines = [f"| {about} | student | seeds |", "|---|---|---|"]
    for row in sorted(read(name) or [], key=lambda row: -row["mean"]):
        lines.append(f"| {row['setting']} | {row['mean']:.1f} +- {row['std']:.1f} | {len(row['seeds'])} |")
    return lines


def aggregation() -> list[str]:
    """Aggregation alone: noise, rules, forms."""
    lines = ["| about | setting | ensemble | student | seeds |", "|---|---|---|---|---|"]
    for row in read("ablation_aggregation.json") or []:
        lines.append(
            f"| {row['about']} | {row['setting']} | {row['ensemble']:.1f} +- {row['ensemble_std']:.1f} "
            f"| {row['student']:.1f} +- {row['student_std']:.1f} | {len(row['seeds'])} |"
        )
    return lines


def shard_votes() -> list[str]:
    """What a per-answer privacy budget buys."""
    report = read("shard_votes.json") or {"points": []}
    lines = ["| sigma | epsilon | answers it buys | student | seeds |", "|---|---|---|---|---|"]
    for row in report["points"]:
        lines.append(
            f"| {row['sigma']} | {row['epsilon']:g} | {row['answers']:,} | {row['mean']:.1f} +- {row['std']:.1f} "
            f"| {len(row['seeds'])} |"
        )
    return lines


def socket() -> list[str]:
    """The gatekeeper's own process."""
    report = read("gatekeeper_socket.json")
    lines = ["| what | figure |", "|---|---|"]
    if report:
        lines.append(
            f"| socket over in-process, {report['batch']:,} images a query | {100 * (report['ratio'] - 1):+.1f} % |"
        )
        lines.append(f"| ledger, a batch | {report['ledger_ms']:.0f} ms |")
        for callers, rate in report["answers_per_second"].items():
            lines.append(f"| answers a second, {callers} callers | {rate:,.0f} |")
    return lines


def audit() -> list[str]:
    """What attacks found, and the bounds beside the claims."""
    report = read("audit_digits.json") or {"strongest": []}
    lines = [
        "| policy | surface | accuracy | attack | AUC | TPR at 1 % | TPR at 0.1 % | epsilon at least | claimed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for policy, surface, attack in report["strongest"]:
        same = [
            row for row in report["rows"] if [row["policy"], row["surface"], row["attack"]] == [policy, surface, attack]
        ]
        row = same[-1]  # of several numbers of answers, the largest
        model = next(m for m in report["models"] if all(m[k] == row[k] for k in ("policy", "surface", "answers")))
        bound = next(b for b in report["bounds"] if (b["policy"], b["surface"]) == (policy, surface))
        claim = "-" if bound["claimed_epsilon"] is None else f"{bound['claimed_epsilon']:g}"
        lines.append(
            f"| {policy} | {surface} | {100 * model['accuracy']['mean']:.1f} +- {100 * model['accuracy']['std']:.1f} "
            f"| `{attack}` | {row['auc']:.3f} | {100 * row['tpr_at']['0.01']:.1f} % "
            f"| {100 * row['tpr_at']['0.001']:.1f} % | {bound['epsilon']:.2f} | {claim} |"
        )
    return lines


def throughput() -> list[str]:
    """A white-box round beside a plain port of it."""
    lines = ["| setting | ours, s | port, s | ratio | threads |", "|---|---|---|---|---|"]
    for row in read("throughput.json") or []:
        lines.append(
            f"| {row['setting']} | {row['ours_s']:.2f} | {row['port_s']:.2f} | **{row['ratio']:.2f}** "
            f"({row['ratio_range'][0]:.2f} to {row['ratio_range'][1]:.2f}) | {row['threads']} |"
        )
    return lines


def inference_speed() -> list[str]:
    """Parts of an inference-only round beside an earlier commit's."""
    lines = ["| change | part | before, ms | after, ms | ratio | same outcome |", "|---|---|---|---|---|---|"]
    for run in read("inference_speed.json") or []:
        clock = run["clock"]
        for row in run["throughput"]:
            before, after = (1000 * row["sides"][side][clock]["median"] for side in ("other", "this"))
            ratio = row["ratio"][clock]
            lines.append(
                f"| {run['change']} | {row['stage']} | {before:,.1f} | {after:,.1f} | **{ratio['median']:.2f}** "
                f"({ratio['least']:.2f} to {ratio['most']:.2f}) | {'yes' if row['same_outcome'] else 'no'} |"
            )
    return lines


def overlap() -> list[str]:
    """Who waits, with rounds that overlap and without, on a clock of work and delays."""
    return overlap_table("overlap.json")


def overlap_deployed() -> list[str]:
    """The same in a deployment."""
    return overlap_table("overlap_deployed.json")


def overlap_table(name: str) -> list[str]:
    """One line a mode."""
    lines = ["| rounds | waiting after the first round, worst seed | seconds | queries a silo | student | seeds |"]
    lines.append("|---|---|---|---|---|---|")
    report = read(name) or {"runs": {}, "seeds": []}
    for mode, row in report["runs"].items():
        spread = f" +- {row['student_std']:.1f}" if len(report["seeds"]) > 1 else ""
        lines.append(
            f"| {mode} | {100 * row['worst_waiting_share_after_first_round']:.1f} % | {row['wall_s']:.0f} "
            f"| {row['queries']:.0f} | {row['student']:.1f}{spread} | {len(report['seeds'])} |"
        )
    return lines


def crashes() -> list[str]:
    """What was killed, and what that cost."""
    lines = [
        "| killed | kills | of these before the silos joined | runs that ended | of these resumed | answers banked "
        "| paid twice | lost | ledgers that verify | s a run, median |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in (read("crashes.json") or {"kinds": []})["kinds"]:
        seconds = "-" if row["seconds"] is None else f"{row['seconds']:.0f}"
        lines.append(
            f"| {row['kind']} | {row['kills']} | {row['phases'].get('before the silos joined', 0)} | {row['ended']} "
            f"| {row['resumed']} | {row['answers']:,} | {row['paid_twice']} | {row['lost']} "
            f"| {row['ledgers_that_verify']} of {row['ledgers']} | {seconds} |"
        )
    return lines


def wire_bytes() -> list[str]:
    """Bytes of queries and answers."""
    lines = [
        "| images | sent as | bytes of an image | query, protocol / Flower | answer, protocol / Flower "
        "| less than its images | silo, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in read("wire_bytes.json") or []:
        size = row["bytes_an_image"]
        there, back = ([size[f"{by}_{way}"] for by in ("protocol", "flower")] for way in ("query", "answer"))
        lines.append(
            f"| {row['setting']}, {row['answers']:,} answers in {row['queries']} queries | {row['images_by']} "
            f"| {row['image_bytes']:,} | {there[0]:,.1f} / {there[1]:,.1f} | {back[0]:.1f} / {back[1]:.1f} "
            f"| {row['image_bytes'] / there[1]:.1f} x | {row['silo_ms_an_image']:.2f} |"
        )
    return lines


def compression() -> list[str]:
    """What compressing query images would save."""
    lines = ["| images | codec | bytes left | packing, us an image | unpacking |", "|---|---|---|---|---|"]
    for row in read("wire_bytes.json") or []:
        if row["images_by"] == "image":
            lines += [
                f"| {row['setting']} | {one['codec']} | {100 * one['share']:.0f} % | {one['pack_us']:.0f} "
                f"| {one['unpack_us']:.0f} |"
                for one in row["compression"]
            ]
    return lines


def many_silos() -> list[str]:
    """The server's memory with few silos and with many."""
    lines = [
        "| through | silos | answers banked | seconds | peak memory | report |",
        "|---|---|---|---|---|---|",
    ]
    for row in (read("many_silos.json") or {"rows": []})["rows"]:
        lines.append(
            f"| {row['transport']} | {row['silos']} | {row['answered']:,} | {row['run_s']:.0f} "
            f"| {row['peak_MiB']:,.0f} MiB | {row['report_MB']:.1f} MB |"
        )
    return lines


def scale_plan() -> list[str]:
    """A run far larger than any we have made."""
    report = read("scale_plan.json")
    lines = ["| what | figure |", "|---|---|"]
    if report is None:
        return lines
    size, found, plan = report["size"], report["constants"], report["plan"]
    gb, hours = 1e9, 3600
    rows = (
        ("messages, each way", f"{plan['messages']:,}"),
        ("sent by the server", f"{plan['sent_bytes'] / gb:.1f} GB"),
        ("sent to each silo", f"{plan['a_silo_receives_bytes'] / gb:.2f} GB"),
        ("received by the server", f"{plan['received_bytes'] / gb:.2f} GB"),
        ("through one SuperLink", f"{plan['link_s'] / hours:.1f} h at {found['link_bytes_s'] / 1e6:.0f} MB/s"),
        ("a silo's messages, one after the other", f"{plan['a_silo_messages_s'] / hours:.2f} h"),
        ("a SuperLink's memory for one query in flight at each silo", f"{plan['held_in_flight_bytes'] / gb:.2f} GB"),
        ("bank on disk: images, targets", f"{plan['bank_images_bytes'] / gb:.2f} GB"),
        ("bank on disk: answers", f"{plan['bank_answers_bytes'] / gb:.1f} GB"),
        ("journal and time line", f"{(plan['journal_bytes'] + plan['timeline_bytes']) / gb:.3f} GB"),
        ("banking, until the disk has it", f"{plan['banking_s'] / hours:.1f} h"),
        ("aggregating every answer once", f"{plan['aggregating_once_s']:.0f} s"),
        ("aggregating all anew in each round", f"{plan['aggregating_s'] / hours:.1f} h"),
        ("fit of the student and its fellow, one core", f"{plan['fit_s'] / hours:.1f} h"),
    )
    lines += [f"| {what} | {figure} |" for what, figure in rows]
    lines.append(f"| *silos, images, classes* | *{size['silos']:,}, {size['images']:,}, {size['classes']}* |")
    return lines


def scale_constants() -> list[str]:
    """What the plan multiplies."""
    report = read("scale_plan.json")
    lines = ["| constant | value | whence |", "|---|---|---|"]
    if report is None:
        return lines
    found, on = report["constants"], report["measured_on"]
    here = f"measured, {on['silos']} silos, {on['rows']:,} images"
    rows = (
        ("a query's bytes beyond its pixels, an image", f"{found['query_overhead']:.2f}", here),
        ("an answer's bytes", f"{found['answer_bytes']:.1f}", here),
        ("journal, time line: bytes a reply", f"{found['journal_bytes']:.0f}, {found['timeline_bytes']:.0f}", here),
        ("until a reply is on the disk", f"{1000 * found['bank_s']:.1f} ms", f"{here}; two fsync"),
        ("aggregating one answer", f"{1e9 * found['aggregate_s']:.0f} ns", f"{here}; processor time"),
        ("a step of the fit", f"{1000 * found['step_s']:.0f} ms", f"{here}; processor time, batch of 64"),
        ("a message at a silo", f"{found['message_s']:g} s", "Flower 1.41, one node busy, three in flight"),
        (
            "a SuperLink's throughput",
            f"{found['link_bytes_s'] / 1e6:.0f} MB/s",
            "Flower 1.41, TLS, two nodes, loopback",
        ),
    )
    return lines + [f"| {name} | {value} | {whence} |" for name, value, whence in rows]


PAGES = (
    "README.md",
    "docs/recipe.md",
    "docs/deployment.md",
    "docs/bench.md",
    "docs/privacy.md",
    "docs/index.md",
    "docs/audit.md",
    "docs/white_box.md",
    "docs/scale.md",
)
TABLES: dict[str, Callable[[], list[str]]] = {
    "ablation": ablation,
    "aggregation": aggregation,
    "compression": compression,
    "crashes": crashes,
    "accuracy": accuracy,
    "audit": audit,
    "dp-sgd": dp_sgd,
    "inference-speed": inference_speed,
    "many-silos": many_silos,
    "overheads": overheads,
    "priors": priors,
    "scale-constants": scale_constants,
    "scale-plan": scale_plan,
    "overlap": overlap,
    "overlap-deployed": overlap_deployed,
    "shard-votes": shard_votes,
    "socket": socket,
    "throughput": throughput,
    "wire-bytes": wire_bytes,
}


def rewrite(text: str) -> str:
    """`text` with every `<!-- table:NAME -->` ... `<!-- end -->` filled anew."""
    for name, make in TABLES.items():
        pattern = re.compile(rf"(<!-- table:{name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = pattern.sub(lambda found, make=make: found[1] + "\n".join(make()) + "\n" + found[2], text)
    return text


def main() -> int:
    """Rewrites or checks the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    stale = False
    for page in PAGES:
        before = (ROOT / page).read_text(encoding="utf-8")
        after = rewrite(before)
        stale = stale or before != after
        if not arguments.check:
            (ROOT / page).write_text(after, encoding="utf-8")
    return int(arguments.check and stale)


if __name__ == "__main__":
    sys.exit(main())
