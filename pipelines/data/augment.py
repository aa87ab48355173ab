"""Random views of a training image; the only module that imports albumentations.

Each transform stands for something that happens in the field: a crop for distance and framing, a
turn for how a hand holds a phone, brightness, contrast and colour for the light and the sensor,
blur for focus, noise for darkness, JPEG for messengers, a painted background for another place.
Val, test and calibration images never come here.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.config import AugmentParams
from pipelines.data.background import paint_background

#: Share of the output's side beyond which more resolution before the crop shows no more detail.
_MAX_OVERSIZE = 1.6


class Views:
    """Random views of pictures, the same for the same seed. Not shared between threads."""

    def __init__(self, params: AugmentParams, image_px: int) -> None:
        """Build the transforms.

        Args:
            params: how far each one goes.
            image_px: side of a view.
        """
        self._compose = _compose(params, image_px)
        self._background = params.background
        oversize = min(1 / math.sqrt(params.min_area), _MAX_OVERSIZE)
        self._source_px = math.ceil(image_px * oversize)

    def __call__(self, image: Image.Image, seed: int) -> NDArray[np.uint8]:
        """One view.

        Args:
            image: upright RGB.
            seed: draws the view, in [0, 2**32).

        Returns:
            (image_px, image_px, 3), in [0, 255].
        """
        return self.many(image, [seed])[0]

    def many(self, image: Image.Image, seeds: list[int]) -> list[NDArray[np.uint8]]:
        """Several views of one picture, which is shrunk only once.

        Args:
            image: upright RGB.
            seeds: one a view, each in [0, 2**32).

        Returns:
            A (image_px, image_px, 3) array in [0, 255] a seed.
        """
        shorter = min(image.size)
        if shorter > self._source_px:
            scale = self._source_px / shorter
            size = (round(image.width * scale), round(image.height * scale))
            image = image.resize(size, Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        views = []
        for seed in seeds:
            source = (
                paint_background(pixels, self._background, seed) if self._background else pixels
            )
            self._compose.set_random_seed(seed)
            view: NDArray[np.uint8] = self._compose(image=source)["image"]
            views.append(np.ascontiguousarray(view))
        return views


def _compose(params: AugmentParams, image_px: int) -> Any:
    # Read at import: without it albumentations asks the package index for a newer version.
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations as A
    import cv2

    # The threads are ours (one a picture); OpenCV's own would fight with them.
    cv2.setNumThreads(0)
    colour = max(params.brightness, params.contrast, params.saturation, params.hue) > 0
    return A.Compose(
        [
            A.RandomResizedCrop(
                size=(image_px, image_px),
                scale=(params.min_area, 1.0),
                ratio=(1 / params.max_aspect, params.max_aspect),
                interpolation=cv2.INTER_LINEAR,
            ),
            A.HorizontalFlip(p=0.5 if params.horizontal_flip else 0.0),
            A.VerticalFlip(p=0.5 if params.vertical_flip else 0.0),
            A.Rotate(
                limit=params.rotate_deg,
                border_mode=cv2.BORDER_REFLECT_101,
                p=0.7 if params.rotate_deg > 0 else 0.0,
            ),
            A.ColorJitter(
                brightness=(1 - params.brightness, 1 + params.brightness),
                contrast=(1 - params.contrast, 1 + params.contrast),
                saturation=(1 - params.saturation, 1 + params.saturation),
                hue=(-params.hue, params.hue),
                p=0.8 if colour else 0.0,
            ),
            A.GaussianBlur(blur_limit=(3, 5), p=params.blur),
            A.GaussNoise(std_range=(0.01, 0.05), p=params.noise),
            A.ImageCompression(quality_range=(50, 95), p=params.jpeg),
        ]
    )
