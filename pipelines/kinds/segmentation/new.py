"""The half of `segmentation` that `fieldlens new` asks: masks in a folder of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.data.manifest import Record
from pipelines.data.tree import File
from pipelines.errors import DataError
from pipelines.kinds.segmentation.masks import MASKS, MaskFile, is_mask, key_of, n_labels_of
from pipelines.kinds.segmentation.outlines import read_outlines


class NewSegmentation:
    """A PNG a picture in a folder ``masks``; or COCO's outlines, where the kind is named."""

    settings: Mapping[str, Mapping[str, Any]] = {
        "train": {
            # What a mask leaves out at the edge is counted as not found.
            "crop_fraction": 1.0,
            "label_smoothing": 0.0,
            "balance": "none",
            "mixup_alpha": 0.0,
            "monitor": "val_dice",
            "head_phase": {"epochs": 3},
        },
        "export": {
            "remedies": ["float_stem+equalize+round+exact", "leave_out"],
            "min_agreement": 0.9,
            "max_accuracy_drop": None,
            "max_macro_f1_drop": None,
            "max_int8_bytes": 3_000_000,
        },
        "gate": {
            "max_int8_bytes": 3_000_000,
            "demands": [
                {"metric": "served.dice", "at_least": 0.6},
                {"metric": "agreement", "at_least": 0.85},
                {"metric": "dice_drop", "at_most": 0.03},
            ],
        },
    }

    def told_by(self, folder: Path, files: Sequence[File]) -> str:
        """A folder of masks whose pictures are there; a class may be called ``masks``, too."""
        images = [file.path for file in files if file.kind == "image"]
        masks = [path for path in images if is_mask(path)]
        pictures = {key_of(path) for path in images if not is_mask(path)}
        n = sum(key_of(path) in pictures for path in masks)
        return f"a folder {MASKS!r} with {n} file(s) called like pictures" if n else ""

    def names(self, folder: Path, files: Sequence[File], task: str) -> Sequence[str]:
        """The task's own name for the one label of binary masks, else a number an index.

        Of outlines without a mask file the categories that are shown.
        """
        paths = [file.path for file in files if file.kind == "image" and is_mask(file.path)]
        if not paths and (listed := read_outlines(folder, files)):
            if names := sorted({name for each in listed for name, _ in each.marks}):
                return names
            raise DataError(
                f"{folder}: the annotations of {len(listed)} images hold no outline. Expected "
                f"some. Export the set again."
            )
        n = n_labels_of(folder / path for path in paths)
        return [task] if n == 1 else [f"label_{number}" for number in range(1, n + 1)]

    def counted(self, records: Sequence[Record]) -> Sequence[str]:
        """Masks, and how much of the pictures each label covers."""
        masks = [MaskFile.of(record.truth) for record in records]
        shown = [
            sum(share > 0 for share in of) for of in zip(*(m.shares for m in masks), strict=True)
        ]
        told = ", ".join(f"label {at} in {n:,}" for at, n in enumerate(shown, start=1))
        n_empty = sum(not any(mask.shares) for mask in masks)
        return (
            f"{len(masks):,} masks: {told}",
            f"{n_empty:,} of {len(masks):,} masks show nothing, and are kept",
        )
