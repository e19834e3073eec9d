# SPDX-License-Identifier: Apache-2.0
"""What the socket adds to an in-process gatekeeper, what the ledger takes, and answers a second under load.

    export OMP_NUM_THREADS=1 FEDCPSC_DATA=../data/mnist
    python -m benchmarks.gatekeeper_socket --out benchmarks/results/gatekeeper_socket.json

For each batch, in turn: the same images as a query to the gatekeeper in this process (encoded and decoded, as a relay
must in any case), and to another gatekeeper of the same silo's copy, a process of its own behind its socket. The median
of the paired ratios is the figure. The ledger's share is one reservation and one stored reply.

One thread each: the threads of whichever process has just inferred go on spinning for a while, and with more of them
than cores it is that which would be measured (a ratio of 1.9 where one thread each gives 1.04).
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import gatekeeper_command
from fedcpsc.config import load_config
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.gatekeeper.remote import SocketGatekeeper
from fedcpsc.ledger.budget import Charge
from fedcpsc.ledger.ledger import Ledger
from fedcpsc.protocol.codec import from_bytes, to_bytes
from fedcpsc.protocol.messages import Answer, AnswerForm, DescribeRequest, Description, Query
from fedcpsc.silos.make import make_silos


def a_query(shape: tuple[int, int, int], batch: int, seed: int) -> Query:
    images = np.random.default_rng(seed).integers(0, 256, (batch, *shape), dtype=np.uint8)
    return Query(uuid.uuid4().hex, AnswerForm.PROBABILITIES, images)


def started(folder: Path, path: Path) -> subprocess.Popen[bytes]:
    code = f"from fedcpsc.gatekeeper.service import serve; serve({str(folder)!r}, {str(path)!r})"
    process = subprocess.Popen([sys.executable, "-c", code])
    client = SocketGatekeeper(path)
    while not (path.is_socket() and isinstance(client.describe(DescribeRequest()), Description)):
        if process.poll() is not None:
            raise RuntimeError("the gatekeeper did not start")
        time.sleep(0.1)
    client.close()
    return process


def ledger_ms(folder: Path, batch: int, repeats: int) -> float:
    ledger, spent = Ledger.create(folder / "bench.sqlite", "ds", 10**9), []
    reply = bytes(batch * 10)
    for number in range(repeats):
        begun = time.perf_counter()
        ledger.reserve(str(number), "payload", Charge(batch))
        ledger.store(str(number), reply)
        spent.append(time.perf_counter() - begun)
    ledger.close()
    return 1000 * statistics.median(spent)


def under_load(client: SocketGatekeeper, shape: tuple[int, int, int], batch: int, callers: int, queries: int) -> float:
    asked = [a_query(shape, batch, number) for number in range(queries)]
    with ThreadPoolExecutor(callers) as pool:
        begun = time.perf_counter()
        replies = list(pool.map(client.answer, asked))
        seconds = time.perf_counter() - begun
    assert all(isinstance(reply, Answer) for reply in replies)
    return queries * batch / seconds


def measure(config_path: str, overrides: list[str], batch: int, repeats: int) -> dict[str, Any]:
    config = load_config(config_path, overrides)
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        make_silos(config, base)
        shutil.copytree(base / "0", base / "served")
        gatekeeper = open_gatekeeper(base / "0")
        shape = gatekeeper.teacher.image_shape
        process = started(base / "served", base / "socket")
        try:
            client = SocketGatekeeper(base / "socket")
            near, far = [], []
            for repeat in range(repeats + 2):
                query = a_query(shape, batch, repeat)
                begun = time.perf_counter()
                local = from_bytes(to_bytes(gatekeeper.answer(from_bytes(to_bytes(query)))))  # type: ignore[arg-type]
                middle = time.perf_counter()
                remote = client.answer(query)
                end = time.perf_counter()
                assert isinstance(local, Answer)
                assert isinstance(remote, Answer)
                if repeat >= 2:  # the first two warm caches
                    near.append(middle - begun)
                    far.append(end - middle)
            load = {callers: round(under_load(client, shape, batch, callers, 2 * callers)) for callers in (1, 4, 16)}
            client.close()
        finally:
            process.terminate()
            process.wait(30)
        ratios = [f / n for f, n in zip(far, near, strict=True)]
        return {
            "image_shape": list(shape),
            "in_process_ms": round(1000 * statistics.median(near), 2),
            "socket_ms": round(1000 * statistics.median(far), 2),
            "ratio": round(statistics.median(ratios), 4),
            "ratio_quartiles": [round(q, 4) for q in statistics.quantiles(ratios, n=4)],
            "ledger_ms": round(ledger_ms(base, batch, 50), 2),
            "answers_per_second": load,
        }


if __name__ == "__main__":
    sys.exit(gatekeeper_command("gatekeeper_socket", __doc__ or "", measure))
