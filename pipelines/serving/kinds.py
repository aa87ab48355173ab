"""The kinds that this version can serve, by the name that stands in a bundle."""

from __future__ import annotations

from typing import Any

from pipelines.serving.answer import ServedKind
from pipelines.serving.classification import ServedClassification
from pipelines.serving.detection import ServedDetection
from pipelines.serving.embedding import ServedEmbedding
from pipelines.serving.segmentation import ServedSegmentation

KINDS: dict[str, ServedKind[Any]] = {
    "classification": ServedClassification(),
    "detection": ServedDetection(),
    "segmentation": ServedSegmentation(),
    "embedding": ServedEmbedding(),
}


def served_kind(name: str) -> ServedKind[Any]:
    """The serving half of a kind.

    Raises:
        ValueError: if this version does not know it.
    """
    if name not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {name!r}")
    return KINDS[name]
