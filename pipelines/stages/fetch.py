"""`fieldlens fetch`: raw images of a task, from wherever params.yaml says.

datasets/<task>/raw is replaced as a whole or stays as it was. SOURCE.json is written last and says
where the images come from; it holds no clock, no host and no path of this machine.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.atomic import file_sha256, new_folder, write_text
from pipelines.card import (
    ArchiveSource,
    DatasetCard,
    FolderSource,
    GitSource,
    Picked,
    SampleSource,
    StoreSource,
    UrlListSource,
    load_card,
)
from pipelines.config.fetch import FetchParams
from pipelines.data.account import Account, account
from pipelines.data.tree import IMAGE_SUFFIXES, SOURCE_FILE, files_of
from pipelines.errors import DataError, SourceError
from pipelines.paths import Paths
from pipelines.samples.folder import load_painter, write_sample
from pipelines.sources.archive import fetch_archive
from pipelines.sources.folder import MAX_BYTES, fetch_folder
from pipelines.sources.git import fetch_git
from pipelines.sources.intake import Facts, Intake
from pipelines.sources.stores import fetch_store
from pipelines.sources.urls import fetch_urls
from pipelines.tasks import TaskModule, load_task

_LOG = logging.getLogger(__name__)

#: Raised when the meaning of a key of SOURCE.json changes.
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class _Job:
    """What a builder may need besides its own section of params.yaml."""

    card: DatasetCard
    module: TaskModule
    seed: int
    folder: Path
    root: Path
    downloads_dir: Path

    def intake(self, max_bytes: int, picked: Picked | None = None) -> Intake:
        return Intake(self.folder, self.card.task, max_bytes=max_bytes, picked=picked)


#: What a builder tells for SOURCE.json; no intake where the images were painted.
_Arrived = tuple[Facts, Intake | None]


def run(task: str, domain: str, params: FetchParams, seed: int, paths: Paths) -> None:
    """Fill datasets/<task>/raw.

    Args:
        params: where the images come from.
        seed: of painted images.

    Raises:
        ConfigError: if the card is not there, or the task has no painter for samples.
        SourceError: if the source cannot be fetched, holds no image, or names an unknown class;
            raw/ then stays as it was.
        StorageError: if the disk is full.
    """
    files = paths.task(task)
    card = load_card(files.card)
    module = load_task(domain, task)
    with new_folder(files.raw_dir) as folder:
        job = _Job(card, module, seed, folder, paths.root, paths.cache_dir / "downloads")
        facts, intake = _BUILDERS[params.source.kind](params.source, job)
        content = _content(folder)
        try:
            counted = _check(job, intake.account.passed if intake else {})
        except SourceError:
            if intake is not None:
                # It tells why there may be nothing to check.
                _LOG.info("%s", intake.account.as_text(task))
            raise
        document = {
            "schema_version": SCHEMA_VERSION,
            "task": task,
            "kind": params.source.kind,
            **_credits(params.source.kind, card),
            **content,
            "skipped": dict(sorted(intake.skipped.items())) if intake else {},
            "source": facts,
        }
        write_text(folder / SOURCE_FILE, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    _LOG.info("%s: %d files in %s", task, content["n_files"], files.raw_dir)
    _LOG.info("%s", counted.as_text("class", card.names, "taken"))


# -- builders -------------------------------------------------------------------------------------
def _sample(source: SampleSource, job: _Job) -> _Arrived:
    paint = load_painter(job.card.task)
    write_sample(job.folder, paint, job.card, source, job.seed, job.card.labels)
    facts: Facts = {
        "images_per_class": source.images_per_class,
        "images_per_group": source.images_per_group,
        "side_px": source.side_px,
        "seed": job.seed,
    }
    return facts, None


def _folder(source: FolderSource, job: _Job) -> _Arrived:
    intake = job.intake(MAX_BYTES, source)
    return fetch_folder(source, intake, job.root), intake


def _archive(source: ArchiveSource, job: _Job) -> _Arrived:
    intake = job.intake(source.max_bytes, source)
    return fetch_archive(source, intake, job.root, job.downloads_dir), intake


def _store(source: StoreSource, job: _Job) -> _Arrived:
    intake = job.intake(source.max_bytes, source)
    return fetch_store(source, intake, job.downloads_dir), intake


def _git(source: GitSource, job: _Job) -> _Arrived:
    intake = job.intake(source.max_bytes, source)
    return fetch_git(source, intake, job.root, job.downloads_dir), intake


def _urls(source: UrlListSource, job: _Job) -> _Arrived:
    intake = job.intake(source.max_bytes)
    return fetch_urls(source, intake, job.root, job.downloads_dir), intake


_BUILDERS: dict[str, Callable[[Any, _Job], _Arrived]] = {
    "sample": _sample,
    "folder": _folder,
    "archive": _archive,
    "store": _store,
    "git": _git,
    "urls": _urls,
}


# -- what arrived ---------------------------------------------------------------------------------
def _credits(kind: str, card: DatasetCard) -> dict[str, str]:
    if kind == "sample":
        # The card's publisher has nothing to do with painted images.
        return {"publisher": "Fieldlens (synthetic images)", "licence": "Apache-2.0"}
    return {
        "publisher": card.source.publisher,
        "publisher_url": card.source.url,
        "version": card.source.version,
        "licence": card.licence.spdx,
    }


def _content(folder: Path) -> dict[str, int | str]:
    """How much arrived, and one hash over names and bytes in sorted order."""
    digest = hashlib.sha256()
    n_images = n_files = n_bytes = 0
    by_name = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    for name, path in sorted(by_name.items()):
        digest.update(f"{file_sha256(path)} {name}\0".encode("utf-8", "surrogateescape"))
        n_files += 1
        n_bytes += path.stat().st_size
        n_images += path.suffix.lower() in IMAGE_SUFFIXES
    return {
        "n_images": n_images,
        "n_files": n_files,
        "n_bytes": n_bytes,
        "content_sha256": digest.hexdigest(),
    }


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _check(job: _Job, passed: Mapping[tuple[str, str], int]) -> Account:
    """What became of each file of the source, if what arrived is a data set of this task."""
    try:
        records = job.module.records(job.folder, job.card)
    except DataError as err:
        # The folder has a temporary name that will be gone when the message is read.
        message = str(err).replace(f"{job.folder}/", "").replace(str(job.folder), "the source")
        raise SourceError(
            f"{job.card.task}: what was fetched is not a data set of this task: {message} For an "
            f"archive or a repository, `subfolder` names the folder that holds the class folders."
        ) from err
    if not any((job.folder / record.path).is_file() for record in records):
        raise SourceError(
            f"{job.card.task}: no image was fetched. Expected a folder a class "
            f"({', '.join(job.card.labels)}), or records.csv with the images that it names."
        )
    label_of = {record.path: record.label for record in records}
    counted = account(files_of(job.folder), label_of, {}, job.card.labels)
    # What was not taken from the source is no file here, and is counted all the same.
    counted.passed.update(
        {(f"not taken: {kind}", detail): n for (kind, detail), n in passed.items()}
    )
    counted.missing.update(Counter(label_of.values()) - counted.read)
    return counted
