"""One look at each image of another folder: the model's answer, and what a blind model would see.

Called by `validate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.data import low_level
from pipelines.data.file_facts import FileFacts, facts_table, file_facts, original_facts
from pipelines.data.images import open_image, read_file
from pipelines.data.manifest import Entry
from pipelines.mobile.predictor import Prediction, Predictor


@dataclass(frozen=True, slots=True)
class Looked:
    """One image.

    Attributes:
        entry: path, label and group.
        prediction: of the model.
        facts: of the file.
        border: as `low_level.border`.
        thumbnail: as `low_level.thumbnail`.
        colours: as `low_level.colours`.
    """

    entry: Entry
    prediction: Prediction
    facts: FileFacts
    border: NDArray[np.uint8]
    thumbnail: NDArray[np.uint8]
    colours: NDArray[np.float32]


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
    rgb = open_image(data, name=entry.path).rgb
    pixels = predictor.pixels(rgb)
    return Looked(
        entry,
        predictor.predict(rgb),
        file_facts(data, entry.path),
        low_level.border(pixels),
        low_level.thumbnail(pixels),
        low_level.colours(pixels),
    )


def probabilities_of(looked: Sequence[Looked]) -> NDArray[np.float64]:
    """(n, c) probabilities, in the order of the bundle's labels.

    Args:
        looked: n images.
    """
    return np.array([list(each.prediction.probabilities.values()) for each in looked])


def blind_features(folder: Path, looked: Sequence[Looked]) -> dict[str, NDArray[np.generic]]:
    """By audit, (n, d): what may be known of the images without looking at the subject.

    Args:
        folder: where records.csv may state what files were before they were scaled down.
        looked: n images.
    """
    stated = original_facts(folder)
    return {
        "file_facts": facts_table(
            [each.facts for each in looked], [stated.get(each.entry.path, {}) for each in looked]
        ),
        "border": np.stack([each.border for each in looked]),
        "thumbnail": np.stack([each.thumbnail for each in looked]),
        "colour": np.stack([each.colours for each in looked]),
    }
