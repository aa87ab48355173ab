"""Random views of a training image; the only module that imports albumentations.

Each transform stands for something that happens in the field: a crop for distance and framing, a
turn for how a hand holds a phone, brightness, contrast and colour for the light and the sensor,
blur for focus, noise for darkness, JPEG for messengers, a painted background for another place.
Val, test and calibration images never come here.

There is no segmentation behind the painted background. What is kept is a soft ellipse around the
middle, of random size and place, on the assumption that the subject is what the photographer aimed
at. Where it is not, some of the subject is painted over, and what of the background lies within the
ellipse stays.
"""

from __future__ import annotations

import math
import os
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.config.view import AugmentParams
from pipelines.data.preprocess import Geometry, geometry_of

#: Semi-axes of what is kept, as shares of half the picture's width and of half its height.
_MIN_AXIS, _MAX_AXIS = 0.6, 1.0
#: The middle moves at most so far, as a share of half the width and of half the height.
_MAX_SHIFT = 0.15
#: Width of the soft edge, as a share of the semi-axes.
_SOFTNESS = 0.15
#: Cells of the coarse noise along each side.
_MIN_CELLS, _MAX_CELLS = 2, 24


def paint_background(pixels: NDArray[np.uint8], share: float, seed: int) -> NDArray[np.uint8]:
    """A picture whose surroundings are, now and then, a plain colour or coarse coloured noise.

    A blurred copy of the surroundings is not among them: its colour would go on telling the label.

    Args:
        pixels: (h, w, 3), in [0, 255]; left alone, and given back where nothing is painted.
        share: probability that anything is painted, in [0, 1].
        seed: draws whether, where and what; the same for the same seed.

    References:
        Xiao et al. 2021, "Noise or signal: the role of image backgrounds in object recognition":
        backgrounds of another image in training lower what a model takes from them.
    """
    generator = np.random.default_rng([seed, 4])
    if generator.random() >= share:
        return pixels
    height_px, width_px = pixels.shape[:2]
    kept = _ellipse(height_px, width_px, generator)[:, :, np.newaxis]
    other = _surroundings(height_px, width_px, generator)
    blended = kept * pixels + (1 - kept) * other
    return np.rint(blended).astype(np.uint8)


def _ellipse(height_px: int, width_px: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """1 inside, 0 outside, falling in between."""
    axis_x, axis_y = generator.uniform(_MIN_AXIS, _MAX_AXIS, 2)
    shift_x, shift_y = generator.uniform(-_MAX_SHIFT, _MAX_SHIFT, 2)
    x = (_places(width_px) - shift_x) / axis_x
    y = (_places(height_px) - shift_y) / axis_y
    radius = np.sqrt(x[np.newaxis, :] ** 2 + y[:, np.newaxis] ** 2)
    kept: NDArray[np.float32] = np.clip((1 - radius) / _SOFTNESS + 0.5, 0, 1).astype(np.float32)
    return kept


def _places(n: int) -> NDArray[np.float64]:
    """Middles of n pixels in [-1, 1]."""
    return (2 * np.arange(n) + 1) / n - 1


def _surroundings(
    height_px: int, width_px: int, generator: np.random.Generator
) -> NDArray[np.float32]:
    n_cells = int(generator.integers(_MIN_CELLS, _MAX_CELLS + 1))
    if generator.random() < 0.5:
        colour = generator.integers(0, 256, 3)
        return np.broadcast_to(colour.astype(np.float32), (height_px, width_px, 3))
    cells = generator.integers(0, 256, (n_cells, n_cells, 3), dtype=np.uint8)
    noise = Image.fromarray(cells).resize((width_px, height_px), Image.Resampling.BICUBIC)
    return np.asarray(noise, dtype=np.float32)


# -- random views ---------------------------------------------------------------------------------
#: Share of the output's side beyond which more resolution before the crop shows no more detail.
_MAX_OVERSIZE = 1.6


class Views:
    """Random views of pictures, the same for the same seed. Not shared between threads."""

    def __init__(self, params: AugmentParams, image_px: int) -> None:
        self._compose = _compose(params, image_px)
        self._params, self._image_px = params, image_px
        self._background = params.background
        oversize = min(1 / math.sqrt(params.min_area), _MAX_OVERSIZE)
        self._source_px = math.ceil(image_px * oversize)

    def __call__(self, image: Image.Image, seeds: list[int]) -> list[NDArray[np.uint8]]:
        """A view a seed of one picture, which is shrunk only once.

        Each is (image_px, image_px, 3), in [0, 255]; a seed is in [0, 2**32).
        """
        size = self._source_size(image.size)
        if size != image.size:
            image = image.resize(size, Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        views = []
        for seed in seeds:
            source = paint_background(pixels, self._background, seed)
            self._compose.set_random_seed(seed)
            views.append(np.ascontiguousarray(self._compose(image=source)["image"]))
        return views

    def geometry(self, size: tuple[int, int], seeds: list[int]) -> list[Geometry]:
        """Where the views of `Views.__call__` show what: from px of the picture to px of the view.

        Exact to a pixel of the view: albumentations moves the middles of pixels.

        Args:
            size: width and height of the picture.
            seeds: one a view.
        """
        width, height = self._source_size(size)
        blank = np.zeros((height, width, 3), dtype=np.uint8)
        corners = np.array([[0, 0], [width, 0], [0, height]], dtype=np.float64)
        source = np.vstack([corners.T, np.ones(3)])
        shrunk, found = geometry_of((width / size[0], height / size[1])), []
        for seed in seeds:
            self._moving.set_random_seed(seed)
            moved = self._moving(image=blank, keypoints=corners - 0.5)["keypoints"] + 0.5
            view = np.vstack([np.asarray(moved).T, np.ones(3)])
            found.append(view @ np.linalg.inv(source) @ shrunk)
        return found

    @cached_property
    def _moving(self) -> Any:
        return _compose(self._params, self._image_px, is_of_points=True)

    def _source_size(self, size: tuple[int, int]) -> tuple[int, int]:
        scale = min(1.0, self._source_px / min(size))
        return round(size[0] * scale), round(size[1] * scale)


def _compose(params: AugmentParams, image_px: int, *, is_of_points: bool = False) -> Any:
    """The transforms; those of points draw the same, and mirror no point at the border."""
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
                border_mode=cv2.BORDER_CONSTANT if is_of_points else cv2.BORDER_REFLECT_101,
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
        ],
        keypoint_params=A.KeypointParams(format="xy", remove_invisible=False)
        if is_of_points
        else None,
    )
