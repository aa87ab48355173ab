"""Fits, for one model file, how pictures unlike those that it knows are told.

Knows no out-of-distribution pictures: it describes the embeddings of those that were trained on and
takes the threshold from the val split. Why this score and no other: docs/adr/0013 and 0018;
benchmarks/abstention.py measures it beside two others.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import DataError
from pipelines.serving.out_of_distribution import (
    basis_name,
    most_surprised,
    residuals,
    rooted,
    unpack,
)
from pipelines.serving.trust import Abstention, PackedArray

_SCORE = "rooted_residuals"
#: Principal directions of a level, at most: the best of 16 to 128 on val where the head's level was
#: the only one (docs/adr/0013); with two levels 16 to 96 differ by little
#: (docs/experiments/abstention.md).
MAX_DIRECTIONS = 64
#: Directions with less than this share of the variance are rounding errors.
_MIN_SHARE = 1e-9
#: Residuals of known pictures that spread less than this do not spread at all.
_MIN_SPREAD = 1e-6
_TINY = 1e-300
#: Largest number of an int8, used on both sides of zero.
_INT8_MAX = 127


class Before(NamedTuple):
    """What the network before a refit gave, which had not seen val: (n, d) and (m, d)."""

    train_embedding: NDArray[np.floating[Any]]
    val_embedding: NDArray[np.floating[Any]]


def fit_abstention(
    train_embedding: NDArray[np.floating[Any]],
    val_embedding: NDArray[np.floating[Any]],
    acceptance: float,
    max_directions: int = MAX_DIRECTIONS,
    *,
    widths: Sequence[int] = (),
    before: Before | None = None,
) -> Abstention:
    """Mean and principal directions of known embeddings, and the threshold that val sets.

    Pictures that a network was trained on lie nearer to its directions than new ones: a network
    that was refitted on val too would refuse three times as many true pictures as it should
    (fish_species, docs/experiments/abstention.md). It is then described by train and val together,
    and how far new pictures lie is what the network ``before`` says of val (`expected_lengths`).

    Args:
        train_embedding: (n, d), of plain views through the file that is served.
        val_embedding: (m, d), the same of the val split.
        acceptance: share of known images that is to be accepted, in (0.5, 1).
        widths: of the embedding's levels, which add up to d; empty: one level.
        before: for a network that was trained on val too.

    Raises:
        DataError: if an array is empty or not finite.
    """
    given = {"train": train_embedding, "val": val_embedding}
    if before is not None:
        given |= {"train before the refit": before[0], "val before the refit": before[1]}
    for what, embedding in given.items():
        _check(what, embedding)
    widths = widths or [train_embedding.shape[1]]
    known = train_embedding
    if before is not None:
        known = np.concatenate([train_embedding, val_embedding])
    packed = _described(known, max_directions, widths)
    # Of the rounded arrays: the phone has no others.
    if before is None:
        lengths = residuals(val_embedding, _unpacked(packed))
    else:
        described = _unpacked(_described(before.train_embedding, max_directions, widths))
        lengths = expected_lengths(
            residuals(known, _unpacked(packed)),
            *(residuals(embedding, described) for embedding in before),
        )
    spread = lengths.std(axis=0)
    packed["centre"] = pack(lengths.mean(axis=0), "float32")
    packed["spread"] = pack(np.where(spread > _MIN_SPREAD, spread, 1.0), "float32")
    scores = most_surprised(lengths, _unpacked(packed))
    return Abstention(
        score=_SCORE,
        threshold=accepting_threshold(scores, acceptance),
        acceptance=acceptance,
        arrays=packed,
        n_train=len(known),
        n_val=len(lengths),
    )


def expected_lengths(
    trained: NDArray[np.float64],
    trained_before: NDArray[np.float64],
    new_before: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The residuals that new pictures would have, told from another network's of the same kind.

    A picture that was new to the other network is taken to lie as many times as far away as the
    pictures that this network was trained on as it lay in the other: one factor a level.

    Args:
        trained: (k, n_levels) residuals of pictures that this network was trained on.
        trained_before: (n, n_levels) of those that the other one was.
        new_before: (m, n_levels) of pictures that were new to the other one.

    Returns:
        (m, n_levels), from 0.

    References:
        Ours; what else was tried, and how many true pictures each refused:
        docs/experiments/abstention.md, "A threshold for a network that has seen val".
    """
    here, there = (
        np.log(np.maximum(lengths, _MIN_SPREAD)).mean(axis=0)
        for lengths in (trained, trained_before)
    )
    result: NDArray[np.float64] = new_before * np.exp(here - there)
    return result


def _check(what: str, embedding: NDArray[np.floating[Any]]) -> None:
    if not len(embedding) or not np.isfinite(embedding).all():
        raise DataError(
            f"abstention needs finite embeddings of {what} images, got {len(embedding)} "
            f"images, {int((~np.isfinite(embedding)).any(axis=1).sum())} of them with NaN or "
            f"infinity. Train again with a lower learning_rate."
        )


def _described(
    known: NDArray[np.floating[Any]], max_directions: int, widths: Sequence[int]
) -> dict[str, PackedArray]:
    """Mean and principal directions of each level, as the bundle holds them."""
    means, packed = [], {}
    for level, values in enumerate(np.split(known, np.cumsum(widths)[:-1], axis=1)):
        roots = rooted(values)
        means.append(roots.mean(axis=0))
        directions = principal_directions(roots - means[-1], max_directions)
        packed[basis_name(level)] = pack(directions, "int8")
    packed["mean"] = pack(np.concatenate(means), "float32")
    return packed


def _unpacked(packed: Mapping[str, PackedArray]) -> dict[str, NDArray[np.float64]]:
    return {name: unpack(array) for name, array in packed.items()}


def accepting_threshold(scores: NDArray[np.float64], acceptance: float) -> float:
    """The least score below which the next known image falls with the probability asked for.

    That is the ceil((m + 1) acceptance)-th smallest of m > 0 scores of val images, rounded up to 6
    decimals; the largest, if there are too few images (below 19 at 95 %) for any score to promise
    as much.

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
    """Numbers as a bundle holds them; int8 has one scale for all, that of the largest."""
    scale = 1.0
    if dtype == "int8":
        # As float32 holds it: the last bits of a double are those of a BLAS kernel.
        scale = float(np.float32(np.abs(array).max(initial=0.0) / _INT8_MAX)) or 1.0
        stored = np.rint(array / scale).astype(np.int8)
    else:
        stored = array.astype(np.dtype(dtype).newbyteorder("<"))
    data = base64.b64encode(np.ascontiguousarray(stored).tobytes()).decode("ascii")
    return PackedArray(shape=array.shape, dtype=dtype, scale=scale, data=data)
