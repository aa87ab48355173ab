"""The kinds that `export` can make, by the name that stands in a card."""

from __future__ import annotations

from pipelines.kinds.classification.export import ExportedClassification
from pipelines.kinds.questions import ExportedKind

KINDS: dict[str, ExportedKind] = {"classification": ExportedClassification()}
