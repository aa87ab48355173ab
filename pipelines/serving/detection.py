"""The serving half of the kind `detection`: rows of a model become boxes in the picture.

The model gives a fixed number of rows, the most certain first; those of score 0 are padding. What
lies beside the picture, where the view frames it, is cut off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from pipelines.columns import table
from pipelines.serving.answer import EMBEDDING_NAME, Answer, Evidence, ServedKind

if TYPE_CHECKING:
    from pipelines.data.preprocess import Geometry
    from pipelines.serving.bundle import Bundle


BOXES_NAME = "boxes"
#: Columns of a row: x0, y0, x1, y1 as shares of the input's side, score, number of the label.
N_COLUMNS = 6
#: From which score on a box counts, of a label that no point was fitted for.
DEFAULT_THRESHOLD = 0.5
_SHOWN = 12
#: `Evidence.least` of a score in [0, 1].
_LEAST_FALL = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One thing that was found.

    Attributes:
        score: how sure the model is, in [0, 1].
        x0: left edge in px of the upright picture; ``y0`` is the top, ``x1`` and ``y1`` are the
            right and the bottom one.
        is_counted: whether the score reaches the label's threshold, which was chosen on val.
    """

    label: str
    score: float
    x0: float
    y0: float
    x1: float
    y1: float
    is_counted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes(Answer):
    """The answer for one picture.

    Attributes:
        boxes: the most certain first, those too that do not count, for whoever moves the threshold.
    """

    boxes: tuple[Box, ...]

    def counts(self, labels: Sequence[str]) -> dict[str, int]:
        """By label, how many boxes count."""
        found = Counter(box.label for box in self.boxes if box.is_counted)
        return {label: found[label] for label in labels}


class ServedDetection(ServedKind[Boxes]):
    """Boxes with one of the bundle's labels each."""

    outputs = (BOXES_NAME, EMBEDDING_NAME)
    not_explained = ""

    @override
    def check_labels(self, labels: Sequence[str]) -> None:
        if not labels:
            raise ValueError("labels: a detection needs at least 1, got 0")

    @override
    def check(self, bundle: Bundle) -> None:
        unknown = sorted(set(bundle.box_points) - set(bundle.labels))
        if unknown:
            raise ValueError(f"box_points names no label: {', '.join(unknown)}")
        shape = bundle.output(BOXES_NAME).shape
        if len(shape) != 3 or shape[2] != N_COLUMNS:
            raise ValueError(
                f"outputs.{BOXES_NAME}.shape: expected [-1, n, {N_COLUMNS}], got {list(shape)}"
            )

    @override
    def decode(
        self, outputs: Mapping[str, NDArray[np.float32]], bundle: Bundle, geometry: Geometry
    ) -> Boxes:
        rows = outputs[BOXES_NAME]
        corners = in_picture(rows[:, :4], bundle.input.shape[1], geometry)
        found = []
        for (x0, y0, x1, y1), (score, number) in zip(
            corners.tolist(), rows[:, 4:].tolist(), strict=True
        ):
            # Of what lies in the grey margin nothing is left.
            if score > 0 and x1 > x0 and y1 > y0:
                label = bundle.labels[int(number)]
                at = threshold_of(bundle, label)
                found.append(
                    Box(
                        label=label,
                        score=score,
                        x0=x0,
                        y0=y0,
                        x1=x1,
                        y1=y1,
                        is_counted=score >= at,
                    )
                )
        return Boxes(boxes=tuple(found))

    @override
    def evidence(
        self, outputs: Mapping[str, NDArray[np.float32]], bundle: Bundle, label: str | None
    ) -> Evidence:
        """The most certain box, and how sure the model is of one like it.

        References:
            Petsiuk et al. 2021, "Black-box explanation of object detectors via saliency maps"
            (D-RISE), CVPR: of the boxes of the label, the largest product of overlap and score.
        """
        wanted = None if label is None else bundle.labels.index(label)
        rows = outputs[BOXES_NAME]
        first = next(
            (row for row in rows if row[4] > 0 and (wanted is None or row[5] == wanted)), None
        )
        if first is None:
            raise ValueError(f"shows no box{'' if label is None else f' of {label}'} to explain")
        name = bundle.labels[int(first[5])]

        def score(found: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float64]:
            boxes = found[BOXES_NAME].astype(np.float64)
            is_alike = (boxes[..., 4] > 0) & (boxes[..., 5] == first[5])
            sure = _overlap(boxes[..., :4], first[:4]) * boxes[..., 4]
            most: NDArray[np.float64] = np.where(is_alike, sure, 0).max(axis=1)
            return most

        left, top, right, bottom = (float(side) * bundle.input.shape[1] for side in first[:4])
        return Evidence(
            name=name,
            said=f"{bundle.name_of(name)} {first[4]:.3f}, the most certain box",
            score=score,
            least=_LEAST_FALL,
            fall="takes {:.3f} off the score of the box",
            box=(left, top, right, bottom),
        )

    @override
    def lines(self, answer: Boxes, bundle: Bundle) -> list[str]:
        counted = [box for box in answer.boxes if box.is_counted]
        counts = answer.counts(bundle.labels)
        likely = count_intervals(answer, bundle)
        told = ", ".join(
            f"{bundle.name_of(label)} {n}{_in_words(likely.get(label))}"
            for label, n in counts.items()
        )
        rows = [
            (bundle.name_of(b.label), f"{b.score:.3f}", *(f"{side:.0f}" for side in _corners(b)))
            for b in counted[:_SHOWN]
        ]
        lines = [f"found: {told}"]
        if rows:
            lines.append(table(("LABEL", "SCORE", "LEFT", "TOP", "RIGHT", "BOTTOM"), rows))
        if len(counted) > _SHOWN:
            lines.append(f"and {len(counted) - _SHOWN} more boxes (--json shows all)")
        n_below = len(answer.boxes) - len(counted)
        if n_below:
            lines.append(f"{n_below} more boxes are less certain than their label's threshold")
        return lines

    @override
    def columns(self, bundle: Bundle) -> list[str]:
        return [*self.numbers(bundle), BOXES_NAME]

    @override
    def cells(self, answer: Boxes, bundle: Bundle) -> list[str]:
        boxes = "; ".join(
            " ".join([box.label, f"{box.score:.3f}", *(f"{side:.1f}" for side in _corners(box))])
            for box in answer.boxes
            if box.is_counted
        )
        return [*map(str, answer.counts(bundle.labels).values()), boxes]

    @override
    def numbers(self, bundle: Bundle) -> list[str]:
        return [f"n_{label}" for label in bundle.labels]

    @override
    def document(self, answer: Boxes, bundle: Bundle) -> dict[str, Any]:
        likely = {label: list(ends) for label, ends in count_intervals(answer, bundle).items()}
        return {
            "counts": answer.counts(bundle.labels),
            **({"count_intervals": likely} if likely else {}),
            "boxes": [
                {
                    "label": box.label,
                    "name": bundle.name_of(box.label),
                    "score": round(box.score, 6),
                    "box": [round(side, 2) for side in _corners(box)],
                    "is_counted": box.is_counted,
                }
                for box in answer.boxes
            ],
        }


def _overlap(boxes: NDArray[np.float64], one: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """(…,) intersection over union of (…, 4) boxes with one."""
    sides = np.minimum(boxes[..., 2:], one[2:]) - np.maximum(boxes[..., :2], one[:2])
    shared = np.clip(sides, 0, None).prod(axis=-1)
    both = (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1) + (one[2:] - one[:2]).prod()
    found: NDArray[np.float64] = shared / np.maximum(both - shared, 1e-12)
    return found


def threshold_of(bundle: Bundle, label: str) -> float:
    """From which score on a box of a label counts."""
    point = bundle.box_points.get(label)
    return DEFAULT_THRESHOLD if point is None else point.threshold


def count_intervals(said: Boxes, bundle: Bundle) -> dict[str, tuple[int, int]]:
    """By label, between which two numbers the true count is in 95 % of pictures such as val's.

    None of a label for which the bundle has no band, and none at all where boxes count from another
    threshold on than the bundle's.
    """
    if any(box.is_counted != (box.score >= threshold_of(bundle, box.label)) for box in said.boxes):
        return {}
    found = {}
    for label, n in said.counts(bundle.labels).items():
        point = bundle.box_points.get(label)
        if point is not None and point.count_band is not None:
            low, high = point.count_band
            found[label] = (max(0, n + low), max(0, n + high))
    return found


def _in_words(ends: tuple[int, int] | None) -> str:
    return "" if ends is None else " (95 %: {} to {})".format(*ends)


def in_picture(
    shares: NDArray[np.floating[Any]], side_px: int, geometry: Geometry
) -> NDArray[np.float64]:
    """(k, 4) corners in px of the upright picture, within what the input shows of it.

    Args:
        shares: (k, 4) corners as shares of the input's side.
        side_px: of the input.
        geometry: from px of the upright picture to px of the input; a resize and a cut.
    """
    # Margins are alike at both ends, to a pixel.
    margin = np.maximum(geometry[:2, 2], 0)
    placed = np.clip(
        shares.astype(np.float64) * side_px, [*margin, *margin], side_px - np.tile(margin, 2)
    )
    inverse = np.linalg.inv(geometry)
    found: NDArray[np.float64] = placed * np.tile(np.diag(inverse)[:2], 2) + np.tile(
        inverse[:2, 2], 2
    )
    return found


def _corners(box: Box) -> tuple[float, float, float, float]:
    return box.x0, box.y0, box.x1, box.y1
