"""How unlike the pictures that a model knows one picture is, told from its embedding.

NumPy only, and pure: a browser computes the same from the same arrays, to which
tests/golden/out_of_distribution.json holds both. The arrays are fitted by
`pipelines.metrics.abstention`; the predictor asks.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import BundleError
from pipelines.serving.trust import Abstention, PackedArray

Arrays = Mapping[str, NDArray[np.float64]]
Score = Callable[[NDArray[np.floating[Any]], Arrays], NDArray[np.float64]]

_NUMPY_TYPES = {"float32": "<f4", "float16": "<f2", "int8": "i1"}


def unpack(packed: PackedArray) -> NDArray[np.float64]:
    """The numbers of a packed array."""
    stored = np.frombuffer(base64.b64decode(packed.data), dtype=_NUMPY_TYPES[packed.dtype])
    numbers: NDArray[np.float64] = stored.astype(np.float64) * packed.scale
    return numbers.reshape(packed.shape)


def rooted(embedding: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Embeddings with the signed square root of each value, then of length 1.

    What is left is which features are there, whatever the contrast of the picture, and one loud
    feature does not drown the others. An embedding of zeros stays one.

    Args:
        embedding: (n, d).

    Returns:
        (n, d); rows have length 1 or 0.

    References:
        Perronnin, Sánchez and Mensink 2010, "Improving the Fisher kernel for large-scale image
        classification", sections 3.1 and 3.2 (L2 and power normalisation, alpha = 0.5).
    """
    wide = embedding.astype(np.float64)
    roots = np.sign(wide) * np.sqrt(np.abs(wide))
    lengths = np.linalg.norm(roots, axis=1, keepdims=True)
    result: NDArray[np.float64] = roots / np.where(lengths > 0, lengths, 1.0)
    return result


def basis_name(level: int) -> str:
    """The array that holds the principal directions of a level."""
    return f"basis_{level}"


def residuals(embedding: NDArray[np.floating[Any]], arrays: Arrays) -> NDArray[np.float64]:
    """Lengths of the parts of rooted embeddings that known pictures do not have, level by level.

    With ``x = rooted(level's values) - mean``: the length of ``x - basisᵀ (basis x)``.

    Args:
        embedding: (n, d), the values of one level after the other.
        arrays: ``mean`` (d,) of the rooted levels of known pictures, and for each level of width w
            their k principal directions, ``basis_0`` (k, w) and so on.

    Returns:
        (n, n_levels), from 0 to 2.

    References:
        Wang et al. 2022, "ViM: out-of-distribution with virtual-logit matching", section 4.1 (the
        residual against the principal space), here of `rooted` embeddings: docs/adr/0013.
    """
    lengths: list[NDArray[np.float64]] = []
    start = 0
    while (name := basis_name(len(lengths))) in arrays:
        basis = arrays[name]
        level = slice(start, start + basis.shape[1])
        x = rooted(embedding[:, level]) - arrays["mean"][level]  # (n, w)
        inside = x @ basis.T  # (n, k)
        lengths.append(np.linalg.norm(x - inside @ basis, axis=1))
        start = level.stop
    return np.stack(lengths, axis=1)


def standard_scores(lengths: NDArray[np.float64], arrays: Arrays) -> NDArray[np.float64]:
    """How far the residual of each level is above that of known pictures.

    Args:
        lengths: (n, n_levels) of `residuals`.
        arrays: ``centre`` and ``spread`` (n_levels,): mean and standard deviation of each level's
            residual on known pictures that nothing was fitted to.

    Returns:
        (n, n_levels), in standard deviations.
    """
    scores: NDArray[np.float64] = (lengths - arrays["centre"]) / arrays["spread"]
    return scores


def most_surprised(lengths: NDArray[np.float64], arrays: Arrays) -> NDArray[np.float64]:
    """(n,), the largest of the levels' standard scores; larger is further out.

    References:
        Tippett 1931, "The methods of statistics": of several tests the most significant decides.
        Why two levels, and why not their sum: docs/adr/0018.
    """
    result: NDArray[np.float64] = standard_scores(lengths, arrays).max(axis=1)
    return result


def rooted_residuals(embedding: NDArray[np.floating[Any]], arrays: Arrays) -> NDArray[np.float64]:
    """`most_surprised` of the `residuals`."""
    return most_surprised(residuals(embedding, arrays), arrays)


#: Scores that a bundle may name.
SCORES: dict[str, Score] = {"rooted_residuals": rooted_residuals}


@dataclass(frozen=True, slots=True)
class OutOfDistribution:
    """A fitted score with its threshold, ready to be asked."""

    abstention: Abstention
    arrays: Arrays

    @classmethod
    def load(cls, abstention: Abstention, n_features: int) -> OutOfDistribution:
        """Unpack the arrays and check that they fit the model.

        Raises:
            BundleError: if the score is unknown, or an array is missing, of a wrong shape or not
                finite.
        """
        if abstention.score not in SCORES:
            raise BundleError(
                f"abstention.score: expected one of {', '.join(SCORES)}, got "
                f"{abstention.score!r}. Use the Fieldlens version that made the bundle, or make it "
                f"again with `dvc repro`."
            )
        arrays = {name: unpack(packed) for name, packed in abstention.arrays.items()}
        if not _are_fit(arrays, n_features):
            got = {name: array.shape for name, array in arrays.items()}
            raise BundleError(
                f"abstention.arrays: expected finite numbers in mean ({n_features},), basis_0 "
                f"(k, w), basis_1 and so on with widths that add up to {n_features}, and centre "
                f"and spread above 0 with a number for each; got {got or 'none'}. Make the bundle "
                f"again with `dvc repro`."
            )
        return cls(abstention, arrays)

    def judge(
        self, embedding: NDArray[np.floating[Any]]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """How far out pictures are, and which are further than the threshold; NaN is.

        Args:
            embedding: (n, d).

        Returns:
            (n,) scores, larger for those further out, and (n,) verdicts.
        """
        scores = SCORES[self.abstention.score](embedding, self.arrays)
        return scores, ~(scores <= self.abstention.threshold)


def _are_fit(arrays: Arrays, n_features: int) -> bool:
    shapes = {name: array.shape for name, array in arrays.items()}
    bases = [shape for name, shape in shapes.items() if name.startswith("basis_")]
    n_levels = len(bases)
    names = {"mean", "centre", "spread", *map(basis_name, range(n_levels))}
    return (
        n_levels > 0
        and shapes.keys() == names
        and all(len(shape) == 2 for shape in bases)
        and shapes["mean"] == (n_features,) == (sum(shape[-1] for shape in bases),)
        and shapes["centre"] == shapes["spread"] == (n_levels,)
        and all(np.isfinite(array).all() for array in arrays.values())
        and bool((arrays["spread"] > 0).all())
    )
