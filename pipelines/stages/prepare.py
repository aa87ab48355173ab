"""prepare: raw images -> manifest.csv, summary.json, quarantine.csv and a contact sheet a class.

Every image is decoded once, here, so that no later stage meets a bad one. No pixel is copied but
to the contact sheets.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pipelines.atomic import new_folder, write_bytes, write_text
from pipelines.card import DatasetCard, load_card
from pipelines.config import PrepareParams
from pipelines.data.contact import Tile, contact_sheet, pick
from pipelines.data.decoding import Refused, Seen, look_at_all
from pipelines.data.duplicates import Joined, drop_exact, join_groups, linked_by_copies
from pipelines.data.fingerprints import stack
from pipelines.data.images import open_image
from pipelines.data.manifest import (
    SOURCE_FILE,
    Entry,
    Record,
    write_manifest,
)
from pipelines.data.patients import by_patient
from pipelines.data.plain_view import reading_of
from pipelines.data.range_of_set import check_scale, tell_outside
from pipelines.data.reading import Reading
from pipelines.data.splits import assign_splits, check_leaks
from pipelines.data.summary import (
    Findings,
    n_groups_of_several_labels,
    summarise,
    write_quarantine,
)
from pipelines.data.workers import n_workers
from pipelines.errors import ConfigError, DataError
from pipelines.paths import Paths, TaskPaths
from pipelines.progress import track
from pipelines.tasks import load_task

_LOG = logging.getLogger(__name__)

#: Refused files that an error names.
_NAMED = 3


def run(task: str, domain: str, params: PrepareParams, seed: int, paths: Paths) -> None:
    """Write datasets/<task>/prepared, whole or not at all.

    Args:
        task: slug.
        domain: folder of the task's module.
        params: the task's ``prepare`` section.
        seed: draws the splits.
        paths: of the project.

    Raises:
        MissingDataError: if nothing was fetched.
        ConfigError: if ``classes`` names a label that the card does not have.
        DataError: if the data set as a whole cannot be used: a class without images or with too few
            groups, too many refused files, a path listed twice.
        LeakageError: if, against all care, two splits share something.
    """
    files = paths.task(task)
    card = load_card(files.card)
    labels = _labels(params, card, files)
    listed = load_task(domain, task).records(files.raw_dir, card)
    records = [record for record in listed if record.label in labels]
    _check_records(records, labels, files)
    reading = reading_of(card)
    findings = _examine(task, records, params, seed, files, reading)
    summary = summarise(task, labels, _data_source(files.raw_dir), findings, reading)
    with new_folder(files.prepared_dir) as folder:
        write_text(folder / files.manifest.name, write_manifest(findings.entries))
        write_text(folder / files.quarantine.name, write_quarantine(findings))
        write_text(
            folder / files.prepare_summary.name,
            json.dumps(summary, indent=2, ensure_ascii=True) + "\n",
        )
        for label in labels:
            sheet = _sheet(label, findings.entries, files.raw_dir, reading)
            write_bytes(folder / files.contact_dir.name / f"{label}.png", sheet)
    _LOG.info(
        "%s: %d images in %d groups; %d refused, %d copies left out",
        task,
        len(findings.entries),
        summary["n_groups"]["total"],
        len(findings.refused),
        len(findings.dropped),
    )


def _labels(params: PrepareParams, card: DatasetCard, files: TaskPaths) -> tuple[str, ...]:
    if params.classes is None:
        return card.labels
    unknown = [label for label in params.classes if label not in card.labels]
    if unknown:
        raise ConfigError(
            f"params.yaml: tasks.{files.task}.prepare.classes: {', '.join(unknown)} is not in "
            f"{files.card}. Expected some of {', '.join(card.labels)}."
        )
    return params.classes


def _check_records(records: Sequence[Record], labels: Sequence[str], files: TaskPaths) -> None:
    present = {record.label for record in records}
    missing = [label for label in labels if label not in present]
    if missing:
        there = [label for label in labels if label in present]
        raise DataError(
            f"{files.raw_dir}: no image of class {', '.join(missing)}. Expected images of each of "
            f"{', '.join(labels)}. Add them, or name the classes to use in params.yaml: "
            f"tasks.{files.task}.prepare.classes: [{', '.join(there)}]."
        )
    twice = sorted(path for path, n in Counter(record.path for record in records).items() if n > 1)
    if twice:
        raise DataError(
            f"{files.raw_dir}: {len(twice)} path(s) are listed more than once "
            f"({', '.join(map(repr, twice[:_NAMED]))}). Expected one row an image. Mend the list."
        )


def _examine(
    task: str,
    records: Sequence[Record],
    params: PrepareParams,
    seed: int,
    files: TaskPaths,
    reading: Reading,
) -> Findings:
    record_of = {record.path: record for record in records}
    looks = look_at_all(
        files.raw_dir,
        sorted(record_of),
        min_side_px=params.min_side_px,
        reading=reading,
        n_workers=n_workers(),
    )
    refused, seen = list[tuple[Record, Refused]](), list[Seen]()
    for found in track(looks, f"{task}: decoding", len(record_of)):
        if isinstance(found, Refused):
            refused.append((record_of[found.path], found))
        else:
            seen.append(found)
    record_of |= by_patient(record_of, seen, files.raw_dir)
    check_scale([each for _, each in refused], files)
    tell_outside(task, seen, reading)
    _check_share(
        [each for _, each in refused], len(record_of), params.max_quarantine_fraction, files
    )

    shown = [record_of[image.path] for image in seen]
    sha256s = [image.sha256 for image in seen]
    drops = drop_exact(shown, sha256s)
    dropped = [(shown[drop.index], drop) for drop in drops]
    out = {drop.index for drop in drops}
    kept = [image for index, image in enumerate(seen) if index not in out]
    kept_records = [record_of[image.path] for image in kept]
    joined = join_groups(
        kept_records,
        stack(image.fingerprint for image in kept),
        params.near_duplicate_bits,
        linked_by_copies(shown, sha256s),
    )
    return Findings(
        _entries(kept, kept_records, joined, params, seed, files),
        seen,
        refused,
        dropped,
        joined,
    )


def _check_share(
    refused: Sequence[Refused], n_files: int, max_fraction: float, files: TaskPaths
) -> None:
    if len(refused) > max_fraction * n_files:
        first = "; ".join(f"{each.path!r}: {each.reason}" for each in refused[:_NAMED])
        raise DataError(
            f"{files.raw_dir}: {len(refused)} of {n_files} images cannot be used ({first}). "
            f"Expected at most {max_fraction:.0%} (max_quarantine_fraction). Mend the source and "
            f"run `fieldlens fetch {files.task}` again."
        )


def _entries(
    kept: Sequence[Seen],
    records: Sequence[Record],
    joined: Joined,
    params: PrepareParams,
    seed: int,
    files: TaskPaths,
) -> list[Entry]:
    labels = [record.label for record in records]
    n_mixed = n_groups_of_several_labels(labels, joined.groups)
    if n_mixed:
        _LOG.warning(
            "%s: %d group(s) hold images of several labels; each stays in one split",
            files.task,
            n_mixed,
        )
    try:
        splits = assign_splits(
            labels,
            joined.groups,
            val_fraction=params.val_fraction,
            test_fraction=params.test_fraction,
            seed=seed,
        )
    except DataError as err:
        raise DataError(f"{files.raw_dir}: {err}") from err
    entries = [
        Entry(
            path=image.path,
            label=record.label,
            group=group,
            source=record.source,
            split=split,
            sha256=image.sha256,
            width_px=image.width_px,
            height_px=image.height_px,
        )
        for image, record, group, split in zip(kept, records, joined.groups, splits, strict=True)
    ]
    prints = stack(image.fingerprint for image in kept)
    check_leaks(entries, prints, params.near_duplicate_bits)
    return entries


def _data_source(raw_dir: Path) -> str:
    file = raw_dir / SOURCE_FILE
    if not file.is_file():
        return "folder"
    try:
        kind = json.loads(file.read_text(encoding="utf-8"))["kind"]
    except (ValueError, KeyError, TypeError) as err:
        raise DataError(
            f"{file}: expected a JSON object with the key 'kind' ({err}). Run `fieldlens fetch "
            f"{raw_dir.parent.name}` again."
        ) from err
    return str(kind)


def _sheet(label: str, entries: Sequence[Entry], raw_dir: Path, reading: Reading) -> bytes:
    tiles = [
        Tile(
            open_image(raw_dir / entry.path, reading=reading).rgb,
            PurePosixPath(entry.path).name,
            entry.split,
        )
        for entry in pick(entries, label)
    ]
    n_images = sum(entry.label == label for entry in entries)
    return contact_sheet(f"{label}: {len(tiles)} of {n_images} images", tiles)
