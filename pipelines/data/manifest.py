"""Which images there are, what they show, what they belong to, and the split they are in.

`Record` is what a task module gives; `Entry` is a row of manifest.csv. Reading a raw folder
(`read_raw`) is generic and driven by the card, so that most task modules have nothing to add; how
a folder may be laid out is known to `pipelines.data.layout`. Beside the manifest, later stages need
the set's summary (`Prepared`) and how its pictures are seen (`preprocess_of`).
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.card import DEFAULT_KIND, DatasetCard, PixelRange
from pipelines.data.layout import Layout, read_folder
from pipelines.data.pixel_range import AS_IT_COMES, MAX_ASPECT, Reading
from pipelines.data.preprocess import Interpolation, Preprocess, View
from pipelines.data.tree import SPLITS as SPLITS
from pipelines.data.tree import TABLES
from pipelines.data.tree import Split as Split
from pipelines.errors import DataError, MissingDataError

if TYPE_CHECKING:
    from pipelines.config.train import TrainParams


@dataclass(frozen=True, slots=True)
class Record:
    """One raw image, as its task module understands it.

    Attributes:
        path: POSIX path relative to raw/.
        label: what it is filed, counted and sampled under; of a classification its class.
        group: what must not straddle splits (patient, leaf, track, ...); unique across labels'
            namespaces only if the publisher's is.
        source: the collection or device that the image comes from; empty if unknown.
        split: that the publisher put it in, if any; it counts where the card says ``given``.
        truth: what is true of it beyond the label, as its kind writes it, in px of the upright
            picture where it has a place; a file that it names stands there with its hash.
    """

    path: str
    label: str
    group: str
    source: str = ""
    split: Split | None = None
    truth: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One accepted image: a row of manifest.csv; what is not said here is as in `Record`.

    Attributes:
        group: group after near duplicates were joined.
        sha256: of the file's bytes, hexadecimal.
        width_px: as stored, like the height.
        truth: as in `Record`; a column where the kind has one.
    """

    path: str
    label: str
    group: str
    source: str
    split: Split
    sha256: str
    width_px: int
    height_px: int
    truth: str = ""


_TRUTH = "truth"
_COLUMNS = [field.name for field in fields(Entry) if field.name != _TRUTH]


def check_fetched(raw_dir: Path, card: DatasetCard) -> None:
    """Nothing, if there is a raw folder.

    Raises:
        MissingDataError: says how to get one.
    """
    if not raw_dir.is_dir():
        raise MissingDataError(
            f"{raw_dir}: there are no raw images. Run `fieldlens fetch {card.task}` first."
        )


def read_raw(raw_dir: Path, card: DatasetCard) -> list[Record]:
    """The records of a raw folder, by path, in any layout that `pipelines.data.layout` knows.

    The group comes from the table, else from the card's ``group_pattern``, else each file is a
    group of its own.

    Raises:
        MissingDataError: if the folder is not there.
        DataError: if a folder or a row names a class that the card does not know, no image was
            found, or the folder cannot be read (see `read_folder`).
    """
    check_fetched(raw_dir, card)
    return records_of(raw_dir, read_folder(raw_dir, card), card)


def records_of(folder: Path, layout: Layout, card: DatasetCard) -> list[Record]:
    """The images of a folder that was read, by the card's labels.

    Raises:
        DataError: as `read_raw`.
    """
    records = []
    for image in layout.images:
        label = card.label_of(image.name)
        if label is None:
            raise DataError(
                f"{image.where}: no class of the card is called {image.name!r}. Expected one of "
                f"{', '.join(card.labels)}, or a source_names entry in "
                f"datasets/{card.task}/card.yaml."
            )
        group = image.group or group_of(image.path, card)
        records.append(Record(image.path, label, group, image.source, image.split))
    if not records:
        raise DataError(
            f"{folder}: no image was found. Expected {' or '.join(TABLES[:2])}, a folder a class "
            f"({', '.join(card.labels)}), or train, val and test folders with those below."
        )
    return records


def group_of(path: str, card: DatasetCard) -> str:
    """The group that a file's name says, by the card's pattern; else the file is its own."""
    if card.group_pattern is None:
        return path
    match = re.search(card.group_pattern, path)
    return match["group"] if match and match["group"] else path


def write_manifest(entries: Sequence[Entry]) -> str:
    """Entries as CSV text, sorted by path."""
    columns = _COLUMNS + [_TRUTH] * any(entry.truth for entry in entries)
    buffer = io.StringIO()
    buffer.write(",".join(columns) + "\n")
    # Quoted always: left to itself, the writer leaves a carriage return in a name bare, and the
    # reader takes it for the end of the row.
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    for entry in sorted(entries, key=lambda entry: entry.path):
        writer.writerow([getattr(entry, column) for column in columns])
    return buffer.getvalue()


def read_manifest(path: Path) -> list[Entry]:
    """The rows of a manifest.csv.

    Raises:
        MissingDataError: if it is not there.
        DataError: if its columns are not those of `Entry`.
    """
    if not path.is_file():
        task = path.parent.parent.name
        raise MissingDataError(
            f"{path}: there is no manifest. Run `fieldlens prepare {task}` first."
        )
    # A file name need not be UTF-8; what `atomic.write_text` let through comes back the same.
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        reader = csv.DictReader(stream)
        if reader.fieldnames not in (_COLUMNS, [*_COLUMNS, _TRUTH]):
            raise DataError(
                f"{path}: expected the columns {', '.join(_COLUMNS)} "
                f"(got {', '.join(reader.fieldnames or ())})."
            )
        return [
            Entry(**{**row, "width_px": int(row["width_px"]), "height_px": int(row["height_px"])})  # type: ignore[arg-type]
            for row in reader
        ]


def in_split(entries: Iterable[Entry], split: Split) -> list[Entry]:
    """The entries of one split, in their order."""
    return [entry for entry in entries if entry.split == split]


def class_index_of(entries: Iterable[Entry], labels: Sequence[str]) -> NDArray[np.int64]:
    """(n,) the labels as the numbers of their logits, whose order ``labels`` gives."""
    number = {label: index for index, label in enumerate(labels)}
    return np.array([number[entry.label] for entry in entries], dtype=np.int64)


def content_sha256(entries: Iterable[Entry]) -> str:
    """One hash over what the images are, are called, and stand in; their order does not matter."""
    digest = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: entry.path):
        said = (entry.sha256, entry.label, entry.split, *([entry.truth] if entry.truth else []))
        digest.update(("\t".join(said) + "\n").encode())
    return digest.hexdigest()


# -- prepared -------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared set in short.

    Attributes:
        labels: in the order of the model's outputs.
        data_source: kind of the source, ``sample`` for painted images.
        splits: ``given`` by the publisher or ``made`` by `prepare`.
        reading: how its files were read, and must be from now on.
        kind: of the task.
    """

    labels: tuple[str, ...]
    data_source: str
    splits: Literal["given", "made"] = "made"
    reading: Reading = AS_IT_COMES
    kind: str = DEFAULT_KIND


def read_summary(path: Path) -> Prepared:
    """The summary.json that `prepare` wrote.

    Raises:
        MissingDataError: if it is not there.
        DataError: if it is damaged.
    """
    if not path.is_file():
        task = path.parent.parent.name
        raise MissingDataError(
            f"{path}: there is no summary. Run `fieldlens prepare {task}` first."
        )
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Prepared(
            tuple(document["labels"]),
            document["data_source"],
            document.get("splits", {}).get("by", "made"),
            _reading(document.get("reading")),
            document.get("kind", DEFAULT_KIND),
        )
    except (ValueError, KeyError, TypeError) as err:
        raise DataError(f"{path}: is damaged ({err!r}). Run `fieldlens prepare` again.") from err


def written(reading: Reading) -> dict[str, Any]:
    """A reading as it stands in summary.json; empty where it is the usual one."""
    stated = {"range": reading.range, "max_aspect": reading.max_aspect}
    usual = {"range": None, "max_aspect": MAX_ASPECT}
    return {key: value for key, value in stated.items() if value != usual[key]}


def _reading(stated: dict[str, Any] | None) -> Reading:
    found = dict(stated or {})
    scale = found.get("range")
    return Reading(
        range=(float(scale[0]), float(scale[1])) if isinstance(scale, list) else scale,
        max_aspect=float(found.get("max_aspect", MAX_ASPECT)),
    )


# -- plain view -----------------------------------------------------------------------------------
def preprocess_of(
    params: TrainParams,
    reading: Reading = AS_IT_COMES,
    interpolation: Interpolation = "bilinear",
) -> Preprocess:
    """The plain view that a network of these params takes, with the backbone's interpolation."""
    view = View(**dict(params.view))
    resize_px = round(params.image_px / params.crop_fraction)
    return Preprocess(resize_px, params.image_px, view, reading, interpolation)


def reading_of(card: DatasetCard) -> Reading:
    """How the files of a data set are read: the range of deep pixels and the longest aspect."""
    stated = card.image.range
    scale = (stated.low, stated.high) if isinstance(stated, PixelRange) else stated
    return Reading(range=scale, max_aspect=card.image.max_aspect)
