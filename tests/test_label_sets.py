# SPDX-License-Identifier: Apache-2.0
"""The union of silos' classes, against the rules in its head, and answers put where they belong."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcpsc.errors import FederationError
from fedcpsc.label_sets import LabelSets, SiloClasses, unite


def named(*names, none=False):
    return SiloClasses(len(names), names, none)


PETS, FARM = named("cat", "dog", "horse"), named("dog", "horse", "bird")


def test_the_union_is_in_the_order_of_the_first_silo_by_name_then_what_the_next_add():
    sets = unite({"b": FARM, "a": PETS}, {})
    assert sets.names == ("cat", "dog", "horse", "bird")
    assert sets.places == ((1, 2, 3), (0, 1, 2)), "in the order in which the silos were given"
    assert sets.known.tolist() == [[False, True, True, True], [True, True, True, False]]
    assert (sets.alike, sets.widths) == (False, (3, 3))


def test_the_union_does_not_depend_on_who_joins_first():
    silos = {"a": PETS, "b": FARM, "c": named("fish", "cat")}
    found = {unite(dict(order), {}).names for order in permutations(silos.items())}
    assert found == {("cat", "dog", "horse", "bird", "fish")}


@pytest.mark.parametrize("own", [named("cat", "dog"), SiloClasses(2)])
def test_silos_with_the_same_classes_in_the_same_order_are_alike(own):
    sets = unite({"a": own, "b": own}, {})
    assert sets.alike
    assert sets.names == own.names


def test_the_same_classes_in_another_order_are_put_in_place():
    sets = unite({"a": named("cat", "dog"), "b": named("dog", "cat")}, {})
    assert sets.places == ((0, 1), (1, 0))
    assert not sets.alike
    np.testing.assert_allclose(sets.federated(1, np.array([[0.9, 0.1]], np.float32))[0], [[0.1, 0.9]], rtol=1e-6)


def test_an_alias_makes_one_class_of_two_words():
    sets = unite({"a": PETS, "b": named("feline", "bird")}, {"feline": "cat"})
    assert sets.names == ("cat", "dog", "horse", "bird")
    assert sets.places[1] == (0, 3)


def test_an_alias_may_name_a_class_as_no_silo_does():
    assert unite({"a": named("c1", "c2"), "b": named("c2", "c1")}, {"c1": "cat"}).names == ("cat", "c2")


@pytest.mark.parametrize(
    ("silos", "aliases", "message"),
    [
        ((PETS, named("Cat", "dog")), {}, r"'Cat': b has this class and a has 'cat'.*case or space alone.*aliases"),
        ((PETS, named("ca t", "dog")), {}, "case or space alone"),
        ((PETS, FARM), {"felin": "cat"}, r"'felin': no silo has a class of this name; the nearest is 'cat'|nearest"),
        ((PETS, FARM), {"cat": "dog"}, "a would have this class twice"),
        ((PETS, FARM), {"cat": "Dog"}, "case or space alone"),
        ((PETS, SiloClasses(4)), {}, "b.*name no classes"),
        ((PETS, FARM, SiloClasses(3)), {}, "c.*name no classes, and those that do differ"),
        ((SiloClasses(3), SiloClasses(4)), {}, r"classes=\{'a': 3, 'b': 4\}: must be the same"),
        ((SiloClasses(3), SiloClasses(3)), {"feline": "cat"}, "no silo names its classes"),
        ((named("cat", none=True), named("cat", none=True)), {}, "at least 2 classes"),
        ((SiloClasses(1, none_class=True),) * 2, {}, "needs at least 2"),
    ],
)
def test_classes_that_do_not_fit_are_refused(silos, aliases, message):
    with pytest.raises(FederationError, match=message):
        unite(dict(zip("abc", silos, strict=False)), aliases)


def test_an_alias_of_a_silo_that_is_missing_is_let_pass_where_not_all_have_joined():
    assert unite({"a": PETS}, {"feline": "cat"}, complete=False).names == PETS.names


def test_a_silo_that_names_no_classes_is_taken_by_number_where_all_others_agree():
    sets = unite({"a": PETS, "b": SiloClasses(3), "c": PETS}, {})
    assert sets.alike
    assert sets.names == PETS.names


@given(st.data())
def test_no_mass_is_lost_or_given_to_what_a_silo_does_not_know(data):
    words = data.draw(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=6, unique=True))
    other = data.draw(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=6, unique=True))
    none = data.draw(st.booleans())
    sets = unite({"a": named(*words), "b": named(*other, none=none)}, {})
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    own = rng.dirichlet(np.ones(len(other) + none), 5).astype(np.float32)
    dense, mass = sets.federated(1, own)
    np.testing.assert_allclose(dense.sum(1), mass, atol=1e-5)
    np.testing.assert_allclose(mass, np.maximum(own[:, : len(other)].sum(1), 1 / 510), atol=1e-6)
    for row in range(5):  # the slow way
        for column, word in enumerate(other):
            assert dense[row, sets.names.index(word)] == pytest.approx(own[row, column], abs=2e-3)
    assert (dense[:, ~sets.known[1]] == 0).all()


def test_a_silo_that_says_none_of_mine_counts_by_the_root_of_its_odds():
    sets = unite({"a": PETS, "b": named("dog", "bird", none=True)}, {})
    own = np.array([[0.3, 0.2, 0.5], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.1, 0.1, 0.8]], np.float32)
    dense, mass = sets.federated(1, own)
    np.testing.assert_allclose(dense[:2, [1, 3]], [[0.3, 0.2], [1 / 1020, 1 / 1020]], atol=1e-6)
    weights = sets.weights(np.stack([np.ones(4, np.float32), mass]))
    assert weights is not None
    np.testing.assert_allclose(weights[1] / weights[0], [1, 509**-0.5, 1000, 0.5], rtol=1e-3)
    assert weights.max() <= 1
    assert unite({"a": PETS, "b": FARM}, {}).weights(np.ones((2, 4), np.float32)) is None


def test_numbers_of_classes_go_where_the_classes_are():
    sets = unite({"a": PETS, "b": FARM}, {})
    assert sets.of_counts(1, (5, 6, 7)).tolist() == [0, 5, 6, 7]


def test_ten_thousand_silos_are_united_at_once():
    silos = {f"silo-{i}": named(*(f"class {k}" for k in range(100))) for i in range(10_000)}
    sets = unite(silos, {})
    assert sets.alike
    assert len(set(map(id, sets.places))) == 1, "alike silos share one tuple"


def test_by_number_is_what_silos_without_names_give():
    assert unite({"a": SiloClasses(3), "b": SiloClasses(3)}, {}) == LabelSets.by_number(3, 2)


def test_classes_that_no_silo_knows_go_and_the_others_keep_their_order():
    sets = LabelSets(5, ("a", "b", "c", "d", "e"), ((4, 1), (1, 2)), (False, True))
    left = sets.of_known_classes()
    assert left == LabelSets(3, ("b", "c", "e"), ((2, 0), (0, 1)), (False, True))
    assert left.of_known_classes() == left
