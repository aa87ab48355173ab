"""What a person should look at after an audit: doubtful labels, and images told by their file.

Labels that the other images speak against are found by confident learning. Such a label is no
verdict.

References:
    Northcutt, Jiang and Chuang 2021, "Confident learning: estimating uncertainty in dataset
    labels", JAIR 70: thresholds in equation 2, candidates as the off-diagonal cells of the
    confident joint (equation 1, ties by the larger probability).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.audit.features import file_facts
from pipelines.data.contact_sheets import SHEET_IMAGES, Tile, contact_sheet
from pipelines.data.images import open_image, read_file
from pipelines.data.manifest import Entry, class_index_of
from pipelines.data.pixel_range import Reading
from pipelines.paths import TaskPaths


@dataclass(frozen=True, slots=True)
class LabelIssue:
    """One doubtful label: the image, the class that it is taken for, and how surely."""

    index: int
    suggested: int
    probability: float


def label_issues(
    class_index: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]]
) -> list[LabelIssue]:
    """Images that are confidently of another class than their label says, the surest first.

    A class's threshold is the mean of its probability over the images that carry its label: what
    the model usually says of them. An image counts for the classes whose threshold it reaches.

    Args:
        class_index: (n,) classes by label; each of the c classes is there.
        probabilities: (n, c), each row from a model that did not see the image's group.
    """
    c = probabilities.shape[1]
    thresholds = np.array([probabilities[class_index == k, k].mean() for k in range(c)])
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    suggested = confident.argmax(axis=1)
    every = np.arange(len(class_index))
    # How much likelier the other class is: a near draw is the weakest doubt. Where the label is the
    # likelier one, the model does not speak against it, whatever the thresholds say.
    margin = probabilities[every, suggested] - probabilities[every, class_index]
    rows = np.flatnonzero((confident.max(axis=1) >= 0) & (margin > 0))
    order = np.argsort(-margin[rows], kind="stable")
    return [
        LabelIssue(int(row), int(suggested[row]), float(probabilities[row, suggested[row]]))
        for row in rows[order]
    ]


def spread(order: Sequence[int], class_index: NDArray[np.integer[Any]], n_wanted: int) -> list[int]:
    """The most wanted of each class in turn, so that no class fills a sheet alone.

    Args:
        order: images, the most wanted first.
        class_index: (n,) class of every image.
    """
    waiting: dict[int, list[int]] = {}
    for index in order:
        waiting.setdefault(int(class_index[index]), []).append(index)
    turns = [
        (turn, k, index) for k, indices in waiting.items() for turn, index in enumerate(indices)
    ]
    return [index for _, _, index in sorted(turns, key=lambda each: each[:2])[:n_wanted]]


# -- sheets ---------------------------------------------------------------------------------------
def issues_csv(
    issues: Sequence[LabelIssue], entries: Sequence[Entry], labels: Sequence[str]
) -> str:
    """Doubtful labels as CSV text: path, label, suggested, probability."""
    buffer = io.StringIO()
    # Quoted always: a file name may hold a lone carriage return.
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(["path", "label", "suggested", "probability"])
    for issue in issues:
        entry = entries[issue.index]
        suggested = labels[issue.suggested]
        writer.writerow([entry.path, entry.label, suggested, f"{issue.probability:.4f}"])
    return buffer.getvalue()


def issues_sheet(
    issues: Sequence[LabelIssue],
    entries: Sequence[Entry],
    labels: Sequence[str],
    files: TaskPaths,
    reading: Reading,
) -> bytes | None:
    """A PNG file with the surest issues; None without any.

    Raises:
        CorruptImageError: if an image changed meanwhile.
    """
    shown = issues[:SHEET_IMAGES]
    title = (
        f"{files.task}: labels that the other images speak against, {len(shown)} of {len(issues)}. "
        f"First line: split and label. Second: what it is taken for."
    )
    lines = [f"{issue.probability:.2f} {labels[issue.suggested]}?" for issue in shown]
    return _sheet(title, [entries[issue.index] for issue in shown], lines, files, reading)


def facts_sheet(
    guessed: NDArray[np.float64],
    entries: Sequence[Entry],
    labels: Sequence[str],
    files: TaskPaths,
    reading: Reading,
) -> bytes | None:
    """A PNG file with the images that facts of the file tell most surely; None if they tell none.

    Args:
        guessed: (n, c) probabilities out of fold.

    Raises:
        CorruptImageError: if an image changed meanwhile.
    """
    class_index = class_index_of(entries, labels)
    sure = guessed[np.arange(len(entries)), class_index]
    right = guessed.argmax(axis=1) == class_index
    order = [int(row) for row in np.argsort(-sure, kind="stable") if right[row]]
    shown = spread(order, class_index, SHEET_IMAGES)
    title = f"{files.task}: told by facts of the file alone, the surest {len(shown)}"
    lines = [f"{sure[row]:.2f} {_facts_line(entries[row], files)}" for row in shown]
    return _sheet(title, [entries[row] for row in shown], lines, files, reading)


def _facts_line(entry: Entry, files: TaskPaths) -> str:
    facts = file_facts(read_file(files.raw_dir / entry.path, entry.path), entry.path)
    return f"{facts.format} {facts.mode} {facts.width_px}x{facts.height_px}"


def _sheet(
    title: str, entries: Sequence[Entry], lines: Sequence[str], files: TaskPaths, reading: Reading
) -> bytes | None:
    tiles = []
    for entry, line in zip(entries, lines, strict=True):
        image = open_image(files.raw_dir / entry.path, name=entry.path, reading=reading).rgb
        tiles.append(Tile(image, entry.label, entry.split, line))
    return contact_sheet(title, tiles) if tiles else None
