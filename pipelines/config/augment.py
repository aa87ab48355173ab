"""Section ``train.augment``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipelines.config.number_types import Share
from pipelines.strict_yaml import Strict


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
