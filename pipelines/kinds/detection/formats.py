"""Boxes as people keep them: COCO JSON, Pascal VOC XML, YOLO text; checked, in px of the picture.

The format is told by what is there: a JSON file with images and annotations, else XML files of
annotations, else text files beside the images or in a folder ``labels`` beside ``images``. What
cannot be true is an error that names the first offenders; nothing is mended by guessing, but that a
box over the edge is cut at it. Boxes of a turned photograph are those of the picture as people see
it, unless the stated size says that the stored one was marked.

References:
    Everingham et al. 2010, "The Pascal visual object classes challenge", whose pixels are counted
    from 1; docs.ultralytics.com, "Object detection datasets".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from pipelines.data.annotations import (
    ODD,
    Corners,
    Places,
    Sizes,
    known_label,
    read_coco,
    sizes_of,
    turn_of,
)
from pipelines.data.tree import File, suffix_of
from pipelines.errors import DataError
from pipelines.kinds.detection.boxes import MAX_BOXES, Marked
from pipelines.strict_yaml import read_yaml

#: What truth stands in, besides records.csv.
SUFFIXES = frozenset({".json", ".xml", ".txt", ".names", ".yaml"})
_NAMED = 3
#: Of a box, the least that must lie in the picture: tools let a hand slip over the edge.
_LEAST_INSIDE = 0.5
_MIN_SIDE_PX = 0.5


@dataclass(slots=True)
class Picture:
    """An image with its boxes, as a file of annotations states them.

    Attributes:
        path: of the image, POSIX, relative to the folder.
        size: that is stated, width and height in px; None where none is.
        boxes: names of classes and corners in px.
        where: the file that says so, for messages.
        is_relative: boxes are shares of the sides, not px.
    """

    path: str
    size: tuple[int, int] | None
    where: str
    boxes: list[tuple[str, Corners]] = field(default_factory=list)
    is_relative: bool = False


def read_boxes(folder: Path, files: Sequence[File]) -> list[Picture]:
    """The images of a folder with what is marked in them; those without a box are listed, too.

    Raises:
        DataError: if no annotations are found, or they say what cannot be.
    """
    images = [str(file.path) for file in files if file.kind == "image"]
    others = [file.path for file in files if file.kind == "other"]
    for read in (_coco, _voc, _yolo):
        found = read(folder, images, others)
        if found is not None:
            return found
    raise DataError(
        f"{folder}: no annotations of boxes were found. Expected a COCO JSON file, Pascal VOC XML "
        f"files, or YOLO text files with classes.txt or data.yaml."
    )


def told_by(folder: Path, files: Sequence[File]) -> str:
    """What seems to be annotations of boxes, in words; empty where nothing does.

    Nothing is checked: a damaged file is told, too, so that `read_boxes` says what is wrong.
    """
    images = [str(file.path) for file in files if file.kind == "image"]
    others = [file.path for file in files if file.kind == "other"]
    documents = [
        str(path)
        for path in others
        if suffix_of(path) == ".json" and b'"annotations"' in (folder / path).read_bytes()
    ]
    if documents:
        return ", ".join(documents[:_NAMED])
    pages = [path for path in others if suffix_of(path) == ".xml"]
    if n := sum(b"<annotation" in (folder / path).read_bytes() for path in pages):
        return f"{n} XML file(s) of annotations"
    texts = {str(path): path for path in others if suffix_of(path) == ".txt"}
    beside = {_label_file(path, texts) for path in images} - {None}
    n = sum(_is_yolo(folder / text) for text in beside if text is not None)
    return f"{n} YOLO text file(s)" if n else ""


# -- COCO -----------------------------------------------------------------------------------------
def _coco(
    folder: Path, images: Sequence[str], others: Sequence[PurePosixPath]
) -> list[Picture] | None:
    found = read_coco(folder, images, others, _of_coco, "boxes", "bbox")
    if found is None:
        return None
    return [Picture(each.path, each.size, each.where, each.marks) for each in found]


def _of_coco(annotation: Mapping[str, Any]) -> Corners | None:
    if annotation.get("iscrowd"):
        # Of a crowd, not of a thing.
        return None
    x, y, width, height = map(float, annotation["bbox"])
    return (x, y, x + width, y + height)


# -- Pascal VOC -----------------------------------------------------------------------------------
def _voc(
    folder: Path, images: Sequence[str], others: Sequence[PurePosixPath]
) -> list[Picture] | None:
    paths = [path for path in others if suffix_of(path) == ".xml"]
    place, found = Places(images), dict[str, Picture]()
    for path in paths:
        where = str(folder / path)
        root = _xml(folder / path)
        if root.tag != "annotation":
            continue
        try:
            picture = _of_voc(root, where, path, place)
        except ODD as err:
            raise DataError(
                f"{where}: is no Pascal VOC annotation ({err!r}). Expected filename, size, and "
                f"object elements with name and bndbox (xmin, ymin, xmax, ymax). Export it again."
            ) from err
        if picture.path in found:
            raise DataError(
                f"{where}: {picture.path!r} is annotated by {found[picture.path].where} already. "
                f"Expected one file an image. Take one out."
            )
        found[picture.path] = picture
    return _with_unmarked(found, images, str(folder)) if found else None


def _of_voc(root: ElementTree.Element, where: str, path: PurePosixPath, place: Places) -> Picture:
    name = root.findtext("filename") or f"{path.stem}.jpg"
    size = None
    if (sides := root.find("size")) is not None:
        width, height = (int(float(sides.findtext(key) or 0)) for key in ("width", "height"))
        size = (width, height) if width and height else None
    picture = Picture(place.of(name, path.parent, path.stem), size, where)
    for entry in root.iter("object"):
        box = entry.find("bndbox")
        if box is None:
            raise ValueError("an object without bndbox")
        x0, y0, x1, y1 = (float(box.findtext(key, "")) for key in ("xmin", "ymin", "xmax", "ymax"))
        # The first pixel is 1, and the last one belongs to the box.
        corners = (x0, y0, x1, y1) if max(x1, y1) <= 1 else (x0 - 1, y0 - 1, x1, y1)
        picture.boxes.append(((entry.findtext("name") or "").strip(), corners))
    return picture


def _xml(path: Path) -> ElementTree.Element:
    try:
        text = path.read_bytes()
        if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
            # Entities may grow without bound.
            raise DataError(
                f"{path}: declares entities. Expected a plain XML file. Export it again."
            )
        return ElementTree.fromstring(text)
    # ValueError and LookupError: an encoding that is not known, or none that it can read.
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as err:
        raise DataError(f"{path}: cannot be read as XML ({err}). Export it again.") from err


# -- YOLO -----------------------------------------------------------------------------------------
_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")


def _yolo(
    folder: Path, images: Sequence[str], others: Sequence[PurePosixPath]
) -> list[Picture] | None:
    named = [path for path in others if path.name.casefold() in _NAME_FILES]
    settings = [path for path in others if suffix_of(path) in {".yaml", ".yml"}]
    texts = {str(path): path for path in others if suffix_of(path) == ".txt" and path not in named}
    labelled = {path: _label_file(path, texts) for path in images}
    used = {text for text in labelled.values() if text is not None}
    if not used:
        return None
    names = _names(folder, named, settings)
    strays = sorted(path for path in texts if path not in used and _is_yolo(folder / texts[path]))
    if strays:
        raise DataError(
            f"{folder}: {len(strays)} annotation file(s) belong to images that are not there "
            f"({', '.join(map(repr, strays[:_NAMED]))}). Add the images, or take the files out."
        )
    found = {}
    for path, text in labelled.items():
        if text is not None:
            where = str(folder / text)
            picture = Picture(path, None, where, is_relative=True)
            picture.boxes = list(_of_yolo(folder / text, names))
            found[path] = picture
    return _with_unmarked(found, images, str(folder))


def _label_file(path: str, texts: Mapping[str, PurePosixPath]) -> str | None:
    """The text beside an image, or in ``labels`` where the image is in ``images``."""
    beside = PurePosixPath(path).with_suffix(".txt")
    parts = [
        "labels" if part.casefold() in {"images", "jpegimages"} else part for part in beside.parts
    ]
    return next((each for each in (str(PurePosixPath(*parts)), str(beside)) if each in texts), None)


def _is_yolo(path: Path) -> bool:
    with path.open("rb") as stream:
        words = stream.readline().split()
    return len(words) == 5 and words[0].isdigit()


def _of_yolo(path: Path, names: Sequence[str]) -> Iterator[tuple[str, Corners]]:
    for number, line in enumerate(_lines(path), start=1):
        words = line.split()
        if not words:
            continue
        try:
            label, x, y, width, height = int(words[0]), *map(float, words[1:])
        except ValueError as err:
            raise DataError(
                f"{path}:{number}: expected five numbers, of a class and of a box (got "
                f"{line[:60]!r}). Outlines and key points are no boxes; export boxes."
            ) from err
        if not 0 <= label < len(names):
            raise DataError(
                f"{path}:{number}: class {label} has no name: the list has {len(names)} "
                f"({', '.join(names)}). Add it, or take the line out."
            )
        half = (width / 2, height / 2)
        yield names[label], (x - half[0], y - half[1], x + half[0], y + half[1])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as err:
        raise DataError(
            f"{path}: cannot be read as text in UTF-8 ({err}). Save it again, or take it out."
        ) from err


def _names(
    folder: Path, named: Sequence[PurePosixPath], settings: Sequence[PurePosixPath]
) -> list[str]:
    for path in named:
        return [line.strip() for line in _lines(folder / path) if line.strip()]
    for path in settings:
        listed = read_yaml(folder / path).get("names")
        if isinstance(listed, Mapping):
            numbers = [key for key in listed if str(key).isdecimal()]
            if sorted(map(int, numbers)) != list(range(len(listed))):
                told = ", ".join(map(repr, listed))
                raise DataError(
                    f"{folder / path}: names: expected the numbers 0 to {len(listed) - 1} (got "
                    f"{told[:60]}). Number the classes without a hole."
                )
            return [str(listed[key]) for key in sorted(numbers, key=int)]
        if isinstance(listed, list):
            return [str(name) for name in listed]
    raise DataError(
        f"{folder}: there are YOLO text files, and nothing says what their numbers mean. Expected "
        f"classes.txt with a name a line, or data.yaml with names."
    )


def _with_unmarked(
    found: Mapping[str, Picture], images: Iterable[str], where: str
) -> list[Picture]:
    """Each image, with an empty list of boxes where no file speaks of it."""
    unmarked = [Picture(path, None, where) for path in images if path not in found]
    return [*found.values(), *unmarked]


# -- checks ---------------------------------------------------------------------------------------
def checked(
    folder: Path, picture: Picture, label_of: Callable[[str], str | None], expected: Sequence[str]
) -> tuple[list[Marked], int]:
    """The boxes of an image in px of it upright, and how many of them stood twice.

    Args:
        label_of: from the name of a class to a label of the card.
        expected: the card's labels.

    Raises:
        DataError: if a class is unknown, or a box cannot be.
    """
    sizes = sizes_of(folder / picture.path)
    turn = _turn(picture, sizes)
    found: dict[Marked, None] = {}
    if len(picture.boxes) > MAX_BOXES:
        raise DataError(
            f"{picture.where}: {picture.path!r} has {len(picture.boxes)} boxes. Expected at most "
            f"{MAX_BOXES} an image. Cut it into parts."
        )
    _check_units(picture)
    whose = f"{picture.where}: {picture.path!r}"
    for name, corners in picture.boxes:
        label = known_label(name, label_of, expected, f"{whose} has a box")
        placed = turn(corners)
        cut = _cut(placed, None if sizes is None else sizes.upright)
        if cut is None:
            told = ", ".join(f"{side:g}" for side in placed)
            size = "" if sizes is None else " of {} x {} px".format(*sizes.upright)
            raise DataError(
                f"{picture.where}: a box of {name!r} in {picture.path!r}{size} lies outside of it "
                f"or has no area: from x, y to x, y it is {told} px. Expected px inside the "
                f"picture. Mend or remove it."
            )
        found[Marked(label, *(round(side, 2) for side in cut))] = None
    return list(found), len(picture.boxes) - len(found)


def _check_units(picture: Picture) -> None:
    """Nothing, if all boxes are in px, or all in shares where the format has those."""
    largest = [max(map(abs, corners)) for _, corners in picture.boxes]
    if picture.is_relative:
        # A box may lap over the edge; a px is far beyond.
        odd = [value for value in largest if value > 2]
        unit, other = "shares of the sides (0 to 1)", "px"
    else:
        odd = [value for value in largest if value <= 1]
        unit, other = "px", "shares of the sides (0 to 1)"
    if odd:
        which = "all" if len(odd) == len(largest) else f"{len(odd)} of {len(largest)}"
        raise DataError(
            f"{picture.where}: {which} boxes of {picture.path!r} are in {other}. Expected {unit} "
            f"in every box; mixed units cannot be told apart safely. Export the set again."
        )


def _turn(picture: Picture, sizes: Sizes | None) -> Callable[[Corners], Corners]:
    """From the corners that are stated to px of the upright picture."""
    if picture.is_relative and sizes is not None:
        width, height = sizes.upright
        return lambda c: (c[0] * width, c[1] * height, c[2] * width, c[3] * height)
    return turn_of(picture.path, picture.size, picture.where, sizes)


def _cut(corners: Corners, size: tuple[int, int] | None) -> Corners | None:
    """A box within its picture; None if it is no box, or too little of it is inside."""
    if not all(map(math.isfinite, corners)):
        return None
    x0, y0, x1, y1 = corners
    if x1 - x0 < _MIN_SIDE_PX or y1 - y0 < _MIN_SIDE_PX:
        return None
    if size is None:
        return corners
    inside = (max(x0, 0.0), max(y0, 0.0), min(x1, float(size[0])), min(y1, float(size[1])))
    width, height = inside[2] - inside[0], inside[3] - inside[1]
    area = (x1 - x0) * (y1 - y0)
    if min(width, height) < _MIN_SIDE_PX or width * height < _LEAST_INSIDE * area:
        return None
    return inside
