"""The half of `detection` that `prepare` asks: boxes read and checked, images filed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pipelines.card import DatasetCard
from pipelines.data.annotations import stated_of
from pipelines.data.manifest import Record, check_fetched, group_of
from pipelines.data.tree import files_of, split_named
from pipelines.errors import DataError
from pipelines.kinds.detection.boxes import Marked, as_text, of_text
from pipelines.kinds.detection.formats import checked, read_boxes

_LOG = logging.getLogger(__name__)

#: Under which an image without a box is filed.
NOTHING = "nothing"


class PreparedDetection:
    """An image is filed under its rarest class, and a split is balanced by each that it shows."""

    def records(self, raw_dir: Path, card: DatasetCard, *, is_whole: bool = True) -> list[Record]:
        """Images with boxes of COCO, Pascal VOC or YOLO; groups of records.csv or the card.

        Raises:
            MissingDataError: if the folder is not there.
            DataError: if there are no annotations, or they say what cannot be.
        """
        check_fetched(raw_dir, card)
        listed = read_boxes(raw_dir, files_of(raw_dir))
        marked: dict[str, list[Marked]] = {}
        n_twice = 0
        for picture in listed:
            boxes, n_same = checked(raw_dir, picture, card.label_of, card.labels)
            if picture.path in marked:
                raise DataError(
                    f"{picture.where}: {picture.path!r} is listed twice. Expected each image once. "
                    f"Mend the file."
                )
            marked[picture.path] = boxes
            n_twice += n_same
        counts = Counter(label for boxes in marked.values() for label in {b.label for b in boxes})
        missing = [label for label in card.labels if not counts[label]]
        if missing and is_whole:
            raise DataError(
                f"{raw_dir}: no box of {', '.join(missing)}. Expected some of each class of the "
                f"card. Add them, or take the class off the card."
            )
        _tell(card.task, marked, n_twice)
        stated = stated_of(raw_dir, marked)
        return [
            Record(
                path,
                min((box.label for box in boxes), key=lambda name: counts[name], default=NOTHING),
                (stated[path].group if path in stated else "") or group_of(path, card),
                stated[path].source if path in stated else "",
                split_named(PurePosixPath(path).parts[0]),
                as_text(boxes),
            )
            for path, boxes in sorted(marked.items())
        ]

    def names(self, labels: Sequence[str]) -> tuple[str, ...]:
        """The classes, and `NOTHING`."""
        return (*labels, NOTHING)

    def strata(self, record: Record) -> Sequence[str]:
        """Each class that it shows."""
        return sorted({box.label for box in of_text(record.truth)}) or (NOTHING,)


def _tell(task: str, marked: dict[str, list[Marked]], n_twice: int) -> None:
    boxes = Counter(box.label for found in marked.values() for box in found)
    n_empty = sum(not found for found in marked.values())
    told = ", ".join(f"{label} {n:,}" for label, n in sorted(boxes.items()))
    _LOG.info("%s: %d boxes (%s)", task, boxes.total(), told)
    if n_empty:
        _LOG.info("%s: %d image(s) show nothing that is marked, and are kept", task, n_empty)
    if n_twice:
        _LOG.warning("%s: %d box(es) stood twice in one image, and count once", task, n_twice)
