from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipelines.serving.classification import softmax

LOGITS = arrays(np.float32, (3, 4), elements=st.floats(-500, 500, width=32, allow_subnormal=False))


@given(LOGITS, st.floats(0.05, 20))
def test_softmax_gives_probabilities_in_the_order_of_the_logits(logits, temperature):
    got = softmax(logits, temperature)
    assert got.dtype == np.float32
    assert bool(((got >= 0) & (got <= 1)).all())
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-5)
    for row, probabilities in zip(logits, got, strict=True):
        assert probabilities[row.argmax()] == probabilities.max()


@given(LOGITS, st.floats(-50, 50))
def test_softmax_is_the_same_for_shifted_logits(logits, shift):
    got = softmax((logits.astype(np.float64) + shift).astype(np.float32))
    np.testing.assert_allclose(got, softmax(logits), atol=1e-3)


def test_softmax_by_hand_and_without_overflow():
    np.testing.assert_allclose(softmax(np.log(np.float32([[1, 2, 5]]))), [[0.125, 0.25, 0.625]])
    np.testing.assert_allclose(softmax(np.float32([[1e30, 0]])), [[1, 0]])
    assert softmax(np.float32([[2, 0]]), 2.0)[0, 0] == pytest.approx(1 / (1 + np.exp(-1)))
