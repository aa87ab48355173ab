"""Published scores by which a model may tell that a picture is foreign, for comparing them.

Every score is larger for more foreign pictures. Fitted on the train split alone; none sees a
foreign picture. The one that is served is in `pipelines.serving.out_of_distribution`;
benchmarks/abstention.py compares all of them, and docs/adr/0013 has the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Neighbour whose distance counts. Sun et al. 2022 take 50 of 50,000; here a few hundred are known.
_NEIGHBOUR = 5
#: Dimensions of the principal space of the residual scores, at most half of what there is.
_DIRECTIONS = 64


@dataclass(frozen=True, slots=True)
class Known:
    """What a model gives for images that it was trained on.

    Attributes:
        embedding: (n, d).
        logits: (n, c).
        class_index: (n,) true classes.
    """

    embedding: Floats
    logits: Floats
    class_index: NDArray[np.int64]


#: Embeddings (m, d) and logits (m, c) -> (m,) scores.
ForeignScore = Callable[[Floats, Floats], Floats]


def max_softmax(known: Known) -> ForeignScore:
    """Minus the largest probability.

    Args:
        known: unused.

    References:
        Hendrycks and Gimpel 2017, "A baseline for detecting misclassified and out-of-distribution
        examples in neural networks".
    """

    def score(embedding: Floats, logits: Floats) -> Floats:
        negative: Floats = -np.exp(logits.max(axis=1) - _log_sum_exp(logits))
        return negative

    return score


def energy(known: Known) -> ForeignScore:
    """Minus the log of the summed exponentials of the logits.

    Args:
        known: unused.

    References:
        Liu et al. 2020, "Energy-based out-of-distribution detection", equation 4, temperature 1.
    """

    def score(embedding: Floats, logits: Floats) -> Floats:
        return -_log_sum_exp(logits)

    return score


def mahalanobis(known: Known) -> ForeignScore:
    """Squared Mahalanobis distance to the nearest class, one covariance for all.

    Args:
        known: gives means and covariance, the latter shrunk (Ledoit and Wolf 2004), since there
            are fewer images than features.

    References:
        Lee et al. 2018, "A simple unified framework for detecting out-of-distribution samples and
        adversarial attacks", equations 1 and 2, on the last layer.
    """
    return _nearest_class(known, lambda embedding: embedding)


def normalised_mahalanobis(known: Known) -> ForeignScore:
    """`mahalanobis` of embeddings of length 1.

    Args:
        known: as there.

    References:
        Müller and Hein 2025, "Mahalanobis++: improving OOD detection via feature normalization".
    """
    return _nearest_class(known, _of_length_1)


def relative_mahalanobis(known: Known) -> ForeignScore:
    """`mahalanobis`, less the same distance to all classes taken as one.

    Args:
        known: as there.

    References:
        Ren et al. 2021, "A simple fix to Mahalanobis distance for improving near-OOD detection".
    """
    nearest = mahalanobis(known)
    mean = known.embedding.mean(axis=0)
    precision = _precision(known.embedding - mean)

    def score(embedding: Floats, logits: Floats) -> Floats:
        return nearest(embedding, logits) - _squared(embedding - mean, precision)

    return score


def nearest_neighbours(known: Known) -> ForeignScore:
    """Distance to the fifth nearest known embedding, all of length 1.

    Args:
        known: all of them are kept.

    References:
        Sun et al. 2022, "Out-of-distribution detection with deep nearest neighbors".
    """
    bank = _of_length_1(known.embedding)
    place = min(_NEIGHBOUR, len(bank)) - 1

    def score(embedding: Floats, logits: Floats) -> Floats:
        squared = 2 - 2 * _of_length_1(embedding) @ bank.T
        return np.sqrt(np.maximum(np.partition(squared, place, axis=1)[:, place], 0))

    return score


def residual(known: Known) -> ForeignScore:
    """Length of what an embedding has outside the principal space of the known ones.

    Args:
        known: gives mean and principal space.

    References:
        Wang et al. 2022, "ViM: out-of-distribution with virtual-logit matching", section 4.1;
        Ndiour et al. 2020, "Out-of-distribution detection with subspace techniques and
        probabilistic modeling of features".
    """
    return _residual(known, lambda embedding: embedding)


def normalised_residual(known: Known) -> ForeignScore:
    """`residual` of embeddings of length 1.

    Args:
        known: as there.

    References:
        `residual` and `normalised_mahalanobis` put together.
    """
    return _residual(known, _of_length_1)


def virtual_logit(known: Known) -> ForeignScore:
    """`residual`, scaled to be a logit of its own, against the energy of the others.

    Args:
        known: gives principal space and scale.

    References:
        Wang et al. 2022, "ViM: out-of-distribution with virtual-logit matching", equation 7 before
        the softmax, which keeps the order.
    """
    outside = residual(known)
    lengths = outside(known.embedding, known.logits)
    scale = float(known.logits.max(axis=1).sum() / max(float(lengths.sum()), 1e-12))

    def score(embedding: Floats, logits: Floats) -> Floats:
        return scale * outside(embedding, logits) - _log_sum_exp(logits)

    return score


FOREIGN_SCORES: dict[str, Callable[[Known], ForeignScore]] = {
    "max_softmax": max_softmax,
    "energy": energy,
    "mahalanobis": mahalanobis,
    "normalised_mahalanobis": normalised_mahalanobis,
    "relative_mahalanobis": relative_mahalanobis,
    "nearest_neighbours": nearest_neighbours,
    "residual": residual,
    "normalised_residual": normalised_residual,
    "virtual_logit": virtual_logit,
}


def _nearest_class(known: Known, prepare: Callable[[Floats], Floats]) -> ForeignScore:
    features = prepare(known.embedding)
    classes = np.unique(known.class_index)
    means = np.stack([features[known.class_index == index].mean(axis=0) for index in classes])
    place = np.searchsorted(classes, known.class_index)
    precision = _precision(features - means[place])

    def score(embedding: Floats, logits: Floats) -> Floats:
        x = prepare(embedding)
        nearest: Floats = np.min([_squared(x - mean, precision) for mean in means], axis=0)
        return nearest

    return score


def _residual(known: Known, prepare: Callable[[Floats], Floats]) -> ForeignScore:
    features = prepare(known.embedding)
    mean = features.mean(axis=0)
    n, d = features.shape
    k = max(1, min(_DIRECTIONS, n // 2, d // 2))
    basis = np.linalg.svd(features - mean, full_matrices=False)[2][:k]  # (k, d)

    def score(embedding: Floats, logits: Floats) -> Floats:
        x = prepare(embedding) - mean
        lengths: Floats = np.linalg.norm(x - x @ basis.T @ basis, axis=1)
        return lengths

    return score


def _precision(centred: Floats) -> Floats:
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(centred, assume_centered=True)
    # Features that never move have no variance to divide by.
    floor = 1e-9 * max(float(np.trace(covariance)) / len(covariance), 1e-12)
    result: Floats = np.linalg.inv(covariance + floor * np.eye(len(covariance)))
    return result


def _squared(centred: Floats, precision: Floats) -> Floats:
    result: Floats = np.sum((centred @ precision) * centred, axis=1)
    return result


def _of_length_1(embedding: Floats) -> Floats:
    result: Floats = embedding / np.maximum(np.linalg.norm(embedding, axis=1, keepdims=True), 1e-12)
    return result


def _log_sum_exp(logits: Floats) -> Floats:
    top = logits.max(axis=1)
    result: Floats = top + np.log(np.exp(logits - top[:, np.newaxis]).sum(axis=1))
    return result
