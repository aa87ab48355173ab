"""How far models that see next to nothing get on another folder, as the audit asks of a task.

A folder whose files give their labels away flatters every model that is tested on it. Pure; called
by `validate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.data import shortcuts
from pipelines.errors import DataError
from pipelines.evaluation.external import BlindScore


def blind_scores(
    features: Mapping[str, NDArray[np.generic]],
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    folds: int,
    seed: int,
    resamples: int,
) -> tuple[BlindScore, ...]:
    """Macro-F1 of each blind model, cross-validated by group over the labels that are present.

    Args:
        features: (n, d) by name of an audit (`pipelines.data.shortcuts.AUDITS`).
        labels: (n,) of the images.
        groups: (n,).
        folds: wanted; fewer where a label has fewer groups.
        seed: draws folds, forests and resamples.
        resamples: of the intervals.

    Raises:
        DataError: if there is one label only, or a label with one group only.
    """
    present, class_index = np.unique(np.asarray(labels), return_inverse=True)
    if len(present) < 2:
        raise DataError(f"all images are '{labels[0]}': there is nothing to tell apart.")
    shared = shortcuts.blind(class_index, len(present), groups, folds, seed, resamples)
    scores = []
    for name, table in features.items():
        guessed = shortcuts.out_of_fold(
            lambda: shortcuts.forest(seed), table, class_index, len(present), shared.folds
        )
        audit = shortcuts.AUDITS[name]
        scores.append(
            BlindScore(
                name=name,
                sees=audit.sees,
                decides=audit.decides,
                macro_f1=shared.interval(guessed.argmax(axis=1)),
            )
        )
    return tuple(scores)
