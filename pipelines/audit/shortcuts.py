"""How far models get that see next to nothing, cross-validated by group, and what that means.

An audit is a forest on features that cannot show the subject. What it reaches is compared with a
linear probe on the frozen backbone's embeddings, on the same folds: a blind model that comes most
of the way is a sign that the images tell their label by something other than what they show. The
verdict is `clean`, `suspicious` or `shortcut` (ADR 0012). What is told, and how well, the task's
kind says (`pipelines.kinds.audit`).

References:
    Geirhos et al. 2020, "Shortcut learning in deep neural networks", Nature Machine Intelligence 2;
    DeGrave, Janizek and Lee 2021, "AI for radiographic COVID-19 detection selects shortcuts over
    signal", Nature Machine Intelligence 3; Torralba and Efros 2011, "Unbiased look at dataset
    bias" (predicting the source).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from pipelines.config.audit import AuditParams
from pipelines.kinds.audit import Blind
from pipelines.metrics.classification import DECIMALS
from pipelines.serving.trust import AuditScore, Verdict


class Audit(NamedTuple):
    """One model that sees next to nothing: what, and whether it counts for the task's verdict."""

    sees: str
    decides: bool


#: In the order in which they are reported. A file's facts, its margin and its origin are never the
#: disease; a thumbnail and a histogram may be, so they are shown and do not decide.
AUDITS = {
    "file_facts": Audit(
        "size, aspect, mode, type, bytes, quantisation tables and EXIF presence of the file", True
    ),
    "border": Audit("the outermost 4 % of each side of the model's view", True),
    "source": Audit("the recorded source, and nothing else", True),
    "source_from_pixels": Audit("the source that the picture is taken for by a probe", False),
    "view_facts": Audit(
        "whether the model's view is grey, and its bytes as a JPEG of quality 90", False
    ),
    "thumbnail": Audit("the model's view as 8 x 8 grey pixels", False),
    "colour": Audit("how much of which colour the model's view has", False),
}


# -- verdicts -------------------------------------------------------------------------------------
#: Smallest distance from chance to the probe that a share is taken of; a probe that sees nothing
#: would make a share of anything.
_MIN_HEADROOM = 0.05
_RANK: dict[Verdict, int] = {"clean": 0, "suspicious": 1, "shortcut": 2}


def share_of_way(value: float, chance: float, probe_value: float) -> float:
    """How much of the way from chance to the probe a figure is; 1 is as good as the probe."""
    return round((value - chance) / max(probe_value - chance, _MIN_HEADROOM), DECIMALS)


def verdict_of(share: float, low: float, floor: float, params: AuditParams) -> Verdict:
    """`clean`, `suspicious` or `shortcut`, by the bounds of params.

    A figure whose interval reaches down to what blind drawing gives says nothing, however near
    chance the probe is: clean.

    Args:
        share: of the way from chance to the probe.
        low: lower end of the audit's interval.
        floor: what blind drawing gives.
    """
    if low <= floor or share < params.suspicious_share:
        return "clean"
    return "shortcut" if share >= params.shortcut_share else "suspicious"


def score(
    name: str,
    answers: NDArray[Any],
    probe_value: float,
    shared: Blind,
    params: AuditParams,
) -> AuditScore:
    """What one of `AUDITS` reached with (n, ...) answers out of fold, beside the probe's figure."""
    audit = AUDITS[name]
    reached = shared.interval(answers)
    share = share_of_way(reached.value, shared.chance(), probe_value)
    return AuditScore(
        name=name,
        sees=audit.sees,
        macro_f1=reached,
        share=share,
        verdict=verdict_of(share, reached.low, shared.floor, params),
        decides=audit.decides,
    )


def worst(scores: Sequence[AuditScore]) -> Verdict:
    """The worst verdict among the scores that decide."""
    verdicts = [each.verdict for each in scores if each.decides]
    return max(verdicts, key=_RANK.__getitem__, default="clean")


def source_purity(sources: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """By source, the share of its images that have its commonest label; "" is no source."""
    purity = {}
    for source in sorted(set(sources) - {""}):
        own = [label for label, other in zip(labels, sources, strict=True) if other == source]
        purity[source] = round(max(own.count(label) for label in set(own)) / len(own), DECIMALS)
    return purity
