"""The split of a data set: made here, or given by its publisher and completed here.

Pure. Called by `prepare`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.card import DatasetCard
from pipelines.config import PrepareParams
from pipelines.data import given
from pipelines.data.given import Straddling
from pipelines.data.manifest import SPLITS, Record, Split
from pipelines.data.near_duplicates import Indices
from pipelines.data.splits import assign_splits

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Partition:
    """Which split each image is in, and who says so.

    Attributes:
        splits: of each image.
        by: ``given`` by the publisher or ``made`` here.
        filled: parts that the publisher does not have, made from train.
        straddling: what stands in two parts of a given split; None where splits are made.
        accepted: why that is accepted; None where nothing is.
        is_pooled: whether the publisher has a split that the card does not ask for.
    """

    splits: tuple[Split, ...]
    by: Literal["given", "made"]
    filled: tuple[Split, ...] = ()
    straddling: Straddling | None = None
    accepted: str | None = None
    is_pooled: bool = False

    def as_json(self) -> dict[str, Any]:
        """For summary.json."""
        if self.straddling is None:
            return {"by": self.by, "is_pooled": self.is_pooled}
        return {
            "by": self.by,
            "made_from_train": list(self.filled),
            "straddling": self.straddling.as_json(),
            "straddling_accepted": self.accepted,
            "copy_left_out": "the one in train, or else the one in val",
        }


def make_partition(
    card: DatasetCard,
    labels: Sequence[str],
    seen: Sequence[Record],
    sha256s: Sequence[str],
    kept: Sequence[int],
    groups: Sequence[str],
    pairs: Indices,
    params: PrepareParams,
    seed: int,
) -> Partition:
    """The split of each image that is kept.

    Args:
        card: says whether splits are given, and what is accepted of them.
        labels: of the task.
        seen: every image that could be decoded, copies too.
        sha256s: of each.
        kept: indices of those that are kept.
        groups: of each image that is kept, after near duplicates were joined.
        pairs: (p, 2) indices of near duplicates among those that are kept.
        params: fractions of splits that are made.
        seed: draws the splits that are made.

    Raises:
        DataError: if a class cannot be in every split.
        LeakageError: if a given split straddles and the card does not accept it.
    """
    records = [seen[index] for index in kept]

    def make(of: Sequence[int], parts: Sequence[Split]) -> list[Split]:
        return assign_splits(
            [records[index].label for index in of],
            [groups[index] for index in of],
            val_fraction=params.val_fraction,
            test_fraction=params.test_fraction,
            seed=seed,
            parts=parts,
        )

    if card.splits == "made":
        is_pooled = any(record.split is not None for record in seen)
        if is_pooled:
            _LOG.info("%s: the publisher's parts are pooled: the card says `made`", card.task)
        return Partition(tuple(make(range(len(kept)), SPLITS)), "made", is_pooled=is_pooled)
    stated = given.check_stated(records)
    near = [(kept[i], kept[j]) for i, j in pairs.tolist()]
    found = given.straddling(seen, sha256s, near)
    if card.straddling_accepted is None:
        given.refuse(found)
    elif found:
        _LOG.warning(
            "%s: the given split is leaky, which the card accepts (%s): %s stand in two parts; of "
            "exact copies the one in train is left out",
            *(card.task, card.straddling_accepted, found.as_text()),
        )
    splits, filled = given.fill_parts(stated, make)
    if filled:
        _LOG.info("%s: %s made from train, by group", card.task, " and ".join(filled))
    given.check_labels(labels, [record.label for record in records], splits)
    accepted = card.straddling_accepted if found else None
    return Partition(tuple(splits), "given", filled, found, accepted)
