"""A raw folder of painted images: groups, nuisance variation and a few planted faults.

Generic: what an image shows comes from the task's painter, a module of this room with the task's
name. What a file is (size, aspect, format, JPEG quality, source, planted fault) follows one rule in
all classes, so that nothing but the picture tells the class. Painted images prove the pipeline;
they are never quoted as a result. Called by `fetch` for ``source: {kind: sample}``.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import logging
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, cast

import numpy as np
from PIL import Image

from pipelines.atomic import write_bytes, write_text
from pipelines.card import DatasetCard, SampleSource
from pipelines.data.tree import TABLES
from pipelines.data.workers import ordered_map
from pipelines.errors import ConfigError, DataError

if TYPE_CHECKING:
    # The brushes concern the tasks that paint with them, and not every fetch.
    from pipelines.samples.pen import Marks

_LOG = logging.getLogger(__name__)

#: ``paint(label, subject, shot, side_px)``: a square of one of the card's labels, mode RGB. The
#: subject draws what all pictures of one group share, the shot what differs among them.
Painter = Callable[[str, np.random.Generator, np.random.Generator, int], Image.Image]
#: The same picture with what is marked in it, corners as shares of its side.
Marker: TypeAlias = (
    "Callable[[str, np.random.Generator, np.random.Generator, int], tuple[Image.Image, Marks]]"
)
#: How a painted picture becomes a file.
Form = Literal[
    "jpeg", "png", "wrong_suffix", "exif_rotated", "cmyk", "grey", "near_duplicate", "truncated"
]
#: Forms that replace an ordinary file; the picture in it is sound and must be accepted.
IN_PLACE: tuple[Form, ...] = ("wrong_suffix", "exif_rotated", "cmyk", "grey")

#: Lists what was planted, so that a test can check that `prepare` finds it.
PLANTED_FILE = "planted.json"
#: What is marked in the pictures, where a painter says it.
COCO_FILE = "coco.json"

#: Where masks lie, each with the path of its picture.
MASKS_FOLDER = "masks"
#: A smaller class stays clean: faults would be more than a tenth of it.
MIN_IMAGES_FOR_FAULTS = 20
_SOURCES = ("camera_a", "camera_b")
_PNG_SHARE = 0.15
#: Painted ahead of the disk.
_WINDOW = 16


@dataclass(frozen=True, slots=True)
class Sheet:
    """One file to make.

    Attributes:
        path: POSIX path relative to raw/.
        group: what is written into records.csv.
        source: what is written into records.csv.
        subject: number of the painted subject within its class.
        shot: number of the shot of that subject.
        copy_of: path of the file with the same bytes; empty for a painted one.
    """

    path: str
    label: str
    group: str
    source: str
    subject: int
    shot: int
    form: Form
    copy_of: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """One planted fault.

    Attributes:
        fault: kind, e.g. ``near_duplicate``.
        path: the file that carries it.
        of: the file that it repeats; empty where it repeats none.
    """

    fault: str
    path: str
    of: str = ""


def load_mask_painter(task: str) -> Painter | None:
    """``mask`` of the same module: what is true of a picture of the same draws, mode L.

    255 where it is shown and 0 elsewhere; None where the truth is no mask.
    """
    return getattr(importlib.import_module(f"pipelines.samples.{task}"), "mask", None)


def load_painter(task: str) -> Painter:
    """``paint`` of ``pipelines.samples.<task>``, or what its ``paint_marked`` paints.

    Raises:
        ConfigError: if the task has none.
    """
    name = f"pipelines.samples.{task}"
    try:
        module = importlib.import_module(name)
        paint = getattr(module, "paint", None)
        if paint is None and (mark := getattr(module, "paint_marked", None)) is not None:
            return lambda *given: mark(*given)[0]
    except ModuleNotFoundError as err:
        # A painter that is there and misses one of its own imports is a bug, and stays a traceback.
        if err.name != name:
            raise
        paint = None
    if not callable(paint):
        raise ConfigError(
            f"pipelines/samples/{task}.py: expected paint(label, subject, shot, side_px), found "
            f"none, so there are no samples. Write it, or name real images in params.yaml: "
            f"tasks.{task}.fetch.source."
        )
    return cast("Painter", paint)


def painted_names(card: DatasetCard) -> tuple[str, ...]:
    """What is painted: a card's labels, or the painter's ``IDENTITIES`` where a card has none.

    Raises:
        ConfigError: if there is no painter, or it names none either.
    """
    if card.labels:
        return card.labels
    load_painter(card.task)
    names = getattr(importlib.import_module(f"pipelines.samples.{card.task}"), "IDENTITIES", ())
    if not names:
        raise ConfigError(
            f"pipelines/samples/{card.task}.py: expected IDENTITIES, names of what it paints, "
            f"since the card has no classes (found none)."
        )
    return tuple(names)


def load_marker(task: str) -> Marker | None:
    """``paint_marked`` of a painter that tells where things are; None of one that has none."""
    module = importlib.import_module(f"pipelines.samples.{task}")
    return cast("Marker | None", getattr(module, "paint_marked", None))


def write_sample(
    folder: Path,
    paint: Painter,
    card: DatasetCard,
    source: SampleSource,
    seed: int,
    labels: Sequence[str],
    mark: Marker | None = None,
) -> None:
    """Fill an empty folder with painted images of some of a card's labels, and what lists them.

    The same arguments give the same bytes, whatever the number of workers.

    Args:
        mark: paints in the place of ``paint``; coco.json then lists what it marks.

    Raises:
        ConfigError: if a label is not on the card.
        DataError: if the painter has no picture for a label.
        StorageError: if the disk is full or forbids it.
    """
    known = painted_names(card)
    unknown = sorted(set(labels) - set(known))
    if unknown:
        raise ConfigError(
            f"{card.task}: the card has no class {', '.join(unknown)} to paint. "
            f"Expected some of {', '.join(known)}."
        )
    sheets, faults = plan(card, source, seed, labels, is_marked=mark is not None)
    painted = [sheet for sheet in sheets if not sheet.copy_of]
    brush: Marker = mark if mark is not None else lambda *given: (paint(*given), [])
    render_one = partial(_render, brush, task=card.task, seed=seed, side_px=source.side_px)
    drawn = dict[str, _Drawn]()
    for sheet, one in zip(painted, ordered_map(render_one, painted, window=_WINDOW), strict=True):
        write_bytes(folder / sheet.path, one.data)
        drawn[sheet.path] = one
    for sheet in sheets:
        if sheet.copy_of:
            write_bytes(folder / sheet.path, (folder / sheet.copy_of).read_bytes())
    if (paint_mask := load_mask_painter(card.task)) is not None:
        mask_one = partial(
            _render_mask, paint_mask, task=card.task, seed=seed, side_px=source.side_px
        )
        for sheet, data in zip(sheets, ordered_map(mask_one, sheets, window=_WINDOW), strict=True):
            stem = sheet.path.rpartition(".")[0]
            write_bytes(folder / f"{MASKS_FOLDER}/{stem}.png", data)
    write_text(folder / TABLES[0], _records_csv(sheets))
    if mark is not None:
        write_text(folder / COCO_FILE, _coco_json(card, sheets, drawn))
    listed = json.dumps([asdict(fault) for fault in faults], indent=2)
    write_text(folder / PLANTED_FILE, listed + "\n")
    _LOG.info(
        "%s: painted %d images of %d classes; %d faults planted",
        card.task,
        len(painted),
        len(labels),
        len(faults),
    )


class _Drawn(NamedTuple):
    """A file, the size of its picture upright, and corners in px of that."""

    data: bytes
    size: tuple[int, int]
    marks: Marks


def _coco_json(card: DatasetCard, sheets: Sequence[Sheet], drawn: Mapping[str, _Drawn]) -> str:
    numbers = {label: index + 1 for index, label in enumerate(card.labels)}
    images, annotations = [], list[dict[str, object]]()
    for number, sheet in enumerate(sheets, start=1):
        one = drawn[sheet.copy_of or sheet.path]
        width, height = one.size
        images.append({"id": number, "file_name": sheet.path, "width": width, "height": height})
        for name, (x0, y0, x1, y1) in one.marks:
            box = [round(side, 2) for side in (x0, y0, x1 - x0, y1 - y0)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": numbers[name],
                    "bbox": box,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    document = {"images": images, "annotations": annotations, "categories": categories}
    return json.dumps(document, indent=1) + "\n"


def _records_csv(sheets: Sequence[Sheet]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", "label", "group", "source"])
    writer.writerows([sheet.path, sheet.label, sheet.group, sheet.source] for sheet in sheets)
    return buffer.getvalue()


# -- which files there will be --------------------------------------------------------------------
def plan(
    card: DatasetCard,
    source: SampleSource,
    seed: int,
    labels: Sequence[str],
    *,
    is_marked: bool = False,
) -> tuple[list[Sheet], list[Fault]]:
    """Which files there will be, sorted by path, and which of them carry a fault, by label.

    Args:
        is_marked: what is true of a picture goes with its bytes, so that no copy contradicts it.
    """
    sheets: list[Sheet] = []
    faults: list[Fault] = []
    carried: list[list[Sheet]] = []
    for label in labels:
        ordinary = _ordinary(card, source, seed, label)
        if source.images_per_class < MIN_IMAGES_FOR_FAULTS:
            sheets += ordinary
            continue
        ordinary, extra, found = _with_faults(card, source, seed, ordinary)
        sheets += ordinary + extra
        faults += found
        carried.append(ordinary)
    if len(carried) > 1 and not is_marked:
        victim = carried[0][_order(seed, card.task, labels[0], source)[-4]]
        copy = _copy(card, source, victim, labels[1], nth=2)
        sheets.append(copy)
        faults.append(Fault("conflicting_duplicate", copy.path, victim.path))
    return sorted(sheets, key=lambda sheet: sheet.path), faults


def _ordinary(card: DatasetCard, source: SampleSource, seed: int, label: str) -> list[Sheet]:
    sheets = []
    # As many PNG files in each class; in the middle of the order, away from the planted faults.
    order = _order(seed, card.task, label, source)
    n_png = round(_PNG_SHARE * source.images_per_class)
    pngs = set(order[len(IN_PLACE) : len(IN_PLACE) + n_png])
    for index in range(source.images_per_class):
        subject, shot = divmod(index, source.images_per_group)
        form: Form = "png" if index in pngs else "jpeg"
        group = group_id(card, label, subject)
        path = f"{label}/{group}_{shot}{_suffix_of(form)}"
        origin = _SOURCES[(subject + shot) % len(_SOURCES)]
        sheets.append(Sheet(path, label, group, origin, subject, shot, form))
    return sheets


def _with_faults(
    card: DatasetCard, source: SampleSource, seed: int, ordinary: Sequence[Sheet]
) -> tuple[list[Sheet], list[Sheet], list[Fault]]:
    label = ordinary[0].label
    order = _order(seed, card.task, label, source)
    changed = list(ordinary)
    faults = []
    for index, form in zip(order, IN_PLACE, strict=False):
        stem = changed[index].path.rpartition(".")[0]
        path = stem + _suffix_of(form)
        changed[index] = replace(changed[index], path=path, form=form)
        faults.append(Fault(form, path))
    copy = _copy(card, source, changed[order[-1]], label, nth=0)
    origin = changed[order[-2]]
    group = group_id(card, label, _n_subjects(source) + 1)
    # Nobody states its group: two that are stated would not be joined.
    alone = f"{label}/{group}_0.jpg"
    near = replace(origin, path=alone, group=alone, form="near_duplicate")
    whole = changed[order[-3]]
    broken = replace(whole, path=f"{label}/{whole.group}_cut.jpg", form="truncated")
    faults += [
        Fault("exact_duplicate", copy.path, copy.copy_of),
        Fault("near_duplicate", near.path, origin.path),
        Fault("truncated", broken.path),
    ]
    return changed, [copy, near, broken], faults


def _copy(card: DatasetCard, source: SampleSource, of: Sheet, label: str, *, nth: int) -> Sheet:
    group = group_id(card, label, _n_subjects(source) + nth)
    suffix = of.path.rpartition(".")[2]
    return replace(
        of, path=f"{label}/{group}_0.{suffix}", label=label, group=group, copy_of=of.path
    )


def _order(seed: int, task: str, label: str, source: SampleSource) -> list[int]:
    """Indices of a class's images: the first carry faults, the last are repeated."""
    draw = _rng(seed, task, "order", label)
    order: list[int] = draw.permutation(source.images_per_class).tolist()
    return order


def _n_subjects(source: SampleSource) -> int:
    return -(-source.images_per_class // source.images_per_group)


def group_id(card: DatasetCard, label: str, subject: int) -> str:
    """A group's name, e.g. ``patient007``: unique over all labels, and the same for any choice."""
    stem = re.sub(r"[^a-z0-9]+", "", card.group_key.lower()) or "group"
    names = painted_names(card)
    return f"{stem}{subject * len(names) + names.index(label):03d}"


# -- a painted picture as a file ------------------------------------------------------------------
#: A picture loses at most this share of one side, so that not every file is a square.
_MAX_CROP = 0.15
_MAX_ENLARGE = 0.1
#: EXIF tag of the orientation, and its value for "turn clockwise to show it".
_ORIENTATION, _TURN_CLOCKWISE = 0x0112, 6


def _render(brush: Marker, sheet: Sheet, *, task: str, seed: int, side_px: int) -> _Drawn:
    """One painted file, and what is marked in it.

    Raises:
        DataError: if the painter has no picture for the label.
    """
    subject, shot, facts = _draws(sheet, task, seed)
    try:
        painted, marks = brush(sheet.label, subject, shot, side_px)
    except KeyError as err:
        if err.args != (sheet.label,):
            raise
        raise DataError(
            f"{task}: the painter has no picture for the class {sheet.label!r} of the card. Add it "
            f"to pipelines/samples/{task}.py, or take the class off the card."
        ) from err
    box, size = framing(painted.size, facts, side_px)
    picture = painted.resize(size, Image.Resampling.BICUBIC, box=box)
    data = encode(picture, sheet.form, quality=int(facts.integers(90, 96)))
    if sheet.form == "near_duplicate":
        size = _near(size)
    return _Drawn(data, size, _framed_marks(marks, painted.size, box, size))


def _render_mask(paint_mask: Painter, sheet: Sheet, *, task: str, seed: int, side_px: int) -> bytes:
    """The bytes of the mask of one painted file, framed as that is."""
    subject, shot, facts = _draws(sheet, task, seed)
    framed = frame(paint_mask(sheet.label, subject, shot, side_px), facts, side_px)
    if sheet.form == "near_duplicate":
        framed = _shrunk(framed)
    return _bytes(framed.point(lambda value: 255 * (value >= 128)), "PNG")


def _draws(sheet: Sheet, task: str, seed: int) -> tuple[np.random.Generator, ...]:
    """What the subject, the shot and the file of a sheet are drawn with."""
    of = (sheet.label, sheet.subject)
    return (
        _rng(seed, task, "subject", *of),
        _rng(seed, task, "shot", *of, sheet.shot),
        _rng(seed, task, "file", *of, sheet.shot),
    )


def _rng(seed: int, *key: str | int) -> np.random.Generator:
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    return np.random.default_rng([seed, *words])


#: By which a near duplicate is smaller than what it repeats.
_NEAR_SIZE = 0.92
#: Of a marked box, the least that a cut edge must leave.
_LEAST_LEFT = 0.5


def _framed_marks(
    marks: Marks,
    painted: tuple[int, int],
    box: tuple[float, float, float, float],
    size: tuple[int, int],
) -> Marks:
    """Marks in px of the picture that `framing` leaves; those of which little is left go."""
    left, top, right, bottom = box
    scale = np.array([size[0] / (right - left), size[1] / (bottom - top)] * 2)
    found: Marks = []
    for name, corners in marks:
        whole = (np.array(corners) * np.array([*painted, *painted]) - [left, top] * 2) * scale
        cut = np.clip(whole, 0, [*size, *size])
        area, kept = ((b[2] - b[0]) * (b[3] - b[1]) for b in (whole, cut))
        if kept > _LEAST_LEFT * area:
            found.append((name, tuple(cut.tolist())))
    return found


def frame(picture: Image.Image, rng: np.random.Generator, side_px: int) -> Image.Image:
    """A square with a little cut off one pair of sides, enlarged again to at least ``side_px``."""
    box, size = framing(picture.size, rng, side_px)
    return picture.resize(size, Image.Resampling.BICUBIC, box=box)


def framing(
    size: tuple[int, int], rng: np.random.Generator, side_px: int
) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
    """What of a square `frame` keeps, and the size that it becomes."""
    width_px, height_px = size
    keep = 1 - rng.uniform(0, _MAX_CROP)
    offset = rng.uniform(0, 1 - keep)
    if rng.random() < 0.5:
        box = (offset * width_px, 0.0, (offset + keep) * width_px, float(height_px))
    else:
        box = (0.0, offset * height_px, float(width_px), (offset + keep) * height_px)
    shorter = side_px * rng.uniform(1, 1 + _MAX_ENLARGE)
    wide, high = box[2] - box[0], box[3] - box[1]
    scale = shorter / min(wide, high)
    return box, (max(side_px, round(wide * scale)), max(side_px, round(high * scale)))


def encode(picture: Image.Image, form: Form, *, quality: int) -> bytes:
    """A picture of mode RGB as the bytes of a file; ``quality`` is that of a JPEG, 1 to 95."""
    if form in {"png", "wrong_suffix"}:
        return _bytes(picture, "PNG", compress_level=3)
    if form == "grey":
        # Not of 16 bits: such files need a range in the card, and the cards describe real sets.
        return _bytes(picture.convert("L"), "PNG", compress_level=3)
    if form == "cmyk":
        return _bytes(picture.convert("CMYK"), "JPEG", quality=quality)
    if form == "exif_rotated":
        exif = Image.Exif()
        exif[_ORIENTATION] = _TURN_CLOCKWISE
        turned = picture.transpose(Image.Transpose.ROTATE_90)
        return _bytes(turned, "JPEG", quality=quality, exif=exif)
    if form == "near_duplicate":
        return _bytes(_shrunk(picture), "JPEG", quality=85)
    data = _bytes(picture, "JPEG", quality=quality)
    return data[: len(data) * 3 // 5] if form == "truncated" else data


def _shrunk(picture: Image.Image) -> Image.Image:
    """A near duplicate of it."""
    return picture.resize(_near(picture.size), Image.Resampling.BICUBIC)


def _near(size: tuple[int, int]) -> tuple[int, int]:
    """The size of what repeats a picture of a size, nearly."""
    return round(size[0] * _NEAR_SIZE), round(size[1] * _NEAR_SIZE)


def _bytes(picture: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def _suffix_of(form: Form) -> str:
    """The suffix of the file's name, with its dot."""
    return ".png" if form in {"png", "grey"} else ".jpg"
