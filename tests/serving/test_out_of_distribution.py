"""The score that tells out-of-distribution pictures.

tests/golden/out_of_distribution.json is for every implementation: a few embeddings, the parameters
as a bundle has them, and what must come out. `expected` below is the plain reference that it was
written by.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from pydantic import ValidationError

from pipelines.errors import BundleError
from pipelines.metrics.abstention import pack
from pipelines.serving.out_of_distribution import OutOfDistribution, residuals, rooted, unpack
from pipelines.serving.trust import MAX_ABSTENTION_BYTES, Abstention, PackedArray

GOLDEN = Path(__file__).parent.parent / "golden/out_of_distribution.json"
D = 6


def numbers(packed: PackedArray) -> list[float]:
    letter = {"float32": "f", "float16": "e", "int8": "b"}[packed.dtype]
    data = base64.b64decode(packed.data)
    stored = struct.unpack(f"<{math.prod(packed.shape)}{letter}", data)
    return [number * packed.scale for number in stored]


def expected(abstention: Abstention, embedding: list[float]) -> float:
    """The formula, number by number."""
    mean, centre, spread = (
        numbers(abstention.arrays[name]) for name in ("mean", "centre", "spread")
    )
    scores, start = [], 0
    for level in range(len(centre)):
        k, width = abstention.arrays[f"basis_{level}"].shape
        basis = numbers(abstention.arrays[f"basis_{level}"])
        stop = start + width
        roots = [math.copysign(math.sqrt(abs(value)), value) for value in embedding[start:stop]]
        length = math.sqrt(sum(root * root for root in roots)) or 1.0
        x = [root / length - middle for root, middle in zip(roots, mean[start:stop], strict=True)]
        inside = [sum(basis[row * width + i] * x[i] for i in range(width)) for row in range(k)]
        back = [sum(basis[row * width + i] * inside[row] for row in range(k)) for i in range(width)]
        rest = math.sqrt(sum((a - b) ** 2 for a, b in zip(x, back, strict=True)))
        scores.append((rest - centre[level]) / spread[level])
        start = stop
    return max(scores)


def arrays() -> dict[str, NDArray[np.float64]]:
    """Of two levels, four features wide and two."""
    rng = np.random.default_rng(4)
    return {
        "mean": rng.uniform(0, 0.5, D),
        "basis_0": np.linalg.qr(rng.normal(size=(4, 2)))[0].T,
        "basis_1": np.linalg.qr(rng.normal(size=(2, 1)))[0].T,
        "centre": np.array([0.4, 0.2]),
        "spread": np.array([0.1, 0.3]),
    }


def packed(arrays: Mapping[str, NDArray[np.float64]]) -> dict[str, PackedArray]:
    return {
        name: pack(array, "int8" if name.startswith("basis") else "float32")
        for name, array in arrays.items()
    }


def abstention(**changes) -> Abstention:
    document = {
        "score": "rooted_residuals",
        "threshold": 0.5,
        "acceptance": 0.95,
        "arrays": packed(arrays()),
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
        novelty = OutOfDistribution.load(fitted, fitted.arrays["mean"].shape[0])
        rows = np.float32([case["embedding"] for case in bundle["cases"]])
        scores, verdicts = novelty.judge(rows)
        assert [case["is_ood"] for case in bundle["cases"]] == verdicts.tolist()
        # Both verdicts occur, or the file would hold nobody to anything.
        assert set(verdicts.tolist()) == {True, False}
        for case, score in zip(bundle["cases"], scores, strict=True):
            assert score == pytest.approx(case["ood_score"], abs=1e-9)
            assert expected(fitted, case["embedding"]) == pytest.approx(score, abs=1e-9)


@given(embeddings)
def test_score_is_that_of_the_plain_reference(rows):
    fitted = abstention()
    scores, _ = OutOfDistribution.load(fitted, D).judge(rows)
    for row, score in zip(rows, scores, strict=True):
        assert score == pytest.approx(expected(fitted, row.tolist()), abs=1e-7)


@given(embeddings)
def test_residuals_are_lengths_within_the_unit_ball_of_each_level(rows):
    lengths = residuals(rows, OutOfDistribution.load(abstention(), D).arrays)
    assert lengths.shape == (len(rows), 2)
    # At most 1 for the roots, and the mean's own length.
    assert ((lengths >= 0) & (lengths <= 1 + np.sqrt(D * 0.25))).all()


@given(embeddings, st.floats(0.01, 100))
def test_contrast_of_a_picture_does_not_count(rows, factor):
    novelty = OutOfDistribution.load(abstention(), D)
    before = novelty.judge(rows.astype(np.float64))[0]
    # Each level has its own length: one may be louder than the other.
    after = novelty.judge(rows.astype(np.float64) * np.repeat([factor, 1 / factor], [4, 2]))[0]
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_a_picture_is_out_of_distribution_by_either_level():
    rows = np.float64([[2, 3, 1, 2, 5, 1]])
    usual = OutOfDistribution.load(abstention(), D).judge(rows)[0][0]
    at = residuals(rows, OutOfDistribution.load(abstention(), D).arrays)[0]
    assert usual < 10
    for level in range(2):
        centre = at.copy()
        centre[level] -= 10 * arrays()["spread"][level]
        moved = abstention(arrays=packed({**arrays(), "centre": centre}))
        assert OutOfDistribution.load(moved, D).judge(rows)[0][0] == pytest.approx(10, abs=1e-4)


@given(embeddings)
def test_roots_have_length_1_and_keep_their_signs(rows):
    roots = rooted(rows)
    lengths = np.linalg.norm(roots, axis=1)
    is_zero = ~rows.any(axis=1)
    np.testing.assert_allclose(lengths, np.where(is_zero, 0, 1), atol=1e-9)
    assert (np.sign(roots) == np.sign(rows)).all()


def test_the_bound_itself_is_accepted_and_nan_is_not():
    rows = np.float32([[1, 2, 3, 4, 5, 6], [np.nan, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]])
    score = float(OutOfDistribution.load(abstention(), D).judge(rows)[0][0])
    at, below = (OutOfDistribution.load(abstention(threshold=t), D) for t in (score, score - 1e-9))
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
    ("changes", "n_features"),
    [
        ({"basis_0": None, "basis_1": None}, D),
        ({"mean": None}, D),
        ({"spread": None}, D),
        (dict.fromkeys(arrays()), D),
        ({"more": np.zeros(1)}, D),
        ({}, D + 1),
        ({"basis_0": np.zeros((2, 5))}, D),
        ({"basis_0": np.zeros(4)}, D),
        ({"basis_1": None, "basis_2": np.zeros((1, 2))}, D),
        ({"mean": np.full(D, np.nan)}, D),
        ({"centre": np.zeros(3)}, D),
        ({"spread": np.array([1.0, 0.0])}, D),
    ],
    ids=[
        *("no basis", "no mean", "no spread", "nothing", "more", "model", "basis", "flat"),
        *("gap", "NaN", "levels", "no width"),
    ],
)
def test_arrays_that_do_not_fit_the_model_are_refused(changes, n_features):
    wrong = {name: array for name, array in {**arrays(), **changes}.items() if array is not None}
    stored = {name: pack(array, "float32") for name, array in wrong.items()}
    with pytest.raises(BundleError, match=r"abstention\.arrays: expected finite numbers"):
        OutOfDistribution.load(abstention(arrays=stored), n_features)


def test_unknown_score_is_refused():
    with pytest.raises(BundleError, match=r"expected one of rooted_residuals, got 'magic'"):
        OutOfDistribution.load(abstention(score="magic"), D)
