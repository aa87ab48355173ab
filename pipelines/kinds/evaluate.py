"""The kinds that `evaluate` can test, by the name that stands in a bundle."""

from __future__ import annotations

from pipelines.kinds.classification.evaluate import TestedClassification
from pipelines.kinds.questions import TestedKind

KINDS: dict[str, TestedKind] = {"classification": TestedClassification()}
