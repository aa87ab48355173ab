"""Which DICOM files show the same patient: the default group where nobody states another.

Called by `prepare` and `validate` once the files were read, so that their content says which are
DICOM. Why the group is called by a file and not by a hash: docs/adr/0021.
"""

from __future__ import annotations

import dataclasses
import logging
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipelines.data.decoding import Seen
from pipelines.data.dicom import patient_key
from pipelines.data.images import read_file
from pipelines.data.manifest import Record

_LOG = logging.getLogger(__name__)


def by_patient(
    record_of: Mapping[str, Record], seen: Iterable[Seen], raw_dir: Path
) -> dict[str, Record]:
    """The records of DICOM files for which no group is stated, those of a patient in one group.

    Patients are told apart by a hash with a salt that is drawn anew each time and never leaves
    this function; a group is called by the first of its files, so that the result is the same
    each time and says nothing of the id.

    Args:
        record_of: by path; a record whose group is its path states none.
        seen: what each file is.
        raw_dir: where the files lie.

    Returns:
        By path, the records that change. A file without a patient's id stays a group of its own.

    Raises:
        CorruptImageError: if a file has changed since it was looked at.
    """
    salt = secrets.token_bytes(32)
    files_of: dict[str, list[str]] = {}
    for path in sorted(each.path for each in seen if each.format == "DICOM"):
        if record_of[path].group == path:
            key = patient_key(read_file(raw_dir / path, path), salt)
            if key is not None:
                files_of.setdefault(key, []).append(path)
    if len(files_of) == 1 and len(only := next(iter(files_of.values()))) > 1:
        _LOG.warning(
            "all %d DICOM files carry the same patient id, as files do that were made anonymous: "
            "one group. State groups in records.csv, or by group_pattern in the card",
            len(only),
        )
    return {
        path: dataclasses.replace(record_of[path], group=f"patient of {paths[0]}")
        for paths in files_of.values()
        for path in paths
    }
