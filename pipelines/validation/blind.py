"""Another folder's images, each decoded once: the model's answer, and how far blind models get.

A folder whose files give their labels away flatters every model that is tested on it. Called by
`validate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.audit import features as audit_features
from pipelines.audit import shortcuts
from pipelines.audit.features import BlindView, original_facts
from pipelines.data.images import read_file
from pipelines.data.manifest import Entry
from pipelines.data.pixel_range import outside_words
from pipelines.errors import DataError
from pipelines.kinds.classification.audit import blind
from pipelines.serving.predictor import Prediction, Predictor
from pipelines.validation.external import BlindScore


@dataclass(frozen=True, slots=True)
class Asked:
    """One image: the model's answer, and what the audits see of it."""

    entry: Entry
    prediction: Prediction
    blind: BlindView


def ask(folder: Path, entry: Entry, predictor: Predictor) -> Asked:
    """One image, decoded once.

    Raises:
        CorruptImageError: if it is not an image that may enter.
    """
    data = read_file(folder / entry.path, entry.path)
    opened = predictor.opened(data, name=entry.path)
    pixels = predictor.pixels(opened.rgb, name=entry.path)
    prediction = predictor.answer(pixels, outside=opened.outside)
    return Asked(entry, prediction, audit_features.blind_view(data, entry.path, pixels))


def probabilities_of(asked: Sequence[Asked]) -> NDArray[np.float64]:
    """(n, c) probabilities, in the order of the bundle's labels."""
    return np.array([list(each.prediction.probabilities.values()) for each in asked])


def beyond_range(asked: Sequence[Asked], predictor: Predictor) -> str:
    """What goes beyond the range of the training data, in one sentence; or empty."""
    most = max(asked, key=lambda each: each.prediction.outside)
    n_outside = sum(each.prediction.outside > 0 for each in asked)
    if not n_outside:
        return ""
    words = outside_words(most.prediction.outside, predictor.reading.range)
    return f"{n_outside:,} images go beyond the range; of {most.entry.path!r}, most: {words}"


def blind_features(folder: Path, asked: Sequence[Asked]) -> dict[str, NDArray[np.generic]]:
    """By audit, (n, d): what may be known of the images without looking at the subject.

    In the folder, records.csv may state what files were before they were scaled down.
    """
    stated = original_facts(folder)
    return audit_features.blind_features(
        [each.blind for each in asked], [stated.get(each.entry.path, {}) for each in asked]
    )


# -- blind models ---------------------------------------------------------------------------------
def blind_scores(
    features: Mapping[str, NDArray[np.generic]],
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    folds: int,
    seed: int,
    resamples: int,
) -> tuple[BlindScore, ...]:
    """Macro-F1 of each blind model, cross-validated by group over the labels that are present.

    Args:
        features: (n, d) by name of an audit (`pipelines.audit.shortcuts.AUDITS`).
        folds: wanted; fewer where a label has fewer groups.
        seed: draws folds, forests and resamples.
        resamples: of the intervals.

    Raises:
        DataError: if there is one label only, or a label with one group only.
    """
    present, class_index = np.unique(np.asarray(labels), return_inverse=True)
    if len(present) < 2:
        raise DataError(f"all images are '{labels[0]}': there is nothing to tell apart.")
    shared = blind(class_index, len(present), groups, folds, seed, resamples)
    scores = []
    for name, table in features.items():
        audit = shortcuts.AUDITS[name]
        scores.append(
            BlindScore(
                name=name,
                sees=audit.sees,
                decides=audit.decides,
                macro_f1=shared.interval(shared.told(table, "forest")),
            )
        )
    return tuple(scores)
