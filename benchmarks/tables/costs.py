# SPDX-License-Identifier: Apache-2.0
"""What the machinery costs: time, memory, bytes."""

from __future__ import annotations

from benchmarks.tables.markdown import read, table

__all__ = ["compression", "inference_speed", "overheads", "socket", "throughput", "wire_bytes"]


def overheads() -> list[str]:
    """What the machinery costs."""
    rows = []
    if gate := read("gatekeeper_overhead.json"):
        size = "x".join(map(str, gate["image_shape"][1:]))
        what = f"gatekeeper + protocol over bare teacher inference, {gate['batch']:,} images of {size}"
        rows.append((what, f"{100 * (gate['ratio'] - 1):+.1f} % ({gate['added_ms']:.0f} ms a batch)"))
    for size in (read("bank_memory.json") or {"sizes": []})["sizes"]:
        what = f"server memory with {size['rows']:,} banked images ({size['disk_MiB']:.0f} MiB on disk)"
        rows.append((what, f"{size['anonymous_MiB']:.0f} MiB"))
    return table("what | figure", rows)


def socket() -> list[str]:
    """The gatekeeper's own process."""
    rows = []
    if report := read("gatekeeper_socket.json"):
        over = f"{100 * (report['ratio'] - 1):+.1f} %"
        rows = [
            (f"socket over in-process, {report['batch']:,} images a query", over),
            ("ledger, a batch", f"{report['ledger_ms']:.0f} ms"),
        ]
        rows += [
            (f"answers a second, {callers} callers", f"{rate:,.0f}")
            for callers, rate in report["answers_per_second"].items()
        ]
    return table("what | figure", rows)


def throughput() -> list[str]:
    """A white-box round beside a plain port of it."""
    return table(
        "setting | ours, s | port, s | ratio | threads",
        (
            (
                row["setting"],
                f"{row['ours_s']:.2f}",
                f"{row['port_s']:.2f}",
                f"**{row['ratio']:.2f}** ({row['ratio_range'][0]:.2f} to {row['ratio_range'][1]:.2f})",
                f"{row['threads']}",
            )
            for row in read("throughput.json") or []
        ),
    )


def inference_speed() -> list[str]:
    """Parts of an inference-only round beside an earlier commit's."""
    rows = []
    for run in read("inference_speed.json") or []:
        clock = run["clock"]
        for row in run["throughput"]:
            before, after = (1000 * row["sides"][side][clock]["median"] for side in ("other", "this"))
            ratio = row["ratio"][clock]
            rows.append(
                (
                    run["change"],
                    row["stage"],
                    f"{before:,.1f}",
                    f"{after:,.1f}",
                    f"**{ratio['median']:.2f}** ({ratio['least']:.2f} to {ratio['most']:.2f})",
                    "yes" if row["same_outcome"] else "no",
                )
            )
    return table("change | part | before, ms | after, ms | ratio | same outcome", rows)


def wire_bytes() -> list[str]:
    """Bytes of queries and answers."""
    rows = []
    for row in read("wire_bytes.json") or []:
        size = row["bytes_an_image"]
        there, back = ([size[f"{by}_{way}"] for by in ("protocol", "flower")] for way in ("query", "answer"))
        rows.append(
            (
                f"{row['setting']}, {row['answers']:,} answers in {row['queries']} queries",
                row["images_by"],
                f"{row['image_bytes']:,}",
                f"{there[0]:,.1f} / {there[1]:,.1f}",
                f"{back[0]:.1f} / {back[1]:.1f}",
                f"{row['image_bytes'] / there[1]:.1f} x",
                f"{row['silo_ms_an_image']:.2f}",
            )
        )
    header = "images | sent as | bytes of an image | query, protocol / Flower | answer, protocol / Flower "
    return table(header + "| less than its images | silo, ms", rows)


def compression() -> list[str]:
    """What compressing query images would save."""
    return table(
        "images | codec | bytes left | packing, us an image | unpacking",
        (
            (
                row["setting"],
                one["codec"],
                f"{100 * one['share']:.0f} %",
                f"{one['pack_us']:.0f}",
                f"{one['unpack_us']:.0f}",
            )
            for row in read("wire_bytes.json") or []
            if row["images_by"] == "image"
            for one in row["compression"]
        ),
    )
