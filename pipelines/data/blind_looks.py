"""One look at one image, for all audits at once, and the looks as tables. Called by `audit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.data import low_level
from pipelines.data.file_facts import FileFacts, facts_table, file_facts
from pipelines.data.view_facts import ViewFacts, view_facts


@dataclass(frozen=True, slots=True)
class Look:
    """What is kept of one image; its subject is not.

    Attributes:
        facts: of the file.
        view: of the plain view, were it a file.
        border: as `low_level.border`.
        thumbnail: as `low_level.thumbnail`.
        colours: as `low_level.colours`.
    """

    facts: FileFacts
    view: ViewFacts
    border: NDArray[np.uint8]
    thumbnail: NDArray[np.uint8]
    colours: NDArray[np.float32]


def look(data: bytes, path: str, pixels: NDArray[np.uint8]) -> Look:
    """What the audits see of one image.

    Args:
        data: bytes of the file.
        path: of the file, for its suffix.
        pixels: the plain view, (h, w, 3) RGB in [0, 255].
    """
    return Look(
        file_facts(data, path),
        view_facts(pixels),
        low_level.border(pixels),
        low_level.thumbnail(pixels),
        low_level.colours(pixels),
    )


def blind_features(
    looks: Sequence[Look], originals: Sequence[Mapping[str, str]]
) -> dict[str, NDArray[np.generic]]:
    """By audit, (n, d).

    Args:
        looks: at n images.
        originals: for each, what records.csv states (`file_facts.original_facts`); may be empty.
    """
    return {
        "file_facts": facts_table([each.facts for each in looks], originals),
        "border": np.stack([each.border for each in looks]),
        "view_facts": np.array(
            [[each.view.mode == "L", each.view.n_bytes] for each in looks], dtype=np.float64
        ),
        "thumbnail": np.stack([each.thumbnail for each in looks]),
        "colour": np.stack([each.colours for each in looks]),
    }
