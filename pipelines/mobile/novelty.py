"""How unlike the pictures that a model knows one picture is, told from its embedding.

NumPy only, and pure: a browser computes the same from the same arrays (tests/golden/novelty.json
holds both to it). The arrays are fitted by `pipelines.evaluation.abstention`; the predictor asks.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import BundleError
from pipelines.mobile.trust import Abstention, PackedArray

Arrays = Mapping[str, NDArray[np.float64]]
Score = Callable[[NDArray[np.floating[Any]], Arrays], NDArray[np.float64]]

_NUMPY_TYPES = {"float32": "<f4", "float16": "<f2", "int8": "i1"}


def unpack(packed: PackedArray) -> NDArray[np.float64]:
    """The numbers of a packed array.

    Args:
        packed: of a bundle.
    """
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


def root_residual(embedding: NDArray[np.floating[Any]], arrays: Arrays) -> NDArray[np.float64]:
    """Length of the part of a rooted embedding that known pictures do not have.

    With ``x = rooted(embedding) - mean``: the length of ``x - basisᵀ (basis x)``.

    Args:
        embedding: (n, d).
        arrays: ``mean`` (d,) of the rooted embeddings of known pictures, and ``basis`` (k, d),
            their k principal directions.

    Returns:
        (n,), from 0 to 2; larger is more foreign.

    References:
        Wang et al. 2022, "ViM: out-of-distribution with virtual-logit matching", section 4.1 (the
        residual against the principal space), here of `rooted` embeddings: docs/adr/0013.
    """
    x = rooted(embedding) - arrays["mean"]  # (n, d)
    inside = x @ arrays["basis"].T  # (n, k)
    result: NDArray[np.float64] = np.linalg.norm(x - inside @ arrays["basis"], axis=1)
    return result


#: Scores that a bundle may name.
SCORES: dict[str, Score] = {"root_residual": root_residual}


@dataclass(frozen=True, slots=True)
class Novelty:
    """A fitted score with its threshold, ready to be asked.

    Attributes:
        abstention: what the bundle says.
        arrays: its arrays, unpacked.
    """

    abstention: Abstention
    arrays: Arrays

    @classmethod
    def load(cls, abstention: Abstention, n_features: int) -> Novelty:
        """Unpack the arrays and check that they fit the model.

        Args:
            abstention: of a bundle.
            n_features: d, length of the model's embedding.

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
        shapes = {name: array.shape for name, array in arrays.items()}
        k = shapes.get("basis", (0,))[0]
        expected = {"mean": (n_features,), "basis": (k, n_features)}
        if shapes != expected or not all(np.isfinite(array).all() for array in arrays.values()):
            raise BundleError(
                f"abstention.arrays: expected finite numbers in mean ({n_features},) and basis "
                f"(k, {n_features}), got {shapes or 'none'}. Make the bundle again with "
                f"`dvc repro`."
            )
        return cls(abstention, arrays)

    def judge(
        self, embedding: NDArray[np.floating[Any]]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """How foreign pictures are, and which are more so than the threshold; NaN is.

        Args:
            embedding: (n, d).

        Returns:
            (n,) scores, larger for more foreign ones, and (n,) verdicts.
        """
        scores = SCORES[self.abstention.score](embedding, self.arrays)
        return scores, ~(scores <= self.abstention.threshold)
