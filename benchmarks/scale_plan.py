# SPDX-License-Identifier: Apache-2.0
"""What a run far larger than any we have made would need, from constants measured on small ones.

    python -m benchmarks.scale_plan --out benchmarks/results/scale_plan.json

Measured here: bytes of a query and its answer as they travel, of a line of the bank's journal and of the time line;
processor seconds to aggregate (by the dearest rule, answer_peak_log) and for a step of the fit; seconds until the disk
has an answer. What Flower needs is given, from runs with two nodes. `plan` multiplies; it knows nothing that slows down
only where there are many.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Size:
    """A run's size.

    Attributes:
        silos, images: every silo answers every image.
        image_bytes: C x H x W.
        classes: K.
        images_per_query: of one message.
        committee, steps_an_image, final_steps_an_image: of the fit, as the configuration's blanks are filled in.
    """

    silos: int = 1000
    images: int = 100_000
    image_bytes: int = 784
    classes: int = 10
    images_per_query: int = 1000
    committee: int = 2
    steps_an_image: float = 0.16
    final_steps_an_image: float = 0.6


@dataclass(frozen=True)
class Constants:
    """Measured on small runs.

    Attributes:
        query_overhead: bytes of a query beyond its pixels, for each image.
        answer_bytes: of an answer as it travels, for each image (8 bits a class).
        journal_bytes, timeline_bytes: of one silo's reply to one query.
        bank_s: until one silo's reply to one query is on the disk.
        aggregate_s: of a processor, for each answer (one image at one silo).
        step_s: of a processor, one step of the student's fit.
        message_s: seconds a silo's node needs for a message, several in flight.
        link_bytes_s: that pass a SuperLink in a second.
    """

    query_overhead: float
    answer_bytes: float
    journal_bytes: float
    timeline_bytes: float
    bank_s: float
    aggregate_s: float
    step_s: float
    message_s: float = 2.7
    link_bytes_s: float = 20e6


def plan(size: Size, constants: Constants) -> dict[str, float]:
    """Bytes and seconds of the whole run, by what needs them."""
    answers = size.silos * size.images
    queries = -(-size.images // size.images_per_query)
    replies = queries * size.silos
    down = answers * (size.image_bytes + constants.query_overhead)
    up = answers * constants.answer_bytes
    steps = size.images * (size.committee * size.steps_an_image + size.final_steps_an_image)
    return {
        "answers": answers,
        "messages": replies,
        "sent_bytes": down,
        "received_bytes": up,
        "a_silo_receives_bytes": down / size.silos,
        "bank_images_bytes": size.images * (size.image_bytes + 8 + 4 * size.classes),  # pixels, pseudo-label, target
        "bank_answers_bytes": answers * 4 * size.classes,
        "journal_bytes": replies * constants.journal_bytes,
        "timeline_bytes": replies * constants.timeline_bytes,
        "link_s": (down + up) / constants.link_bytes_s,
        "a_silo_messages_s": queries * constants.message_s,
        "banking_s": replies * constants.bank_s,
        "aggregating_once_s": answers * constants.aggregate_s,
        "aggregating_s": answers * constants.aggregate_s * (queries + 1) / 2,  # a round a query, and all anew in each
        "fit_s": steps * constants.step_s,
        "held_in_flight_bytes": size.silos * size.images_per_query * (size.image_bytes + constants.query_overhead),
    }


def measure(silos: int, rows: int) -> Constants:
    """Over a bank of so many rows that every silo answers in one query."""
    import numpy as np  # noqa: PLC0415 - `plan` needs none of these
    import torch  # noqa: PLC0415

    from fedcpsc.config import AggregationConfig, StudentConfig  # noqa: PLC0415
    from fedcpsc.distillation.steps import BankReader, fit, make_committee  # noqa: PLC0415
    from fedcpsc.distillation.targets import TargetKeeper  # noqa: PLC0415
    from fedcpsc.protocol.codec import to_bytes  # noqa: PLC0415
    from fedcpsc.protocol.forms import shape_answer  # noqa: PLC0415
    from fedcpsc.protocol.messages import Answer, AnswerForm, Query  # noqa: PLC0415
    from fedcpsc.runs.answer_bank import AnswerBank  # noqa: PLC0415
    from fedcpsc.runs.layout import JOURNAL_FILE, TIMELINE_FILE  # noqa: PLC0415
    from fedcpsc.runs.timeline import Timeline  # noqa: PLC0415

    torch.set_num_threads(1)
    shape, classes, rng = (1, 28, 28), 10, np.random.default_rng(0)
    images = rng.integers(0, 256, (rows, *shape), dtype=np.uint8)
    probabilities = rng.dirichlet(np.ones(classes), rows).astype(np.float32)
    values, indices = shape_answer(probabilities, AnswerForm.PROBABILITIES, bits=8, top_k=1)
    answer = Answer("0" * 32, AnswerForm.PROBABILITIES, classes, values, 0, indices)
    query = Query("0" * 32, AnswerForm.PROBABILITIES, images, run="run")
    with tempfile.TemporaryDirectory(dir=".") as folder:  # a disk, where /tmp is memory
        bank = AnswerBank(Path(folder), shape, classes, [f"silo-{i}" for i in range(silos)])
        batch = bank.add_batch(0, images, np.zeros(rows, np.int64))
        journal = Path(folder) / JOURNAL_FILE
        before = journal.stat().st_size
        bank_s = _seconds(
            lambda: [bank.add_answers(batch.query_id, silo, probabilities) for silo in bank.silos], time.monotonic
        )
        journal_bytes = (journal.stat().st_size - before) / silos
        targets = TargetKeeper(bank, AggregationConfig(rule="answer_peak_log"), None)
        aggregate_s = _seconds(targets.refresh, time.process_time) / (silos * rows)
        timeline = Timeline(Path(folder) / TIMELINE_FILE, resumed=False)
        for silo in bank.silos:
            timeline.query(silo, 1, rows, 0.123456, "answer")
        timeline_bytes = (Path(folder) / TIMELINE_FILE).stat().st_size / silos
        config = StudentConfig()
        (member, *_) = make_committee(config, classes, shape, 0, torch.device("cpu"))
        reader, steps = BankReader(bank, torch.device("cpu")), 40
        none, pool = np.zeros(0, np.int64), bank.answered_rows()
        fit(member, config, reader, pool, none, 5, 0)  # warm
        step_s = _seconds(lambda: fit(member, config, reader, pool, none, steps, 0), time.process_time) / steps
    return Constants(
        query_overhead=len(to_bytes(query)) / rows - images[0].size,
        answer_bytes=len(to_bytes(answer)) / rows,
        journal_bytes=journal_bytes,
        timeline_bytes=timeline_bytes,
        bank_s=bank_s / silos,
        aggregate_s=aggregate_s,
        step_s=step_s,
    )


def _seconds(call: Callable[[], object], clock: Callable[[], float]) -> float:
    begun = clock()
    call()
    return clock() - begun


def main() -> int:
    """Measures, multiplies, writes one JSON file."""
    from benchmarks.record import provenance  # noqa: PLC0415

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--silos", type=int, default=50, help="of the bank that is measured on")
    parser.add_argument("--rows", type=int, default=1000, help="of that bank, in one query")
    parser.add_argument("--out", default="scale_plan.json")
    arguments = parser.parse_args()
    constants, size = measure(arguments.silos, arguments.rows), Size()
    report: dict[str, Any] = {"benchmark": "scale_plan", "measured_on": vars(arguments), "size": asdict(size)}
    report |= {"constants": asdict(constants), "plan": plan(size, constants), **provenance()}
    Path(arguments.out).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
