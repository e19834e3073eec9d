# SPDX-License-Identifier: Apache-2.0
import pytest

from fedcpsc.class_names import NAME_LIMIT, fault_of_class_names, folded, moved_name, names_of_outputs

MANY = NAME_LIMIT + 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("cat",), "must be one for each of 2 classes"),
        (("cat", "dog", "horse"), "must be one for each of 2 classes"),
        (("cat", ""), "printable"),
        (("cat", " dog"), "without space at the ends"),
        (("cat", "dog\n"), "printable"),
        (("cat", "d\x1b[31mog"), "printable"),
        (("cat", "d\u202eog"), "printable"),
        (("cat", "\ud800"), "printable"),
        (("cat", "x" * MANY), "1 to 100"),
        (("cat", 7), "printable"),
        (("cat", "cat"), "is there twice"),
        (("cat", "Cat"), "by case or space alone"),
        (("hot dog", "hotdog"), "by case or space alone"),
        (("straße", "STRASSE"), "by case or space alone"),
        (("cat", "\uff43at"), "by case or space alone"),  # a wide c
    ],
)
def test_names_that_cannot_tell_classes_apart_are_explained(names, message):
    assert message in (fault_of_class_names(names, 2) or "")


def test_a_name_of_any_length_is_quoted_short():
    assert len(fault_of_class_names(("cat", "x" * 10**6), 2) or "") < 400


@pytest.mark.parametrize(
    "names", [("cat", "dog"), ("0", "10"), ("x" * NAME_LIMIT, "y"), ("猫", "犬"), ("hot dog", "T-shirt/top")]
)
def test_names_in_any_language_are_names(names):
    assert fault_of_class_names(names, 2) is None


def test_names_are_compared_without_case_space_and_width():
    assert folded("Hot  Dog") == folded("hotdog") != folded("hot cat")


@pytest.mark.parametrize(
    "tree",
    [
        ["cat", " dog"],
        ("cat", "dog"),
        {"0": "cat", "1": "dog"},
        {1: "dog", 0: "cat"},
        {"dog": 1, "cat": 0},
        {"cat": "0", "dog": "1"},
    ],
)
def test_a_list_or_mapping_gives_the_outputs_their_names(tree):
    assert names_of_outputs(tree) == ("cat", "dog")


@pytest.mark.parametrize(
    "tree",
    [
        None, "cat", 2, [], {}, ["cat", 1], {"cat": 0, "dog": 2}, {"cat": 1, "dog": 2}, {"cat": 0, "dog": 0},
        {"0": "cat", "dog": 1}, {"cat": True, "dog": False}, {"cat": -1, "dog": 0}, {0: {"name": "cat"}},
    ],
)  # fmt: skip
def test_what_gives_no_name_to_each_output_is_none(tree):
    assert names_of_outputs(tree) is None


def test_of_two_lists_the_first_name_that_stands_elsewhere_is_found():
    own = ("crane", "dog", "crane", "cow")
    assert moved_name(own, own) is None
    assert moved_name(("bird", "puppy", "Crane", "newt"), own) is None
    assert moved_name(("crane", "COW", "machine", "newt"), own) == (1, 3)
