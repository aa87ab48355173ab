"""How often presentation attacks pass for the real thing, and the real thing for an attack.

Of attacks of one kind. Of several, the standard takes the kind that passes most often.

References:
    ISO/IEC 30107-3:2023, "Biometric presentation attack detection: testing and reporting": APCER
    and BPCER, sections 13.2 and 13.3. ACER, their mean, is of the 2017 edition and what most papers
    report.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import DataError
from pipelines.metrics.intervals import Draws, by_shares, mean_of_shares, rounded_intervals
from pipelines.serving.trust import Interval


def attack_rates(
    is_attack: NDArray[np.bool_], probability: NDArray[Any], threshold: float
) -> dict[str, float]:
    """``apcer``, ``bpcer`` and ``acer``.

    Args:
        is_attack: (n,).
        probability: (n,) of being one.
        threshold: from which on it is called one.

    Raises:
        DataError: if there are no attacks, or nothing else.
    """
    if is_attack.all() or not is_attack.any():
        raise DataError("error rates of attacks need attacks and others in the test split.")
    apcer = float((probability[is_attack] < threshold).mean())
    bpcer = float((probability[~is_attack] >= threshold).mean())
    return {"apcer": apcer, "bpcer": bpcer, "acer": (apcer + bpcer) / 2}


def attack_intervals(
    draws: Draws, is_attack: NDArray[np.bool_], probability: NDArray[Any], threshold: float
) -> dict[str, Interval]:
    """The same with their intervals; as of `attack_rates`."""
    is_called = probability >= threshold
    wrong = np.stack([~is_called, is_called], axis=1)
    counts = np.stack([is_attack, ~is_attack], axis=1)
    apcer, bpcer = by_shares(draws, wrong, counts)
    found = {"apcer": apcer, "bpcer": bpcer, "acer": mean_of_shares(draws, wrong, counts)}
    return rounded_intervals(found)
