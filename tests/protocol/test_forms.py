# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcpsc.protocol.forms import shape_answer
from fedcpsc.protocol.messages import AnswerForm

SCORES = np.array([[0.2, 0.4, 0.4], [0.7, 0.1, 0.2]], np.float32)


def test_ties_go_to_the_lower_class_whatever_the_form() -> None:
    labels, _ = shape_answer(SCORES, AnswerForm.LABEL, bits=8, top_k=3)
    _, order = shape_answer(SCORES, AnswerForm.TOP_K, bits=8, top_k=2)
    assert order is not None
    assert labels.tolist() == [1, 0]
    assert order.tolist() == [[1, 2], [0, 2]]


def test_more_classes_than_there_are_cannot_be_shown() -> None:
    values, order = shape_answer(SCORES, AnswerForm.TOP_K, bits=32, top_k=9)
    assert order is not None
    assert values.shape == order.shape == (2, 3)


@given(st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=6))
def test_noisy_scores_are_clipped_in_eight_bits_and_untouched_in_thirty_two(row: list[float]) -> None:
    scores = np.array([row], np.float32)
    eight, _ = shape_answer(scores, AnswerForm.PROBABILITIES, bits=8, top_k=1)
    assert eight.dtype == np.uint8
    np.testing.assert_array_equal(eight, np.rint(np.clip(scores, 0, 1) * 255))
    whole, _ = shape_answer(scores, AnswerForm.PROBABILITIES, bits=32, top_k=1)
    np.testing.assert_array_equal(whole, scores)


@pytest.mark.parametrize("form", list(AnswerForm))
def test_forms_are_functions_of_the_scores_alone(form: AnswerForm) -> None:
    one, other = (shape_answer(SCORES.copy(), form, bits=8, top_k=2) for _ in range(2))
    np.testing.assert_array_equal(one[0], other[0])
