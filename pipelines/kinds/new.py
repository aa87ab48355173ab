"""What `fieldlens new` asks of a kind, and who answers: a folder of one's own, and where to start.

A kind need not answer: then a task of it is written by hand. Classes are surveyed in
`pipelines.commands.survey`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pipelines.data.manifest import Record
from pipelines.data.tree import File
from pipelines.kinds.detection.new import NewDetection
from pipelines.kinds.embedding.new import NewEmbedding
from pipelines.kinds.segmentation.new import NewSegmentation


class NewKind(Protocol):
    """A kind, as far as `new` must know it."""

    #: By section of params.yaml, what differs from the shared blocks; `gate` whole.
    settings: Mapping[str, Mapping[str, Any]]

    def told_by(self, folder: Path, files: Sequence[File]) -> str:
        """What in the folder says that it is of this kind, in words; empty where nothing does."""

    def names(self, folder: Path, files: Sequence[File], task: str) -> Sequence[str]:
        """What the folder calls its labels, in the order of the card.

        Raises:
            DataError: if the truth cannot be read.
        """

    def counted(self, records: Sequence[Record]) -> Sequence[str]:
        """What was found, a line each, without a full stop."""


KINDS: Mapping[str, NewKind] = {
    "detection": NewDetection(),
    "segmentation": NewSegmentation(),
    "embedding": NewEmbedding(),
}
