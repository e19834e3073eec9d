# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from fedcpsc.errors import PolicyError
from fedcpsc.gatekeeper.policy import Policy, load_policy, save_policy
from fedcpsc.protocol.messages import AnswerForm


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    return path


def test_saved_policy_reloads_equal(tmp_path: Path) -> None:
    policy = Policy(forms=(AnswerForm.LABEL, AnswerForm.TOP_K), answers=7, bits=32, share_class_counts=True)
    save_policy(policy, tmp_path / "policy.yaml")
    assert load_policy(tmp_path / "policy.yaml") == policy
    assert [path.name for path in tmp_path.iterdir()] == ["policy.yaml"]


def test_the_default_policy_offers_eight_bit_probabilities_and_shares_no_counts(tmp_path: Path) -> None:
    policy = load_policy(written(tmp_path, ""))
    assert policy.forms == (AnswerForm.PROBABILITIES,)
    assert (policy.bits, policy.images_per_query, policy.share_class_counts) == (8, 1000, False)
    assert policy.mechanism.kind == "none"


def test_a_policy_that_does_not_say_so_lets_no_answers_be_handed_on(tmp_path: Path) -> None:
    assert not load_policy(written(tmp_path, "answers: 7")).share_answers
    assert load_policy(written(tmp_path, "share_answers: true")).share_answers


def test_a_query_is_bounded_by_its_images_and_by_its_bytes(tmp_path: Path) -> None:
    policy = load_policy(written(tmp_path, ""))
    assert [policy.images_of_a_query((3, side, side)) for side in (28, 64, 224, 1024)] == [1000, 1000, 106, 5]
    small = load_policy(written(tmp_path, "images_per_query: 7\nservice: {query_megabytes: 0.5}"))
    assert [small.images_of_a_query((3, side, side)) for side in (28, 224, 1024)] == [7, 3, 1]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("answer: 5", "answer: unknown key; the nearest valid one is 'answers'"),
        ("mechanism: {kind: none, sigmaa: 2}", "unknown key"),
        ("answers: 0", "answers=0"),
        ("images_per_query: 0", "images_per_query=0"),
        ("service: {query_megabytes: 0}", "query_megabytes=0"),
        ("service: {batch_size: 0}", "batch_size=0"),
        ("bits: 16", "bits=16"),
        ("top_k: 0", "top_k=0"),
        ("forms: []", "forms=[]"),
        ("forms: [label, label]", "each once"),
        ("forms: [logits]", "forms"),
        ("answers: .nan", "answers"),
        ("- a list", "must be a mapping"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_faulty_policy_is_the_owners_error_and_names_the_fault(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy(written(tmp_path, text))
    assert named in str(caught.value)


def test_a_missing_policy_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        load_policy(tmp_path / "policy.yaml")
