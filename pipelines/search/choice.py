"""Which networks nothing else is better than, and which one to ship."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from pipelines.search.cells import CellResult, Variant
from pipelines.serving.sessions import Precision

MEGA = 1e6


@dataclass(frozen=True, slots=True)
class Row:
    """One precision of one cell.

    Attributes:
        result: of the cell.
        precision: which of its files.
        ms: latency; the ratio to the reference, times the board's one latency of the reference, so
            that an hour in which the machine was slow slows no network. None where it was refused.
    """

    result: CellResult
    precision: Precision
    ms: float | None

    @property
    def variant(self) -> Variant:
        """What was measured of the file."""
        return self.result.variants[self.precision]

    @property
    def title(self) -> str:
        """For a person."""
        return f"{self.result.cell.title}, {self.precision}"

    @property
    def refusal(self) -> str | None:
        """Why it is not to be shipped, whatever it reaches; None for most."""
        latency = self.variant.latency
        if self.ms is None:
            return (
                f"latency refused: two passes differ by {latency.gap:.0%} after {latency.n_passes}"
            )
        if self.precision == "int8" and self.result.int8_missed:
            return f"int8 misses on val: {'; '.join(self.result.int8_missed)}"
        return None

    @property
    def megabytes(self) -> float:
        """Of the file, in 10^6 bytes."""
        return self.variant.size_bytes / MEGA

    @property
    def accuracy(self) -> float:
        """Of the test split."""
        return self.variant.accuracy.value


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a network must hold to be shipped.

    Attributes:
        max_ms: latency of one picture on one thread.
        max_mb: size of the file, in 10^6 bytes.
        min_recall: of the test split, by label.
    """

    max_ms: float | None = None
    max_mb: float | None = None
    min_recall: Mapping[str, float] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """For a person; empty where nothing is wished."""
        return ", ".join(
            [
                *([f"at most {self.max_ms:g} ms"] if self.max_ms is not None else []),
                *([f"at most {self.max_mb:g} MB"] if self.max_mb is not None else []),
                *(f"recall of {label} at least {least:g}" for label, least in self._recalls()),
            ]
        )

    def _recalls(self) -> Iterable[tuple[str, float]]:
        return self.min_recall.items()

    def excess(self, row: Row) -> dict[str, float]:
        """By what share of its bound a row misses each wish, by words that say what it has.

        Args:
            row: whose latency was not refused.

        Returns:
            Above 0 for each wish that it misses; none where it holds all.
        """
        missed = {}
        for has, most, unit in ((row.ms, self.max_ms, "ms"), (row.megabytes, self.max_mb, "MB")):
            if most is not None and has is not None and has > most:
                missed[f"{has:.3g} {unit}"] = has / most - 1
        for label, least in self._recalls():
            recall = row.variant.recall.get(label)
            if recall is None:
                missed[f"no test image of {label}"] = math.inf
            elif recall.value < least:
                missed[f"recall of {label} {recall.value:.3f}"] = 1 - recall.value / least
        return missed


def rows_of(results: Iterable[CellResult]) -> list[Row]:
    """A row a cell and precision."""
    found = [(r, precision, v) for r in results for precision, v in r.variants.items()]
    steady = [v.latency.reference_ms for _, _, v in found if v.latency.is_steady]
    one = median(steady) if steady else math.nan
    return [
        Row(result, precision, v.latency.ratio * one if v.latency.is_steady else None)
        for result, precision, v in found
    ]


def front_of(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other is better than, most accurate first.

    Better is: as accurate, as quick and as small, and more so in one of them. Rows that are not to
    be shipped are not among them.
    """
    sound = [row for row in rows if row.refusal is None]
    front = [row for row in sound if not any(_is_better(other, row) for other in sound)]
    return sorted(front, key=_rank)


def _rank(row: Row) -> tuple[float, float, float]:
    """Most accurate first; of those, the quickest."""
    assert row.ms is not None
    return -row.accuracy, row.ms, row.megabytes


def _is_better(one: Row, other: Row) -> bool:
    pairs = list(zip(_rank(one), _rank(other), strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


@dataclass(frozen=True, slots=True)
class Choice:
    """An answer to "which one should I ship".

    Attributes:
        best: the most accurate row that holds every wish; of several the quickest.
        runner_up: the next of them on the front of those that hold; None where there is none.
    """

    best: Row
    runner_up: Row | None


def choose(rows: Sequence[Row], wishes: Wishes) -> Choice | None:
    """What to ship; None where nothing holds every wish."""
    front = front_of([row for row in rows if not wishes.excess(row)])
    return Choice(front[0], front[1] if len(front) > 1 else None) if front else None


def nearest_miss(rows: Sequence[Row], wishes: Wishes) -> tuple[Row, str] | None:
    """The row whose worst miss is the least, and what it has instead; None without a row."""
    sound = [(row, wishes.excess(row)) for row in rows if row.refusal is None]
    missing = [(row, excess) for row, excess in sound if excess]
    if not missing:
        return None
    row, excess = min(missing, key=lambda each: (max(each[1].values()), *_rank(each[0])))
    return row, ", ".join(excess)


def rank_correlation(rows: Sequence[Row], precision: Precision) -> float | None:
    """How well multiply-adds order the latencies of a precision, in [-1, 1].

    Args:
        rows: those whose latency was refused do not count.
        precision: whose.

    Returns:
        None for fewer than three, or where either is the same for all.

    References:
        Spearman 1904, "The proof and measurement of association between two things".
    """
    from scipy.stats import spearmanr

    pairs = [
        (row.result.multiply_adds, row.ms)
        for row in rows
        if row.precision == precision and row.ms is not None
    ]
    if len(pairs) < 3 or any(len(set(values)) == 1 for values in zip(*pairs, strict=True)):
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)
