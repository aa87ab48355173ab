"""Two sets of answers to the same images: which is better, and is the difference more than luck.

Pure; called by `compare`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.metrics.intervals import by_counts, by_mean, paired
from pipelines.metrics.resamples import accuracies, draw, macro_f1s
from pipelines.serving.trust import Interval


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two sets of answers say of the same images.

    Attributes:
        n_images: n.
        n_groups: groups that the intervals resample.
        a: accuracy and macro-F1 of the first.
        b: of the second.
        gain: by how much ``b`` lies above ``a``, on the same resamples.
        agreement: share of images with the same answer.
        n_both_right: images that both answer rightly.
        n_only_a: images that the first alone answers rightly.
        n_only_b: images that the second alone answers rightly.
        n_both_wrong: the others.
        p_value: of McNemar's exact test.
        changed: (k,) places of the images with different answers.
    """

    n_images: int
    n_groups: int
    a: dict[str, Interval | None]
    b: dict[str, Interval | None]
    gain: dict[str, Interval | None]
    agreement: Interval | None
    n_both_right: int
    n_only_a: int
    n_only_b: int
    n_both_wrong: int
    p_value: float
    changed: tuple[int, ...]


def compare(
    groups: Sequence[str],
    true: Sequence[str],
    a: Sequence[str],
    b: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> Comparison:
    """How the second answers differ from the first.

    Args:
        groups: (n,) of the images, n > 0.
        true: (n,) true labels.
        a: (n,) answered labels.
        b: (n,) other answered labels.
        resamples: of the intervals.
        seed: of the resamples.
    """
    labels = sorted({*true, *a, *b})
    number = {label: index for index, label in enumerate(labels)}
    truth, first, second = (np.array([number[each] for each in row]) for row in (true, a, b))
    draws, c = draw(groups, resamples, seed), len(labels)
    metrics = {"accuracy": accuracies, "macro_f1": macro_f1s}
    a_right, b_right = first == truth, second == truth
    only_a, only_b = int((a_right & ~b_right).sum()), int((b_right & ~a_right).sum())
    return Comparison(
        n_images=len(truth),
        n_groups=draws.n_groups,
        a={name: by_counts(draws, truth, first, c, each) for name, each in metrics.items()},
        b={name: by_counts(draws, truth, second, c, each) for name, each in metrics.items()},
        gain={name: paired(draws, truth, second, first, c, each) for name, each in metrics.items()},
        agreement=by_mean(draws, first == second),
        n_both_right=int((a_right & b_right).sum()),
        n_only_a=only_a,
        n_only_b=only_b,
        n_both_wrong=int((~a_right & ~b_right).sum()),
        p_value=mcnemar(only_a, only_b),
        changed=tuple(np.flatnonzero(first != second).tolist()),
    )


def mcnemar(n_only_a: int, n_only_b: int) -> float:
    """Two-sided p-value of McNemar's exact test: is either right more often where they differ?

    It takes the images as independent. Where groups hold several images, the intervals by group
    are the ones to believe.

    References:
        McNemar 1947, "Note on the sampling error of the difference between correlated proportions
        or percentages", Psychometrika 12; exact conditional form: Fagerland, Lydersen & Laake
        2013, "The McNemar test for binary matched-pairs data", BMC Medical Research Methodology 13.
    """
    n, smaller = n_only_a + n_only_b, min(n_only_a, n_only_b)
    term, total = 1, 1
    for k in range(smaller):
        term = term * (n - k) // (k + 1)
        total += term
    # Whole numbers up to here: exact, however many images there are.
    return float(min(1.0, 2 * total / (1 << n)))
