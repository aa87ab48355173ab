"""Answers that have places, as one COCO file: boxes, and masks as run lengths.

Images, categories, and annotations with a score, so that it can be read alone; its annotations are
what `loadRes` of pycocotools takes. Run lengths are not compressed, as `kinds.segmentation` reads
them. A picture that cannot be read is an image of no size with an `error`.

References:
    cocodataset.org, "Data format" and "Results format".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ConfigError
from pipelines.serving.answer import Answer
from pipelines.serving.bundle import Bundle
from pipelines.serving.detection import Box, Boxes, threshold_of
from pipelines.serving.segmentation import Mask, indexed, thresholds_of

if TYPE_CHECKING:
    import pyarrow

Row: TypeAlias = dict[str, Any]
#: Boxes that count, as a table has them, or all, as COCO's evaluation wants them.
Which: TypeAlias = Literal["counted", "all"]
#: Between an answer and the file: a part's columns beside those of every part.
WIDTH, HEIGHT, ANNOTATIONS = "width", "height", "annotations"
#: What an image says of its answer, beside its places.
_OF_ANSWER = ("is_ood", "ood_score")
#: Of a part's metadata.
CATEGORIES = "categories"


def check(bundle: Bundle, which: Which) -> None:
    """Nothing, if a bundle's answers can be written so.

    Raises:
        ConfigError: if its kind has no places, or no boxes where all are asked for.
    """
    if bundle.kind not in ("detection", "segmentation"):
        raise ConfigError(
            f"--out: COCO holds boxes and masks, and {bundle.task} ({bundle.kind}) has "
            f"neither. Name a file that ends in .parquet or .csv."
        )
    if which == "all" and bundle.kind != "detection":
        raise ConfigError(f"--all-boxes: {bundle.task} ({bundle.kind}) has no boxes. Leave it out.")


def categories_of(bundle: Bundle) -> list[Row]:
    """The labels in the bundle's order, from 1 on, and from which score on each counts."""
    if bundle.kind == "detection":
        points = [threshold_of(bundle, label) for label in bundle.labels]
    else:
        points = list(thresholds_of(bundle))
    return [
        {"id": number, "name": label, "threshold": point}
        for number, (label, point) in enumerate(zip(bundle.labels, points, strict=True), start=1)
    ]


def cells_of(said: Answer, bundle: Bundle, size: tuple[int, int], which: Which) -> Row:
    """What a part holds of a picture.

    Args:
        size: width and height of the upright picture, in px of which places are told.
    """
    if isinstance(said, Boxes):
        marks = [_of_box(box, bundle) for box in said.boxes if box.is_counted or which == "all"]
    else:
        assert isinstance(said, Mask)  # `check` has let no other kind pass
        marks = list(_of_mask(said, size))
    return {WIDTH: size[0], HEIGHT: size[1], ANNOTATIONS: json.dumps(marks)}


def _of_box(box: Box, bundle: Bundle) -> Row:
    x, y, width, height = (
        round(side, 2) for side in (box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0)
    )
    return {
        "category_id": bundle.labels.index(box.label) + 1,
        "bbox": [x, y, width, height],
        "area": round(width * height, 2),
        "iscrowd": 0,
        "score": round(box.score, 6),
        "is_counted": box.is_counted,
    }


def _of_mask(said: Mask, size: tuple[int, int]) -> Iterator[Row]:
    """A label that is seen is an annotation; its score is the mean probability of its pixels."""
    drawn, seen = said.drawn(size), indexed(said.probabilities, said.thresholds)
    for number, of_label in enumerate(said.probabilities, start=1):
        shown, inside = drawn == number, of_label[seen == number]
        if not (shown.any() and len(inside)):
            continue
        rows, columns = (np.flatnonzero(shown.any(axis=axis)) for axis in (1, 0))
        x, y = int(columns[0]), int(rows[0])
        yield {
            "category_id": number,
            "segmentation": {"size": list(shown.shape), "counts": runs_of(shown)},
            "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
            "area": int(shown.sum()),
            "iscrowd": 0,
            "score": round(float(inside.mean()), 6),
        }


def runs_of(shown: NDArray[np.bool_]) -> list[int]:
    """Lengths of runs down the columns of (height, width): outside, inside, outside, …."""
    flat = shown.T.ravel()
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs: list[int] = np.diff([0, *ends, len(flat)]).tolist()
    return [0, *runs] if flat[0] else runs


def write(
    path: Path, schema: pyarrow.Schema, tables: Callable[[], Iterator[pyarrow.Table]]
) -> None:
    """One document of all parts, an image or an annotation a line, in the memory of a part.

    Args:
        schema: of the parts, with its metadata.
        tables: the parts from the first on; asked twice.
    """
    told = {key.decode(): value.decode() for key, value in schema.metadata.items()}
    categories = told.pop(CATEGORIES)
    with path.open("w", encoding="ascii", newline="") as stream:
        stream.write(f'{{"info": {json.dumps(told)},\n"categories": {categories},\n')
        for head, entries in (("images", _images), ("annotations", _annotations)):
            stream.write(f'"{head}": [')
            for number, entry in enumerate(entries(tables())):
                stream.write(f"{',' if number else ''}\n{json.dumps(entry)}")
            stream.write("]" if head == "annotations" else "],\n")
        stream.write("}\n")


def _images(tables: Iterable[pyarrow.Table]) -> Iterator[Row]:
    for number, row in enumerate(_rows(tables), start=1):
        is_read = row["error"] is None
        yield {
            "id": number,
            "file_name": row["path"],
            "width": row[WIDTH] or 0,
            "height": row[HEIGHT] or 0,
            **({name: row[name] for name in _OF_ANSWER} if is_read else {"error": row["error"]}),
        }


def _annotations(tables: Iterable[pyarrow.Table]) -> Iterator[Row]:
    n_before = 0
    for image, row in enumerate(_rows(tables), start=1):
        marks = json.loads(row[ANNOTATIONS] or "[]")
        for number, mark in enumerate(marks, start=n_before + 1):
            yield {"id": number, "image_id": image, **mark}
        n_before += len(marks)


def _rows(tables: Iterable[pyarrow.Table]) -> Iterator[Row]:
    for table in tables:
        yield from table.to_pylist()
