"""What a bundle says about how far its answers can be trusted.

Read by the predictor, the apps, the reports and the model cards; written by `audit` (its verdict),
`export` (operating points, abstention) and `evaluate` (intervals). Plain data: pydantic only.
"""

from __future__ import annotations

import base64
import binascii
import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from pipelines.errors import MissingDataError

#: What people call a metric of metrics.json.
METRIC_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "ece": "expected calibration error",
    "brier": "Brier score",
    "dice": "Dice",
    "iou": "IoU",
    "boundary_f1": "boundary F1",
    "recall_at_1": "recall@1",
    "map_at_r": "MAP@R",
    "eer": "EER",
    "ap": "AP",
    "ap50": "AP50",
    "presence": "area under the ROC curve of which classes a picture shows",
}
Verdict = Literal["clean", "suspicious", "shortcut"]
#: Bytes of one element of a `PackedArray`.
_ITEM_BYTES = {"float32": 4, "float16": 2, "int8": 1}
#: Most characters of base64 that an `Abstention` may bring: a phone loads it with the model.
MAX_ABSTENTION_BYTES = 300_000


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(_Part):
    """A figure and its 95 % bootstrap interval over groups."""

    value: float
    low: float
    high: float

    @model_validator(mode="after")
    def _bounds_rise(self) -> Interval:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        return self


class AuditScore(_Part):
    """How far one model that sees next to nothing got."""

    #: e.g. ``file_facts``, ``border``, ``thumbnail``, ``colour``, ``source``.
    name: str
    #: What it was shown, in words.
    sees: str
    #: In the report's ``metric``; the key is that of the kind for which it was made.
    macro_f1: Interval
    #: Share of the way from chance to the linear probe; below 0 where it is worse than chance.
    share: float
    verdict: Verdict
    #: Whether this audit counts for the task's verdict. What a thumbnail or a colour histogram
    #: shows may be the disease itself; file facts and borders may not.
    decides: bool


class AuditReport(_Part):
    """audit.json: what may be known of the labels without looking at the subject."""

    schema_version: Literal[1] = 1
    task: str
    n_images: Annotated[int, Field(ge=1)]
    n_groups: Annotated[int, Field(ge=1)]
    folds: int
    #: What chance, probe and scores are measured in, by its key in metrics.json; more is better.
    #: It and the next are left out of the file where they are those of a classification.
    metric: Annotated[str, Field(exclude_if=lambda name: name == "macro_f1")] = "macro_f1"
    #: The one answer to all images that ``chance`` is of.
    constant: Annotated[str, Field(exclude_if=lambda name: name == "majority class")] = (
        "majority class"
    )
    chance: float
    #: Of a linear probe on the frozen backbone's embeddings, on the same folds.
    probe: Interval
    scores: tuple[AuditScore, ...]
    #: The worst verdict among the scores that decide.
    verdict: Verdict
    #: Why a shortcut is accepted, from params; null where it is not.
    accepted: str | None
    #: Bounds on `AuditScore.share`, from params.
    suspicious_share: float
    shortcut_share: float
    #: By source, the share of its images that have its commonest label; empty without sources.
    source_purity: dict[str, float] = Field(default_factory=dict)
    #: Images whose label the cross-validated probe contradicts (confident learning); files of
    #: version 0.1 call it by its older name.
    n_label_issues: int = Field(
        0, validation_alias=AliasChoices("n_label_issues", "n_label_doubts")
    )

    @property
    def measure(self) -> str:
        """What people call the metric."""
        return METRIC_NAMES.get(self.metric, self.metric)


class OperatingPoint(_Part):
    """From which probability on one label is answered with yes; chosen on the val split."""

    threshold: Annotated[float, Field(ge=0, le=1)]
    #: The specificity that was asked for.
    min_specificity: float
    sensitivity: float
    specificity: float
    #: Val images with and without the label that it rests on.
    n_positive: int
    n_negative: int


class BoxPoint(_Part):
    """From which score on a box of one label counts; the best F1 on the val split."""

    threshold: Annotated[float, Field(ge=0, le=1)]
    #: On val, of boxes that overlap by half: what was found, and what of it is right.
    recall: float
    precision: float
    #: Boxes of val that it rests on.
    n_boxes: int
    #: What to add to a count, least and most: the true counts of 95 % of the pictures that are
    #: drawn as val's lie between. Not there where val has fewer than 39 pictures.
    count_band: Annotated[tuple[int, int] | None, Field(exclude_if=lambda band: band is None)] = (
        None
    )

    @model_validator(mode="after")
    def _band_rises(self) -> BoxPoint:
        if self.count_band is not None and self.count_band[0] > self.count_band[1]:
            raise ValueError("count_band: {} is above {}".format(*self.count_band))
        return self


def read_audit(path: Path, task: str) -> AuditReport:
    """The report of a task's audit.

    Raises:
        MissingDataError: if there is none, it cannot be read, or it is another task's.
    """
    advice = f"Run `dvc repro audit@{task}` (or `fieldlens audit {task}`) first."
    try:
        audit = AuditReport.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingDataError(f"{path}: there is no audit. {advice}") from None
    except (OSError, ValueError) as err:
        raise MissingDataError(f"{path}: is no audit report ({err}). {advice}") from err
    if audit.task != task:
        raise MissingDataError(f"{path}: is the audit of {audit.task!r}. {advice}")
    return audit


class PackedArray(_Part):
    """Numbers as text that NumPy and a browser read alike.

    The element with C-order place i is ``scale * numbers[i]``, where ``numbers`` are the bytes of
    ``data`` as little-endian float32, IEEE 754 binary16 or two's-complement int8. A browser without
    ``Float16Array`` reads binary16 by hand.
    """

    shape: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=3)]
    dtype: Literal["float32", "float16", "int8"]
    #: What the stored numbers are multiplied by.
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    #: RFC 4648 base64 with padding, without line breaks.
    data: Annotated[str, Field(max_length=MAX_ABSTENTION_BYTES)]

    @model_validator(mode="after")
    def _is_as_long_as_its_shape(self) -> PackedArray:
        try:
            got = len(base64.b64decode(self.data, validate=True))
        except (binascii.Error, ValueError) as err:
            raise ValueError(f"data is not base64 ({err})") from err
        expected = math.prod(self.shape) * _ITEM_BYTES[self.dtype]
        if got != expected:
            raise ValueError(
                f"data has {got} bytes; shape {self.shape} of {self.dtype} needs {expected}"
            )
        return self


class Abstention(_Part):
    """How pictures unlike those that the model knows are told, fitted for the served file.

    The bundle's other file is judged by it too, though it was not fitted for that one; so it is
    with the temperature and the operating points.

    A picture is out of distribution if its score is above ``threshold``.
    """

    #: Name of the score; its arrays and formula: `pipelines.serving.out_of_distribution`.
    score: str
    #: A larger score than this is out of distribution.
    threshold: Annotated[float, Field(allow_inf_nan=False)]
    #: Share of the val images that the threshold was chosen to accept.
    acceptance: Annotated[float, Field(gt=0, lt=1)]
    #: Parameters of the score by name.
    arrays: dict[str, PackedArray]
    #: Train images that the arrays were fitted on, and val images that the threshold rests on.
    n_train: Annotated[int, Field(ge=1)]
    n_val: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _fits_a_phone(self) -> Abstention:
        size = sum(len(array.data) for array in self.arrays.values())
        if size > MAX_ABSTENTION_BYTES:
            raise ValueError(f"arrays have {size:,} bytes; at most {MAX_ABSTENTION_BYTES:,} may be")
        return self
