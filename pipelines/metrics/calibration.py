"""How sure a model may say that it is, and from which probability on it says yes.

Both are chosen on the val split, for the file that is served; the test split measures them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import DataError
from pipelines.serving.trust import OperatingPoint

#: A temperature outside is no matter of sureness: the model or its val split is broken.
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
#: Decimals of a temperature: far below what any val split resolves, and free of last bits.
_DECIMALS = 6
_TOLERANCE = 1e-9


def fit_temperature(
    logits: NDArray[np.floating[Any]], class_index: NDArray[np.integer[Any]]
) -> float:
    """The temperature that makes the val answers most likely, held back a little towards 1.

    With a handful of val images, all of them right, likelihood alone would ask for the surest
    answers that there can be. So the inverse temperature has a normal prior with mean 1 and
    deviation 1, which weighs less than one image; with hundreds it changes nothing. The sum is
    convex in the inverse temperature, so that the root of its slope is the only minimum, and
    bisection finds the same one everywhere. Since the prior is best at 1, the likelihood of these
    images is never lower than at 1.

    Args:
        logits: (n, c) of the val split, from the file that is served.

    Returns:
        In [0.05, 20], with 6 decimals.

    Raises:
        DataError: if there is no image or a logit is not finite.

    References:
        Guo et al. 2017, "On calibration of modern neural networks", section 4.2.
    """
    if not len(logits) or not np.isfinite(logits).all():
        raise DataError(
            f"the temperature needs val images with finite logits: got {len(logits)} images, "
            f"{int((~np.isfinite(logits)).any(axis=1).sum())} of them with NaN or infinity. "
            f"Train with a lower learning_rate, or raise val_fraction."
        )
    wide = logits.astype(np.float64)
    true = float(wide[np.arange(len(wide)), class_index].sum())

    def slope(inverse: float) -> float:
        scaled = inverse * wide
        top = scaled.max(axis=1)
        log_sums = top + np.log(np.exp(scaled - top[:, np.newaxis]).sum(axis=1))
        shares = np.exp(scaled - log_sums[:, np.newaxis])
        return float(np.sum(shares * wide)) - true + (inverse - 1)

    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    while high - low > _TOLERANCE:
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return round(2 / (low + high), _DECIMALS)


def operating_point(
    probabilities: NDArray[np.floating[Any]],
    is_positive: NDArray[np.bool_],
    min_specificity: float,
) -> OperatingPoint:
    """The threshold of greatest sensitivity whose specificity is at least as asked.

    The screening question: how many of the sick are found, if at most so many of the healthy may
    be alarmed. An image is called positive if its probability reaches the threshold. Of all the
    thresholds that part these images alike, the middle one between two neighbours is taken, so that
    a last bit changes no answer.

    Args:
        probabilities: (n,) of the label, calibrated, in [0, 1].
        is_positive: (n,) whether the image has the label.
        min_specificity: in (0, 1); 0.9 means at most 10 % false alarms.

    Raises:
        DataError: if every image has the label or none has; or if too many images without it get
            the probability 1, which no threshold can part.

    References:
        Yerushalmy 1947, "Statistical problems in assessing methods of medical diagnosis", for the
        two measures; Neyman and Pearson 1933, "On the problem of the most efficient tests of
        statistical hypotheses", for bounding one error and minimising the other.
    """
    said = probabilities.astype(np.float64)
    if is_positive.all() or not is_positive.any():
        raise DataError(
            f"an operating point needs val images with and without the label: got "
            f"{int(is_positive.sum())} with it of {len(is_positive)}. Raise val_fraction, or set "
            f"export.min_specificity to null."
        )
    negatives = np.sort(said[~is_positive])
    # So many of those without the label may be alarmed; 1e-9 forgives 0.9 its binary form.
    n_alarms = math.floor((1 - min_specificity) * len(negatives) + 1e-9)
    # Thresholds must lie above this one of them: those beneath and beside it are not alarmed.
    bound = float(negatives[len(negatives) - n_alarms - 1])
    found = said[is_positive & (said > bound)]
    if bound >= 1:
        raise DataError(
            f"no threshold has a specificity of {min_specificity:g}: the model gives the "
            f"probability 1 to {int((negatives >= 1).sum())} of {len(negatives)} val images "
            f"without the label. Lower export.min_specificity, or train again."
        )
    # The least probability of a positive that is found, and what lies next beneath it.
    upper = float(found.min()) if len(found) else 1.0
    lower = float(said[said < upper].max(initial=bound))
    threshold = (lower + upper) / 2
    found_on_val = measured(threshold, said, is_positive)
    return OperatingPoint.model_validate({**found_on_val, "min_specificity": min_specificity})


def measured(
    threshold: float, probabilities: NDArray[np.floating[Any]], is_positive: NDArray[np.bool_]
) -> dict[str, float | int | None]:
    """What a threshold reaches on some images; None where it is not defined.

    Args:
        threshold: in [0, 1]; a probability of the label that reaches it is a yes.
    """
    says_yes = probabilities >= threshold
    n_positive = int(is_positive.sum())
    n_negative = len(is_positive) - n_positive
    return {
        "threshold": threshold,
        "sensitivity": float(says_yes[is_positive].mean()) if n_positive else None,
        "specificity": float((~says_yes[~is_positive]).mean()) if n_negative else None,
        "n_positive": n_positive,
        "n_negative": n_negative,
    }
