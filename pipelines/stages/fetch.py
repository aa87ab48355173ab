"""`fieldlens fetch`: raw images of a task, from wherever params.yaml says.

datasets/<task>/raw is replaced as a whole or stays as it was. SOURCE.json is written last and says
where the images come from; it holds no clock, no host and no path of this machine.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pipelines.atomic import file_sha256, new_folder, write_text
from pipelines.card import (
    AnySource,
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
from pipelines.kinds.prepare import TRUTH_SUFFIXES
from pipelines.paths import Paths
from pipelines.samples.folder import load_marker, load_painter, painted_names, write_sample
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


def run(task: str, domain: str, params: FetchParams, seed: int, paths: Paths) -> None:
    """Fill datasets/<task>/raw.

    Args:
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
        facts, intake = _fill(params.source, folder, card, seed, paths)
        content = _content(folder)
        try:
            counted = _check(module, card, folder, intake.account.passed if intake else {})
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


def _fill(
    source: AnySource, folder: Path, card: DatasetCard, seed: int, paths: Paths
) -> tuple[Facts, Intake | None]:
    """What a source tells of itself, after its images were taken; of paintings no intake."""
    if isinstance(source, SampleSource):
        task, names = card.task, painted_names(card)
        paint, mark = load_painter(task), load_marker(task)
        write_sample(folder, paint, card, source, seed, names, mark)
        return {**source.model_dump(exclude={"kind"}), "seed": seed}, None
    picked = source if isinstance(source, Picked) else None
    max_bytes = getattr(source, "max_bytes", MAX_BYTES)
    truth = TRUTH_SUFFIXES.get(card.kind, frozenset())
    intake = Intake(folder, card.task, max_bytes=max_bytes, picked=picked, truth=truth)
    root, downloads_dir = paths.root, paths.cache_dir / "downloads"
    match source:
        case FolderSource():
            facts = fetch_folder(source, intake, root)
        case ArchiveSource():
            facts = fetch_archive(source, intake, root, downloads_dir)
        case StoreSource():
            facts = fetch_store(source, intake, downloads_dir)
        case GitSource():
            facts = fetch_git(source, intake, root, downloads_dir)
        case UrlListSource():
            facts = fetch_urls(source, intake, root, downloads_dir)
    return facts, intake


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
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    for name, path in sorted(files.items()):
        digest.update(f"{file_sha256(path)} {name}\0".encode("utf-8", "surrogateescape"))
    return {
        "n_images": sum(path.suffix.lower() in IMAGE_SUFFIXES for path in files.values()),
        "n_files": len(files),
        "n_bytes": sum(path.stat().st_size for path in files.values()),
        "content_sha256": digest.hexdigest(),
    }


def _check(
    module: TaskModule, card: DatasetCard, folder: Path, passed: Mapping[tuple[str, str], int]
) -> Account:
    """What became of each file of the source, if what arrived is a data set of this task."""
    try:
        records = module.records(folder, card)
    except DataError as err:
        # The folder has a temporary name that will be gone when the message is read.
        message = str(err).replace(f"{folder}/", "").replace(str(folder), "the source")
        raise SourceError(
            f"{card.task}: what was fetched is not a data set of this task: {message} For an "
            f"archive or a repository, `subfolder` names the folder that holds the class folders."
        ) from err
    if not any((folder / record.path).is_file() for record in records):
        raise SourceError(
            f"{card.task}: no image was fetched. Expected a folder a class "
            f"({', '.join(card.labels)}), or records.csv with the images that it names."
        )
    label_of = {record.path: record.label for record in records}
    counted = account(files_of(folder), label_of, {}, card.labels)
    # What was not taken from the source is no file here, and is counted all the same.
    counted.passed.update(
        {(f"not taken: {kind}", detail): n for (kind, detail), n in passed.items()}
    )
    counted.missing.update(Counter(label_of.values()) - counted.read)
    return counted
