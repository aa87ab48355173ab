"""What `prepare` asks of a kind, and who answers: what is true of an image, and how it is filed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pipelines.card import DatasetCard
from pipelines.data.manifest import Record
from pipelines.kinds.classification.prepare import PreparedClassification
from pipelines.kinds.detection.formats import SUFFIXES as BOX_FILES
from pipelines.kinds.detection.prepare import PreparedDetection
from pipelines.kinds.embedding.prepare import PreparedEmbedding
from pipelines.kinds.segmentation.prepare import PreparedSegmentation


class PreparedKind(Protocol):
    """A kind, as far as `prepare` must know it."""

    def records(self, raw_dir: Path, card: DatasetCard, *, is_whole: bool = True) -> list[Record]:
        """The images of a raw folder with their truth, for a task without a reader of its own.

        Args:
            is_whole: whether it must hold what a task needs: each class, enough for three splits;
                not so where a finished model is tried.

        Raises:
            MissingDataError: if the folder is not there.
            DataError: if the folder cannot be read, or says what cannot be true.
        """

    def names(self, labels: Sequence[str]) -> tuple[str, ...]:
        """What images may be filed under (`Record.label`); labels alone must not stay empty.

        Args:
            labels: that the model will know.
        """

    def strata(self, record: Record) -> Sequence[str]:
        """By what a split is balanced: the class of an image, or each of those that it shows."""


KINDS: dict[str, PreparedKind] = {
    "classification": PreparedClassification(),
    "detection": PreparedDetection(),
    "segmentation": PreparedSegmentation(),
    "embedding": PreparedEmbedding(),
}
#: By kind, suffixes of files of truth that are neither images nor a table; `fetch` takes them.
TRUTH_SUFFIXES: Mapping[str, frozenset[str]] = {
    "detection": BOX_FILES,
    "segmentation": frozenset({".json"}),
}
