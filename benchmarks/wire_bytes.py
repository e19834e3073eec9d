# SPDX-License-Identifier: Apache-2.0
"""Bytes on the wire for an answered image, in both directions, and what compressing query images would save.

    export OMP_NUM_THREADS=1
    FEDCPSC_DATA=../data/mnist python -m benchmarks.wire_bytes mnist --out benchmarks/results/wire_bytes.json
    FEDCPSC_DATA=../data/cifar10 python -m benchmarks.wire_bytes cifar10 --out benchmarks/results/wire_bytes.json
    (each again with --recipes: queries carry what images are made from)

A run with one silo is really made, its networks hardly trained: only the messages count. Every message is encoded
twice: as the protocol's own bytes (what a gatekeeper's socket carries), and as Flower's, the whole message with its
envelope and array chunks. Compression is measured on the images of that run. Seconds are of one processor core.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import Message as FlowerMessage
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.task_identity import TaskIdentity
from PIL import Image

from benchmarks.record import provenance
from fedcpsc.config import load_config
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport, Reply
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.protocol.codec import to_bytes
from fedcpsc.protocol.messages import Answer, Message
from fedcpsc.protocol.records import to_records
from fedcpsc.runs.bank_view import read_bank
from fedcpsc.runs.layout import BANK_FOLDER
from fedcpsc.silos.make import make_silos

# one silo that has every class; accuracy is not looked at, so nothing is trained for long
HARDLY_TRAINED = [
    "silos.count=1",
    "silos.partition={kind: iid}",
    "silos.policy.answers=1000000",
    "teachers.epochs=1",
    "data.train_limit=2000",
    "student.width=8",
    "student.committee=1",
    "student.steps_per_round=20",
    "student.final_steps=0",
    "aggregation.rule=uniform",
    "evaluation.held_out=false",
    "output.alarm_entropy=0",  # such a teacher sets it off, and then the prior makes all images
    "runtime.threads=1",
]
SETTINGS = {"mnist": [], "cifar10": ["data.image_size=32"]}


def flower_bytes(message: Message) -> int:
    """Of a whole Flower message, as it is sent: envelope, records and array chunks."""
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1  # else no Message can be made
    sent = FlowerMessage(to_records(message), 1, "query.answer")
    return sum(len(part.deflate()) for part in get_all_nested_objects(sent).values())


class Counted(LocalTransport):
    """Gatekeepers of this process; what each query and its answer would take on the wire is counted."""

    def __init__(self, targets: list[Any]) -> None:
        super().__init__(targets)
        self.counts: Counter[str] = Counter()
        self.silo_s = 0.0

    def receive(self, timeout_s: float) -> list[Reply]:
        """As `LocalTransport.receive`."""
        queries = [query for _, query, _ in self._waiting]
        begun = time.process_time()
        replies = super().receive(timeout_s)
        self.silo_s += time.process_time() - begun
        for query, reply in zip(queries, replies, strict=True):
            assert isinstance(reply.content, Answer), reply.content
            self.counts["queries"] += 1
            self.counts["images"] += reply.content.count
            for name, message in (("query", query), ("answer", reply.content)):
                self.counts[f"protocol_{name}"] += len(to_bytes(message))
                self.counts[f"flower_{name}"] += flower_bytes(message)
        return replies


def png(images: npt.NDArray[np.uint8]) -> bytes:
    """All images as one PNG, one under the other."""
    sheet = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).reshape(-1, images.shape[3], images.shape[1])
    buffer = io.BytesIO()
    Image.fromarray(sheet.squeeze(-1) if sheet.shape[2] == 1 else sheet).save(buffer, "PNG")
    return buffer.getvalue()


def un_png(data: bytes) -> bytes:
    return np.asarray(Image.open(io.BytesIO(data))).tobytes()


def compression(images: npt.NDArray[np.uint8]) -> list[dict[str, Any]]:
    """Share of the bytes that remains, and microseconds an image there and back."""

    def plain(compress: Callable[[bytes], bytes]) -> Callable[[npt.NDArray[np.uint8]], bytes]:
        return lambda given: compress(given.tobytes())

    codecs: dict[str, tuple[Callable[[npt.NDArray[np.uint8]], bytes], Callable[[bytes], bytes]]] = {
        "zlib 1": (plain(lambda data: zlib.compress(data, 1)), zlib.decompress),
        "zlib 6": (plain(lambda data: zlib.compress(data, 6)), zlib.decompress),
        "PNG": (png, un_png),
    }
    try:
        import zstandard  # noqa: PLC0415 - no dependency of the package: measured where it is installed
    except ImportError:
        pass
    else:
        codecs["zstd 3"] = (plain(lambda data: zstandard.compress(data, 3)), zstandard.decompress)
        codecs["zstd 19"] = (plain(lambda data: zstandard.compress(data, 19)), zstandard.decompress)
    rows = []
    for name, (pack, unpack) in codecs.items():
        begun = time.process_time()
        packed = pack(images)
        middle = time.process_time()
        unpack(packed)
        spent = (middle - begun, time.process_time() - middle)
        us = [round(1e6 * seconds / len(images), 1) for seconds in spent]
        rows.append(
            {"codec": name, "share": round(len(packed) / images.nbytes, 3), "pack_us": us[0], "unpack_us": us[1]}
        )
    return rows


def measure(name: str, overrides: list[str], answers: int, rounds: int, *, recipes: bool) -> dict[str, Any]:
    """One run's messages."""
    asked = [f"queries.answers_per_silo={answers}", f"queries.rounds={rounds}"]
    if recipes:
        asked += ["queries.recipes=true", "silos.policy.recipe_queries=true"]
    config = load_config(f"configs/{name}.yaml", [*HARDLY_TRAINED, *SETTINGS[name], *asked, *overrides])
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        make_silos(config, base / "silos")
        teachers = Counted([open_gatekeeper(base / "silos" / "0")])
        begun = time.process_time()
        distill(config, teachers, base / "run")
        run_s = time.process_time() - begun
        images = np.array(read_bank(base / "run" / BANK_FOLDER).images)
    some = images[:: max(1, len(images) // 1000)][:1000]
    each = {key: round(value / len(images), 2) for key, value in teachers.counts.items() if "_" in key}
    return {
        "setting": name,
        "images_by": "recipe" if recipes else "image",
        "image_bytes": images[0].nbytes,
        "answers": len(images),
        "queries": teachers.counts["queries"],
        "bytes_an_image": each,
        "silo_ms_an_image": round(1000 * teachers.silo_s / len(images), 3),
        "run_s": round(run_s, 1),
        "compression": [] if recipes else compression(some),
        "set": overrides,
        **provenance(),
    }


def main() -> int:
    """Measures one setting and merges its row into one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(SETTINGS))
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--answers", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--recipes", action="store_true")
    parser.add_argument("--out", default="wire_bytes.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    row = measure(given.name, given.set, given.answers, given.rounds, recipes=given.recipes)
    path = Path(given.out)
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    rows = [other for other in rows if (other["setting"], other["images_by"]) != (row["setting"], row["images_by"])]
    path.write_text(json.dumps([*rows, row], indent=1) + "\n", encoding="utf-8")
    print(json.dumps(row, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
