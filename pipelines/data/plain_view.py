"""The plain view that a task's params ask for; apart from training, so that nobody needs torch."""

from __future__ import annotations

from pipelines.config import TrainParams
from pipelines.data.preprocess import Preprocess, View


def preprocess_of(params: TrainParams) -> Preprocess:
    """The plain view that a network of these params takes.

    Args:
        params: side, crop and what is taken away.
    """
    view = View(**dict(params.view))
    return Preprocess(round(params.image_px / params.crop_fraction), params.image_px, view)
