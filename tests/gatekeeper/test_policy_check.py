# SPDX-License-Identifier: Apache-2.0
"""What an owner is told before anything leaves: all that counts, and nothing in the folder is touched."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
from support.silo_folder import make_folder

from fedcpsc.errors import PolicyError
from fedcpsc.gatekeeper.policy import Policy
from fedcpsc.gatekeeper.policy_check import check_policy
from fedcpsc.gatekeeper.promise import counts_to_share
from fedcpsc.gatekeeper.releases import record_training, report_class_counts
from fedcpsc.ledger.budget import MU2_UNIT, Charge
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
from fedcpsc.privacy.randomness import NOISE_SOURCE

NOISY = {"kind": "noise_only", "sigma": 10.0, "epsilon": 8.0}
DP_SGD = {
    "kind": "dp_sgd", "epsilon": 1.0, "delta": 1e-5, "records": 20_000, "noise_source": NOISE_SOURCE,
    "history": [[1.89453125, 0.02, 500]],
}  # fmt: skip


def test_class_counts_are_paid_from_the_answers_before_and_after_they_are_told(tmp_path: Path) -> None:
    rules: dict[str, Any] = {
        "answers": 10_000,
        "mechanism": NOISY,
        "share_class_counts": True,
        "class_count_sigma": 1.0,
    }
    manifest = make_folder(tmp_path, policy=rules)
    # mu^2 1.6660^2 = 2.7757 in all; the counts take 1, an answer 0.02
    assert check_policy(tmp_path).answers == 88
    with contextlib.closing(Ledger.open(tmp_path / LEDGER_FILE, manifest.population)) as ledger:
        policy = Policy.model_validate(rules)
        assert counts_to_share(policy, ledger) == MU2_UNIT
        report_class_counts(policy, manifest, ledger)
        assert counts_to_share(policy, ledger) == 0
        assert check_policy(tmp_path).answers == 88
        ledger.reserve("a", "p", Charge(8, 8 * MU2_UNIT // 50, True))
        assert check_policy(tmp_path).answers == 80
    released = check_policy(tmp_path).released
    assert released is not None
    assert released["exact"]
    assert 4.377 < released["epsilon"] < 8


def test_the_check_says_how_many_more_trainings_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    policy = {"mechanism": {"kind": "dp_sgd", "epsilon": 2.0}}
    manifest = make_folder(tmp_path, policy=policy, privacy=DP_SGD)
    for month, left in enumerate((2, 1, 0)):
        with contextlib.closing(Ledger.open(tmp_path / LEDGER_FILE, manifest.population)) as ledger:
            record_training(manifest.model_copy(update={"weights_sha256": f"{month}" * 64}), ledger)
        last = make_again(tmp_path, month)
        found = check_policy(tmp_path)
        assert found.trainings_left == left
        sentence = found.learns[-1]
        assert "trained like this one would bring the population 'people of the north' to epsilon" in sentence
        assert sentence.endswith("of 2: it would be refused." if not left else f"of 2: {left} more fit.")
    assert found.next_training is not None
    assert found.next_training["renyi"] == pytest.approx(2.263, abs=0.001)
    assert found.next_training["pld"] == pytest.approx(2.085, abs=0.001)
    assert last.privacy == DP_SGD


def make_again(folder: Path, month: int) -> Any:
    from fedcpsc.teachers.manifest import load_manifest, save_manifest

    manifest = load_manifest(folder).model_copy(update={"weights_sha256": f"{month}" * 64})
    save_manifest(manifest, folder)
    return manifest


def test_nothing_in_the_folder_is_made_or_changed(tmp_path: Path) -> None:
    make_folder(tmp_path)
    tmp_path.chmod(0o500)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    try:
        check_policy(tmp_path)
    finally:
        tmp_path.chmod(0o700)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("mode", "file_mode", "warned"),
    [
        (0o777, 0o600, "(mode 0777) can be written by others"),
        (0o770, 0o600, "(mode 0770) can be written by others"),
        (0o755, 0o600, "(mode 0755) is open to every user"),
        (0o711, 0o644, "may read or change policy.yaml"),
        (0o700, 0o666, ""),
    ],
)
def test_a_folder_that_others_may_read_or_change_is_warned_of(
    tmp_path: Path, mode: int, file_mode: int, warned: str
) -> None:
    silo = tmp_path / "silo"
    make_folder(silo)
    for path in silo.iterdir():
        path.chmod(0o600)
    (silo / "policy.yaml").chmod(file_mode)
    silo.chmod(mode)
    found = [warning for warning in check_policy(silo).warnings if "chmod" in warning]
    assert warned in " ".join(found)
    assert bool(found) == bool(warned)


def test_population_unit_and_a_public_size_are_told(tmp_path: Path) -> None:
    make_folder(tmp_path, policy={"mechanism": NOISY, "public_size": True})
    found = check_policy(tmp_path)
    assert (found.population, found.unit) == ("people of the north", "record")
    assert "how many records there are" in " ".join(found.warnings)


def test_a_missing_mark_is_warned_of(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "ledger.mark").unlink()
    assert "is missing: the gatekeeper will not start" in " ".join(check_policy(tmp_path).warnings)


def test_a_policy_tightened_below_what_was_spent_is_refused(tmp_path: Path) -> None:
    manifest = make_folder(tmp_path, policy={"mechanism": NOISY})
    with contextlib.closing(Ledger.open(tmp_path / LEDGER_FILE, manifest.population)) as ledger:
        ledger.reserve("a", "p", Charge(50, MU2_UNIT, True))
    (tmp_path / "policy.yaml").write_text("mechanism: {kind: noise_only, sigma: 10.0, epsilon: 1.0}\n")
    with pytest.raises(PolicyError, match=r"comes to epsilon 4.377 .*noisy answers and counts so far 4.377"):
        check_policy(tmp_path)


GNMAX = {"kind": "gnmax", "sigma": 40.0, "epsilon": 8.0}
SHARDED: dict[str, Any] = {"kind": "shards", "entry_point": None, "privacy": {"kind": "shards", "shards": 100}}


@pytest.mark.parametrize(
    ("policy", "manifest", "labels_alone"),
    [
        ({}, {}, False),
        ({"forms": ["label"]}, {}, True),
        ({"forms": ["label", "probabilities"]}, {}, False),
        ({"mechanism": GNMAX}, SHARDED, True),
        ({"mechanism": {"kind": "shard_votes", "sigma": 1.0, "epsilon": 8.0}}, SHARDED, False),
    ],
)
def test_an_owner_is_told_what_none_of_these_classes_tells(policy, manifest, labels_alone, tmp_path: Path) -> None:
    make_folder(tmp_path / "a", policy=policy, none_class=True, **manifest)
    warnings = " ".join(check_policy(tmp_path / "a").warnings)
    assert "how much an image is like yours" in warnings
    assert ("most answers will say none" in warnings) == labels_alone
    make_folder(tmp_path / "b", policy=policy, **manifest)
    assert "none of its classes" not in " ".join(check_policy(tmp_path / "b").warnings)


@pytest.mark.parametrize(
    ("policy", "manifest", "told", "warned"),
    [
        ({}, {}, "hand the answers on to nobody (share_answers: false)", 0),
        ({"share_answers": True}, {}, "hand the answers on to anybody", 1),
        ({"share_answers": True, "share_class_counts": True}, {}, "hand the answers on to anybody", 2),
        (
            {"share_answers": True, "mechanism": {"kind": "shard_votes", "sigma": 1.0, "epsilon": 8.0}},
            SHARDED,
            "epsilon holds for all of them",
            0,
        ),
    ],
)
def test_an_owner_is_told_what_handing_answers_on_means_and_cannot_prevent(
    policy, manifest, told, warned, tmp_path: Path
) -> None:
    make_folder(tmp_path, policy=policy, **manifest)
    found = check_policy(tmp_path)
    assert "whether answers may be handed on" in found.shown
    sentence = next(sentence for sentence in found.learns if "share_answers" in sentence)
    assert told in sentence
    assert ("cannot be called back" in sentence) == bool(policy)
    assert ("Nothing enforces it" in sentence) == (not policy)
    assert sum("share_answers" in warning for warning in found.warnings) == warned


def test_the_check_says_that_public_weights_are_the_owners_word(tmp_path: Path) -> None:
    policy = {"mechanism": {"kind": "dp_sgd", "epsilon": 2.0}}
    make_folder(tmp_path / "random", policy=policy, privacy=DP_SGD)
    make_folder(tmp_path / "public", policy=policy, privacy={**DP_SGD, "public_weights": "ab" * 32})
    told = "SHA-256 abababababab...) that you called public: none of this covers the images that they were made with"
    assert told in " ".join(check_policy(tmp_path / "public").learns)
    assert "called public" not in " ".join(check_policy(tmp_path / "random").learns)
