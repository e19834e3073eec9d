# SPDX-License-Identifier: Apache-2.0
"""Every argument is described by a noun phrase: what it is, its unit and range."""

import pytest
from support.arguments import Description, descriptions, lacks_its_noun
from support.documented import ROOT

LIMIT = 0.01  # of all descriptions


def test_hardly_a_description_begins_with_a_bare_preposition():
    found = list(descriptions(ROOT))
    assert len(found) > 1000
    bare = [one for one in found if lacks_its_noun(one)]
    share = len(bare) / len(found)
    shown = "\n".join(f"{one.place}: {one.name}: {one.text}" for one in bare)
    assert share <= LIMIT, f"{len(bare)} of {len(found)} descriptions ({share:.1%}) lack their noun:\n{shown}"


@pytest.mark.parametrize("text", ["of the run", "As in result.json.", "where it lies", "in (0, 1)", "for people"])
def test_a_preposition_alone_is_no_description(text):
    assert lacks_its_noun(Description("a.py:1", "x", text))


@pytest.mark.parametrize(
    "text", ["name of the run", "float32 [N, K]", "whether to resume", "> 0", "offset, in pixels", "information of it"]
)
def test_a_noun_phrase_is_one(text):
    assert not lacks_its_noun(Description("a.py:1", "x", text))


def test_every_form_of_description_is_counted_once(tmp_path):
    (tmp_path / "fedcpsc").mkdir()
    (tmp_path / "fedcpsc/one.py").write_text(
        '''"""A module."""
class One:
    """Something.

    Attributes:
        first, second: of both,
            of: which this line goes on.
        third: a number.
    """

    def method(self, *args):
        """Does it.

        Args:
            *args: to do.

        Raises:
            ValueError: of no interest here.
        """

field = Field(3, description="of a field")
option = typer.Option(help="Of an option.")
'''
    )
    found = [(one.name, one.text) for one in descriptions(tmp_path)]
    assert sorted(found) == [
        ("*args", "to do."),
        ("description", "of a field"),
        ("first, second", "of both,"),
        ("help", "Of an option."),
        ("third", "a number."),
    ]
