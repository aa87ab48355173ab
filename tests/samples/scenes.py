"""What every painter of scenes with boxes must show."""

from __future__ import annotations

import numpy as np

from pipelines.card import DatasetCard
from pipelines.samples.folder import Marker
from pipelines.samples.pen import Marks


def scenes(mark: Marker, card: DatasetCard, label: str, side_px: int) -> list[Marks]:
    """Marks of forty pictures: of what the label says and others of the card, a few of nothing."""
    found = []
    for shot in range(40):
        subject, of_shot = (np.random.default_rng(each) for each in (shot // 4, shot))
        _, marks = mark(label, subject, of_shot, side_px)
        names = [name for name, _ in marks]
        assert set(names) <= set(card.labels)
        assert not names or label in names
        found.append(marks)
    assert 0 < sum(not marks for marks in found) < 8
    return found


def is_mostly_inside(corners: tuple[float, ...]) -> bool:
    """Whether more than half of a box lies in the picture."""
    x0, y0, x1, y1 = corners
    inside = (min(x1, 1) - max(x0, 0)) * (min(y1, 1) - max(y0, 0))
    return inside > 0.5 * (x1 - x0) * (y1 - y0)
