# SPDX-License-Identifier: Apache-2.0
"""Who waits in a real deployment on loopback, with rounds that overlap and without.

    python -m benchmarks.overlap_deployed --out benchmarks/results/overlap_deployed.json

TLS, SuperNode authentication, gatekeepers as processes of their own: what `fedcpsc deploy local` brings up. All runs
are over the same silos, one after the other, and share this machine's processors with them, which a server of its own
would not. Accuracy is measured on images kept from every silo (`data.validation`).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.overlap import MODES, summary
from benchmarks.record import provenance
from fedcpsc.app_config import AppConfig
from fedcpsc.commands.run_command import Request, make_teachers
from fedcpsc.launch.app_folder import CONFIG_IN_APP, stage_app
from fedcpsc.launch.deployment.federation import Federation, federation
from fedcpsc.launch.deployment.layout import claimed
from fedcpsc.launch.submitted import submit_and_wait
from fedcpsc.runs.layout import BANK_FOLDER, JOURNAL_FILE


def measure(made: Federation, overrides: list[str], name: str) -> dict[str, Any]:
    """One run through Flower."""
    run_dir = made.layout.runs / name
    given = AppConfig(CONFIG_IN_APP, AppConfig.join_overrides([*overrides, f"output.name={name}"]), str(run_dir))
    file = made.layout.folder / "this-run.toml"
    file.write_text(given.to_toml(), encoding="utf-8")
    result = submit_and_wait(made.flower, made.layout.app, file, run_dir, lambda line: None)
    seconds = result["seconds"]
    journal = (run_dir / BANK_FOLDER / JOURNAL_FILE).read_bytes().splitlines()
    return {
        "student": result["student"]["accuracy"],
        "wall_s": seconds["total"],
        "waiting_s": seconds["waiting"],
        "waiting_share": seconds["waiting_share"],
        "waiting_share_after_first_round": seconds["waiting_share_after_first_round"],
        "queries": sum('"batch"' in line for line in journal),
        "answers": result["answers_per_silo"],
    }


def main() -> int:
    """Measures, prints and writes one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/digits.yaml"))
    parser.add_argument("--set", action="append", default=["data.validation=250"])
    parser.add_argument("--silos", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the server, not of the silos")
    parser.add_argument("--out", default="overlap_deployed.json")
    given = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory() as scratch, claimed(Path(scratch) / "deployment") as layout:
        stage_app(layout.app, given.config)
        common = [*given.set, f"silos.count={given.silos}"]
        config = Request(given.config, (*common, f"silos.root={scratch}/silos")).load()
        folder = make_teachers(config, Console(stderr=True))
        with federation(layout, [folder / str(silo) for silo in range(given.silos)]) as made:
            for seed in given.seeds:
                for mode, overrides in MODES.items():
                    name = f"{mode.replace(' ', '-')}-{seed}"
                    runs[mode].append(measure(made, [*common, *overrides, f"seed={seed}"], name))
                    print(mode, seed, runs[mode][-1], flush=True)
    row = {
        "benchmark": "overlap_deployed",
        "config": str(given.config),
        "set": given.set,
        "modes": MODES,
        "seeds": given.seeds,
        "silos": given.silos,
        "runs": {mode: summary(found) for mode, found in runs.items()},
        **provenance(),
    }
    Path(given.out).write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
