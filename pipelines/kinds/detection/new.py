"""The half of `detection` that `fieldlens new` asks: boxes in a folder of one's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.data.manifest import Record
from pipelines.data.tree import File
from pipelines.errors import DataError
from pipelines.kinds.detection.boxes import of_text
from pipelines.kinds.detection.formats import read_boxes, told_by


class NewDetection:
    """COCO, Pascal VOC or YOLO beside images."""

    settings: Mapping[str, Mapping[str, Any]] = {
        "train": {
            "image_px": 320,
            "crop_fraction": 1.0,
            "max_cache_bytes": 8_000_000_000,
            "label_smoothing": 0.0,
            "balance": "none",
            "mixup_alpha": 0.0,
            "monitor": "val_ap50",
            "view": {"whole": True},
            "head": {"hidden": [], "dropout": 0.0},
            "tail_phase": {"epochs": 20},
            "augment": {"rotate_deg": 5},
        },
        "export": {
            "remedies": ["float_stem+equalize+round+exact", "leave_out"],
            "min_agreement": 0.9,
            "max_int8_bytes": 3_100_000,
        },
        "gate": {
            "max_int8_bytes": 3_100_000,
            "demands": [
                {"metric": "served.ap50", "at_least": 0.5},
                {"metric": "agreement", "at_least": 0.85},
                {"metric": "ap50_drop", "at_most": 0.03},
            ],
        },
    }

    def told_by(self, folder: Path, files: Sequence[File]) -> str:
        """Files of annotations."""
        return told_by(folder, files)

    def names(self, folder: Path, files: Sequence[File], task: str) -> Sequence[str]:
        """Categories of which there is a box."""
        pictures = read_boxes(folder, files)
        names = sorted({name for picture in pictures for name, _ in picture.boxes})
        if not names:
            raise DataError(
                f"{folder}: the annotations of {len(pictures)} images hold no box. Expected some. "
                f"Export the set again."
            )
        return names

    def counted(self, records: Sequence[Record]) -> Sequence[str]:
        """Boxes of each label, and pictures that show none."""
        boxes = [of_text(record.truth) for record in records]
        of = Counter(box.label for found in boxes for box in found)
        told = ", ".join(f"{label} {n:,}" for label, n in sorted(of.items()))
        n_empty = sum(not found for found in boxes)
        return (
            f"{of.total():,} boxes: {told}",
            f"{n_empty:,} of {len(boxes):,} images show nothing that is marked, and are kept",
        )
