"""prepare: raw images -> manifest.csv, summary.json, quarantine.csv and a contact sheet a class.

Every image is decoded once, here, so that no later stage meets a bad one. No pixel is copied but
to the contact sheets.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pipelines.atomic import new_folder, write_bytes, write_text
from pipelines.card import DatasetCard, load_card
from pipelines.config.prepare import PrepareParams
from pipelines.data.account import CONFLICT, COPY, Account, account, check_all, check_classes
from pipelines.data.contact_sheets import Tile, contact_sheet, pick
from pipelines.data.decoding import (
    Refused,
    by_patient,
    check_scale,
    decode,
    entries_of,
    tell_outside,
)
from pipelines.data.duplicates import Dropped, Joined, drop_exact, join_groups, linked_by_copies
from pipelines.data.fingerprints import stack
from pipelines.data.images import open_image
from pipelines.data.layout import check_once
from pipelines.data.manifest import Entry, Record, reading_of, write_manifest
from pipelines.data.pixel_range import Reading
from pipelines.data.splits import check_contents, check_leaks, in_two_splits, make_partition
from pipelines.data.summary import Findings, n_groups_of_several_labels, summarise, write_quarantine
from pipelines.data.tree import SOURCE_FILE, files_of
from pipelines.errors import ConfigError, DataError
from pipelines.kinds.prepare import KINDS
from pipelines.paths import Paths, TaskPaths
from pipelines.serving.kinds import served_kind
from pipelines.tasks import load_task

_LOG = logging.getLogger(__name__)

#: Refused files that an error names.
_NAMED = 3


def run(task: str, domain: str, params: PrepareParams, seed: int, paths: Paths) -> None:
    """Write datasets/<task>/prepared, whole or not at all; the seed draws the splits.

    Raises:
        MissingDataError: if nothing was fetched.
        ConfigError: if ``classes`` names a label that the card does not have.
        DataError: if the data set as a whole cannot be used: a class without images, with too few
            groups or with too many that were lost, too many refused files, a path listed twice.
        LeakageError: if two splits share something: a given split that the card does not accept,
            or, against all care, one that was made.
    """
    files = paths.task(task)
    card = load_card(files.card)
    labels = _labels(params, card, files)
    listed = load_task(domain, task).records(files.raw_dir, card)
    names = _names(card, labels, listed)
    _check_records([record for record in listed if record.label in names], names, files)
    reading = reading_of(card)
    findings = _examine(card, names, listed, params, seed, files, reading)
    summary = summarise(task, labels, _data_source(files.raw_dir), findings, reading, card.kind)
    with new_folder(files.prepared_dir) as folder:
        write_text(folder / files.manifest.name, write_manifest(findings.entries))
        write_text(folder / files.quarantine.name, write_quarantine(findings))
        write_text(
            folder / files.prepare_summary.name,
            json.dumps(summary, indent=2, ensure_ascii=True) + "\n",
        )
        for label in names:
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
    _LOG.info("%s", findings.account.as_text("class", card.names))


def _labels(params: PrepareParams, card: DatasetCard, files: TaskPaths) -> tuple[str, ...]:
    chosen = card.labels if params.classes is None else params.classes
    unknown = [label for label in chosen if label not in card.labels]
    if unknown:
        raise ConfigError(
            f"params.yaml: tasks.{files.task}.prepare.classes: {', '.join(unknown)} is not in "
            f"{files.card}. Expected some of {', '.join(card.labels)}."
        )
    try:
        served_kind(card.kind).check_labels(chosen)
    except ValueError as err:
        raise ConfigError(f"{files.card}, or classes in params.yaml: {err}.") from err
    return chosen


def _names(card: DatasetCard, labels: tuple[str, ...], listed: Sequence[Record]) -> tuple[str, ...]:
    """What images are filed under; where that is not their class, an empty name is left out."""
    names = KINDS[card.kind].names(labels)
    if names == labels:
        return names
    filed = {record.label for record in listed}
    return tuple(name for name in names if name in filed) or names


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
    check_once([record.path for record in records], files.raw_dir)


def _examine(
    card: DatasetCard,
    labels: Sequence[str],
    listed: Sequence[Record],
    params: PrepareParams,
    seed: int,
    files: TaskPaths,
    reading: Reading,
) -> Findings:
    record_of = {record.path: record for record in listed if record.label in labels}
    what = f"{files.task}: decoding"
    seen, bad = decode(files.raw_dir, sorted(record_of), params.min_side_px, reading, what)
    refused = [(record_of[each.path], each) for each in bad]
    record_of |= by_patient(record_of, seen, files.raw_dir)
    check_scale(bad, files)
    tell_outside(files.task, seen, reading)
    shown = [record_of[image.path] for image in seen]
    sha256s = [image.sha256 for image in seen]
    drops = drop_exact(shown, sha256s)
    dropped = [(shown[drop.index], drop) for drop in drops]
    out = {drop.index for drop in drops}
    kept = [index for index in range(len(seen)) if index not in out]
    kept_records = [shown[index] for index in kept]
    counted = _account(labels, listed, kept_records, refused, dropped, files)
    where, first = str(files.raw_dir), {each.path: each.reason for each in bad[:_NAMED]}
    names = {name: card.names.get(name, name) for name in counted.classes}
    check_classes(counted, params.max_class_loss, names, where, files.task)
    check_all(counted, first, params.max_quarantine_fraction, where, files.task)
    prints = stack(seen[index].fingerprint for index in kept)
    joined = join_groups(
        kept_records,
        prints,
        params.near_duplicate_bits,
        linked_by_copies(shown, sha256s),
        left_out=shown,
        policy=card.near_duplicates,
    )
    n_mixed = n_groups_of_several_labels([each.label for each in kept_records], joined.groups)
    if n_mixed:
        _LOG.warning(
            "%s: %d group(s) hold images of several labels; each stays in one split",
            files.task,
            n_mixed,
        )
    together = joined.pairs[~joined.is_apart]
    try:
        partition = make_partition(
            *(card, labels, shown, sha256s, kept, joined.groups, together),
            *(KINDS[card.kind].strata, params, seed),
        )
    except DataError as err:
        raise type(err)(f"{files.raw_dir}: {err}") from err
    entries = entries_of([seen[i] for i in kept], kept_records, joined.groups, partition.splits)
    if partition.accepted is None:
        check_leaks(entries, together)
    else:
        check_contents(entries)
    _warn_of_pairs(entries, joined, files)
    return Findings(entries, seen, refused, dropped, joined, counted, partition)


def _account(
    labels: Sequence[str],
    listed: Sequence[Record],
    kept: Sequence[Record],
    refused: Sequence[tuple[Record, Refused]],
    dropped: Sequence[tuple[Record, Dropped]],
    files: TaskPaths,
) -> Account:
    left_out = {record.path: (record.label, found.reason) for record, found in refused}
    for record, drop in dropped:
        left_out[record.path] = (record.label, CONFLICT if drop.is_conflict else COPY)
    unused = {each.path: "classes not used" for each in listed if each.label not in labels}
    read = {record.path: record.label for record in kept}
    return account(files_of(files.raw_dir), read, left_out, labels, unused)


def _warn_of_pairs(entries: Sequence[Entry], joined: Joined, files: TaskPaths) -> None:
    """Say what looks alike and was not joined."""
    apart = joined.pairs[joined.is_apart]
    if len(apart):
        n_leaks = int(in_two_splits(entries, apart).sum())
        first = "; ".join(f"{entries[i].path!r} and {entries[j].path!r}" for i, j in apart[:_NAMED])
        _LOG.warning(
            "%s: %d near-duplicate pair(s) were left in two groups, since both groups are stated "
            "or the card says so (%s); %d of them stand in two splits",
            files.task,
            len(apart),
            first,
            n_leaks,
        )
    for members in joined.scenes:
        _LOG.warning(
            "%s: %d images look alike as under a fixed camera (%r is one); only copies among them "
            "were joined. Where several show one subject, state groups in records.csv",
            files.task,
            len(members),
            entries[members[0]].path,
        )


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
