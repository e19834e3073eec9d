# SPDX-License-Identifier: Apache-2.0
"""Recipes as messages: bounds, and nothing but a protocol error whatever the bytes."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.protocol_strategies import recipe_queries, same
from support.tiny_recipes import a_recipe, both_ways

from fedcpsc.errors import ProtocolError
from fedcpsc.protocol.codec import fields_of, from_bytes, from_fields, to_bytes
from fedcpsc.protocol.messages import AnswerForm, RecipeQuery
from fedcpsc.protocol.recipe import Pool, Recipe

GOOD = both_ways(a_recipe())[1]


def test_a_recipe_is_counted_by_its_chosen_images():
    assert (GOOD.count, GOOD.recipe.candidates, GOOD.image_shape) == (6, 50, (1, 4, 4))


@pytest.mark.parametrize(
    "change",
    [
        {"image_shape": (1, 4, 2000)},
        {"image_shape": (1, 1024, 1025)},  # the prior's memory
        {"image_shape": (1, 512, 512), "width": 64},  # the generator's
        {"classes": 0},
        {"latent": 2000},
        {"width": True},
        {"pools": ()},
        {"pools": a_recipe().pools * 300},
        {"weights": np.zeros((2, 3), np.uint16)},
        {"weights": np.zeros((1, 3), np.uint8)},
        {"chosen": np.zeros(7, np.uint8)},  # nothing
        {"chosen": np.full(7, 255, np.uint8)},  # beyond the last candidate
        {"chosen": np.full(70, 255, np.uint8)},
    ],
)
def test_recipes_out_of_bounds(change):
    with pytest.raises(ProtocolError):
        dataclasses.replace(a_recipe(), **change)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": -1},
        {"seed": 2**63},
        {"from_prior": 2**40},
        {"from_prior": 1.5},
        {"from_prior": 0, "from_generator": 0},
        {"mixture": (("smooth", float("nan")),)},
        {"mixture": (("smooth", 10**400),)},
        {"mixture": ((1, 1.0),)},
        {"mixture": (("smooth", 1.0),) * 17},
        {"mean": 2.0},
        {"mean": "0"},
    ],
)
def test_pools_out_of_bounds(change):
    with pytest.raises(ProtocolError):
        dataclasses.replace(a_recipe().pools[0], **change)


def test_a_payload_is_a_hash():
    with pytest.raises(ProtocolError, match="SHA-256"):
        RecipeQuery("a" * 32, AnswerForm.LABEL, "no hash", a_recipe())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_value_in_any_place_is_a_message_or_a_protocol_error(data):
    scalars, arrays = fields_of(GOOD)
    scalars = json.loads(json.dumps(scalars))
    place = data.draw(st.sampled_from([scalars, scalars["recipe"], scalars["recipe"]["pools"][0], arrays]))
    name = data.draw(st.sampled_from(sorted(place)))
    if place is arrays:
        place[name] = data.draw(
            st.sampled_from([np.zeros(0, np.uint8), np.ones((1, 7), np.uint16), np.zeros((2, 2), np.float32)])
        )
    elif data.draw(st.booleans()):
        del place[name]
    else:
        place[name] = data.draw(json_values)
    try:
        message = from_fields(scalars, arrays)
    except ProtocolError:
        return
    assert same(from_bytes(to_bytes(message)), message)


@settings(max_examples=150, deadline=None)
@given(recipe_queries, st.data())
def test_bytes_that_went_wrong_are_a_message_or_a_protocol_error(query, data):
    body = bytearray(to_bytes(query))
    assert same(from_bytes(bytes(body)), query)
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = from_bytes(bytes(body[: data.draw(st.integers(0, len(body)))] if data.draw(st.booleans()) else body))
    except ProtocolError:
        return
    if isinstance(message, RecipeQuery):
        assert isinstance(message.recipe, Recipe)
        assert all(isinstance(pool, Pool) for pool in message.recipe.pools)
        assert message.count >= 1
