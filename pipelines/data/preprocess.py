"""A picture -> the pixels that a model sees; the only such path, but for training's random views.

Training, calibration, evaluation, the audit, the predictor and the apps all come through
`Preprocess`; random views are cut in `pipelines.data.augment`. A `View` is what it takes away from
every picture before anything looks at it: colour, sharpness, the border. All views are off by
default (ADR 0014). NumPy and Pillow alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.data.pixel_range import AS_IT_COMES, Reading

#: Of the resize before the crop, antialiased.
Interpolation: TypeAlias = Literal["bilinear", "bicubic"]
_FILTERS: dict[Interpolation, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

#: What is painted over a masked border: the middle of [0, 255].
MASK_VALUE = 128

#: Of a longer picture, only the middle is resized: all that the model may see of it, and more.
#: Without it, a line of 1 × 40,000 pixels would become 10 gigabytes. Pictures up to 4:1 are resized
#: whole, as ever.
_RESIZED_ASPECT = 4

#: A framed picture that random crops are cut from has at most so many times the input's side.
_VISIBLE_SIDES = 2

#: A wider mask would leave less than a tenth of the side to look at.
MAX_BORDER_MASK = 0.45


#: (3, 3) from px of one picture to px of another, as columns (x, y, 1). They run along the edges of
#: pixels: a side of n px goes from 0 to n. The inverse leads back.
Geometry: TypeAlias = NDArray[np.float64]


def geometry_of(
    scale: tuple[float, float] = (1.0, 1.0), cut: tuple[float, float] = (0.0, 0.0)
) -> Geometry:
    """A resize, then a cut.

    Args:
        scale: of x and of y.
        cut: px at the left and at the top that go.
    """
    return np.array([[scale[0], 0, -cut[0]], [0, scale[1], -cut[1]], [0, 0, 1]], dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What every picture has taken away, so that labels cannot be told by it.

    Attributes:
        grey: one channel, three times: Rec. 601 luma as Pillow rounds it. A picture that was
            stored grey and one that was stored in colour then look the same.
        side_px: the shorter side that every picture is brought to first (bilinear, antialiased),
            whatever it was; null leaves it. Choose it no larger than the data's small pictures:
            those are enlarged to it and stay blurred.
        border_mask: share of the input's side that is painted grey along each edge.
        whole: nothing is taken away: the longer side becomes the input's, and what is beside the
            picture is painted grey. For answers that have a place. Without the two above.

    References:
        ITU-R BT.601-7 (2011), section 2.5.1: luma is 0.299 R + 0.587 G + 0.114 B.
    """

    grey: bool = False
    side_px: int | None = None
    border_mask: float = 0.0
    whole: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.whole and (self.side_px is not None or self.border_mask):
            raise ValueError("whole: a whole picture has no side_px and no border_mask")
        if self.side_px is not None and self.side_px < 1:
            raise ValueError(f"side_px must be at least 1, got {self.side_px}")
        if not 0 <= self.border_mask <= MAX_BORDER_MASK:
            raise ValueError(
                f"border_mask must be from 0 to {MAX_BORDER_MASK}, got {self.border_mask}"
            )


_OFF = View()


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How a picture becomes the pixels that a model sees; travels inside the bundle.

    Attributes:
        resize_px: the shorter side after resizing (antialiased, aspect kept).
        crop_px: side of the central square that is kept; at most ``resize_px``.
        view: what is taken away before and after.
        reading: how files become the pictures that it takes; for `open_image`.
        interpolation: of that resize; what the backbone's weights were trained with.
    """

    resize_px: int
    crop_px: int
    view: View = _OFF
    reading: Reading = AS_IT_COMES
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be."""
        if not 1 <= self.crop_px <= self.resize_px:
            raise ValueError(
                f"crop_px must be from 1 to resize_px ({self.resize_px}), got {self.crop_px}"
            )
        if self.view.whole and self.crop_px != self.resize_px:
            raise ValueError(
                f"whole: the whole picture is seen where crop_px is resize_px ({self.resize_px}; "
                f"crop_fraction 1), got {self.crop_px}"
            )

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """The model's input for one upright RGB picture: (crop_px, crop_px, 3), in [0, 255]."""
        if self.view.whole:
            return np.asarray(self._framed(image, self.crop_px), dtype=np.uint8)
        # Memory goes with the model's input, not with the picture's length.
        resized = self.resize(self._normalised(image))
        left = (resized.width - self.crop_px) // 2
        top = (resized.height - self.crop_px) // 2
        cropped = resized.crop((left, top, left + self.crop_px, top + self.crop_px))
        return self.finish(self.inner(np.asarray(cropped, dtype=np.uint8)))

    def geometry(self, size: tuple[int, int]) -> Geometry:
        """Where the model's input shows what: from px of the picture to px of the input.

        Args:
            size: width and height of the upright picture.
        """
        if self.view.whole:
            return _framed_geometry(size, self.crop_px)
        placed, size = self._placed(size)
        wider = _resized(size, self.resize_px)
        cut = ((wider[0] - self.crop_px) // 2, (wider[1] - self.crop_px) // 2)
        scale = (wider[0] / size[0], wider[1] / size[1])
        found: Geometry = geometry_of(scale, cut) @ placed
        return found

    def _placed(self, size: tuple[int, int]) -> tuple[Geometry, tuple[int, int]]:
        """What `_normalised` does to a picture's places, and its size then."""
        middle = _middle_size(size)
        cut = ((size[0] - middle[0]) // 2, (size[1] - middle[1]) // 2)
        side = self.view.side_px
        new = middle if side is None else _resized(middle, side)
        return geometry_of((new[0] / middle[0], new[1] / middle[1])) @ geometry_of(cut=cut), new

    def visible_geometry(self, size: tuple[int, int]) -> tuple[Geometry, tuple[int, int]]:
        """From px of the picture to px of what `visible` leaves of it, and the size of that.

        Args:
            size: width and height of the upright picture.
        """
        if self.view.whole:
            side = self._visible_side(size)
            return _framed_geometry(size, side), (side, side)
        placed, size = self._placed(size)
        left, top, right, bottom = self._visible_box(size)
        found: Geometry = geometry_of(cut=(left, top)) @ placed
        return found, (right - left, bottom - top)

    def resize(self, image: Image.Image) -> Image.Image:
        """The picture with its shorter side at ``resize_px``."""
        return _with_side(image, self.resize_px, _FILTERS[self.interpolation])

    @property
    def border_px(self) -> int:
        """Width of the masked border, rounded down: that leaves at least one pixel to see."""
        return int(self.view.border_mask * self.crop_px)

    @property
    def inner_px(self) -> int:
        """Side of what the masked border leaves to see."""
        return self.crop_px - 2 * self.border_px

    def visible(self, image: Image.Image) -> Image.Image:
        """The picture that random views are drawn from; the same picture if the view is off.

        Under a masked border it ends where the plain view's does: else a random crop would bring
        into the middle what the mask is there to hide. A whole picture is framed as the plain view
        is, at up to twice its size, so that random crops show things as large as it does.
        """
        if self.view.whole:
            return self._framed(image, self._visible_side(image.size))
        image = self._normalised(image)
        return image.crop(self._visible_box(image.size)) if self.border_px else image

    def _visible_side(self, size: tuple[int, int]) -> int:
        return max(self.crop_px, min(_VISIBLE_SIDES * self.crop_px, max(size)))

    def _framed(self, image: Image.Image, side_px: int) -> Image.Image:
        """The whole picture in the middle of a square, grey beside it."""
        size, (left, top) = _in_square(image.size, side_px)
        resized = image.resize(size, _FILTERS[self.interpolation], reducing_gap=None)
        framed = Image.new("RGB", (side_px, side_px), (MASK_VALUE,) * 3)
        framed.paste(resized, (left, top))
        return _grey(framed) if self.view.grey else framed

    def _visible_box(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        if not self.border_px:
            return (0, 0, *size)
        shorter = min(size)
        side = min(shorter, max(1, round(self.inner_px * shorter / self.resize_px)))
        left, top = (size[0] - side) // 2, (size[1] - side) // 2
        return left, top, left + side, top + side

    def inner(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What the masked border leaves of a view: a painted edge says nothing of its data.

        From (crop_px, crop_px, 3) to (inner_px, inner_px, 3); ``pixels`` itself if the view is off.
        """
        edge = self.border_px
        return pixels[edge : self.crop_px - edge, edge : self.crop_px - edge] if edge else pixels

    def finish(self, inner: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The model's input around what it may see; ``inner`` itself if the view is off.

        From (inner_px, inner_px, 3) to (crop_px, crop_px, 3), both in [0, 255].
        """
        if self.view.grey:
            # Again, since augmentation tints; a grey picture is left as it is.
            inner = np.asarray(_grey(Image.fromarray(inner)), dtype=np.uint8)
        edge = self.border_px
        if not edge:
            return inner
        framed = np.full((self.crop_px, self.crop_px, 3), MASK_VALUE, dtype=np.uint8)
        framed[edge : self.crop_px - edge, edge : self.crop_px - edge] = inner
        return framed

    def _normalised(self, image: Image.Image) -> Image.Image:
        image = _middle(image)
        if self.view.grey:
            image = _grey(image)
        if self.view.side_px is not None:
            image = _with_side(image, self.view.side_px)
        return image


def _in_square(size: tuple[int, int], side_px: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """A picture's size with its longer side at that of a square, and its left and top in it."""
    scale = side_px / max(size)
    width, height = (min(side_px, max(1, round(side * scale))) for side in size)
    # Rounded up, so that what lies within the same margin at the other end is the picture.
    return (width, height), (-((width - side_px) // 2), -((height - side_px) // 2))


def _framed_geometry(size: tuple[int, int], side_px: int) -> Geometry:
    new, (left, top) = _in_square(size, side_px)
    return geometry_of((new[0] / size[0], new[1] / size[1]), (-left, -top))


def _middle(image: Image.Image) -> Image.Image:
    """The middle of a long picture; any other is given back as it is."""
    width, height = _middle_size(image.size)
    if (width, height) == image.size:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _middle_size(size: tuple[int, int]) -> tuple[int, int]:
    most = _RESIZED_ASPECT * min(size)
    return min(size[0], most), min(size[1], most)


def _grey(image: Image.Image) -> Image.Image:
    return image.convert("L").convert("RGB")


def _with_side(
    image: Image.Image,
    side_px: int,
    resampling: Image.Resampling = Image.Resampling.BILINEAR,
) -> Image.Image:
    size = _resized(image.size, side_px)
    if size == image.size:
        return image
    return image.resize(size, resampling, reducing_gap=None)


def _resized(size: tuple[int, int], side_px: int) -> tuple[int, int]:
    width_px, height_px = size
    scale = side_px / min(width_px, height_px)
    return max(side_px, round(width_px * scale)), max(side_px, round(height_px * scale))
