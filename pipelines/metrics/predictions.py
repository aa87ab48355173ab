"""predictions.csv and confusion.csv: what two model files answered to each test image.

Written by `evaluate`, read by `compare`. Text in, text out; files are the callers' business.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.manifest import Entry
from pipelines.serving.sessions import Precision

#: Columns before those of the precisions.
_FIXED = ("path", "group", "label")
_ANSWER = "_answer"


@dataclass(frozen=True, slots=True)
class Predictions:
    """The rows of a predictions.csv.

    Attributes:
        paths: (n,) of the images, relative to raw/.
        groups: (n,) group of each.
        true: (n,) true labels.
        answers: (n,) answered labels, by precision.
        labels: that the model knows, in the order of its outputs.
    """

    paths: tuple[str, ...]
    groups: tuple[str, ...]
    true: tuple[str, ...]
    answers: dict[Precision, tuple[str, ...]]
    labels: tuple[str, ...]


def predictions_csv(
    labels: Sequence[str],
    entries: Sequence[Entry],
    probabilities: Mapping[Precision, NDArray[np.floating[Any]]],
) -> str:
    """One row an image: path, group, label, answers and probabilities.

    Args:
        labels: c labels, in the order of the columns of ``probabilities``.
        entries: n images.
        probabilities: (n, c) by precision.
    """
    header = list(_FIXED)
    for precision in probabilities:
        header.append(f"{precision}{_ANSWER}")
        header += [f"{precision}_{label}" for label in labels]
    lines: list[list[str]] = []
    for place, entry in enumerate(entries):
        line = [entry.path, entry.group, entry.label]
        for found in probabilities.values():
            line.append(labels[int(found[place].argmax())])
            line += [f"{float(value):.6f}" for value in found[place]]
        lines.append(line)
    return _csv_text(header, lines)


def confusion_csv(
    labels: Sequence[str], entries: Sequence[Entry], predicted: NDArray[np.integer[Any]]
) -> str:
    """Actual and predicted label of each image, in DVC's confusion format.

    Args:
        labels: in the order of the model's outputs.
        entries: n images.
        predicted: (n,) answers.
    """
    lines = [
        [entry.label, labels[int(index)]] for entry, index in zip(entries, predicted, strict=True)
    ]
    return _csv_text(["actual", "predicted"], lines)


def parse_predictions(text: str) -> Predictions:
    """The rows of a predictions.csv.

    Raises:
        ValueError: says in one line what is wrong.
    """
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        header = list(reader.fieldnames or ())
        rows = list(reader)
    except csv.Error as err:
        raise ValueError(f"is not CSV ({err})") from err
    precisions: list[Precision] = [key for key in ("fp32", "int8") if f"{key}{_ANSWER}" in header]
    absent = [name for name in _FIXED if name not in header]
    if absent or not precisions:
        wanted = ", ".join((*_FIXED, f"fp32{_ANSWER}"))
        raise ValueError(f"expected the columns {wanted}, … (got {', '.join(header[:6])})")
    if not rows:
        raise ValueError("holds no image")
    if any(None in row or None in row.values() for row in rows):
        raise ValueError("has rows of unequal length")
    paths = tuple(row["path"] for row in rows)
    if len(set(paths)) != len(paths):
        raise ValueError("lists an image twice")
    first = f"{precisions[0]}_"
    return Predictions(
        paths=paths,
        groups=tuple(row["group"] for row in rows),
        true=tuple(row["label"] for row in rows),
        answers={key: tuple(row[f"{key}{_ANSWER}"] for row in rows) for key in precisions},
        labels=tuple(
            name.removeprefix(first)
            for name in header
            if name.startswith(first) and name != f"{first[:-1]}{_ANSWER}"
        ),
    )


def _csv_text(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    buffer = io.StringIO()
    # Quoted always: a file name may hold a lone carriage return.
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(header)
    writer.writerows(lines)
    return buffer.getvalue()
