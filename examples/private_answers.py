# SPDX-License-Identifier: Apache-2.0
"""What a differentially private policy costs, and what its gatekeeper refuses.

    python examples/private_answers.py

Some seconds. Nothing here is a simulation of privacy: policy, ledger and noise are a deployed silo's.
"""

from own_teachers import CLASSES, organisations

import fedcpsc

POLICY = {
    "answers": 20_000,
    "mechanism": {"kind": "noise_only", "epsilon": 20, "delta": 1e-4, "sigma": 16},
}

own = organisations()


def federation(policy: dict[str, object], *, counted: bool) -> fedcpsc.Federation:
    """The organisations' modules behind a policy; `counted` says how many records each was trained on."""
    counts = [[int((labels == digit).sum()) for digit in range(10)] for _, labels in own.private] if counted else None
    return fedcpsc.simulate(
        own.models,
        classes=CLASSES,
        image_shape=(1, 8, 8),
        normalisation="none",
        policy=policy,
        class_counts=counts,
    )


# 1. A promise that nobody can check is no promise: delta must be below 1 / records, and nobody says how many there are.
try:
    federation(POLICY, counted=False)
except fedcpsc.FedcpscError as error:
    print(f"refused: {error}\n")

# 2. With them the silo answers, noised, until its epsilon is spent: then it refuses, and the run ends with what it has.
with federation(POLICY, counted=True) as silos:
    print(silos, end="\n\n")
    run = fedcpsc.distill(silos, answers=2000, rounds=4, student={"width": 8, "final_steps": 100})
    for silo in run.result.silos:
        promise = f"epsilon {silo.epsilon:g} at delta {silo.delta:g} per {silo.unit}"
        print(f"{silo.id}: {silo.answers} of 2,000 answers, {promise}, refusals {dict(silo.refusals)}")
    print()

    # 3. What is spent stays spent, whatever run comes next.
    try:
        fedcpsc.distill(silos, answers=500, rounds=1, student={"width": 8, "final_steps": 100})
    except fedcpsc.FedcpscError as error:
        print(f"refused: {error}")
