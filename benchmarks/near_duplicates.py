"""What the search for near duplicates finds and misses, before and after its close look.

Each folder has one folder a class, or a records.csv with the columns path, group and perhaps label.
Before: 64-bit hashes within --bits of one another whose thumbnails correlate over the whole
picture. After: what `prepare` takes for near duplicates. A pair of one stated group is counted as
known. Then pictures are stored once more, changed a little, and sought among their set.

    python benchmarks/near_duplicates.py SOME/SET ANOTHER/SET --copies 25
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from report import header, make_parser, run, say, table

from pipelines.data.duplicates import Indices, find, near_pairs
from pipelines.data.fingerprints import GLANCE_PX, Fingerprint, Fingerprints, fingerprint, stack
from pipelines.data.images import glance
from pipelines.data.tree import TABLES
from pipelines.errors import CorruptImageError, MissingDataError

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True, slots=True)
class Pictures:
    """A set of images; a label that is not stated is empty, a group the image's path."""

    files: list[Path]
    labels: list[str]
    groups: list[str]
    prints: list[Fingerprint]


def main() -> int:
    """Parse, look, print."""
    parser = make_parser(__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--bits", type=int, default=4, help="of the hash that may differ (4)")
    parser.add_argument("--copies", type=int, default=25, help="pictures changed in a set (25)")
    parser.add_argument("--seed", type=int, default=1, help="draws them (1)")
    return run(measure, parser)


def measure(arguments: argparse.Namespace) -> None:
    """Print both tables."""
    header("Near duplicates")
    sets = {folder.name: read(folder) for folder in arguments.folders}
    say("Pairs of one stated group + other pairs.", "")
    columns = ("set", "images", "groups", "pairs of one group", "hash", "before", "after", "scenes")
    table(columns, (_row(name, each, arguments.bits) for name, each in sets.items()))
    say("Copies found, before → after, of so many pictures of each set.", "")
    rows = []
    for name, each in sets.items():
        found = copies_found(each, arguments.bits, arguments.copies, arguments.seed)
        rows.append((name, *(f"{before} → {after} of {n}" for n, before, after in found)))
    table(("set", *CHANGES), rows)


def read(folder: Path) -> Pictures:
    """The images of a folder that can be read, with label and group."""
    if (folder / TABLES[0]).is_file():
        with (folder / TABLES[0]).open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    else:
        files = (f for f in sorted(folder.rglob("*")) if f.suffix.lower() in _SUFFIXES)
        paths = [file.relative_to(folder).as_posix() for file in files]
        rows = [{"path": path, "label": path.split("/")[0]} for path in paths]
    found = Pictures([], [], [], [])
    for row in rows:
        file = folder / row["path"]
        with contextlib.suppress(CorruptImageError):
            found.prints.append(fingerprint(glance(file, side_px=GLANCE_PX).grey))
            found.files.append(file)
            found.labels.append(row.get("label") or "")
            found.groups.append(row.get("group") or row["path"])
    if not found.files:
        raise MissingDataError(f"{folder}: no image was found. Expected a folder a class.")
    return found


def _row(name: str, pictures: Pictures, max_bits: int) -> tuple[str, ...]:
    prints = stack(pictures.prints)
    sizes = np.unique(pictures.groups, return_counts=True)[1]
    found = find(prints, pictures.labels, max_bits)
    return (
        name,
        f"{len(pictures.files):,}",
        f"{len(sizes):,}",
        f"{int((sizes * (sizes - 1) // 2).sum()):,}",
        _known(pictures, *_close(prints, max_bits)),
        _known(pictures, *_correlated(prints, max_bits)),
        _known(pictures, found.left, found.right),
        ", ".join(str(len(members)) for members in found.scenes) or "none",
    )


def _known(pictures: Pictures, left: Indices, right: Indices) -> str:
    groups = np.asarray(pictures.groups, dtype=object)
    same = int((groups[left] == groups[right]).sum())
    return f"{same} + {len(left) - same}"


def _close(prints: Fingerprints, max_bits: int) -> tuple[Indices, Indices]:
    """Pairs by the hash alone."""
    # Flat thumbnails of one level are alike: nothing but the hash decides.
    flat = Fingerprints(prints.bits, prints.thumbnails, np.zeros_like(prints.coarse))
    return _correlated(flat, max_bits)


def _correlated(prints: Fingerprints, max_bits: int) -> tuple[Indices, Indices]:
    """Pairs as they were found before: hash, and correlation of the whole thumbnail."""
    none = np.zeros(0, np.intp)
    blocks = list(near_pairs(prints, max_bits, lambda left, _: np.ones(len(left), np.bool_)))
    left, right = ([block[side] for block in blocks] for side in (0, 1))
    return np.concatenate([none, *left]), np.concatenate([none, *right])


# -- copies ---------------------------------------------------------------------------------------
def _stored(image: Image.Image, kind: str = "JPEG", quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)
    return buffer.getvalue()


def _scaled(image: Image.Image, factor: float) -> Image.Image:
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _cropped(image: Image.Image, share: float) -> Image.Image:
    x, y = round(image.width * share / 2), round(image.height * share / 2)
    return image.crop((x, y, image.width - x, image.height - y))


#: By name, what is done to a picture before it is stored again.
CHANGES: dict[str, Callable[[Image.Image], bytes]] = {
    "JPEG 90": _stored,
    "JPEG 60": lambda image: _stored(image, quality=60),
    "JPEG 30": lambda image: _stored(image, quality=30),
    "WebP 70": lambda image: _stored(image, "WEBP", 70),
    "half the size": lambda image: _stored(_scaled(image, 0.5)),
    "twice the size": lambda image: _stored(_scaled(image, 2)),
    "224 x 224": lambda image: _stored(image.resize((224, 224))),
    "brightness x 0.8": lambda image: _stored(ImageEnhance.Brightness(image).enhance(0.8)),
    "brightness x 1.25": lambda image: _stored(ImageEnhance.Brightness(image).enhance(1.25)),
    "contrast x 0.75": lambda image: _stored(ImageEnhance.Contrast(image).enhance(0.75)),
    "crop 1 %": lambda image: _stored(_cropped(image, 0.01)),
    "crop 2 %": lambda image: _stored(_cropped(image, 0.02)),
    "crop 4 %": lambda image: _stored(_cropped(image, 0.04)),
}


def copies_found(
    pictures: Pictures, max_bits: int, n_copies: int, seed: int
) -> list[tuple[int, int, int]]:
    """By change: copies made, found before, found after."""
    n = len(pictures.files)
    chosen = np.random.default_rng(seed).permutation(n)[:n_copies]
    rows = []
    for change in CHANGES.values():
        copies = [_changed(pictures.files[index], change) for index in chosen]
        prints = stack([*pictures.prints, *copies])
        labels = [*pictures.labels, *(pictures.labels[index] for index in chosen)]

        def is_copy(left: Indices, right: Indices) -> NDArray[np.bool_]:
            copies: NDArray[np.bool_] = left == chosen[np.maximum(right - n, 0)]
            return copies & (left < n) & (right >= n)

        before = sum(len(left) for left, _ in near_pairs(prints, max_bits, is_copy))
        found = find(prints, labels, max_bits)
        rows.append((len(chosen), before, int(is_copy(found.left, found.right).sum())))
    return rows


def _changed(file: Path, change: Callable[[Image.Image], bytes]) -> Fingerprint:
    with Image.open(file) as image:
        return fingerprint(glance(change(image.convert("RGB")), side_px=GLANCE_PX).grey)


if __name__ == "__main__":
    raise SystemExit(main())
