"""The half of `embedding` that `prepare` asks: whose picture it is.

A folder an identity, or a table whose labels are identities. The identity is what is held out: its
pictures are in one split, so that val and test ask for identities that no training has seen. A
group that the table states is an occasion: its pictures are never neighbours of one another.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pipelines.card import DatasetCard
from pipelines.data.layout import Labelled, read_folder
from pipelines.data.manifest import Record, check_fetched
from pipelines.data.tree import TABLES
from pipelines.errors import DataError
from pipelines.kinds.embedding.truth import written

_LOG = logging.getLogger(__name__)

#: What every picture is filed under: nothing but its identity tells it from the others.
FILED = "picture"
#: Two a split: one alone cannot be told from another.
_LEAST = 6


class PreparedEmbedding:
    """An identity with one picture, or of one occasion, stays: nothing is asked of it.

    As in use, where strangers stand in a gallery, too: they make the others harder to find, and a
    set without them would look better than it is.
    """

    def records(self, raw_dir: Path, card: DatasetCard, *, is_whole: bool = True) -> list[Record]:
        """Identities as groups; occasions as the table states them."""
        check_fetched(raw_dir, card)
        images = read_folder(raw_dir, card).images
        if not images:
            raise DataError(
                f"{raw_dir}: no image was found. Expected a folder an identity, or {TABLES[0]} "
                f"with the columns path and label, the name of the identity."
            )
        occasions = _occasions(images)
        several = _several(images, occasions)
        if is_whole and len(several) < _LEAST:
            raise DataError(
                f"{raw_dir}: {len(several)} identities have pictures of two occasions; expected at "
                f"least {_LEAST}, two for each of train, val and test. Add pictures, or identities."
            )
        n_alone = len({image.name for image in images}) - len(several)
        if n_alone:
            _LOG.info(
                "%s: %d identities have one picture, or those of one occasion: they stay in the "
                "gallery, and nothing is asked of them",
                card.task,
                n_alone,
            )
        return [
            Record(
                image.path,
                FILED,
                image.name,
                image.source,
                image.split,
                written(image.name, occasions[image.path]),
            )
            for image in images
        ]

    def names(self, labels: Sequence[str]) -> tuple[str, ...]:
        """One for all."""
        return (FILED,)

    def strata(self, record: Record) -> Sequence[str]:
        """Nothing but the number of pictures: identities are dealt whole."""
        return (record.label,)


def _occasions(images: Sequence[Labelled]) -> dict[str, str]:
    """By path, when it was taken: its group, or itself.

    Groups that are the identities once more (persons, where all that is known is who) state no
    occasion.
    """
    groups: defaultdict[str, set[str]] = defaultdict(set)
    for image in images:
        groups[image.name].add(image.group)
    says_more = any(len(found) > 1 for found in groups.values())
    return {
        image.path: image.group if image.group and says_more else image.path for image in images
    }


def _several(images: Sequence[Labelled], occasions: dict[str, str]) -> set[str]:
    """The identities that were taken on two occasions."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for image in images:
        found[image.name].add(occasions[image.path])
    return {name for name, times in found.items() if len(times) > 1}
