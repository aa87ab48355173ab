"""Images from a list of addresses: a CSV file with the columns url, path[, sha256, label, group].

For sets that may not be redistributed, whose publishers give addresses only. What has arrived stays
in the cache, so that a broken run is taken up where it ended.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipelines.atomic import file_sha256
from pipelines.card import UrlListSource
from pipelines.data.images import MAX_FILE_BYTES
from pipelines.data.tree import IMAGE_SUFFIXES, TABLES, passed_over
from pipelines.errors import SourceError
from pipelines.locks import hold
from pipelines.sources.download import check_address, download, source_faults
from pipelines.sources.intake import Facts, Intake, safe_path, take_all

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class _Item:
    """One row of a list; a label is empty if the first folder of ``path`` is the class."""

    url: str
    path: PurePosixPath
    sha256: str | None
    label: str
    group: str


def fetch_urls(source: UrlListSource, intake: Intake, root: Path, downloads_dir: Path) -> Facts:
    """Fetch the images of a list.

    Args:
        root: project root, for a relative path.
        downloads_dir: where what has arrived is kept.

    Returns:
        The list's name, its sha256 and its number of rows.

    Raises:
        SourceError: if the list breaks a rule, or an image cannot be fetched.
        StorageError: if the disk is full.
    """
    path = root / source.list
    items = _read_list(path, intake.what)
    sha256 = file_sha256(path)
    folder = downloads_dir / f"urls-{hashlib.sha256(source.list.encode()).hexdigest()[:16]}"
    with hold(folder.with_suffix(".lock"), f"fetch {intake.what}"):
        max_bytes = min(MAX_FILE_BYTES, source.max_bytes)

        def bring(item: _Item) -> Path:
            path = _cached(folder, item)
            download(item.url, path, sha256=item.sha256, max_bytes=max_bytes)
            return path

        take_all([(item.path, item) for item in items], bring, intake, "mend the list")
    if any(item.label or item.group for item in items):
        intake.add(PurePosixPath(TABLES[0]), [_records_csv(items)])
    return {"list": path.name, "sha256": sha256, "n_addresses": len(items)}


def _read_list(path: Path, what: str) -> list[_Item]:
    """The rows of a list, sorted by path.

    Raises:
        SourceError: if it cannot be read, or a row has no safe, new image path, no http(s) address,
            or a hash that is none; names the line.
    """
    with source_faults(
        f"{what}: the list {path.name!r} cannot be read",
        (OSError, UnicodeDecodeError),
        "Mend `source.list` in params.yaml.",
    ):
        text = path.read_text(encoding="utf-8-sig")
    reader = csv.DictReader(io.StringIO(text, newline=""))
    absent = {"url", "path"} - set(reader.fieldnames or ())
    if absent:
        raise SourceError(
            f"{what}: {path.name}: expected the columns url, path[, sha256, label, group], without "
            f"{', '.join(sorted(absent))} it cannot be used."
        )
    items = []
    seen: set[PurePosixPath] = set()
    for row in reader:
        item = _item(row, f"{what}: {path.name}:{reader.line_num}")
        if item.path in seen:
            raise SourceError(
                f"{what}: {path.name}:{reader.line_num}: the path {str(item.path)!r} stands twice."
            )
        seen.add(item.path)
        items.append(item)
    return sorted(items, key=lambda item: item.path.parts)


def _item(row: dict[str, str | None], where: str) -> _Item:
    url = (row["url"] or "").strip()
    check_address(url, where)
    path = safe_path(row["path"] or "", where)
    if path.suffix.lower() not in IMAGE_SUFFIXES or passed_over(path):
        raise SourceError(f"{where}: the path {str(path)!r} does not name an image file.")
    sha256 = (row.get("sha256") or "").strip().lower()
    if sha256 and not _SHA256.fullmatch(sha256):
        raise SourceError(f"{where}: sha256: expected 64 hexadecimal digits (got {sha256!r}).")
    return _Item(url, path, sha256 or None, row.get("label") or "", row.get("group") or "")


def _cached(folder: Path, item: _Item) -> Path:
    # By address and path: two rows with one address do not write one file at the same time.
    return folder / hashlib.sha256(f"{item.url}\n{item.path}".encode()).hexdigest()


def _records_csv(items: list[_Item]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", "label", "group"])
    for item in items:
        writer.writerow([item.path, item.label or item.path.parts[0], item.group])
    return buffer.getvalue().encode("utf-8", "surrogateescape")
