"""A look at a folder of somebody's images: its classes, counts, sizes, modes and formats.

Reads headers, not pixels; `prepare` decodes. A label is a slug made of the name that people give a
class, in any script, since it names files, columns and keys; the name itself stays in
`ClassEntry.name`. Called by `new`.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from anyascii import anyascii

from pipelines.card import DEFAULT_KIND
from pipelines.data.account import Account, account
from pipelines.data.images import FileHeader, file_header
from pipelines.data.layout import Layout, read_folder
from pipelines.data.tree import (
    IMAGE_SUFFIXES,
    TABLES,
    UNREAD_SUFFIXES,
    missing_extra_of_many,
    suffix_of,
)
from pipelines.errors import ConfigError, CorruptImageError, DataError, MissingDataError
from pipelines.progress import track

#: One image for each of train, val and test.
_MIN_IMAGES = 3
_MAX_LETTERS = 60
#: Han characters: each is a word, where letters make up words.
_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_SIGN = re.compile(r"^\s*([+-])(?=\s*\d)")
_SIGNS = {"+": "plus ", "-": "minus "}
#: Joiners that Persian and Indic spelling needs; not printable to Python, and harmless.
_JOINERS = dict.fromkeys((0x200C, 0x200D))


@dataclass(frozen=True, slots=True)
class FoundClass:
    """One class as it lies on the disk."""

    #: Slug made of the name.
    label: str
    #: Of the folder, or in the table's column ``label``.
    name: str
    #: Files that may be images, or rows.
    n_images: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What a folder holds."""

    #: Sorted by label, numbers by size.
    classes: tuple[FoundClass, ...]
    layout: Layout
    #: Header formats and how often they were seen, e.g. ``JPEG 40``; Pillow's modes likewise.
    formats: Counter[str]
    modes: Counter[str]
    #: Shorter side of the smallest picture, longer side of the largest; 0 if none could be read.
    smallest_px: int
    largest_px: int
    account: Account
    #: What the user should know before going on, a line each.
    complaints: tuple[str, ...]
    kind: str = DEFAULT_KIND
    #: Of another kind than classes, what was counted, a line each.
    told: tuple[str, ...] = ()

    @property
    def n_images(self) -> int:
        """Images with their truth."""
        return len(self.layout.images)

    @property
    def n_unreadable(self) -> int:
        """Files of classes whose header is of no known format, and rows without a file."""
        return self.account.refused.total() + self.account.missing.total()


def survey_folder(folder: Path) -> Survey:
    """What a folder in one of the layouts of `pipelines.data.layout` holds."""
    if not folder.is_dir():
        raise MissingDataError(
            f"{folder}: there is no such folder. Expected a folder with a sub-folder a class, or "
            f"with {TABLES[0]}."
        )
    layout = read_folder(folder)
    by_name = layout.by_class
    _check_classes(folder, layout)
    labels = labels_for(list(by_name), str(folder))
    classes = sorted(
        (FoundClass(labels[name], name, len(images)) for name, images in by_name.items()),
        key=lambda found: _natural(found.label),
    )
    return survey_of(folder, layout, tuple(classes))


def survey_of(
    folder: Path,
    layout: Layout,
    classes: tuple[FoundClass, ...],
    kind: str = DEFAULT_KIND,
    told: tuple[str, ...] = (),
) -> Survey:
    """What the headers of images say."""
    headers: dict[str, FileHeader | str] = {
        image.path: _header(folder / image.path)
        for image in track(layout.images, "reading headers", len(layout.images))
    }
    names = {image.path: image.name for image in layout.images}
    read = {path: header for path, header in headers.items() if not isinstance(header, str)}
    counted = account(
        layout.files,
        {path: names[path] for path in read},
        {path: (names[path], why) for path, why in headers.items() if isinstance(why, str)},
        layout.by_class,
    )
    return Survey(
        classes=classes,
        layout=layout,
        formats=Counter(header.format for header in read.values()),
        modes=Counter(header.mode for header in read.values()),
        smallest_px=min((min(header.size) for header in read.values()), default=0),
        largest_px=max((max(header.size) for header in read.values()), default=0),
        account=counted,
        complaints=(*_complaints(counted), *_no_classes(layout)),
        kind=kind,
        told=told,
    )


def _check_classes(folder: Path, layout: Layout) -> None:
    for name, files in layout.without_images.items():
        unread = Counter(suffix_of(file.path) for file in files)
        if set(unread) & UNREAD_SUFFIXES:
            raise DataError(
                f"{folder}: {name!r} has no image that is read, but {_tally(unread)}. Expected "
                f"images of each class ({', '.join(sorted(IMAGE_SUFFIXES))}). Convert them, or "
                f"take the folder away."
            )
    by_name = layout.by_class
    if len(by_name) < 2:
        names = ", ".join(by_name) or "none"
        raise DataError(
            f"{folder}: expected at least 2 classes with images (got {len(by_name)}: {names}). "
            f"One class cannot be told apart: give a sub-folder a class, or {TABLES[0]}."
            f"{_hint(folder, layout)}"
        )
    for name, images in by_name.items():
        if len(images) < _MIN_IMAGES:
            raise DataError(
                f"{folder}: class {name!r}: expected at least {_MIN_IMAGES} images, one for each "
                f"of train, val and test (got {len(images)}). Add images or remove the class."
            )


def _hint(folder: Path, layout: Layout) -> str:
    """Where the classes may be instead, or what lies about without a class."""
    if len(layout.by_class) == 1 and layout.kind == "class_folders":
        top = next(iter(layout.by_class))
        below = {
            parts[1] for image in layout.images if len(parts := PurePosixPath(image.path).parts) > 2
        }
        if len(below) > 1:
            return (
                f" {top!r} holds the folders {', '.join(sorted(below)[:3])}: if those are the "
                f"classes, name {str(folder / top)!r}."
            )
    classed = {image.path for image in layout.images}
    n_loose = sum(file.kind == "image" and str(file.path) not in classed for file in layout.files)
    if n_loose:
        return f" {n_loose} image(s) lie in no class's folder."
    others = Counter(
        suffix_of(file.path) or "no suffix" for file in layout.files if file.kind == "other"
    )
    return f" Of other files there are {_tally(others)}." if others else ""


def _complaints(counted: Account) -> list[str]:
    """A line for each class and reason for which files cannot be used."""
    lines = []
    for name in counted.classes:
        for reason, n in counted.refused_of(name).items():
            of = f"{n} of {counted.read[name] + counted.refused_of(name).total()} files"
            lines.append(
                missing_extra_of_many(n, name, reason)
                or f"class {name!r}: {of} cannot be read: {reason}"
            )
        if counted.missing[name]:
            lines.append(f"class {name!r}: {counted.missing[name]} listed file(s) are not there")
        if not counted.read[name]:
            lines.append(f"class {name!r}: no image is left; `prepare` will stop")
    return lines


def _no_classes(layout: Layout) -> list[str]:
    return [
        f"{name!r} is no class: its {len(files)} file(s) are no images "
        f"({_tally(Counter(suffix_of(file.path) or 'no suffix' for file in files))})"
        for name, files in layout.without_images.items()
    ]


def _tally(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {name}" for name, n in counts.most_common(4))


def _natural(label: str) -> list[tuple[int, str]]:
    """A key by which ``class_2`` comes before ``class_10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", label)]


def _header(file: Path) -> FileHeader | str:
    """A file's header; or, where it has none that is known, why `prepare` will refuse it."""
    if not os.path.lexists(file):
        return "the file is listed but is not there"
    try:
        return file_header(file, file.name)
    except CorruptImageError as err:
        return err.reason


# -- labels ---------------------------------------------------------------------------------------
def slug(name: str) -> str:
    """A name in the form of a label: lower case, digits and ``_``, a letter first.

    Letters are transliterated (``Late blight (2021)`` to ``late_blight_2021``, ``健康`` to
    ``jian_kang``); a name that begins with a digit is set behind ``class_``; one without letters
    and digits is spelled out.

    References:
        anyascii (https://github.com/anyascii/anyascii) transliterates letter by letter.
    """
    made = _squeezed(_SIGN.sub(lambda sign: _SIGNS[sign[1]], name))
    if not made:
        made = _squeezed(_spelled(name, kept=""))
    return (made if made[:1].isalpha() else f"class_{made}")[:_MAX_LETTERS].strip("_")


def labels_for(names: Sequence[str], where: str) -> dict[str, str]:
    """By name, a label of its own for each.

    Names that are different words in another script and the same in Latin letters are numbered;
    names that differ in signs alone have these spelled out.

    Args:
        names: distinct, of one data set; unprintable ones are refused, and those that differ in
            case and spaces alone.
        where: the folder, for messages.
    """
    for name in names:
        if not name.translate(_JOINERS).isprintable() or not name.strip():
            raise ConfigError(
                f"{where}: class {name!r}: no label can be made of it. Expected printable text; "
                f"rename it."
            )
    labels = {name: slug(name) for name in names}
    for name in _of_twins(labels):
        labels[name] = slug(_spelled(name, kept=" _-"))
    for name in _of_twins(labels):
        twins = [other for other in names if labels[other] == labels[name]]
        if len({_letters(twin) for twin in twins}) < len(twins):
            raise ConfigError(
                f"{where}: {' and '.join(map(repr, twins))} would both be the label "
                f"{labels[name]!r}. Rename or join them."
            )
    twins = _of_twins(labels)
    taken = {label for name, label in labels.items() if name not in twins}
    for name in twins:
        label, number = labels[name], 1
        while label in taken:
            number += 1
            label = f"{labels[name][: _MAX_LETTERS - 5]}_{number}"
        labels[name] = label
        taken.add(label)
    return labels


def _of_twins(labels: Mapping[str, str]) -> list[str]:
    """Names whose label another name has too."""
    counts = Counter(labels.values())
    return [name for name, label in labels.items() if counts[label] > 1]


def _squeezed(name: str) -> str:
    ascii_only = anyascii(_HAN.sub(lambda letter: f" {anyascii(letter[0])} ", name))
    return re.sub(r"[^a-z0-9]+", "_", ascii_only.lower()).strip("_")


def _spelled(name: str, kept: str) -> str:
    """A name with its signs, but for those to be kept, as Unicode calls them."""
    return "".join(
        letter
        if letter.isalnum() or letter.isspace() or letter in kept
        else f" {unicodedata.name(letter, f'u{ord(letter):x}')} "
        for letter in name
    )


def _letters(name: str) -> str:
    """What is the same in two names that differ only in case, blanks and signs."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(letter for letter in folded if letter.isalnum())
