"""How far models get that see next to nothing, cross-validated by group, and what that means.

An audit is a forest on features that cannot show the subject. What it reaches is compared with a
linear probe on the frozen backbone's embeddings, on the same folds: a blind model that comes most
of the way is a sign that the images tell their label by something other than what they show. The
verdict is `clean`, `suspicious` or `shortcut` (ADR 0012). Throughout, ``class_index`` is (n,)
classes by label, of c, and ``groups`` (n,) what must not straddle folds.

References:
    Geirhos et al. 2020, "Shortcut learning in deep neural networks", Nature Machine Intelligence 2;
    DeGrave, Janizek and Lee 2021, "AI for radiographic COVID-19 detection selects shortcuts over
    signal", Nature Machine Intelligence 3; Torralba and Efros 2011, "Unbiased look at dataset
    bias" (predicting the source). Forest: Geurts, Ernst and Wehenkel 2006, "Extremely randomized
    trees".
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.config.audit import AuditParams
from pipelines.errors import DataError
from pipelines.metrics.classification import DECIMALS, macro_f1
from pipelines.metrics.intervals import Draws, by_counts, draw, macro_f1s, rounded_interval
from pipelines.serving.trust import AuditScore, Interval, Verdict

#: Trees of a forest. Between two seeds, macro-F1 of chest_xray's border differed by 0.036 with 50
#: trees and by 0.005 with 100.
_N_TREES = 100
#: Inverse strength of the probe's ridge. Small, since embeddings have more columns than images.
_PROBE_C = 0.01
_PROBE_STEPS = 300

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]
Features = NDArray[Any]


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


@dataclass(frozen=True, slots=True)
class Blind:
    """What all audits of a task share: classes, groups, folds, and resamples of groups."""

    class_index: NDArray[np.int64]
    n_classes: int
    groups: NDArray[np.str_]
    folds: list[Fold]
    draws: Draws

    def interval(self, predicted: NDArray[np.integer[Any]]) -> Interval:
        """Macro-F1 of (n,) answers, with its 95 % interval over groups."""
        found = by_counts(self.draws, self.class_index, predicted, self.n_classes, macro_f1s)
        if found is None:
            raise DataError("macro-F1 is not defined: there is no image.")
        return rounded_interval(found)

    def chance(self) -> float:
        """Macro-F1 of always answering the majority class."""
        majority = np.bincount(self.class_index).argmax()
        answers = np.full_like(self.class_index, majority)
        return round(macro_f1(self.class_index, answers, self.n_classes), DECIMALS)


def blind(
    class_index: NDArray[np.int64],
    n_classes: int,
    groups: Sequence[str],
    n_folds: int,
    seed: int,
    resamples: int,
) -> Blind:
    """Folds as `folds_by_group` makes them, and resamples for the intervals.

    Raises:
        DataError: if a class has fewer than two groups.
    """
    names = np.asarray(groups)
    folds = folds_by_group(class_index, n_classes, names, n_folds, seed)
    return Blind(class_index, n_classes, names, folds, draw(names, resamples, seed))


def folds_by_group(
    class_index: NDArray[np.int64],
    n_classes: int,
    groups: NDArray[np.str_],
    n_folds: int,
    seed: int,
) -> list[Fold]:
    """Folds that no group straddles, stratified by label; fewer where a class has fewer groups.

    Raises:
        DataError: if a class has fewer than two groups.
    """
    fewest = min(len(set(groups[class_index == k].tolist())) for k in range(n_classes))
    if fewest < 2:
        raise DataError(
            f"an audit needs at least 2 groups of each class in train and val together (got "
            f"{fewest}): with one, nothing can be learned and tested. Add images of other groups."
        )
    from sklearn.model_selection import StratifiedGroupKFold

    folding = StratifiedGroupKFold(min(n_folds, fewest), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class with fewer images than folds: known, and the folds are fewer then.
        warnings.simplefilter("ignore", UserWarning)
        folds = list(folding.split(np.zeros(len(groups)), class_index, groups))
    return [(learn, answer) for learn, answer in folds if len(learn) and len(answer)]


# -- models ---------------------------------------------------------------------------------------
def out_of_fold(
    make: Callable[[], Any],
    features: Features,
    class_index: NDArray[np.integer[Any]],
    n_classes: int,
    folds: Sequence[Fold],
) -> NDArray[np.float64]:
    """(n, c) probabilities for each image from a model that saw none of its group.

    Args:
        make: gives an unfitted scikit-learn classifier.
        features: (n, d).
    """
    from sklearn import config_context

    probabilities = np.zeros((len(class_index), n_classes))
    # Checking numbers that were made here, once for each of a forest's trees, takes as long as
    # growing them.
    with config_context(assume_finite=True, skip_parameter_validation=True):
        for learn, answer in folds:
            known = np.unique(class_index[learn])
            if len(known) == 1:  # nothing to tell apart
                probabilities[answer, known[0]] = 1.0
                continue
            model = make().fit(features[learn], class_index[learn])
            probabilities[np.ix_(answer, model.classes_)] = model.predict_proba(features[answer])
    return probabilities


def forest(seed: int) -> Any:
    """An unfitted forest."""
    from sklearn.ensemble import ExtraTreesClassifier

    return ExtraTreesClassifier(
        _N_TREES, random_state=seed, n_jobs=1, class_weight="balanced", min_samples_leaf=1
    )


def probe() -> Any:
    """An unfitted linear probe: logistic regression on standardised columns."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        StandardScaler(),
        LogisticRegression(C=_PROBE_C, max_iter=_PROBE_STEPS, class_weight="balanced"),
    )


def one_hot(names: Sequence[Any] | NDArray[Any]) -> NDArray[np.float64]:
    """(n, number of different names) names as columns of 0 and 1."""
    known, place = np.unique(np.asarray(names), return_inverse=True)
    return np.eye(len(known))[place]


# -- verdicts -------------------------------------------------------------------------------------
#: Smallest distance from chance to the probe that a share is taken of; a probe that sees nothing
#: would make a share of anything.
_MIN_HEADROOM = 0.05
_RANK: dict[Verdict, int] = {"clean": 0, "suspicious": 1, "shortcut": 2}


def share_of_way(value: float, chance: float, probe_value: float) -> float:
    """How much of the way from chance to the probe a figure is; 1 is as good as the probe."""
    return round((value - chance) / max(probe_value - chance, _MIN_HEADROOM), DECIMALS)


def verdict_of(share: float, low: float, n_classes: int, params: AuditParams) -> Verdict:
    """`clean`, `suspicious` or `shortcut`, by the bounds of params.

    A figure whose interval reaches down to what blind drawing gives says nothing, however near
    chance the probe is: clean. Answers drawn by the labels' frequencies have precision and recall
    p for a class of frequency p, so F1 p, and a macro-F1 of 1/c.

    Args:
        share: of the way from chance to the probe.
        low: lower end of the audit's interval of macro-F1.
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
    """What one of `AUDITS` reached with (n,) answers out of fold, beside the probe's macro-F1."""
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
