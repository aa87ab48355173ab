"""How well masks fit: overlap, outline, and what pixels alone say.

Masks are boolean arrays of one shape. Where neither shows anything they agree, and every metric is
1; where one alone does it is 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Shown = NDArray[np.bool_]

#: How far two outlines may lie apart, as a share of the picture's diagonal.
TOLERANCE = 0.008


def dice(one: Shown, other: Shown, axis: tuple[int, ...] | None = None) -> NDArray[np.float64]:
    """Twice what both show over the sum of what each shows, in [0, 1].

    Args:
        axis: of the picture; None: all axes.

    References:
        Dice 1945, "Measures of the amount of ecologic association between species".
    """
    both = np.logical_and(one, other).sum(axis=axis, dtype=np.float64)
    either = one.sum(axis=axis, dtype=np.float64) + other.sum(axis=axis, dtype=np.float64)
    return _share(2 * both, either)


def iou(one: Shown, other: Shown, axis: tuple[int, ...] | None = None) -> NDArray[np.float64]:
    """What both show over what any of them shows, in [0, 1]; the Jaccard index.

    Args:
        axis: of the picture; None: all axes.
    """
    both = np.logical_and(one, other).sum(axis=axis, dtype=np.float64)
    return _share(both, np.logical_or(one, other).sum(axis=axis, dtype=np.float64))


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.where(whole > 0, part / np.maximum(whole, 1), 1.0)
    return found


def by_picture(values: NDArray[np.float64], is_shown: Shown) -> NDArray[np.float64]:
    """(n,) means over the labels of a picture that count; 1 where none does.

    A label that neither truth nor answer shows does not count: of many labels most are in no
    picture, and to say nothing would be nearly right.

    Args:
        values: (n, n_labels).
        is_shown: (n, n_labels) whether truth or answer shows the label.
    """
    counted = is_shown.sum(axis=1)
    sums = np.where(is_shown, values, 0.0).sum(axis=1)
    found: NDArray[np.float64] = np.where(counted > 0, sums / np.maximum(counted, 1), 1.0)
    return found


def mean_dice(one: Shown, other: Shown) -> float:
    """Mean over n pictures of `dice`, `by_picture`, of (n, n_labels, h, w) masks."""
    return float(by_picture(dice(one, other, (2, 3)), _shown(one, other)).mean())


def mean_iou(one: Shown, other: Shown) -> float:
    """The same of `iou`."""
    return float(by_picture(iou(one, other, (2, 3)), _shown(one, other)).mean())


def _shown(one: Shown, other: Shown) -> Shown:
    return np.asarray(np.logical_or(one, other).any(axis=(2, 3)))


def outline(mask: Shown) -> Shown:
    """Pixels of a mask, (h, w), that touch one outside of it, above, below or beside them.

    The edge of the picture is no outline: what lies beyond, nobody knows.
    """
    inner = np.pad(mask, 1, mode="edge")
    kept = inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    edge: Shown = mask & ~kept
    return edge


def boundary_f1(one: Shown, other: Shown, tolerance: float = TOLERANCE) -> float:
    """Mean, as F1 has it, of the shares of each outline that lie near the other, in [0, 1].

    Args:
        one: (h, w).
        other: (h, w).
        tolerance: what is near, as a share of the picture's diagonal.

    References:
        Csurka et al. 2013, "What is a good evaluation measure for semantic segmentation?";
        Perazzi et al. 2016, "A benchmark dataset and evaluation methodology for video object
        segmentation" (the tolerance).
    """
    from scipy.ndimage import distance_transform_edt

    if not (one.any() and other.any()):
        return float(one.any() == other.any())
    outlines = (outline(one), outline(other))
    if not (outlines[0].any() and outlines[1].any()):
        # One of them covers the whole picture.
        return float(outlines[0].any() == outlines[1].any())
    near_px = tolerance * float(np.hypot(*one.shape))
    hits = [
        float((distance_transform_edt(~there)[here] <= near_px).mean())
        for here, there in (outlines, outlines[::-1])
    ]
    return 2 * hits[0] * hits[1] / sum(hits) if sum(hits) else 0.0


def best_threshold(
    probabilities: NDArray[np.floating], shown: Shown, steps: NDArray[np.float64]
) -> float:
    """The step with the best mean Dice over pictures; of equals that nearest to 0.5.

    Args:
        probabilities: (n, h, w), in [0, 1].
        shown: (n, h, w).
        steps: thresholds to choose from.
    """
    reached = [
        (float(dice(probabilities >= step, shown, (1, 2)).mean()), -abs(float(step) - 0.5), step)
        for step in steps
    ]
    return float(max(reached)[2])


#: From which probabilities on a pixel may be said to show a label.
STEPS = np.round(np.arange(0.05, 0.96, 0.05), 2)


# -- without a look -------------------------------------------------------------------------------
def centred_ellipse(share: float, shape: tuple[int, int]) -> Shown:
    """An ellipse in the middle of a picture, of its aspect, with a share of its area.

    Args:
        share: in [0, 1]; above pi / 4 it is cut by the picture's sides.
        shape: height and width.
    """
    y, x = (((np.arange(n) + 0.5) / n - 0.5) for n in shape)
    inside: Shown = x[np.newaxis, :] ** 2 + y[:, np.newaxis] ** 2 <= share / np.pi
    return inside
