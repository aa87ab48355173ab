"""What the served file's answers are worth beyond being right, and the figures of the test split.

Calibration, operating points and abstention, as they were chosen on val and stand in the bundle.
Pure; called by `evaluate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.metrics.calibration import measured
from pipelines.metrics.classification import (
    brier_scores,
    expected_calibration_error,
    reliability_bins,
)
from pipelines.plots import curves as plots
from pipelines.plots.confusion import confusion
from pipelines.plots.thresholds import thresholds
from pipelines.serving.bundle import Bundle
from pipelines.serving.probabilities import softmax


def drawable(labels: Sequence[str], names: Sequence[str]) -> list[str]:
    """What to write on a figure for each label: its name, or the label where a glyph is missing.

    Matplotlib's own font has Latin, Greek and Cyrillic letters, and no Chinese, Japanese or Korean
    ones: these would be drawn as empty boxes, all alike.

    Args:
        labels: slugs.
        names: what people call them, in the same order.
    """
    if list(labels) == list(names):
        return list(labels)
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    return [
        name if all(font.get_char_index(ord(letter)) for letter in name) else label
        for label, name in zip(labels, names, strict=True)
    ]


# -- served ---------------------------------------------------------------------------------------
def served_metrics(
    bundle: Bundle,
    class_index: NDArray[np.integer[Any]],
    logits: NDArray[np.float32],
    is_foreign: NDArray[np.bool_] | None,
    bins: int,
) -> dict[str, Any]:
    """``calibration``, ``operating_points`` and ``abstention`` as they stand in metrics.json.

    Args:
        bundle: what was chosen on val.
        class_index: (n,) true classes of the test split.
        logits: (n, c) of the served file.
        is_foreign: (n,) whether the abstention refuses an image; None where there is none.
        bins: of the expected calibration error.
    """
    before, after = softmax(logits), softmax(logits, bundle.temperature)
    return {
        "calibration": {
            "temperature": bundle.temperature,
            "ece_before": _ece(class_index, before, bins),
            "ece_after": _ece(class_index, after, bins),
            "brier_before": float(brier_scores(class_index, before).mean()),
            "brier_after": float(brier_scores(class_index, after).mean()),
        },
        "operating_points": {
            label: _on_test(bundle, label, class_index, after) for label in bundle.operating_points
        },
        "abstention": _abstention(bundle, class_index, after, is_foreign),
    }


def served_figures(
    bundle: Bundle,
    class_index: NDArray[np.integer[Any]],
    logits: NDArray[np.float32],
    bins: int,
) -> dict[str, bytes]:
    """The figures of the test split by file name.

    Args:
        bundle: labels, temperature and operating points.
        class_index: (n,) true classes.
        logits: (n, c) of the served file.
        bins: of the reliability diagram.
    """
    before, after = softmax(logits), softmax(logits, bundle.temperature)
    names = drawable(bundle.labels, [bundle.name_of(label) for label in bundle.labels])
    title = f"{bundle.task}, {bundle.served.precision}, test split"
    figures = {
        "confusion.png": confusion(class_index, after.argmax(axis=1), names, title),
        "reliability.png": plots.reliability(class_index, after, bins, before=before),
        "roc.png": plots.roc(class_index, after, names),
    }
    if bundle.operating_points:
        figures["threshold.png"] = thresholds(
            class_index, after, bundle.labels, bundle.operating_points
        )
    return figures


def _ece(
    class_index: NDArray[np.integer[Any]], probabilities: NDArray[np.float32], bins: int
) -> float:
    return expected_calibration_error(reliability_bins(class_index, probabilities, bins))


def _on_test(
    bundle: Bundle,
    label: str,
    class_index: NDArray[np.integer[Any]],
    probabilities: NDArray[np.float32],
) -> dict[str, float | int | None]:
    chosen = bundle.operating_points[label]
    index = bundle.labels.index(label)
    return {
        **measured(chosen.threshold, probabilities[:, index], class_index == index),
        "min_specificity": chosen.min_specificity,
    }


def _abstention(
    bundle: Bundle,
    class_index: NDArray[np.integer[Any]],
    probabilities: NDArray[np.float32],
    is_foreign: NDArray[np.bool_] | None,
) -> dict[str, float | None] | None:
    if bundle.abstention is None or is_foreign is None:
        return None
    is_right = probabilities.argmax(axis=1) == class_index
    accepted = is_right[~is_foreign]
    return {
        "acceptance": bundle.abstention.acceptance,
        "threshold": bundle.abstention.threshold,
        "refused": float(is_foreign.mean()),
        "accuracy_of_accepted": float(accepted.mean()) if len(accepted) else None,
    }
