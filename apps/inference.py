"""From the bytes of a picture to a `Shot`: what happens between a tap and an answer.

No Streamlit widgets here, so that a benchmark can time it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from apps.models import Model
from apps.session import Scene, Shot, fitted, jpeg, thumb

#: Shorter side of a scene: a face that fills a tenth of it has 150 px.
SCENE_SIDE_PX = 1500

#: Finds what the task looks for in the upright picture, before the model is asked.
FindScene = Callable[[Model, Image.Image], Scene]


def answer_picture(
    model: Model,
    source: bytes | Path,
    *,
    key: str,
    name: str,
    truth: str | None = None,
    find: FindScene | None = None,
) -> Shot:
    """The answer for one picture.

    Raises:
        CorruptImageError: if it is not an image that may enter.
        BundleError: if the model cannot be used.
    """
    predictor = model.predictor()
    start = time.perf_counter()
    # With a scene, large enough that a face far off still has its pixels.
    least_side_px = SCENE_SIDE_PX if find is not None else 0
    opened = predictor.opened(source, name=name, least_side_px=least_side_px)
    image = opened.rgb
    pixels = predictor.pixels(image, name=name)
    prediction = predictor.answer(pixels, outside=opened.outside)
    scene = find(model, image) if find is not None else None
    elapsed_ms = (time.perf_counter() - start) * 1000
    view = fitted(image)
    return Shot(
        key=key,
        name=name,
        truth=truth,
        view=jpeg(view),
        thumb=thumb(view),
        pixels=pixels,
        prediction=prediction,
        elapsed_ms=elapsed_ms,
        scene=scene,
    )
