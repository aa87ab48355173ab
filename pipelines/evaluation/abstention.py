"""Fits, for one model file, how pictures unlike those that it knows are told.

Knows nothing of foreign pictures: it describes the train split's embeddings and takes the threshold
from the val split. Pure functions on arrays; called by `export`. Why this score and no other:
docs/adr/0013 and 0018; the others are in `pipelines.evaluation.foreign_scores`.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import DataError
from pipelines.mobile.novelty import SCORES, basis_name, residuals, rooted, unpack
from pipelines.mobile.trust import Abstention, PackedArray

SCORE = "rooted_residuals"
#: Principal directions of a level, at most: the best of 16 to 128 on val where the head's level was
#: the only one (docs/adr/0013); with two levels 16 to 96 differ by little (docs/LOG.md).
MAX_DIRECTIONS = 64
#: Directions with less than this share of the variance are rounding errors.
_MIN_SHARE = 1e-9
#: Residuals of known pictures that spread less than this do not spread at all.
_MIN_SPREAD = 1e-6
_TINY = 1e-300
#: Largest number of an int8, used on both sides of zero.
_INT8_MAX = 127


def fit_abstention(
    train_embedding: NDArray[np.floating[Any]],
    val_embedding: NDArray[np.floating[Any]],
    acceptance: float,
    max_directions: int = MAX_DIRECTIONS,
    *,
    widths: Sequence[int] = (),
) -> Abstention:
    """Mean and principal directions of the train embeddings, and the threshold that val sets.

    Args:
        train_embedding: (n, d), of plain views through the file that is served.
        val_embedding: (m, d), the same of the val split.
        acceptance: share of the val images that is accepted, in (0.5, 1).
        max_directions: of each level, see `principal_directions`.
        widths: of the embedding's levels, which add up to d; empty: one level.

    Raises:
        DataError: if either is empty or not finite.
    """
    for split, embedding in (("train", train_embedding), ("val", val_embedding)):
        if not len(embedding) or not np.isfinite(embedding).all():
            raise DataError(
                f"abstention needs finite embeddings of {split} images, got {len(embedding)} "
                f"images, {int((~np.isfinite(embedding)).any(axis=1).sum())} of them with NaN or "
                f"infinity. Train again with a lower learning_rate."
            )
    means, packed = [], {}
    ends = np.cumsum(widths or [train_embedding.shape[1]])
    for level, values in enumerate(np.split(train_embedding, ends[:-1], axis=1)):
        roots = rooted(values)
        means.append(roots.mean(axis=0))
        directions = principal_directions(roots - means[-1], max_directions)
        packed[basis_name(level)] = pack(directions, "int8")
    packed["mean"] = pack(np.concatenate(means), "float32")
    # Of val, and of the rounded arrays: train images lie nearer to directions that they gave, and
    # the phone has no others.
    lengths = residuals(val_embedding, _unpacked(packed))
    spread = lengths.std(axis=0)
    packed["centre"] = pack(lengths.mean(axis=0), "float32")
    packed["spread"] = pack(np.where(spread > _MIN_SPREAD, spread, 1.0), "float32")
    arrays = _unpacked(packed)
    return Abstention(
        score=SCORE,
        threshold=accepting_threshold(SCORES[SCORE](val_embedding, arrays), acceptance),
        acceptance=acceptance,
        arrays=packed,
        n_train=len(train_embedding),
        n_val=len(val_embedding),
    )


def _unpacked(packed: Mapping[str, PackedArray]) -> dict[str, NDArray[np.float64]]:
    return {name: unpack(array) for name, array in packed.items()}


def accepting_threshold(scores: NDArray[np.float64], acceptance: float) -> float:
    """The least score below which the next known image falls with the probability asked for.

    Args:
        scores: (m,) of val images, m > 0.
        acceptance: in (0, 1).

    Returns:
        The ceil((m + 1) acceptance)-th smallest score, rounded up to 6 decimals; the largest, if
        there are too few images (below 19 at 95 %) for any score to promise as much.

    References:
        Split conformal prediction: Papadopoulos et al. 2002, "Inductive confidence machines for
        regression"; for outliers Bates et al. 2023, "Testing for outliers with conformal p-values".
    """
    m = len(scores)
    # 1e-9 forgives 0.95 its binary form.
    rank = min(math.ceil((m + 1) * acceptance - 1e-9), m)
    return math.ceil(float(np.sort(scores)[rank - 1]) * 1e6) / 1e6


def principal_directions(centred: NDArray[np.float64], max_directions: int) -> NDArray[np.float64]:
    """The directions in which centred rows spread most, the widest first.

    At most half as many as there are rows or columns: a residual needs something to be left over.

    Args:
        centred: (n, d), columns with mean 0.
        max_directions: most that are wanted, at least 1.

    Returns:
        (k, d), orthonormal; each with its largest component positive, so that the same data give
        the same bytes.
    """
    from scipy.linalg import eigh

    n, d = centred.shape
    k = max(1, min(max_directions, n // 2, d // 2))
    # The smaller of the two Gram matrices has the same values, and is quicker.
    is_wide = n < d
    gram = centred @ centred.T if is_wide else centred.T @ centred
    values, vectors = eigh(gram, subset_by_index=(len(gram) - k, len(gram) - 1))
    is_real = values[::-1] > _MIN_SHARE * max(float(np.trace(gram)), _TINY)
    if not is_real.any():
        return np.eye(1, d)
    basis = vectors[:, ::-1].T[is_real]  # (k, n) or (k, d)
    if is_wide:
        basis = basis @ centred
        basis /= np.linalg.norm(basis, axis=1, keepdims=True)
    largest = np.take_along_axis(basis, np.abs(basis).argmax(axis=1)[:, np.newaxis], axis=1)
    result: NDArray[np.float64] = basis * np.sign(largest)
    return result


def pack(
    array: NDArray[np.floating[Any]], dtype: Literal["float32", "float16", "int8"]
) -> PackedArray:
    """Numbers as a bundle holds them.

    Args:
        array: up to three dimensions, finite.
        dtype: int8 has one scale for all numbers, that of the largest.
    """
    scale = 1.0
    if dtype == "int8":
        scale = float(np.abs(array).max(initial=0.0)) / _INT8_MAX or 1.0
        stored = np.rint(array / scale).astype(np.int8)
    else:
        stored = array.astype(np.dtype(dtype).newbyteorder("<"))
    data = base64.b64encode(np.ascontiguousarray(stored).tobytes()).decode("ascii")
    return PackedArray(shape=array.shape, dtype=dtype, scale=scale, data=data)
