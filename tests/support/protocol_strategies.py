# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies for every message of the protocol, and the equality the frozen messages leave out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedcpsc.class_names import folded
from fedcpsc.errors import RefusalCode
from fedcpsc.protocol.codec import fields_of
from fedcpsc.protocol.messages import (
    Answer,
    AnswerForm,
    ClassReport,
    DescribeRequest,
    Description,
    DpClaim,
    Message,
    Query,
    RecipeQuery,
    Refusal,
)
from fedcpsc.protocol.recipe import Pool, Recipe

texts = st.text(max_size=40)
shown = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=40)  # what people are shown
query_ids = st.text("0123456789abcdef", min_size=32, max_size=32)
wholes = st.integers(0, 2**53 - 1)
positive = st.floats(1e-6, 1e6, allow_nan=False)
claims = st.one_of(
    st.builds(DpClaim),
    st.builds(
        DpClaim,
        dp=st.just(True),
        epsilon=positive,
        delta=st.none() | st.floats(1e-12, 0.5),
        unit=st.none() | shown,
        relation=st.none() | shown,
        mechanism=shown,
    ),
)
class_reports = st.builds(ClassReport, counts=st.lists(st.floats(0, 1e9), max_size=12).map(tuple), dp=claims)
class_name = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=100)


@st.composite
def descriptions_of_any_classes(draw: st.DrawFn) -> Description:
    """Named classes or not, and with "none of these" or not."""
    none_class = draw(st.booleans())
    names = draw(st.none() | st.lists(class_name, min_size=2, max_size=5, unique_by=folded).map(tuple))
    classes = draw(st.integers(2, 2**16)) if names is None else len(names) + none_class
    return replace(draw(plain_descriptions), classes=classes, class_names=names, none_class=none_class)


plain_descriptions = st.builds(
    Description,
    silo=shown,
    classes=st.integers(2, 2**16),
    image_shape=st.tuples(*[st.integers(1, 512)] * 3),
    forms=st.lists(st.sampled_from(AnswerForm), min_size=1, max_size=3, unique=True).map(tuple),
    images_per_query=st.integers(1, 10**6),
    answers_total=wholes,
    answers_left=wholes,
    claim=claims,
    class_report=st.none() | class_reports,
    noise_sigma=st.floats(0, 10),
    recipes=st.booleans(),
    share_answers=st.booleans(),
    teacher=st.none() | shown,
)
descriptions = descriptions_of_any_classes()
queries = st.builds(
    Query,
    query_id=query_ids,
    form=st.sampled_from(AnswerForm),
    images=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=4, max_dims=4, min_side=1, max_side=4)),
    run=texts,
    principal=texts,
)
refusals = st.builds(Refusal, code=st.sampled_from(RefusalCode), query_id=st.just("") | query_ids)


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    form = draw(st.sampled_from(AnswerForm))
    classes = draw(st.integers(2, 6))
    count = draw(st.integers(1, 5))
    indices = None
    if form is AnswerForm.LABEL:
        values = draw(hnp.arrays(np.uint16, count, elements=st.integers(0, classes - 1)))
    else:
        shown = classes if form is AnswerForm.PROBABILITIES else draw(st.integers(1, classes))
        noisy = draw(st.booleans())
        elements = st.floats(-2, 3, width=32) if noisy else st.integers(0, 255)
        values = draw(hnp.arrays(np.float32 if noisy else np.uint8, (count, shown), elements=elements))
        if form is AnswerForm.TOP_K:
            rows = [draw(st.permutations(range(classes)))[:shown] for _ in range(count)]
            indices = np.array(rows, np.uint16)
    return Answer(draw(query_ids), form, classes, values, draw(wholes), indices, draw(claims))


mixtures = st.lists(st.tuples(texts, st.floats(0, 10)), max_size=3).map(tuple)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    sizes = draw(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), min_size=1, max_size=3))
    means = st.none() | st.floats(-1, 1)
    pools = tuple(Pool(draw(st.integers(0, 2**63 - 1)), *size, draw(mixtures), draw(means)) for size in sizes)
    candidates = sum(map(sum, sizes))
    chosen = draw(hnp.arrays(bool, candidates))
    chosen[draw(st.integers(0, candidates - 1))] = True
    rows = draw(hnp.arrays(np.uint16, (sum(size[1] > 0 for size in sizes), draw(st.integers(0, 9)))))
    shape = draw(st.tuples(*[st.integers(1, 64)] * 3))
    return Recipe(shape, draw(st.integers(2, 99)), draw(st.integers(1, 99)), 16, pools, rows, np.packbits(chosen))


recipe_queries = st.builds(
    RecipeQuery,
    query_id=query_ids,
    form=st.sampled_from(AnswerForm),
    payload=st.text("0123456789abcdef", min_size=64, max_size=64),
    recipe=recipes(),
    run=texts,
    principal=texts,
)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(DescribeRequest), descriptions, queries, recipe_queries, answers(), refusals
)


def same(one: Message, other: Message) -> bool:
    """Equal type, scalars, and arrays with dtype and shape."""
    scalars, arrays = fields_of(one)
    other_scalars, other_arrays = fields_of(other)
    return (
        type(one) is type(other)
        and scalars == other_scalars
        and arrays.keys() == other_arrays.keys()
        and all(
            arrays[name].dtype == other_arrays[name].dtype
            and arrays[name].shape == other_arrays[name].shape
            and arrays[name].tobytes() == other_arrays[name].tobytes()
            for name in arrays
        )
    )
