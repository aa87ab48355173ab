"""The score by which foreign pictures are told.

tests/golden/novelty.json is for every implementation: a few embeddings, the parameters as a bundle
has them, and what must come out. `expected` below is the plain reference that it was written by.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError

from pipelines.errors import BundleError
from pipelines.evaluation.abstention import pack
from pipelines.mobile.novelty import Novelty, rooted, unpack
from pipelines.mobile.trust import MAX_ABSTENTION_BYTES, Abstention, PackedArray

GOLDEN = Path(__file__).parent.parent / "golden/novelty.json"
D = 6


def numbers(packed: PackedArray) -> list[float]:
    letter = {"float32": "f", "float16": "e", "int8": "b"}[packed.dtype]
    data = base64.b64decode(packed.data)
    stored = struct.unpack(f"<{math.prod(packed.shape)}{letter}", data)
    return [number * packed.scale for number in stored]


def expected(abstention: Abstention, embedding: list[float]) -> float:
    """The formula, number by number."""
    mean = numbers(abstention.arrays["mean"])
    k, d = abstention.arrays["basis"].shape
    basis = numbers(abstention.arrays["basis"])
    roots = [math.copysign(math.sqrt(abs(value)), value) for value in embedding]
    length = math.sqrt(sum(root * root for root in roots)) or 1.0
    x = [root / length - middle for root, middle in zip(roots, mean, strict=True)]
    inside = [sum(basis[row * d + place] * x[place] for place in range(d)) for row in range(k)]
    back = [sum(basis[row * d + place] * inside[row] for row in range(k)) for place in range(d)]
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(x, back, strict=True)))


def abstention(**changes) -> Abstention:
    rng = np.random.default_rng(4)
    basis = np.linalg.qr(rng.normal(size=(D, 2)))[0].T
    arrays = {"mean": pack(rng.uniform(0, 0.5, D), "float32"), "basis": pack(basis, "int8")}
    document = {
        "score": "root_residual",
        "threshold": 0.5,
        "acceptance": 0.95,
        "arrays": arrays,
        "n_train": 40,
        "n_val": 20,
    }
    return Abstention.model_validate({**document, **changes})


embeddings = hnp.arrays(
    np.float32, (3, D), elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
)


def test_golden_scores():
    document = json.loads(GOLDEN.read_text())
    assert len(document["bundles"]) == 3
    for bundle in document["bundles"]:
        fitted = Abstention.model_validate(bundle["abstention"])
        novelty = Novelty.load(fitted, fitted.arrays["mean"].shape[0])
        rows = np.float32([case["embedding"] for case in bundle["cases"]])
        scores, verdicts = novelty.judge(rows)
        assert [case["is_foreign"] for case in bundle["cases"]] == verdicts.tolist()
        # Both verdicts occur, or the file would hold nobody to anything.
        assert set(verdicts.tolist()) == {True, False}
        for case, score in zip(bundle["cases"], scores, strict=True):
            assert score == pytest.approx(case["foreignness"], abs=1e-9)
            assert expected(fitted, case["embedding"]) == pytest.approx(score, abs=1e-9)


@given(embeddings)
def test_score_is_that_of_the_plain_reference(rows):
    fitted = abstention()
    scores, _ = Novelty.load(fitted, D).judge(rows)
    for row, score in zip(rows, scores, strict=True):
        assert score == pytest.approx(expected(fitted, row.tolist()), abs=1e-9)
        assert 0 <= score <= 2.5


@given(embeddings, st.floats(0.01, 100))
def test_contrast_of_a_picture_does_not_count(rows, factor):
    novelty = Novelty.load(abstention(), D)
    before = novelty.judge(rows.astype(np.float64))[0]
    after = novelty.judge(rows.astype(np.float64) * factor)[0]
    np.testing.assert_allclose(after, before, atol=1e-7)


@given(embeddings)
def test_roots_have_length_1_and_keep_their_signs(rows):
    roots = rooted(rows)
    lengths = np.linalg.norm(roots, axis=1)
    is_zero = ~rows.any(axis=1)
    np.testing.assert_allclose(lengths, np.where(is_zero, 0, 1), atol=1e-9)
    assert (np.sign(roots) == np.sign(rows)).all()


def test_the_bound_itself_is_accepted_and_nan_is_foreign():
    rows = np.float32([[1, 2, 3, 4, 5, 6], [np.nan, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]])
    score = float(Novelty.load(abstention(), D).judge(rows)[0][0])
    at, below = (Novelty.load(abstention(threshold=t), D) for t in (score, score - 1e-9))
    assert at.judge(rows)[1].tolist()[:2] == [False, True]
    assert below.judge(rows)[1].tolist()[:2] == [True, True]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-7), ("float16", 1e-3), ("int8", 1 / 254 + 1e-9)]
)
@given(data=st.data())
def test_packed_numbers_come_back(dtype, tolerance, data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=2, max_side=5))
    array = data.draw(hnp.arrays(np.float64, shape, elements=st.floats(-100, 100)))
    packed = pack(array, dtype)
    again = PackedArray.model_validate_json(packed.model_dump_json())
    assert again == packed
    largest = max(float(np.abs(array).max()), 1e-4)
    np.testing.assert_allclose(unpack(again), array, atol=tolerance * largest)
    assert unpack(again).ravel().tolist() == pytest.approx(numbers(packed))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "AAAA"}, "data has 3 bytes"),
        ({"data": "!!!!"}, "data is not base64"),
        ({"data": "é"}, "data is not base64"),
        ({"data": "AAAAAAAA\n"}, "data is not base64"),
        ({"shape": [3]}, "data has 8 bytes"),
        ({"shape": [0]}, "greater than or equal to 1"),
        ({"shape": [1, 1, 1, 2]}, "at most 3 items"),
        ({"dtype": "float64"}, "Input should be"),
        ({"scale": 0}, "greater than 0"),
        ({"scale": float("inf")}, "finite"),
    ],
)
def test_damaged_array_is_refused(changes, message):
    document = pack(np.array([1.0, 2.0]), "float32").model_dump()
    with pytest.raises(ValidationError, match=message):
        PackedArray.model_validate({**document, **changes})


def test_more_than_a_phone_should_load_is_refused():
    half = pack(np.zeros(MAX_ABSTENTION_BYTES * 3 // 8), "int8")
    assert len(half.data) == MAX_ABSTENTION_BYTES // 2
    abstention(arrays={"a": half, "b": half})
    with pytest.raises(ValidationError, match="at most 300,000 may be"):
        abstention(arrays={"a": half, "b": half, "c": pack(np.zeros(1), "int8")})


@pytest.mark.parametrize(
    ("arrays", "n_features"),
    [
        ({"mean": np.zeros(D)}, D),
        ({"basis": np.zeros((2, D))}, D),
        ({}, D),
        ({"mean": np.zeros(D), "basis": np.zeros((2, D)), "more": np.zeros(1)}, D),
        ({"mean": np.zeros(D), "basis": np.zeros((2, D))}, D + 1),
        ({"mean": np.zeros(D), "basis": np.zeros((2, D + 1))}, D),
        ({"mean": np.zeros(D), "basis": np.zeros(D)}, D),
        ({"mean": np.full(D, np.nan), "basis": np.zeros((2, D))}, D),
    ],
    ids=["no basis", "no mean", "nothing", "more", "model", "basis", "flat", "NaN"],
)
def test_arrays_that_do_not_fit_the_model_are_refused(arrays, n_features):
    packed = {name: pack(array, "float32") for name, array in arrays.items()}
    with pytest.raises(BundleError, match=r"abstention\.arrays: expected finite numbers"):
        Novelty.load(abstention(arrays=packed), n_features)


def test_unknown_score_is_refused():
    with pytest.raises(BundleError, match=r"expected one of root_residual, got 'magic'"):
        Novelty.load(abstention(score="magic"), D)
