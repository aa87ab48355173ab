"""The half of `classification` that `prepare` asks: an image is filed under its class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipelines.card import DatasetCard
from pipelines.data.manifest import Record, read_raw


class PreparedClassification:
    """A folder a class, or a table with a class a row; the class is all that is true."""

    def records(self, raw_dir: Path, card: DatasetCard, *, is_whole: bool = True) -> list[Record]:
        """As `read_raw`."""
        return read_raw(raw_dir, card)

    def names(self, labels: Sequence[str]) -> tuple[str, ...]:
        """The classes themselves."""
        return tuple(labels)

    def strata(self, record: Record) -> Sequence[str]:
        """Its one class."""
        return (record.label,)
