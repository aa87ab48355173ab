"""What it means how far a blind model gets: `clean`, `suspicious` or `shortcut` (ADR 0012).

Pure; called by `audit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config import AuditParams
from pipelines.data.shortcuts import AUDITS, Blind
from pipelines.evaluation.metrics import DECIMALS
from pipelines.mobile.trust import AuditScore, Verdict

#: Smallest distance from chance to the probe that a share is taken of; a probe that sees nothing
#: would make a share of anything.
_MIN_HEADROOM = 0.05
_RANK: dict[Verdict, int] = {"clean": 0, "suspicious": 1, "shortcut": 2}


def share_of_way(value: float, chance: float, probe_value: float) -> float:
    """How much of the way from chance to the probe a figure is; 1 is as good as the probe.

    Args:
        value: macro-F1 of an audit.
        chance: of the majority class.
        probe_value: of the probe.
    """
    return round((value - chance) / max(probe_value - chance, _MIN_HEADROOM), DECIMALS)


def verdict_of(share: float, low: float, n_classes: int, params: AuditParams) -> Verdict:
    """`clean`, `suspicious` or `shortcut`, by the bounds of params.

    A figure whose interval reaches down to what blind drawing gives says nothing, however near
    chance the probe is: clean. Answers drawn by the labels' frequencies have precision and recall
    p for a class of frequency p, so F1 p, and a macro-F1 of 1/c.

    Args:
        share: of the way from chance to the probe.
        low: lower end of the audit's interval of macro-F1.
        n_classes: c.
        params: the bounds.
    """
    if low <= 1 / n_classes or share < params.suspicious_share:
        return "clean"
    return "shortcut" if share >= params.shortcut_share else "suspicious"


def score(
    name: str,
    predicted: NDArray[np.integer[Any]],
    probe_value: float,
    shared: Blind,
    params: AuditParams,
) -> AuditScore:
    """What an audit reached.

    Args:
        name: one of `AUDITS`.
        predicted: (n,) its answers out of fold.
        probe_value: macro-F1 of the probe.
        shared: of the task.
        params: the bounds.
    """
    audit = AUDITS[name]
    reached = shared.interval(predicted)
    share = share_of_way(reached.value, shared.chance(), probe_value)
    return AuditScore(
        name=name,
        sees=audit.sees,
        macro_f1=reached,
        share=share,
        verdict=verdict_of(share, reached.low, shared.n_classes, params),
        decides=audit.decides,
    )


def worst(scores: Sequence[AuditScore]) -> Verdict:
    """The worst verdict among the scores that decide.

    Args:
        scores: of all audits.
    """
    verdicts = [each.verdict for each in scores if each.decides]
    return max(verdicts, key=_RANK.__getitem__, default="clean")


def source_purity(sources: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """By source, the share of its images that have its commonest label.

    Args:
        sources: (n,) "" where it is not known; those do not count.
        labels: (n,).
    """
    purity = {}
    for source in sorted(set(sources) - {""}):
        own = [label for label, other in zip(labels, sources, strict=True) if other == source]
        purity[source] = round(max(own.count(label) for label in set(own)) / len(own), DECIMALS)
    return purity
