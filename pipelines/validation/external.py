"""What a released model is worth on images from elsewhere, and how far below its own test split.

Pure: answers in, findings out. Called by `validate`, which reads the files and asks the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from pipelines.metrics.certainty import metric_intervals
from pipelines.metrics.classification import classification_metrics, rounded
from pipelines.metrics.intervals import Draws, by_mean, rounded_interval
from pipelines.serving.sessions import Precision
from pipelines.serving.trust import METRIC_NAMES, Interval

#: What `validate` writes beside its page.
VALIDATION_FILE = "validation.json"

_OF_CLASSES = "classification"
#: Fewer groups than this: a bootstrap interval is too narrow to be quoted.
_FEW_GROUPS = 20
#: Metrics whose drop from the internal test split is stated, of labels.
DROPS = ("accuracy", "balanced_accuracy", "macro_f1", "ece")
#: Metrics of which less is better.
ERRORS = frozenset({"ece", "eer", "false_match", "false_non_match", "counting_error"})


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Excluded(_Part):
    """One image that does not count, and why."""

    #: Relative to the folder.
    path: str
    #: ``refused``: not an image that may enter; ``known``: the project has it already; ``copy``:
    #: twice in the folder; ``unknown_label``: of a class that the model was not taught.
    kind: Literal["refused", "known", "copy", "unknown_label"]
    #: In one line.
    reason: str


class Drop(_Part):
    """How far a metric lies below the internal test split."""

    internal: Interval
    external: Interval
    #: Internal minus external, with the interval of two independent samples.
    drop: Interval
    do_intervals_overlap: bool


class BlindScore(_Part):
    """What a model that sees next to nothing learns of the new folder, cross-validated by group."""

    name: str
    sees: str
    #: Whether it cannot be the subject itself that it sees; what a thumbnail shows may be.
    decides: bool
    macro_f1: Interval


class Abstained(_Part):
    """What the abstention does on the new folder."""

    #: Share of the images that the model calls out of distribution.
    refused: Interval
    #: Of the others; null where all were refused.
    accuracy_of_accepted: Interval | None
    macro_f1_of_accepted: Interval | None


class Validation(_Part):
    """validation.json."""

    schema_version: Literal[1] = 1
    task: str
    #: What the model answers.
    kind: Annotated[str, Field(exclude_if=lambda kind: kind == _OF_CLASSES)] = _OF_CLASSES
    title: str
    #: Name of the folder, without where it lies.
    folder: str
    precision: Precision
    model_sha256: str
    #: Of the images that the model was trained on; ``sample`` means that no figure here counts.
    data_source: str
    #: Hash over content, labels and groups of the images that count.
    folder_sha256: str
    labels: tuple[str, ...]
    #: What people call a label, only where it differs.
    label_names: Annotated[dict[str, str], Field(exclude_if=lambda names: not names)] = Field(
        default_factory=dict
    )
    absent_labels: tuple[str, ...]
    n_found: int
    n_images: Annotated[int, Field(ge=1)]
    n_groups: Annotated[int, Field(ge=1)]
    set_aside: tuple[Excluded, ...]
    #: How far copies of the project's own images were looked for.
    duplicates_sought: str
    metrics: dict[str, Any]
    intervals: dict[str, Interval]
    drops: dict[str, Drop]
    abstained: Abstained | None
    #: Macro-F1 of always answering the commonest label of the folder; null where images have none.
    chance: float | None
    blind: tuple[BlindScore, ...]
    #: Why there are no blind baselines; empty where there are.
    blind_missing: str
    resamples: int
    seed: int

    def name_of(self, label: str) -> str:
        """What people call a label."""
        return self.label_names.get(label, label)

    def words_of(self, metric: str) -> str:
        """What people call a metric, or that of one label."""
        return words_of(metric, self.name_of)

    @property
    def best_blind(self) -> BlindScore | None:
        """Of the models that cannot see the subject, the one that got farthest."""
        deciding = [each for each in self.blind if each.decides]
        return max(deciding, key=lambda each: each.macro_f1.value, default=None)

    @property
    def unseen(self) -> dict[str, float]:
        """What is reached without a look, by its name, where a kind says so."""
        told = self.metrics.get("blind", {})
        return {name: of for name, of in told.items() if isinstance(of, float)}

    @property
    def has_few_groups(self) -> bool:
        """Whether the intervals are too narrow for that reason alone."""
        return self.n_groups < _FEW_GROUPS

    def is_worse(self, metric: str) -> bool:
        """Whether the folder's figure is the worse one, by more than luck."""
        drop = self.drops[metric].drop
        return drop.high < 0 if metric in ERRORS else drop.low > 0

    @property
    def n_by_kind(self) -> dict[str, int]:
        """How many images were set aside, by kind."""
        kinds = [entry.kind for entry in self.set_aside]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def words_of(metric: str, name_of: Callable[[str], str] = str) -> str:
    """What people call a metric, or that of one label.

    Args:
        metric: as its key; that of a label ends with it, after a full stop.
        name_of: what they call the label.
    """
    name, _, label = metric.partition(".")
    words = METRIC_NAMES.get(name, name.replace("_", " "))
    return f"{words} of {name_of(label)}" if label else words


def measure(
    draws: Draws,
    class_index: NDArray[np.int64],
    probabilities: NDArray[np.floating[Any]],
    labels: Sequence[str],
    bins: int,
) -> tuple[dict[str, Any], dict[str, Interval]]:
    """The metrics of the folder, and the same with intervals.

    Args:
        class_index: (n,) true classes.
        probabilities: (n, c), rows add up to 1.
        labels: c labels, in the order of the columns.
        bins: of the expected calibration error.
    """
    metrics = rounded(classification_metrics(class_index, probabilities, labels, bins))
    return metrics, metric_intervals(draws, class_index, probabilities, labels, bins)


def abstained(
    draws: Draws,
    is_refused: NDArray[np.bool_],
    is_right: NDArray[np.bool_],
    macro_f1: Interval | None,
) -> Abstained:
    """What the abstention does.

    Args:
        is_refused: (n,) whether the model refuses to answer.
        is_right: (n,) whether its answer is the label.
        macro_f1: of the images that it accepts.
    """
    refused = by_mean(draws, is_refused)
    if refused is None:  # there is at least one image
        raise ValueError("no image")
    accepted = by_mean(draws, np.where(is_refused, np.nan, is_right))
    return Abstained(
        refused=rounded_interval(refused),
        accuracy_of_accepted=accepted and rounded_interval(accepted),
        macro_f1_of_accepted=macro_f1 and rounded_interval(macro_f1),
    )


def drops(
    internal: Mapping[str, Interval],
    external: Mapping[str, Interval],
    names: Sequence[str] = DROPS,
) -> dict[str, Drop]:
    """By metric, how far the folder lies below the internal test split.

    Args:
        names: of the metrics; those that both have count.
    """
    return {
        name: Drop(
            internal=internal[name],
            external=external[name],
            drop=rounded_interval(difference(internal[name], external[name])),
            do_intervals_overlap=internal[name].low <= external[name].high
            and external[name].low <= internal[name].high,
        )
        for name in names
        if name in internal and name in external
    }


def difference(a: Interval, b: Interval) -> Interval:
    """``a`` minus ``b`` of two independent samples, from their intervals alone.

    The two ends that are nearest, and the two that are farthest, are put together as standard
    errors are: by squaring and adding.

    References:
        Newcombe 1998, "Interval estimation for the difference between independent proportions",
        Statistics in Medicine 17, method 10; for any figure: Zou & Donner 2008, "Construction of
        confidence limits about effect measures: a general approach", Statistics in Medicine 27.
    """
    value = a.value - b.value
    # A percentile interval need not hold its value (ECE); such a side counts as no distance.
    below = math.hypot(max(a.value - a.low, 0.0), max(b.high - b.value, 0.0))
    above = math.hypot(max(a.high - a.value, 0.0), max(b.value - b.low, 0.0))
    return Interval(value=value, low=value - below, high=value + above)
