"""What `train` draws of an embedding: pictures of the val split with their nearest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.data.loaders import Pictures
from pipelines.kinds.embedding.truth import identity_of
from pipelines.metrics.retrieval import Known, ranked, unit
from pipelines.plots.retrieval import neighbour_sheet
from pipelines.serving.embedding import N_NEIGHBOURS, distances

#: Pictures that are asked for.
_N_SHOWN = 6


def val_figures(
    outputs: NDArray[np.float32], known: Known, pictures: Pictures, labels: Sequence[str]
) -> dict[str, bytes]:
    """Pictures from all over the split, each with its nearest among the others.

    Args:
        outputs: (n, d) of the head.
        known: (n, 2) identities and occasions.
    """
    vectors = unit(outputs)
    distance = distances(vectors, vectors)
    near = ranked(distance, known, N_NEIGHBOURS)
    shown = np.linspace(0, len(known) - 1, min(_N_SHOWN, len(known))).round().astype(int)
    names = [identity_of(entry.truth) for entry in pictures.entries]

    def plain(row: int) -> NDArray[np.uint8]:
        return pictures.plain(pictures.entries[row])

    sheet = neighbour_sheet(
        [
            (
                plain(row),
                names[row],
                [
                    (
                        plain(other),
                        f"{names[other]} {distance[row, other]:.2f}",
                        bool(known[other, 0] == known[row, 0]),
                    )
                    for other in near[row].tolist()
                    if other >= 0
                ],
            )
            for row in shown.tolist()
        ]
    )
    return {"val_samples.png": sheet}
