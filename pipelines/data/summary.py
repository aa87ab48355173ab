"""What `prepare` found, in the words of summary.json and quarantine.csv.

Pure: findings in, values and text out. Called by `prepare`.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pipelines.card import DEFAULT_KIND
from pipelines.data.account import Account
from pipelines.data.decoding import Refused, Seen
from pipelines.data.duplicates import Dropped, Joined
from pipelines.data.manifest import SPLITS, Entry, Record, content_sha256, written
from pipelines.data.pixel_range import AS_IT_COMES, Reading
from pipelines.data.splits import Partition, in_two_splits

#: Near-duplicate pairs in two groups that are listed by name.
_LISTED = 20
#: Suffixes that a format goes by; any other is counted as a mismatch, which does no harm.
_SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "MPO": {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"},
    "PNG": {".png"},
    "WEBP": {".webp"},
    "BMP": {".bmp"},
    "TIFF": {".tif", ".tiff"},
    "GIF": {".gif"},
}


@dataclass(frozen=True, slots=True)
class Findings:
    """All that `prepare` found out.

    Attributes:
        entries: the manifest.
        seen: every image that could be decoded, copies too.
        refused: every file that could not be used.
        dropped: every copy that was left out.
    """

    entries: Sequence[Entry]
    seen: Sequence[Seen]
    refused: Sequence[tuple[Record, Refused]]
    dropped: Sequence[tuple[Record, Dropped]]
    joined: Joined
    account: Account
    partition: Partition


def n_groups_of_several_labels(labels: Sequence[str], groups: Sequence[str]) -> int:
    """How many groups hold images of more than one label, from both of each image."""
    n_labels = Counter(group for _, group in set(zip(labels, groups, strict=True)))
    return sum(n > 1 for n in n_labels.values())


def summarise(
    task: str,
    labels: Sequence[str],
    data_source: str,
    findings: Findings,
    reading: Reading = AS_IT_COMES,
    kind: str = DEFAULT_KIND,
) -> dict[str, Any]:
    """summary.json as a value; labels are in the order of the model's outputs."""
    stated = written(reading)
    entries, joined = findings.entries, findings.joined
    apart = joined.pairs[joined.is_apart]
    kinds = Counter(str(refused.kind) for _, refused in findings.refused)
    n_conflicting = sum(drop.is_conflict for _, drop in findings.dropped)
    n_mixed = n_groups_of_several_labels(
        [entry.label for entry in entries], [entry.group for entry in entries]
    )
    n_odd_suffixes = sum(
        PurePosixPath(image.path).suffix.lower() not in _SUFFIXES.get(image.format, ())
        for image in findings.seen
    )
    return {
        "task": task,
        "labels": list(labels),
        "data_source": data_source,
        "data_sha256": content_sha256(entries),
        "splits": findings.partition.as_json(),
        "files": findings.account.as_json(),
        "n_images": _count(labels, {(e.path, e.label, e.split) for e in entries}),
        "n_groups": _count(labels, {(e.group, e.label, e.split) for e in entries}),
        "n_groups_of_several_labels": n_mixed,
        "n_images_of_largest_group": max(Counter(entry.group for entry in entries).values()),
        "quarantine": {
            "missing": kinds["missing"],
            "unreadable": kinds["unreadable"],
            "too_small": kinds["too_small"],
            "exact_duplicate": len(findings.dropped) - n_conflicting,
            "conflicting_duplicate": n_conflicting,
        },
        "near_duplicates": {
            "n_joined_groups": joined.n_joined,
            "n_absorbed_groups": joined.n_absorbed,
            "n_pairs": len(joined.pairs),
            "n_pairs_left_apart": len(apart),
            "n_pairs_in_two_splits": int(in_two_splits(entries, apart).sum()),
            "pairs_left_apart": [[entries[i].path, entries[j].path] for i, j in apart[:_LISTED]],
            "scenes": [
                {"n_images": len(members), "first": entries[members[0]].path}
                for members in joined.scenes
            ],
            "n_pairs_across_labels": joined.n_conflicts,
            "pairs_across_labels": [list(pair) for pair in joined.conflicts],
        },
        "formats": dict(sorted(Counter(image.format for image in findings.seen).items())),
        "n_exif_rotated": sum(image.is_exif_rotated for image in findings.seen),
        "n_suffix_mismatches": n_odd_suffixes,
        **({"reading": stated} if stated else {}),
        **({"kind": kind} if kind != DEFAULT_KIND else {}),
    }


def write_quarantine(findings: Findings) -> str:
    """quarantine.csv as text: path, label and reason of what was left out, sorted by path."""
    rows = [(record, refused.reason) for record, refused in findings.refused]
    rows += [(record, drop.reason) for record, drop in findings.dropped]
    buffer = io.StringIO()
    buffer.write("path,label,reason\n")
    # Quoted always, as in `pipelines.data.manifest.write_manifest`.
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for record, reason in sorted(rows, key=lambda row: row[0].path):
        writer.writerow((record.path, record.label, reason))
    return buffer.getvalue()


def _count(labels: Sequence[str], keyed: set[tuple[str, str, Any]]) -> dict[str, Any]:
    """Counts of distinct keys; a group of two labels counts once in a total, once in each label."""
    labels = list(dict.fromkeys((*labels, *sorted(label for _, label, _ in keyed))))
    return {
        "total": len({key for key, _, _ in keyed}),
        "by_split": {
            split: len({key for key, _, found in keyed if found == split}) for split in SPLITS
        },
        "by_label": {
            label: {
                split: sum(1 for _, found, where in keyed if (found, where) == (label, split))
                for split in SPLITS
            }
            for label in labels
        },
    }
