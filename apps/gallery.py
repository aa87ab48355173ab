"""Test pictures with their true labels: the ones that the model has never seen.

Read from the prepared manifest and the raw folder where both are present; nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st

from apps.session import thumb
from pipelines.data.images import open_image
from pipelines.data.manifest import Entry, in_split, read_manifest
from pipelines.data.pixel_range import Reading
from pipelines.errors import CorruptImageError, DataError
from pipelines.paths import TaskPaths


@dataclass(frozen=True, slots=True)
class TestPicture:
    """One picture of the test split."""

    path: Path
    label: str


def pick(files: TaskPaths, labels: Sequence[str] | None, *, n: int, turn: int) -> list[TestPicture]:
    """Some test pictures, as many of each label as of the others.

    Args:
        labels: that the model knows; None for whatever images are filed under.
        turn: another number gives other pictures; the same gives the same.

    Returns:
        Empty where the project has no prepared images.
    """
    try:
        entries = in_split(read_manifest(files.manifest), "test")
    except DataError:
        return []
    if not labels:
        labels = sorted({entry.label for entry in entries}, reverse=True)
    known = [entry for entry in entries if entry.label in labels]
    rng = np.random.default_rng([20261122, turn])
    by_label = [
        [group[i] for i in rng.permutation(len(group))]
        for label in labels
        if (group := [entry for entry in known if entry.label == label])
    ]
    chosen: list[Entry] = []
    for rank in range(max(map(len, by_label), default=0)):
        chosen += [group[rank] for group in by_label if rank < len(group)]
    pictures = [TestPicture(files.raw_dir / entry.path, entry.label) for entry in chosen]
    return [picture for picture in pictures if picture.path.is_file()][:n]


@st.cache_data(show_spinner=False, max_entries=512)
def thumbnail(path: str, _version: int, reading: Reading) -> bytes | None:
    """A small square JPEG of a test picture; None if it cannot be opened.

    Args:
        _version: changes when the file does.
    """
    try:
        return thumb(open_image(Path(path), reading=reading).rgb)
    except CorruptImageError:
        return None
