"""What model files answered to each test image: as CSV text, and one set beside another."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.manifest import Entry
from pipelines.metrics.intervals import accuracies, by_counts, by_mean, draw, macro_f1s, paired
from pipelines.serving.sessions import Precision
from pipelines.serving.trust import Interval

#: Columns before those of the precisions.
_FIXED = ("path", "group", "label")
_ANSWER = "_answer"


@dataclass(frozen=True, slots=True)
class Predictions:
    """The n rows of a predictions.csv.

    Attributes:
        paths: of the images, relative to raw/.
        true: labels.
        answers: labels, by precision.
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
    """predictions.csv, one row an image: path, group, label, answers and (n, c) probabilities."""
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
    """confusion.csv in DVC's format: actual label of each image, and label of (n,) answers."""
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


# -- comparison -----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Comparison:
    """What two sets of answers say of the same images.

    Attributes:
        a: accuracy and macro-F1 of the first.
        gain: by how much ``b`` lies above ``a``, on the same resamples.
        agreement: share of images with the same answer.
        n_only_a: images that the first alone answers rightly.
        p_value: of McNemar's exact test.
        changed: places of the images with different answers.
    """

    n_images: int
    n_groups: int
    a: dict[str, Interval | None]
    b: dict[str, Interval | None]
    gain: dict[str, Interval | None]
    agreement: Interval | None
    n_both_right: int
    n_only_a: int
    n_only_b: int
    n_both_wrong: int
    p_value: float
    changed: tuple[int, ...]


def compare(
    groups: Sequence[str],
    true: Sequence[str],
    a: Sequence[str],
    b: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> Comparison:
    """How answered labels ``b`` differ from ``a``; all sequences are (n,), n > 0."""
    labels = sorted({*true, *a, *b})
    number = {label: index for index, label in enumerate(labels)}
    truth, first, second = (np.array([number[each] for each in row]) for row in (true, a, b))
    draws, c = draw(groups, resamples, seed), len(labels)
    metrics = {"accuracy": accuracies, "macro_f1": macro_f1s}
    a_right, b_right = first == truth, second == truth
    only_a, only_b = int((a_right & ~b_right).sum()), int((b_right & ~a_right).sum())
    return Comparison(
        n_images=len(truth),
        n_groups=draws.n_groups,
        a={name: by_counts(draws, truth, first, c, each) for name, each in metrics.items()},
        b={name: by_counts(draws, truth, second, c, each) for name, each in metrics.items()},
        gain={name: paired(draws, truth, second, first, c, each) for name, each in metrics.items()},
        agreement=by_mean(draws, first == second),
        n_both_right=int((a_right & b_right).sum()),
        n_only_a=only_a,
        n_only_b=only_b,
        n_both_wrong=int((~a_right & ~b_right).sum()),
        p_value=mcnemar(only_a, only_b),
        changed=tuple(np.flatnonzero(first != second).tolist()),
    )


def mcnemar(n_only_a: int, n_only_b: int) -> float:
    """Two-sided p-value of McNemar's exact test: is either right more often where they differ?

    It takes the images as independent. Where groups hold several images, the intervals by group
    are the ones to believe.

    References:
        McNemar 1947, "Note on the sampling error of the difference between correlated proportions
        or percentages", Psychometrika 12; exact conditional form: Fagerland, Lydersen & Laake
        2013, "The McNemar test for binary matched-pairs data", BMC Medical Research Methodology 13.
    """
    n, smaller = n_only_a + n_only_b, min(n_only_a, n_only_b)
    term, total = 1, 1
    for k in range(smaller):
        term = term * (n - k) // (k + 1)
        total += term
    # Whole numbers up to here: exact, however many images there are.
    return float(min(1.0, 2 * total / (1 << n)))
