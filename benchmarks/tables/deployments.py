# SPDX-License-Identifier: Apache-2.0
"""How deployments and large federations do."""

from __future__ import annotations

from benchmarks.tables.markdown import read, spread, table

__all__ = [
    "crashes",
    "fourth_silo",
    "large_images",
    "many_silos",
    "overlap",
    "overlap_deployed",
    "scale_constants",
    "scale_plan",
]


def overlap() -> list[str]:
    """Who waits, with rounds that overlap and without, on a clock of work and delays."""
    return overlap_table("overlap.json")


def overlap_deployed() -> list[str]:
    """The same in a deployment."""
    return overlap_table("overlap_deployed.json")


def overlap_table(name: str) -> list[str]:
    """One line a mode."""
    report = read(name) or {"runs": {}, "seeds": []}
    seeds = len(report["seeds"])
    return table(
        "rounds | waiting after the first round, worst seed | seconds | queries a silo | student | seeds",
        (
            (
                mode,
                f"{100 * row['worst_waiting_share_after_first_round']:.1f} %",
                f"{row['wall_s']:.0f}",
                f"{row['queries']:.0f}",
                spread(row["student"], row["student_std"]) if seeds > 1 else f"{row['student']:.1f}",
                f"{seeds}",
            )
            for mode, row in report["runs"].items()
        ),
    )


def large_images() -> list[str]:
    """Queries, memory and seconds by the size of images."""
    report = read("large_images.json") or {"rows": []}
    return table(
        "images | images a query, MB | a forward pass | gatekeeper | server | bank | relay | seconds"
        " | fit, an image: width 8 | width 32",
        (
            (
                f"{row['side']}x{row['side']}x3",
                f"{row['images_per_query']}, {row['largest_query_mb']:.1f}",
                f"{row['teacher_batch']} images",
                f"{max(row['gatekeepers_mib']):.0f} MiB",
                f"{row['server_mib']:,.0f} MiB",
                f"{row['bank_mib']:.0f} MiB",
                f"{row['relay_mib']:.0f} MiB",
                f"{row['seconds']:.0f}",
                *(f"{each:.0f} MiB" for each in row["fit_mib_an_image"].values()),
            )
            for row in report["rows"]
        ),
    )


def fourth_silo() -> list[str]:
    """A silo that joins later, beside the same silos from the start."""
    report = read("fourth_silo.json") or {"runs": {}, "seeds": []}
    rows = [
        (
            name,
            ", ".join(f"{count:,}" for count in row["charged"]),
            spread(row["ensemble"]["mean"], row["ensemble"]["std"]),
            spread(row["student"]["mean"], row["student"]["std"]),
            f"{len(report['seeds'])}",
        )
        for name, row in report["runs"].items()
    ]
    return table("run | answers charged, silo by silo | ensemble | student | seeds", rows)


def crashes() -> list[str]:
    """What was killed, and what that cost."""
    columns = "killed | kills | before silos joined | runs that ended | paid twice, lost, of answers"
    return table(
        columns + " | ledgers verify | s, median",
        (
            (
                row["kind"],
                f"{row['kills']}",
                f"{row['phases'].get('before the silos joined', 0)}",
                f"{row['ended']}" + (f", {row['resumed']} resumed" if row["resumed"] else ""),
                f"{row['paid_twice']}, {row['lost']}, of {row['answers']:,}",
                f"{row['ledgers_that_verify']} of {row['ledgers']}",
                "-" if row["seconds"] is None else f"{row['seconds']:.0f}",
            )
            for row in (read("crashes.json") or {"kinds": []})["kinds"]
        ),
    )


def many_silos() -> list[str]:
    """The server's memory with few silos and with many."""
    return table(
        "through | silos | answers banked | seconds | peak memory | report",
        (
            (
                row["transport"],
                f"{row['silos']}",
                f"{row['answered']:,}",
                f"{row['run_s']:.0f}",
                f"{row['peak_MiB']:,.0f} MiB",
                f"{row['report_MB']:.1f} MB",
            )
            for row in (read("many_silos.json") or {"rows": []})["rows"]
        ),
    )


def scale_plan() -> list[str]:
    """A run far larger than any we have made."""
    report = read("scale_plan.json")
    if report is None:
        return []
    size, found, plan = report["size"], report["constants"], report["plan"]
    gb, hours = 1e9, 3600
    rows = [
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
        ("*silos, images, classes*", f"*{size['silos']:,}, {size['images']:,}, {size['classes']}*"),
    ]
    return table("what | figure", rows)


def scale_constants() -> list[str]:
    """What the plan multiplies."""
    report = read("scale_plan.json")
    if report is None:
        return []
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
    return table("constant | value | whence", rows)
