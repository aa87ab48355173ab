"""Files of annotations: which picture they speak of, which way up it lies, and what COCO says.

Shared by the kinds whose truth stands in such files. What an annotation marks is theirs to read.
What cannot be true is an error that names the first offenders; nothing is mended by guessing.

References:
    cocodataset.org, "Data format".
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Generic, NamedTuple, TypeVar

from PIL import Image

from pipelines.data.layout import Labelled, listed_files
from pipelines.data.tree import DECODER_ERRORS, SOURCE_FILE, suffix_of
from pipelines.errors import DataError

_LOG = logging.getLogger(__name__)

_NAMED = 3
#: EXIF tag of the orientation; from 5 on width and height change places.
_ORIENTATION = 0x0112
#: A file of this length or more holds no annotations that a person made.
_MAX_BYTES = 500_000_000

#: What a document of another form than expected does to its reader.
ODD = (KeyError, TypeError, ValueError, AttributeError, OverflowError)

Corners = tuple[float, float, float, float]
Mark = TypeVar("Mark")


# -- places of images -----------------------------------------------------------------------------
class Places:
    """Finds the image that an annotation names: by its path, or by its name where that is one."""

    def __init__(self, images: Sequence[str]) -> None:
        self._paths = set(images)
        self._by_name: dict[str, list[str]] = {}
        for path in images:
            pure = PurePosixPath(path)
            for key in {pure.name, pure.stem}:
                self._by_name.setdefault(key, []).append(path)

    def of(self, name: str, near: PurePosixPath, *stems: str) -> str:
        """The path of an image; the name itself, below ``near``, where it is not there."""
        pure = PurePosixPath(name.replace("\\", "/"))
        for place in (near / pure, pure, near / "images" / pure):
            if str(place) in self._paths:
                return str(place)
        for key in (pure.name, pure.stem, *stems):
            if len(found := self._by_name.get(key, [])) == 1:
                return found[0]
        return str(near / pure)


def stated_of(folder: Path, paths: Container[str]) -> dict[str, Labelled]:
    """What a folder's table says of images besides their annotations, by path.

    Rows of other images are told, since groups that are not found are lost.

    Args:
        paths: of the images that are annotated.

    Raises:
        DataError: if the table cannot be read, or speaks of none of them.
    """
    rows = listed_files(folder)
    found = {row.path: row for row in rows if row.path in paths}
    others = [row for row in rows if row.path not in paths]
    if rows and not found:
        raise DataError(
            f"{rows[0].where}: the table speaks of none of the annotated images (its first path is "
            f"{rows[0].path!r}). Expected their paths, from {folder}. Mend the paths."
        )
    if others:
        _LOG.warning(
            "%s: %d of %d rows speak of images that are not annotated (the first: %r)",
            folder,
            len(others),
            len(rows),
            others[0].path,
        )
    return found


def known_label(
    name: str, label_of: Callable[[str], str | None], labels: Sequence[str], marked: str
) -> str:
    """The card's label of a category.

    Args:
        label_of: from the name of a category to a label of the card.
        labels: of the card.
        marked: where something of it stands, for the message, e.g. ``a.json: 'b.jpg' has a box``.

    Raises:
        DataError: if the card does not know it.
    """
    label = label_of(name)
    if label is None:
        raise DataError(
            f"{marked} of the category {name!r}, which the card does not know. Expected one of "
            f"{', '.join(labels)}, or a source_names entry in the card."
        )
    return label


# -- COCO -----------------------------------------------------------------------------------------
@dataclass(slots=True)
class Listed(Generic[Mark]):
    """An image of a COCO file, with what is marked in it.

    Attributes:
        path: of the image, POSIX, relative to the folder.
        size: that is stated, width and height in px; None where none is.
        where: the file that says so, for messages.
        marks: names of categories, each with what the kind reads of an annotation.
    """

    path: str
    size: tuple[int, int] | None
    where: str
    marks: list[tuple[str, Mark]] = field(default_factory=list)


def read_coco(
    folder: Path,
    images: Sequence[str],
    others: Sequence[PurePosixPath],
    read: Callable[[Mapping[str, Any]], Mark | None],
    of: str,
    key: str,
) -> list[Listed[Mark]] | None:
    """What the COCO files of a folder list, several of one list of categories; None without any.

    Args:
        images: paths of those that are there.
        others: paths of files that may be COCO's.
        read: what an annotation marks; None of one that is passed over.
        of: what that is, in words, and ``key`` where it stands in an annotation, for messages.

    Raises:
        DataError: if a file cannot be read, or says what cannot be.
    """
    documents = {}
    for path in others:
        if suffix_of(path) == ".json" and path.name != SOURCE_FILE:
            document = _json(folder / path)
            if isinstance(document, dict) and {"images", "annotations"} <= document.keys():
                documents[path] = document
    if not documents:
        return None
    found: list[Listed[Mark]] = []
    known: dict[str, frozenset[str]] = {}
    place = Places(images)
    for path, document in documents.items():
        where = str(folder / path)
        try:
            listed, names = _of_document(document, where, path.parent, place, read)
        except ODD as err:
            raise DataError(
                f"{where}: is no COCO file of {of} ({err!r}). Expected images (id, file_name), "
                f"categories (id, name) and annotations (image_id, category_id, {key}). Export it "
                f"again."
            ) from err
        known[where] = frozenset(names)
        found += listed
    if len(set(known.values())) > 1:
        first, other = list(known)[:2]
        odd = sorted(known[first] ^ known[other])[:_NAMED]
        raise DataError(
            f"{folder}: {first} and {other} have different categories ({', '.join(odd)} stand in "
            f"one of them). Expected one list for all. Join them in one tool and export again."
        )
    return found


def _of_document(
    document: Mapping[str, Any],
    where: str,
    near: PurePosixPath,
    place: Places,
    read: Callable[[Mapping[str, Any]], Mark | None],
) -> tuple[list[Listed[Mark]], list[str]]:
    names = {entry["id"]: str(entry["name"]) for entry in document.get("categories", ())}
    _check_distinct([entry["id"] for entry in document.get("categories", ())], "category", where)
    _check_distinct(list(names.values()), "category", where)
    _check_distinct([entry["id"] for entry in document["images"]], "image", where)
    found: dict[Any, Listed[Mark]] = {}
    for entry in document["images"]:
        sides = (entry.get("width"), entry.get("height"))
        size = (int(sides[0]), int(sides[1])) if all(sides) else None
        name = entry["file_name"]
        if not isinstance(name, str):
            raise TypeError(f"file_name {name!r}")
        found[entry["id"]] = Listed(place.of(name, near), size, where)
    lost = [a for a in document["annotations"] if a["image_id"] not in found]
    if lost:
        ids = sorted({str(each["image_id"]) for each in lost})
        raise DataError(
            f"{where}: {len(lost)} annotation(s) are of images that the file does not list "
            f"(image_id {', '.join(ids[:_NAMED])}). Expected each image_id among images. Export "
            f"the file again, or take these annotations out."
        )
    for annotation in document["annotations"]:
        number = annotation["category_id"]
        if number not in names:
            raise DataError(
                f"{where}: an annotation has category_id {number!r}, which is none of the file's "
                f"categories ({', '.join(map(str, names))}; holes between ids are fine). Add the "
                f"category, or take the annotation out."
            )
        mark = read(annotation)
        if mark is not None:
            found[annotation["image_id"]].marks.append((names[number], mark))
    return list(found.values()), list(names.values())


def _check_distinct(values: Sequence[Any], what: str, where: str) -> None:
    twice = [str(value) for value, n in Counter(values).items() if n > 1]
    if twice:
        raise DataError(
            f"{where}: {what} {', '.join(twice[:_NAMED])} stands more than once. Expected each "
            f"once. Mend the file."
        )


def _json(path: Path) -> Any:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path}: has more than {_MAX_BYTES:,} bytes. Split the set.")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as err:
        raise DataError(
            f"{path}: cannot be read as JSON ({err}). Export it again, or take it out."
        ) from err


# -- which way up ---------------------------------------------------------------------------------
class Sizes(NamedTuple):
    """Width and height of an image in px, as it is stored and upright, and what EXIF says."""

    stored: tuple[int, int]
    upright: tuple[int, int]
    orientation: int


def sizes_of(path: Path) -> Sizes | None:
    """The sizes of an image file; None of a bad one, which `prepare` refuses with its reason."""
    try:
        with Image.open(path) as image:
            stored = image.size
            orientation = int(image.getexif().get(_ORIENTATION, 1))
    except DECODER_ERRORS:
        return None
    except Image.DecompressionBombError:
        return None
    return Sizes(stored, stored[::-1] if orientation >= 5 else stored, orientation)


def turn_of(
    path: str, stated: tuple[int, int] | None, where: str, sizes: Sizes | None
) -> Callable[[Corners], Corners]:
    """From the corners that are stated, in px, to those in the upright picture.

    They are of the picture as people see it, unless the stated size says that the stored one was
    marked.

    Args:
        path: of the image, and ``where``, the file that states it, for messages.

    Raises:
        DataError: if the stated size is another picture's.
    """
    if sizes is None:
        return lambda corners: corners
    if stated is not None and stated not in (sizes.stored, sizes.upright):
        said = "{} x {}".format(*stated)
        raise DataError(
            f"{where}: {path!r} is said to have {said} px and has {sizes.stored[0]} x "
            f"{sizes.stored[1]}, so that what is marked is of another picture. Expected the sizes "
            f"of the files. Use the original files, or export again."
        )
    if stated == sizes.stored and stated != sizes.upright:
        return lambda corners: _upright(corners, sizes)
    return lambda corners: corners


def _upright(corners: Corners, sizes: Sizes) -> Corners:
    """Corners in the stored picture as they are after its EXIF orientation (5 to 8)."""
    width, height = sizes.stored
    x0, y0, x1, y1 = corners
    mirrored: dict[int, Corners] = {
        5: (y0, x0, y1, x1),
        6: (height - y1, x0, height - y0, x1),
        7: (height - y1, width - x1, height - y0, width - x0),
        8: (y0, width - x1, y1, width - x0),
    }
    return mirrored.get(sizes.orientation, corners)
