# SPDX-License-Identifier: Apache-2.0
"""An operator is told which silos are as sure of others' images as of their own."""

import pytest

from fedcpsc.distillation.federation import describe_classes
from fedcpsc.label_sets import SiloClasses, unite

VEHICLES, ANIMALS, BOTH = ("car", "ship"), ("cat", "dog"), ("car", "cat")


def told(silos):
    said = {f"silo-{i}": SiloClasses(len(names), names, none) for i, (names, none) in enumerate(silos)}
    lines = describe_classes(unite(said, {}, complete=True), said, None)
    return [line for line in lines if "shares no class" in line]


def test_silos_that_share_no_class_are_named_with_what_helps():
    (line,) = told([(VEHICLES, False), (ANIMALS, False)])
    assert "silo-0" in line
    assert "silo-1" in line
    assert "teachers.outliers" in line


def test_those_that_can_say_none_of_these_are_not_named():
    (line,) = told([(VEHICLES, True), (ANIMALS, False)])
    assert "silo-1" in line
    assert "silo-0" not in line


@pytest.mark.parametrize("silos", [[(VEHICLES, True), (ANIMALS, True)], [(VEHICLES, False), (BOTH, False)]])
def test_nothing_is_said_where_all_can_or_where_a_class_is_shared(silos):
    assert told(silos) == []
