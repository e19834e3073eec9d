# SPDX-License-Identifier: Apache-2.0
"""Images of photographs' size: how large queries are, how much memory each process takes, and how long it takes.

    export OMP_NUM_THREADS=1
    python -m benchmarks.large_images --out benchmarks/results/large_images.json

Two silos adopt a torchvision ResNet-18 with random weights as ONNX (it knows nothing; its speed and memory are those of
a trained one). Each gatekeeper is a process of its own behind its socket, the server another, and a relay, which does
to a query what a silo's ClientApp does, a fourth. Each reports the peak of its resident memory (VmHWM). The server's
holds those pages of the bank that it maps: what it takes above the bank is the difference.

Needs the extra `onnx`, and torchvision.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIDES, CLASSES = [64, 128, 224], 3


def peak_mib(process: int | str = "self") -> float:
    """Peak of a process's resident memory."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024, 1)


def write_model(path: Path, side: int, seed: int) -> None:
    """A torchvision ResNet-18 in one ONNX file."""
    import torch  # noqa: PLC0415 - this process stays small, the models are made in one of their own
    import torchvision  # noqa: PLC0415

    torch.manual_seed(seed)
    network = torchvision.models.resnet18(weights=None, num_classes=CLASSES).eval()
    batch = torch.export.Dim("batch", min=1)
    program = torch.onnx.export(
        network, (torch.zeros(2, 3, side, side),), dynamo=True, verbose=False, dynamic_shapes=({0: batch},)
    )
    assert program is not None
    program.save(str(path))


def make_silo(folder: Path, model: bytes, side: int, answers: int) -> None:
    """An adopted silo, as docs/silos.md says."""
    from fedcpsc.gatekeeper.opening import begin_ledger  # noqa: PLC0415
    from fedcpsc.gatekeeper.policy import POLICY_FILE, Policy, save_policy  # noqa: PLC0415
    from fedcpsc.teachers.manifest import (  # noqa: PLC0415
        WEIGHTS_FILE,
        Manifest,
        Normalisation,
        save_manifest,
        sha256_hex,
    )

    folder.mkdir(parents=True)
    (folder / WEIGHTS_FILE).write_bytes(model)
    digest = sha256_hex(model)
    manifest = Manifest(
        silo=f"silo-{folder.name}",
        kind="onnx",
        architecture="onnx",
        width=1,
        classes=CLASSES,
        image_shape=(3, side, side),
        normalisation=Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        population=f"patients of silo {folder.name}",
        unit="record",
        origin="adopted",
        train_size=300,
        training={"kind": "plain", "by": "nobody"},
        weights_sha256=digest,
        fingerprint=digest,
        private_class_counts=(100,) * CLASSES,
    )
    save_manifest(manifest, folder)
    save_policy(Policy(answers=answers + 1000), folder / POLICY_FILE)
    begin_ledger(folder).close()


def distil(sockets: list[Path], run_dir: Path, overrides: list[str]) -> dict[str, Any]:
    """The server's part, in this process."""
    from fedcpsc.config import load_config  # noqa: PLC0415
    from fedcpsc.distillation.run import distill  # noqa: PLC0415
    from fedcpsc.distillation.transport import LocalTransport  # noqa: PLC0415
    from fedcpsc.gatekeeper.remote import SocketGatekeeper  # noqa: PLC0415
    from fedcpsc.protocol.codec import to_bytes  # noqa: PLC0415
    from fedcpsc.protocol.messages import Answer, AnyQuery, Refusal  # noqa: PLC0415

    class Watched(SocketGatekeeper):
        largest = 0

        def answer(self, query: AnyQuery) -> Answer | Refusal:
            Watched.largest = max(Watched.largest, len(to_bytes(query)))
            return super().answer(query)

    config_file = run_dir.with_suffix(".yaml")
    config_file.write_text("{}\n", encoding="utf-8")
    config = load_config(config_file, [*overrides, f"silos.count={len(sockets)}"])
    begun = time.monotonic()
    result = distill(config, LocalTransport([Watched(path) for path in sockets]), run_dir)
    files = list((run_dir / "bank").iterdir())
    return {
        "answers": result["answers_per_silo"],
        "seconds": round(time.monotonic() - begun, 1),
        "largest_query_mb": round(Watched.largest / 1e6, 2),
        "bank_mib": round(sum(path.stat().st_size for path in files) / 2**20, 1),
        "server_mib": peak_mib(),
    }


def relay(socket: Path, images: int, side: int) -> dict[str, Any]:
    """A query and its reply as a silo's ClientApp passes them on, in this process."""
    import uuid  # noqa: PLC0415

    import numpy as np  # noqa: PLC0415

    from fedcpsc.gatekeeper.remote import SocketGatekeeper  # noqa: PLC0415
    from fedcpsc.protocol.messages import Answer, AnswerForm, AnyQuery, Query  # noqa: PLC0415
    from fedcpsc.protocol.records import from_records, to_records  # noqa: PLC0415

    pixels = np.random.default_rng(0).integers(0, 256, (images, 3, side, side), dtype=np.uint8)
    message = to_records(Query(uuid.uuid4().hex, AnswerForm.PROBABILITIES, pixels))
    del pixels
    query = from_records(message)
    assert isinstance(query, AnyQuery)
    answer = SocketGatekeeper(socket).answer(query)
    assert isinstance(answer, Answer)
    to_records(answer)
    return {"relay_mib": peak_mib()}


def fit(side: int, width: int, batch: int) -> dict[str, Any]:
    """Two steps of a student's fit, in this process."""
    import torch  # noqa: PLC0415

    from fedcpsc.models.registry import build_classifier  # noqa: PLC0415

    torch.set_num_threads(1)
    network = build_classifier("convnet", CLASSES, (3, side, side), width, seed=1)
    optimiser = torch.optim.Adam(network.parameters())
    for _ in range(2):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(
            network(torch.rand(batch, 3, side, side)), torch.zeros(batch).long()
        ).backward()
        optimiser.step()
    return {"peak_mib": peak_mib()}


def fit_mib(side: int) -> dict[str, float]:
    """What each image of a student's batch takes, by the width of the default student."""
    found = {}
    for width in (8, 32):
        few, more = (in_a_process("fit", side, width, batch)["peak_mib"] for batch in (4, 12))
        found[str(width)] = round((more - few) / 8, 1)
    return found


def in_a_process(name: str, *given: object) -> dict[str, Any]:
    """What a function of this file returns, called in a process of its own; it prints nothing else last."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.large_images", "--call", name, json.dumps([str(part) for part in given])],
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def called(name: str, given: list[str]) -> dict[str, Any]:
    """The other end of `in_a_process`."""
    if name == "model":
        write_model(Path(given[0]), int(given[1]), int(given[2]))
        return {}
    if name == "server":
        return distil([Path(path) for path in given[0].split(",")], Path(given[1]), json.loads(given[2]))
    if name == "fit":
        return fit(*map(int, given))
    return relay(Path(given[0]), int(given[1]), int(given[2]))


def served(folder: Path, socket: Path) -> subprocess.Popen[bytes]:
    """A gatekeeper's process, once it listens."""
    command = [sys.executable, "-m", "fedcpsc.cli", "gatekeeper", "serve", str(folder), "--socket", str(socket)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not socket.is_socket():
        if process.poll() is not None:
            raise RuntimeError("the gatekeeper did not start")
        time.sleep(0.1)
    return process


def measure(base: Path, side: int, answers: int, overrides: list[str]) -> dict[str, Any]:
    """Makes the silos, runs all processes, and reads their memory."""
    from fedcpsc.protocol.query_size import images_of_bytes  # noqa: PLC0415
    from fedcpsc.teachers.opening import default_batch_size  # noqa: PLC0415

    folders, sockets = [base / str(i) for i in range(2)], [base / f"{i}.sock" for i in range(2)]
    for seed, folder in enumerate(folders):
        in_a_process("model", base / "model.onnx", side, seed)
        make_silo(folder, (base / "model.onnx").read_bytes(), side, answers)
    processes = [served(*pair) for pair in zip(folders, sockets, strict=True)]
    try:
        row = in_a_process("server", ",".join(map(str, sockets)), base / "run", json.dumps(overrides))
        row["gatekeepers_mib"] = [peak_mib(process.pid) for process in processes]
        row |= in_a_process("relay", sockets[0], min(1000, images_of_bytes(16, (3, side, side))), side)
    finally:
        for process in processes:
            process.terminate()
            process.wait(30)
    return row | {
        "image_kb": round(math.prod((3, side, side)) / 1000, 1),
        "images_per_query": min(1000, images_of_bytes(16, (3, side, side))),
        "teacher_batch": default_batch_size((3, side, side)),
        "fit_mib_an_image": fit_mib(side),
    }


def main() -> int:
    """Measures, prints and writes one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES)
    parser.add_argument("--answers", type=int, default=1000)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--out", default="large_images.json")
    parser.add_argument("--call", nargs=2, help="used by itself")
    given = parser.parse_args()
    if given.call:
        print(json.dumps(called(given.call[0], json.loads(given.call[1]))))
        return 0
    from benchmarks.record import provenance  # noqa: PLC0415

    overrides = [
        f"queries.answers_per_silo={given.answers}",
        "queries.rounds=5",
        "student.width=4",
        "student.batch_size=16",
        "student.steps_per_round=10",
        "student.final_steps=100",
        "evaluation.held_out=false",
        "runtime.threads=1",
        *given.set,
    ]
    rows = []
    for side in given.sides:
        with tempfile.TemporaryDirectory() as base:
            rows.append({"side": side, **measure(Path(base), side, given.answers, overrides)})
        print(rows[-1], flush=True)
    report = {
        "benchmark": "large_images",
        "set": overrides,
        "silos": 2,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "rows": rows,
        **provenance(),
    }
    Path(given.out).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
