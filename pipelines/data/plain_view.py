"""The plain view that a task's params ask for; apart from training, so that nobody needs torch."""

from __future__ import annotations

from pipelines.card import DatasetCard, PixelRange
from pipelines.config import TrainParams
from pipelines.data.preprocess import Preprocess, View
from pipelines.data.reading import AS_IT_COMES, Reading


def preprocess_of(params: TrainParams, reading: Reading = AS_IT_COMES) -> Preprocess:
    """The plain view that a network of these params takes.

    Args:
        params: side, crop and what is taken away.
        reading: of the prepared set.
    """
    view = View(**dict(params.view))
    resize_px = round(params.image_px / params.crop_fraction)
    return Preprocess(resize_px, params.image_px, view, reading)


def reading_of(card: DatasetCard) -> Reading:
    """How the files of a data set are read.

    Args:
        card: states the range of deep pixels and the longest aspect.
    """
    stated = card.image.range
    scale = (stated.low, stated.high) if isinstance(stated, PixelRange) else stated
    return Reading(range=scale, max_aspect=card.image.max_aspect)
