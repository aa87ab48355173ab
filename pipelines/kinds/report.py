"""What the pages show of a task, by its kind."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.kinds.classification.report import SHOWN as CLASSIFICATION
from pipelines.kinds.detection.report import SHOWN as DETECTION
from pipelines.kinds.embedding.report import SHOWN as EMBEDDING
from pipelines.kinds.segmentation.report import SHOWN as SEGMENTATION
from pipelines.kinds.shown import Shown

KINDS: Mapping[str, Shown] = {
    "classification": CLASSIFICATION,
    "detection": DETECTION,
    "segmentation": SEGMENTATION,
    "embedding": EMBEDDING,
}
