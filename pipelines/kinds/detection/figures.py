"""What `train` draws of a detection: val pictures with true boxes and those that were found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.data.loaders import Pictures
from pipelines.kinds.detection.boxes import in_view, real
from pipelines.kinds.detection.decoding import decoded
from pipelines.plots.boxes import Drawn, boxes_sheet

_N_SAMPLES = 12
#: From which score on a box is drawn; thresholds are chosen later, in `export`.
_LEAST_SCORE = 0.3


def val_figures(
    outputs: NDArray[np.float32],
    truth: NDArray[np.float32],
    pictures: Pictures,
    labels: Sequence[str],
) -> dict[str, bytes]:
    """Pictures from all over the split.

    Args:
        outputs: (n, places, 4 + labels) of the head.
        truth: (n, MAX_BOXES, 5) in px of the upright pictures.
    """
    rows = np.linspace(0, len(outputs) - 1, min(_N_SAMPLES, len(outputs))).round().astype(int)
    side_px = pictures.preprocess.crop_px
    found = decoded(outputs[rows])
    drawn = []
    for row, boxes in zip(rows, found, strict=True):
        entry = pictures.entries[row]
        shown = real(in_view(truth[row], pictures.geometry(entry, [0])[0], side_px))
        kept = boxes[boxes[:, 4] >= _LEAST_SCORE]
        drawn.append(
            Drawn(
                pictures.plain(entry),
                [(labels[int(b[4])], b[:4] * side_px) for b in shown],
                [(labels[int(b[5])], float(b[4]), b[:4] * side_px) for b in kept],
            )
        )
    return {"val_samples.png": boxes_sheet(drawn, labels)}
