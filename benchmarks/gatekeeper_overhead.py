# SPDX-License-Identifier: Apache-2.0
"""What gatekeeper and protocol cost over the bare teacher: a ratio measured side by side in one run.

    python -m benchmarks.gatekeeper_overhead --out benchmarks/results/gatekeeper_overhead.json

For each batch, in turn: the teacher alone (`predict`), and the same images as a query: encoded to bytes, decoded,
validated, charged and committed, inferred, brought into form, stored in the ledger, encoded and decoded as an answer.
The median of the paired ratios is the figure.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import gatekeeper_command
from fedcpsc.config import load_config
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.protocol.codec import from_bytes, to_bytes
from fedcpsc.protocol.messages import Answer, AnswerForm, Query
from fedcpsc.silos.make import make_silos


def measure(config_path: str, overrides: list[str], batch: int, repeats: int) -> dict[str, Any]:
    """Times `repeats` pairs on one freshly made silo."""
    config = load_config(config_path, overrides)
    with tempfile.TemporaryDirectory() as folder:
        make_silos(config, Path(folder))
        gatekeeper = open_gatekeeper(Path(folder) / "0")
        shape = gatekeeper.teacher.image_shape
        rng = np.random.default_rng(0)
        bare, whole = [], []
        for repeat in range(repeats + 2):
            images = rng.integers(0, 256, (batch, *shape), dtype=np.uint8)
            begun = time.perf_counter()
            gatekeeper.teacher.predict(images)
            middle = time.perf_counter()
            query = from_bytes(to_bytes(Query(uuid.uuid4().hex, AnswerForm.PROBABILITIES, images)))
            assert isinstance(query, Query)
            answer = from_bytes(to_bytes(gatekeeper.answer(query)))
            end = time.perf_counter()
            assert isinstance(answer, Answer)
            if repeat >= 2:  # the first two warm caches
                bare.append(middle - begun)
                whole.append(end - middle)
    ratios = [w / b for w, b in zip(whole, bare, strict=True)]
    return {
        "image_shape": list(shape),
        "bare_ms": round(1000 * statistics.median(bare), 2),
        "whole_ms": round(1000 * statistics.median(whole), 2),
        "added_ms": round(1000 * statistics.median(w - b for w, b in zip(whole, bare, strict=True)), 2),
        "ratio": round(statistics.median(ratios), 4),
        "ratio_quartiles": [round(q, 4) for q in statistics.quantiles(ratios, n=4)],
    }


if __name__ == "__main__":
    sys.exit(gatekeeper_command("gatekeeper_overhead", __doc__ or "", measure))
