"""Section ``train.view``: apart, since `prepare` and `audit` see by it too.

Section ``train.augment``.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipelines.strict_yaml import Share, Strict


class ViewParams(Strict):
    """What every picture has taken away, in training and on the phone (`data.preprocess.View`)."""

    #: One channel, three times: hides whether a file was stored grey or in colour.
    grey: bool = False
    #: Shorter side that every picture is brought to first; hides sizes and sharpness.
    side_px: Annotated[int, Field(ge=16, le=1024)] | None = None
    #: Share of the input's side that is painted grey along each edge.
    border_mask: Annotated[float, Field(ge=0, le=0.45, strict=False)] = 0.0
    #: The whole picture with grey beside it, in the place of its central square; then
    #: `crop_fraction` must be 1, and the two above off.
    whole: Annotated[bool, Field(exclude_if=lambda on: not on)] = False

    @property
    def is_off(self) -> bool:
        """Whether nothing is taken away."""
        return self == ViewParams()


# -- augment --------------------------------------------------------------------------------------
class AugmentParams(Strict):
    """Random views of a training image; each amount is the end of a symmetric range."""

    #: Smallest share of the image's area that a random crop keeps.
    min_area: Annotated[float, Field(gt=0, le=1, strict=False)]
    #: Widest aspect ratio of a random crop; the narrowest is its inverse.
    max_aspect: Annotated[float, Field(ge=1, le=3, strict=False)]
    horizontal_flip: bool
    vertical_flip: bool
    rotate_deg: Annotated[float, Field(ge=0, le=180, strict=False)]
    #: Relative change of brightness and of contrast.
    brightness: Share
    contrast: Share
    #: Relative change of saturation; hue shift as a share of the colour circle.
    saturation: Share
    hue: Annotated[float, Field(ge=0, le=0.5, strict=False)]
    #: Probabilities of Gaussian blur, of Gaussian noise and of JPEG re-encoding.
    blur: Share
    noise: Share
    jpeg: Share
    #: Probability that all outside a soft ellipse in the middle is painted over.
    background: Annotated[Share, Field(exclude_if=lambda share: share == 0)] = 0.0
