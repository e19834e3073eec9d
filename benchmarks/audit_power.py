# SPDX-License-Identifier: Apache-2.0
"""How often one audit catches a training that claims epsilon 1 and keeps epsilon 4, and accuses one that keeps 1.

python -m benchmarks.audit_power

A Gaussian mechanism's truth is known exactly. Each size is audited 200 times with either truth; seconds on one core.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.record import provenance
from benchmarks.tables.markdown import RESULTS
from fedcpsc.audit.power import Power, gaussian_power
from fedcpsc.audit.reach import reachable_epsilon
from fedcpsc.seeding import numpy_generator

CLAIM, TRUTH, DELTA, CONFIDENCE = 1.0, 4.0, 1e-5, 0.95
SIZES = ((200, 80), (500, 50), (960, 192))
REPETITIONS = 200


def measured(seed: int, repetitions: int = REPETITIONS) -> dict[str, Any]:
    """The figures: for each size, how many of so many audits refuted the wrong claim, and how many the right one.

    Args:
        seed: seed of the simulation.
        repetitions: number of audits of each size and truth.
    """
    rows = []
    for canaries, guesses in SIZES:
        caught, accused = (_power(truth, canaries, guesses, seed, repetitions) for truth in (TRUTH, CLAIM))
        rows.append(
            {
                "canaries": canaries,
                "guesses": guesses,
                "reachable_epsilon": reachable_epsilon(canaries, guesses, DELTA, CONFIDENCE),
                "least_right": caught.least_right,
                "caught": caught.refuted,
                "caught_interval": caught.interval,
                "accused": accused.refuted,
                "repetitions": repetitions,
            }
        )
    facts = {"claim": CLAIM, "truth": TRUTH, "delta": DELTA, "confidence": CONFIDENCE, "mechanism": "Gaussian"}
    return {"benchmark": "audit_power", **facts, "seeds": {"simulation": seed}, "rows": rows}


def _power(truth: float, canaries: int, guesses: int, seed: int, repetitions: int) -> Power:
    rng = numpy_generator(seed, "audit power", f"{truth:g} {canaries} {guesses}")
    return gaussian_power(
        truth,
        CLAIM,
        DELTA,
        canaries=canaries,
        guesses=guesses,
        repetitions=repetitions,
        rng=rng,
        confidence=CONFIDENCE,
    )


def main() -> int:
    """Measures, writes benchmarks/results/audit_power.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "audit_power.json")
    given = parser.parse_args()
    text = json.dumps({**measured(given.seed), **provenance()}, indent=1)
    given.out.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
