"""Which tasks' published images can be fetched now, for a workspace without a folder of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.card import DatasetCard, PublishedSource
from pipelines.columns import table
from pipelines.errors import SourceError
from pipelines.source_kinds import GitSource
from pipelines.sources.addresses import public_name
from pipelines.sources.git import check_reach


@dataclass(frozen=True, slots=True)
class Published:
    """What the cards publish.

    Attributes:
        sources: by task, those that can be fetched.
        left_out: one line for each other task: why, and where its images can be had.
    """

    sources: Mapping[str, PublishedSource]
    left_out: tuple[str, ...]


def find(cards: Mapping[str, DatasetCard]) -> Published:
    """The published sources that this machine can reach.

    Args:
        cards: by task.
    """
    sources: dict[str, PublishedSource] = {}
    left_out = []
    for task, card in cards.items():
        published = card.source.fetch
        by_hand = card.source.by_hand or f"Get it at {card.source.url}"
        if published is None:
            left_out.append(f"{task} is left out: {by_hand.rstrip('.')}; then name it by --data.")
            continue
        try:
            if isinstance(published.source, GitSource):
                check_reach(task, published.source.repository)
        except SourceError as err:
            left_out.append(f"{task} is left out: {err} {by_hand.rstrip('.')}.")
            continue
        sources[task] = published
    return Published(sources, tuple(left_out))


def labels_of(card: DatasetCard, published: PublishedSource) -> tuple[str, ...]:
    """The labels that a source has images of, in the card's order.

    Args:
        card: of the task.
        published: its source.
    """
    found = set(published.source.labels.values()) or set(card.labels)
    return tuple(label for label in card.labels if label in found)


def section(published: PublishedSource) -> dict[str, Any]:
    """The section ``fetch`` of params.yaml that brings a source.

    Args:
        published: of a card.
    """
    return {"source": published.source.model_dump(mode="json", exclude_defaults=False)}


def announcement(cards: Mapping[str, DatasetCard], found: Published) -> str:
    """A table of what will be downloaded, and from whom.

    Args:
        cards: by task.
        found: the sources.
    """
    rows = []
    for task, published in found.sources.items():
        card, source = cards[task], published.source
        place = source.repository if isinstance(source, GitSource) else source.location
        folder = getattr(source, "subfolder", "")
        shown = f"{public_name(place)}{f', {folder}' if folder else ''}: {published.what}"
        labels = f"{len(labels_of(card, published))} of {len(card.labels)}"
        publisher = _short(card.source.publisher)
        rows.append((task, publisher, card.licence.spdx, f"{published.n_bytes:,}", labels, shown))
    total = sum(published.n_bytes for published in found.sources.values())
    rows.append(("all", "", "", f"{total:,}", "", ""))
    return table(("TASK", "PUBLISHER", "LICENCE", "BYTES", "CLASSES", "WHAT IS DOWNLOADED"), rows)


def _short(words: str, length: int = 40) -> str:
    return words if len(words) <= length else f"{words[: length - 1].rstrip(' ,(')}…"
