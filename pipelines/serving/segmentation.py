"""The serving half of the kind `segmentation`: which pixels show a label.

A model gives a map a label, as large as its input, of probabilities from 0 to 1. What it says is
told in px of the upright picture; the edges that a square input leaves out, it has not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from pipelines.columns import table
from pipelines.serving.answer import EMBEDDING_NAME, Answer, ServedKind

if TYPE_CHECKING:
    from pipelines.data.preprocess import Geometry
    from pipelines.serving.bundle import Bundle

MASK_NAME = "mask"
#: From which probability on a pixel shows a label that has no operating point.
THRESHOLD = 0.5
#: An indexed mask has one byte a pixel, and 0 shows none.
MAX_LABELS = 254
#: Of the labels of an indexed mask, in turn: Okabe and Ito's, then dark to bright.
_COLOURS = (
    *((0, 158, 115), (213, 94, 0), (0, 114, 178), (204, 121, 167)),
    *((230, 159, 0), (86, 180, 233), (240, 228, 66)),
)


def in_picture(
    probabilities: NDArray[np.float32], geometry: Geometry, size: tuple[int, int]
) -> NDArray[np.float32]:
    """Maps of the input as maps of the picture, bilinear; 0 where the input shows nothing of it.

    Args:
        probabilities: (n_labels, h, w).
        geometry: from px of the upright picture to px of the input.
        size: width and height of the upright picture.

    Returns:
        (n_labels, height, width).
    """
    coefficients = tuple(map(float, geometry[:2].ravel()))
    maps = [
        Image.fromarray(of_label).transform(
            size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
        )
        for of_label in probabilities
    ]
    return np.stack([np.asarray(each, dtype=np.float32) for each in maps])


def indexed(probabilities: NDArray[np.float32], thresholds: Sequence[float]) -> NDArray[np.uint8]:
    """(h, w) 0 where no label is shown, else 1 + the label that is farthest above its threshold.

    Args:
        probabilities: (n_labels, h, w).
        thresholds: of each label, in (0, 1).
    """
    bounds = np.asarray(thresholds, dtype=np.float32)[:, np.newaxis, np.newaxis]
    # As shares of the way from the threshold to 1, so that labels of other thresholds compare.
    above = (probabilities - bounds) / (1 - bounds)
    shown = above.max(axis=0) >= 0
    found: NDArray[np.uint8] = np.where(shown, above.argmax(axis=0) + 1, 0).astype(np.uint8)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Where one label is seen.

    Attributes:
        area_share: of what the model saw of the picture, in [0, 1].
        area_px: in px² of the upright picture.
        box_px: left, top, right and bottom in px of the upright picture; None where it is not seen.
    """

    area_share: float
    area_px: float
    box_px: tuple[float, float, float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask(Answer):
    """The answer for one picture.

    Attributes:
        regions: by label, in the bundle's order.
        probabilities: (n_labels, crop_px, crop_px) of the model's input, in [0, 1].
        thresholds: of each label: from there on a pixel shows it.
        geometry: (3, 3) from px of the upright picture to px of the input.
    """

    regions: dict[str, Region]
    probabilities: NDArray[np.float32]
    thresholds: tuple[float, ...]
    geometry: NDArray[np.float64]

    def drawn(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """(height, width) as `indexed`, in px of the upright picture of this size."""
        return indexed(in_picture(self.probabilities, self.geometry, size), self.thresholds)

    def scaled(self, stored: tuple[int, int], shown: tuple[int, int]) -> NDArray[np.uint8]:
        """The same for a copy of the picture that was made smaller or larger.

        Args:
            stored: width and height of the upright picture.
            shown: width and height of the copy.
        """
        scale = np.diag([stored[0] / shown[0], stored[1] / shown[1], 1.0])
        maps = in_picture(self.probabilities, self.geometry @ scale, shown)
        return indexed(maps, self.thresholds)


def region_of(shown: NDArray[np.bool_], geometry: Geometry) -> Region:
    """Where a label is seen in the input, told in px of the upright picture.

    Args:
        shown: (h, w) of the input.
        geometry: from px of the upright picture to px of the input.
    """
    back = np.linalg.inv(geometry)
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    box = None
    if len(rows):
        corners = np.array([[columns[0], rows[0], 1], [columns[-1] + 1, rows[-1] + 1, 1]])
        (left, top, _), (right, bottom, _) = (corners @ back.T).tolist()
        box = (left, top, right, bottom)
    area_px = float(shown.sum() * abs(np.linalg.det(back[:2, :2])))
    return Region(area_share=float(shown.mean()), area_px=area_px, box_px=box)


class ServedSegmentation(ServedKind[Mask]):
    """Of each label of the bundle, the pixels that show it."""

    outputs = (MASK_NAME, EMBEDDING_NAME)
    not_explained = (
        "the mask itself says which places show a label. `fieldlens predict --drawings FOLDER` "
        "draws it"
    )

    @override
    def check_labels(self, labels: Sequence[str]) -> None:
        if not 1 <= len(labels) <= MAX_LABELS:
            raise ValueError(
                f"labels: a segmentation has 1 to {MAX_LABELS}, what shows none of them is no "
                f"label (got {len(labels)})"
            )

    @override
    def check(self, bundle: Bundle) -> None:
        unknown = sorted(set(bundle.operating_points) - set(bundle.labels))
        if unknown:
            raise ValueError(f"operating_points names no label: {', '.join(unknown)}")
        side = bundle.preprocess.crop_px
        shape, expected = bundle.output(MASK_NAME).shape, (-1, len(bundle.labels), side, side)
        if shape != expected:
            raise ValueError(
                f"outputs.{MASK_NAME}.shape: expected {list(expected)}, a map a label as large as "
                f"the input, got {list(shape)}"
            )

    @override
    def decode(
        self, outputs: Mapping[str, NDArray[np.float32]], bundle: Bundle, geometry: Geometry
    ) -> Mask:
        probabilities, thresholds = outputs[MASK_NAME], thresholds_of(bundle)
        found = indexed(probabilities, thresholds)
        return Mask(
            regions={
                label: region_of(found == number, geometry)
                for number, label in enumerate(bundle.labels, start=1)
            },
            probabilities=probabilities,
            thresholds=thresholds,
            geometry=geometry,
        )

    @override
    def lines(self, answer: Mask, bundle: Bundle) -> list[str]:
        rows = [
            (bundle.name_of(label), f"{region.area_share:.1%}", _box(region))
            for label, region in answer.regions.items()
        ]
        return [table(("LABEL", "AREA", "BOX: LEFT, TOP, RIGHT, BOTTOM IN PX"), rows)]

    @override
    def columns(self, bundle: Bundle) -> list[str]:
        return [f"{what}_{label}" for label in bundle.labels for what in ("area_share", "box_px")]

    @override
    def cells(self, answer: Mask, bundle: Bundle) -> list[str]:
        return [
            cell
            for region in answer.regions.values()
            for cell in (
                f"{region.area_share:.6f}",
                " ".join(f"{at:.1f}" for at in region.box_px or ()),
            )
        ]

    @override
    def numbers(self, bundle: Bundle) -> list[str]:
        return [f"area_share_{label}" for label in bundle.labels]

    @override
    def document(self, answer: Mask, bundle: Bundle) -> dict[str, Any]:
        return {
            "regions": {
                label: {
                    "name": bundle.name_of(label),
                    "area_share": region.area_share,
                    "area_px": region.area_px,
                    "box_px": region.box_px,
                }
                for label, region in answer.regions.items()
            }
        }

    @override
    def drawing(self, answer: Mask, size: tuple[int, int]) -> Image.Image:
        return coloured(answer.drawn(size))


def thresholds_of(bundle: Bundle) -> tuple[float, ...]:
    """From which probability on a pixel shows each label, in the bundle's order."""
    points = bundle.operating_points
    return tuple(
        points[label].threshold if label in points else THRESHOLD for label in bundle.labels
    )


def coloured(mask: NDArray[np.uint8]) -> Image.Image:
    """An indexed mask as a picture of mode P, in which each index has a colour; 0 is black."""
    image = Image.fromarray(mask)
    image.putpalette([0, 0, 0, *(part for at in range(MAX_LABELS) for part in colour_of(at))])
    return image


def colour_of(label_index: int) -> tuple[int, int, int]:
    """RGB in [0, 255] of a label by its place in the bundle."""
    return _COLOURS[label_index % len(_COLOURS)]


def _box(region: Region) -> str:
    if region.box_px is None:
        return "not seen"
    return ", ".join(f"{at:.0f}" for at in region.box_px)
