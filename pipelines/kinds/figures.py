"""What `train` draws of the val split, and who draws it; no other stage depends on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipelines.data.loaders import Pictures
from pipelines.kinds.classification.figures import val_figures
from pipelines.kinds.detection.figures import val_figures as val_boxes
from pipelines.kinds.embedding.figures import val_figures as val_neighbours
from pipelines.kinds.segmentation.figures import val_masks

#: From the head's outputs and the truth of n pictures, and the labels, PNG files by name; those
#: that show pictures have ``samples`` in their name.
Draw: TypeAlias = Callable[
    [NDArray[np.float32], NDArray[Any], Pictures, Sequence[str]], dict[str, bytes]
]

KINDS: Mapping[str, Draw] = {
    "classification": val_figures,
    "detection": val_boxes,
    "segmentation": val_masks,
    "embedding": val_neighbours,
}
