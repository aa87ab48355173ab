"""The half of `segmentation` that `prepare` asks: masks or outlines of the pictures, checked."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from pipelines.card import DatasetCard
from pipelines.data.annotations import Listed, stated_of
from pipelines.data.images import Glance, glance, read_file
from pipelines.data.layout import Labelled, check_once, listed_files
from pipelines.data.manifest import Record, check_fetched, group_of, reading_of
from pipelines.data.tree import File, files_of
from pipelines.data.workers import ordered_map
from pipelines.errors import CorruptImageError, DataError
from pipelines.kinds.segmentation.masks import (
    MASKS,
    MaskFile,
    is_mask,
    key_of,
    read_mask,
    shares_of,
)
from pipelines.kinds.segmentation.outlines import Parts, as_png, drawn_mask, read_outlines

#: What a picture is filed under.
SHOWN, NOTHING = "shown", "nothing"
_SIZES = ("small", "middle", "large")
#: Files that an error names.
_NAMED = 3
_WINDOW = 16
#: Enough to tell which way a picture lies.
_GLANCE_PX = 64


class PreparedSegmentation:
    """A picture and its mask; filed under whether anything is shown."""

    def records(self, raw_dir: Path, card: DatasetCard, *, is_whole: bool = True) -> list[Record]:
        """The pictures with their masks; groups, sources and splits stand in records.csv."""
        check_fetched(raw_dir, card)
        files, rows = files_of(raw_dir), listed_files(raw_dir)
        listed = None if _has_masks(files, rows) else read_outlines(raw_dir, files)
        if listed is None:
            images, masks = _of_files(raw_dir, files, rows, card)
        else:
            images, masks = _of_outlines(raw_dir, listed, card)
        shares = zip(*(mask.shares for mask in masks), strict=True)
        missing = [label for label, of in zip(card.labels, shares, strict=True) if not any(of)]
        if missing and is_whole:
            raise DataError(
                f"{raw_dir}: no mask shows {', '.join(missing)}. Expected some of each class of "
                f"the card. Add them, or take the class off the card."
            )
        return [
            Record(
                image.path,
                SHOWN if any(mask.shares) else NOTHING,
                image.group or group_of(image.path, card),
                image.source,
                image.split,
                mask.to_truth(),
            )
            for image, mask in zip(images, _sized(masks), strict=True)
        ]

    def names(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Something or nothing."""
        return (SHOWN, NOTHING)

    def strata(self, record: Record) -> Sequence[str]:
        """Where something is shown, also how large it is beside the set's others."""
        size = MaskFile.of(record.truth).size
        return (record.label, size) if size else (record.label,)


def _of_files(
    raw_dir: Path, files: Sequence[File], rows: Sequence[Labelled], card: DatasetCard
) -> tuple[list[Labelled], list[MaskFile]]:
    images, mask_of = _paired(raw_dir, files, rows)
    reading = reading_of(card)

    def examined(image: Labelled) -> MaskFile:
        path = mask_of[image.path]
        where = f"{raw_dir / path}"
        data = read_file(raw_dir / path, path)
        mask = read_mask(data, where, card.labels)
        try:
            seen = glance(
                raw_dir / image.path, side_px=_GLANCE_PX, name=image.path, reading=reading
            )
        except CorruptImageError:
            # `prepare` refuses it, with the reason.
            seen = None
        if seen is not None:
            _check_size(mask, where, seen, image.path)
        sha256 = hashlib.sha256(data).hexdigest()
        return MaskFile(path, sha256, shares_of(mask, len(card.labels)))

    masks = list(ordered_map(examined, images, window=_WINDOW))
    # Of masks that are the same, one speaks for all: else copies of a picture, each with its
    # own copy of the mask, would be taken for pictures with two truths.
    first = {mask.sha256: mask.path for mask in reversed(masks)}
    return images, [replace(mask, path=first[mask.sha256]) for mask in masks]


def _has_masks(files: Sequence[File], rows: Sequence[Labelled]) -> bool:
    """Whether masks are files, which then speak for the folder."""
    return any(file.kind == "image" and is_mask(file.path) for file in files) or any(
        row.cells.get("mask", "").strip() for row in rows
    )


def _of_outlines(
    raw_dir: Path, listed: Sequence[Listed[Parts]], card: DatasetCard
) -> tuple[list[Labelled], list[MaskFile]]:
    """The images that COCO files list, with what the table says of them, and their masks."""
    listed = sorted(listed, key=lambda each: each.path)
    check_once([each.path for each in listed], raw_dir)

    def drawn(each: Listed[Parts]) -> MaskFile:
        mask = drawn_mask(raw_dir, each, card.label_of, card.labels)
        data, text = as_png(mask, f"{each.where}: {each.path!r}")
        path = Path(each.where).relative_to(raw_dir).as_posix()
        sha256 = hashlib.sha256(data).hexdigest()
        return MaskFile(path, sha256, shares_of(mask, len(card.labels)), png=text)

    masks = list(ordered_map(drawn, listed, window=_WINDOW))
    stated = stated_of(raw_dir, {each.path for each in listed})
    images = [
        stated.get(each.path) or Labelled(each.path, "", "", "", None, each.where)
        for each in listed
    ]
    return images, masks


def _sized(masks: Sequence[MaskFile]) -> list[MaskFile]:
    """With the third of the areas that each belongs to, among those that show something."""
    areas = [sum(mask.shares) for mask in masks]
    shown = [area for area in areas if area]
    bounds = np.quantile(shown, [1 / 3, 2 / 3]) if shown else np.zeros(2)
    return [
        replace(mask, size=_SIZES[int((area > bounds).sum())]) if area else mask
        for mask, area in zip(masks, areas, strict=True)
    ]


def _check_size(mask: NDArray[np.uint8], where: str, seen: Glance, picture: str) -> None:
    width, height = seen.width_px, seen.height_px
    if seen.is_exif_rotated and (seen.grey.width > seen.grey.height) != (width > height):
        width, height = height, width
    if mask.shape != (height, width):
        raise DataError(
            f"{where}: the mask has {mask.shape[1]} x {mask.shape[0]} px. Expected {width} x "
            f"{height} px, as the upright picture {picture!r} has. Save it at that size."
        )


def _paired(
    raw_dir: Path, files: Sequence[File], rows: Sequence[Labelled]
) -> tuple[list[Labelled], dict[str, str]]:
    """The pictures, and by path the mask of each.

    Raises:
        DataError: if a picture has no mask, a mask no picture, or one of them two.
    """
    paths = [file.path for file in files if file.kind == "image"]
    masks = [path for path in paths if is_mask(path)]
    images = list(rows) or [
        Labelled(str(path), "", "", "", None, str(raw_dir / path))
        for path in paths
        if not is_mask(path)
    ]
    if not images:
        raise DataError(
            f"{raw_dir}: no image was found. Expected pictures, and their masks as PNG of the same "
            f"name in a folder {MASKS!r}, or a COCO file of outlines."
        )
    by_key: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for path in masks:
        by_key[key_of(path)].append(str(path))
    there = set(map(str, paths))
    mask_of, without = dict[str, str](), list[str]()
    for image in images:
        stated = image.cells.get("mask", "").strip()
        found = [stated] if stated else by_key[key_of(PurePosixPath(image.path))]
        if len(found) > 1:
            raise DataError(
                f"{raw_dir}: {image.path!r} may have each of the masks {_named(found)}. Expected "
                f"one. Take the others away, or name it in the column `mask` of records.csv."
            )
        if not found or found[0] not in there:
            without.append(image.path)
        else:
            mask_of[image.path] = found[0]
    if without:
        raise DataError(
            f"{raw_dir}: {len(without)} of {len(images)} pictures have no mask "
            f"({_named(without)}). Expected a PNG of the same name in a folder {MASKS!r}, all 0 "
            f"where nothing is shown. Add it, or take the picture away."
        )
    left = sorted(set(map(str, masks)) - set(mask_of.values()))
    if left:
        raise DataError(
            f"{raw_dir}: {len(left)} of {len(masks)} masks belong to no picture "
            f"({_named(left)}). Expected a picture of the same name. Add it, or take the mask away."
        )
    return images, mask_of


def _named(paths: Sequence[str]) -> str:
    return ", ".join(map(repr, paths[:_NAMED])) + (", …" if len(paths) > _NAMED else "")
