"""Another background for a training image, without knowing where the subject is.

There is no segmentation here. What is kept is a soft ellipse around the middle, of random size and
place, on the assumption that the subject is what the photographer aimed at. Where it is not, some
of the subject is painted over, and what of the background lies within the ellipse stays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
        pixels: (h, w, 3), in [0, 255]; left alone.
        share: probability that anything is painted, in [0, 1].
        seed: draws whether, where and what; the same for the same seed.

    Returns:
        (h, w, 3), in [0, 255]; ``pixels`` itself where nothing is painted.

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
