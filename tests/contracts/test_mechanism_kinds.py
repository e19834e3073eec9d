# SPDX-License-Identifier: Apache-2.0
"""What every mechanism that a policy may name must be, and what adding one takes."""

import os
import subprocess
import sys

import numpy as np
import pytest
from support.documented import ROOT

from benchmarks.tables import silo_choices
from fedcpsc.errors import PolicyError
from fedcpsc.gatekeeper.guarantee import build_mechanism
from fedcpsc.gatekeeper.mechanisms.mechanism import ANY, DP_TRAINED, MECHANISM_KINDS, OF_SHARDS
from fedcpsc.gatekeeper.mechanisms.sections import DpPolicy, NoisyPolicy
from fedcpsc.gatekeeper.policy import Policy
from fedcpsc.privacy.randomness import NOISE_SOURCE
from fedcpsc.teachers.manifest import Manifest, Normalisation

KINDS = MECHANISM_KINDS.choices.built_in()
REQUIRED = {"epsilon": 4.0, "sigma": 2.0, "threshold": 3, "threshold_sigma": 2.0}
PROOFS = {
    ANY: None,
    OF_SHARDS: {"kind": "shards", "shards": 4},
    DP_TRAINED: {
        "kind": "dp_sgd", "epsilon": 1.95, "delta": 1e-5, "records": 15_000, "noise_source": NOISE_SOURCE,
        "history": [[2.0, 0.02, 2000]],
    },
}  # fmt: skip


def policy(name):
    needed = MECHANISM_KINDS.get(name).section.model_fields.items()
    given = {key: REQUIRED[key] for key, field in needed if field.is_required()}
    return Policy.model_validate({"mechanism": {"kind": name, **given}})


def manifest(privacy):
    return Manifest(
        silo="north", architecture="convnet", width=4, classes=5, image_shape=(1, 4, 4), normalisation=Normalisation(),
        population="north", train_size=15_000, training={}, weights_sha256="1" * 64, fingerprint="2" * 64,
        private_class_counts=(5000, 4000, 3000, 2000, 1000), privacy=privacy,
    )  # fmt: skip


@pytest.fixture(params=KINDS)
def kind(request):
    return MECHANISM_KINDS.get(request.param)


@pytest.fixture
def mechanism(kind):
    return build_mechanism(policy(kind.name), manifest(PROOFS[kind.teacher]))


def test_policy_and_mechanism_call_it_by_the_same_name(kind, mechanism):
    assert type(policy(kind.name).mechanism) is kind.section
    assert mechanism.name == kind.name


def test_a_guarantee_and_its_promise_go_together(kind, mechanism):
    assert mechanism.dp == issubclass(kind.section, DpPolicy)
    assert mechanism.shards == (kind.teacher is OF_SHARDS)
    assert (kind.guarantee == "nothing (`dp: false`)") == (not mechanism.dp)


def test_noise_is_charged_and_what_is_charged_has_noise(kind, mechanism):
    noisy = issubclass(kind.section, NoisyPolicy)
    assert (mechanism.cost() > 0) == noisy == bool(mechanism.scales)
    assert mechanism.scales.get("sigma", 0.0) == mechanism.sigma


def test_an_answer_is_a_row_for_each_image_and_noise_is_fresh(mechanism):
    outputs = np.random.default_rng(0).dirichlet(np.full(5, 0.5), (4 if mechanism.shards else 1, 200))
    first, second = (mechanism.release(outputs.astype(np.float32)) for _ in range(2))
    assert first.shape == (200, 5)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert np.array_equal(first, second) == (not mechanism.scales)  # equal by chance: far below 1e-9


def test_a_teacher_without_the_proof_is_refused(kind):
    for need, proof in PROOFS.items():
        if kind.teacher in (ANY, need):
            build_mechanism(policy(kind.name), manifest(proof))
            continue
        with pytest.raises(PolicyError, match=r"train with kind: "):
            build_mechanism(policy(kind.name), manifest(proof))


def test_another_mechanisms_section_is_refused(kind):
    other = next(name for name in KINDS if name != kind.name)
    with pytest.raises(PolicyError, match="is unknown here"):
        kind.build(policy(other).mechanism, manifest(PROOFS[kind.teacher]))


def test_noise_too_large_to_draw_is_refused_before_anything_is_charged(kind):
    if not issubclass(kind.section, NoisyPolicy):
        pytest.skip("draws no noise")
    section = policy(kind.name).mechanism.model_copy(update={"sigma": 1e9})
    with pytest.raises(PolicyError, match=r"mechanism\.sigma"):
        build_mechanism(Policy(mechanism=section), manifest(PROOFS[kind.teacher]))


def test_it_says_what_it_is_and_when_to_take_it_and_the_docs_hold_it(kind):
    assert len(kind.summary.split()) >= 4
    assert kind.when.split()[0] in {"where", "for", "to"}, "a clause after `take it`"
    (row,) = (line for line in silo_choices.mechanisms() if line.startswith(f"| `{kind.name}` |"))
    assert row in (ROOT / "docs/privacy.md").read_text(encoding="utf-8"), "run python -m benchmarks.tables"


def test_packages_cannot_bring_one():
    assert MECHANISM_KINDS.choices.group is None


@pytest.mark.parametrize("kind_of", ["laplace", "gnmaxx", None])
def test_an_unknown_kind_is_an_error(kind_of):
    with pytest.raises(ValueError, match="kind"):
        Policy.model_validate({"mechanism": {"kind": kind_of}})


TOY = """
from typing import Literal

from fedcpsc.gatekeeper.mechanisms.mechanism import ANY, MechanismKind
from fedcpsc.gatekeeper.mechanisms.sections import NoisyPolicy
from fedcpsc.privacy.votes import NoiseOnly


class ToyPolicy(NoisyPolicy):
    kind: Literal["toy"] = "toy"


class Toy(NoiseOnly):
    name = "toy"


TOY = MechanismKind(
    name="toy", summary="toy that a test registers", when="to see that one line is enough", section=ToyPolicy,
    teacher=ANY, make=lambda section, proof: Toy(mean_sigma=section.exact_sigma), cost="2 / sigma^2",
    guarantee="mu-GDP",
)
"""
USED = """
import sys

from fedcpsc.choices import MECHANISMS

MECHANISMS.register("toy", "toy_mechanism:TOY")  # the one line

from support.silo_folder import make_folder

from benchmarks.tables import silo_choices
from fedcpsc.gatekeeper.policy_check import check_policy
from pathlib import Path

folder = Path(sys.argv[1])
make_folder(folder, policy={"answers": 100, "mechanism": {"kind": "toy", "epsilon": 50.0, "sigma": 10.0}})
report = check_policy(folder)
assert (report.mechanism, report.dp, report.epsilon, report.answers) == ("toy", True, 50.0, 100), report
assert any(line.startswith("| `toy` | toy that a test registers |") for line in silo_choices.mechanisms())
assert "torch" not in sys.modules
"""


def test_one_file_and_one_line_add_a_mechanism_that_a_silo_then_promises(tmp_path):
    (tmp_path / "toy_mechanism.py").write_text(TOY)
    path = os.pathsep.join([str(tmp_path), str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", USED, str(tmp_path / "silo")],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
