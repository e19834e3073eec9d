# SPDX-License-Identifier: Apache-2.0
"""Peers on the silos that fedcpsc asks: accuracy at the same number of calls, with the same student.

    python -m benchmarks.peers --data ../data --out benchmarks/results/peers.json --silos /tmp/silos --only digits
    python -m benchmarks.peers --data ../data --sanity --out benchmarks/results/peers_sanity.json

Each method is our own small implementation from its paper; its file says what departs from it. Silos are made by
fedcpsc itself. A call is an image that passes through a silo's teacher, see `silos.py`. Accuracies are on validation
images, which no method sees. Rows are written seed by seed, and seeds that the file holds are not measured again.

`own` is the student as the method itself trains it; `fitted` a student of fedcpsc's final fit, on fedcpsc's targets of
all that the method asked (the last 30,000 images, where it asked more).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.dishonest.rows import Row
from benchmarks.peers import sanity
from benchmarks.peers.methods import PEERS, measured, names_of
from benchmarks.peers.rows import PeerRows, measure_seeds
from benchmarks.peers.silos import PeerError
from benchmarks.peers.worlds import SKEWS, Setting, World, load

SETTINGS = tuple(Setting(data, skew) for data in ("digits", "MNIST") for skew in SKEWS)


def jobs(calls: list[int], budget: str, methods: str) -> list[tuple[str, int]]:
    """(method, calls) of each row of a setting, in the order in which they are measured."""
    if budget == "published":
        listed = [(peer.name, peer.published) for peer in PEERS]
    else:
        listed = [(name, number) for number in (0, *calls) for name in names_of(number)]
    return [job for job in listed if methods in job[0]]


def main() -> int:
    """Says what is to be measured, and measures all that the file lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("FEDCPSC_DATA", ""), help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("peers.json"))
    parser.add_argument("--silos", default="", help="folder in which teachers are kept for the next call")
    parser.add_argument("--only", default="", help="measure only settings whose name contains this")
    parser.add_argument("--methods", default="", help="measure only methods whose name contains this")
    parser.add_argument(
        "--calls", type=int, nargs="+", default=[2_000, 20_000], help="images that each silo may be asked"
    )
    parser.add_argument(
        "--budget",
        choices=("equal", "published"),
        default="equal",
        help="published: as many calls as each paper's runs",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--answers-alone", action="store_true", help="silos that keep their weights: some peers end so")
    parser.add_argument("--sanity", action="store_true", help="does each peer show what its own paper shows?")
    parser.add_argument("--cost", action="store_true", help="say what is to be measured, and end")
    given = parser.parse_args()
    torch.set_num_threads(1)
    silos, data = Path(given.silos or tempfile.mkdtemp(prefix="fedcpsc-silos-")), Path(given.data)
    silos.mkdir(parents=True, exist_ok=True)
    rows = PeerRows(given.out)
    try:
        if given.sanity:
            sanity.run(rows, data, silos, given.seeds, given.only)
        else:
            _compare(given, rows, data, silos)
    except PeerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _compare(given: argparse.Namespace, rows: PeerRows, data: Path, silos: Path) -> None:
    worlds: dict[tuple[Setting, int], World] = {}

    def world(setting: Setting, seed: int) -> World:
        if (setting, seed) not in worlds:
            worlds.clear()  # one at a time
            worlds[setting, seed] = load(setting, seed, data, silos, answers_alone=given.answers_alone)
        return worlds[setting, seed]

    for setting in SETTINGS:
        if given.only not in setting.name:
            continue
        for method, calls in jobs(given.calls, given.budget, given.methods):
            about: Row = {"setting": setting.name, "method": method, "budget": calls}
            about |= {"config": setting.config, "set": setting.overrides}
            held = (rows.get(rows.key(about)) or {"runs": {}})["runs"]
            missing = [seed for seed in given.seeds if str(seed) not in held]
            if given.cost or not missing:
                print(f"{rows.key(about)}: {len(missing)} seeds to measure", flush=True)
                continue
            begun = time.process_time()

            def measure(seed: int, s: Setting = setting, m: str = method, c: int = calls) -> dict[str, float]:
                return measured(world(s, seed), m, c)

            row = measure_seeds(rows, about, given.seeds, measure)
            brief = {name: row[name] for name in ("mean", "std", "fitted_mean", "fitted_std", "calls") if name in row}
            print(f"{rows.key(about)}: {brief} [{time.process_time() - begun:.0f} core-seconds]", flush=True)


if __name__ == "__main__":
    sys.exit(main())
