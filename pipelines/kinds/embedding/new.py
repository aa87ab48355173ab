"""The half of `embedding` that `fieldlens new` asks: identities in a folder of one's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.data.manifest import Record
from pipelines.data.tree import File
from pipelines.kinds.embedding.truth import identity_of


class NewEmbedding:
    """A folder an identity, or a table."""

    settings: Mapping[str, Mapping[str, Any]] = {
        # By identity: few must be enough for val and test.
        "prepare": {"val_fraction": 0.22, "test_fraction": 0.28},
        "train": {
            "label_smoothing": 0.0,
            "balance": "none",
            "mixup_alpha": 0.0,
            "batch_size": 32,
            "monitor": "val_map_at_r",
            "head": {"dropout": 0.0},
        },
        "export": {"min_agreement": 0.85, "max_accuracy_drop": None, "max_macro_f1_drop": None},
        "gate": {
            "max_int8_bytes": 2_700_000,
            "demands": [
                {"metric": "served.recall_at_1", "at_least": 0.6},
                {"metric": "served.eer", "at_most": 0.3},
                {"metric": "agreement", "at_least": 0.8},
                {"metric": "recall_at_1_drop", "at_most": 0.03},
            ],
        },
    }

    def told_by(self, folder: Path, files: Sequence[File]) -> str:
        """Nothing: a folder an identity looks like a folder a class."""
        return ""

    def names(self, folder: Path, files: Sequence[File], task: str) -> Sequence[str]:
        """None: an identity is no label."""
        return ()

    def counted(self, records: Sequence[Record]) -> Sequence[str]:
        """Identities, and those of which nothing can be asked."""
        of = Counter(identity_of(record.truth) for record in records)
        n_alone = sum(n == 1 for n in of.values())
        return (
            f"{len(of):,} identities in {of.total():,} pictures",
            f"{n_alone:,} of {len(of):,} identities have one picture: they stay in the gallery, "
            f"and nothing is asked of them",
        )
