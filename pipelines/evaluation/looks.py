"""One look at each image of another folder: the model's answer, and what a blind model would see.

Called by `validate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.data import blind_looks
from pipelines.data.blind_looks import Look
from pipelines.data.deep import outside_words
from pipelines.data.file_facts import original_facts
from pipelines.data.images import read_file
from pipelines.data.manifest import Entry
from pipelines.mobile.predictor import Prediction, Predictor


@dataclass(frozen=True, slots=True)
class Looked:
    """One image.

    Attributes:
        entry: path, label and group.
        prediction: of the model.
        look: what the audits see of it.
    """

    entry: Entry
    prediction: Prediction
    look: Look


def look_at(folder: Path, entry: Entry, predictor: Predictor) -> Looked:
    """One image, decoded once.

    Args:
        folder: that the entry's path is relative to.
        entry: the image.
        predictor: asked about it.

    Raises:
        CorruptImageError: if it is not an image that may enter.
    """
    data = read_file(folder / entry.path, entry.path)
    opened = predictor.opened(data, name=entry.path)
    pixels = predictor.pixels(opened.rgb, name=entry.path)
    prediction = predictor.answer(pixels, outside=opened.outside)
    return Looked(entry, prediction, blind_looks.look(data, entry.path, pixels))


def probabilities_of(looked: Sequence[Looked]) -> NDArray[np.float64]:
    """(n, c) probabilities, in the order of the bundle's labels.

    Args:
        looked: n images.
    """
    return np.array([list(each.prediction.probabilities.values()) for each in looked])


def beyond_range(looked: Sequence[Looked], predictor: Predictor) -> str:
    """What goes beyond the range of the training data, in one sentence; or empty.

    Args:
        looked: at least one image.
        predictor: that looked.
    """
    most = max(looked, key=lambda each: each.prediction.outside)
    n_outside = sum(each.prediction.outside > 0 for each in looked)
    if not n_outside:
        return ""
    words = outside_words(most.prediction.outside, predictor.reading.range)
    return f"{n_outside:,} images go beyond the range; of {most.entry.path!r}, most: {words}"


def blind_features(folder: Path, looked: Sequence[Looked]) -> dict[str, NDArray[np.generic]]:
    """By audit, (n, d): what may be known of the images without looking at the subject.

    Args:
        folder: where records.csv may state what files were before they were scaled down.
        looked: n images.
    """
    stated = original_facts(folder)
    return blind_looks.blind_features(
        [each.look for each in looked], [stated.get(each.entry.path, {}) for each in looked]
    )
