"""The half of `detection` that `evaluate` asks; boxes are compared in px of upright pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config.evaluate import EvaluateParams
from pipelines.data.images import open_image
from pipelines.data.manifest import Entry
from pipelines.kinds.detection.boxes import moved, of_text, real, true_boxes
from pipelines.kinds.detection.commonest import commonest_of_others
from pipelines.metrics.certainty import Certainty, Gain, defined, gain_of, gain_of_means
from pipelines.metrics.detection import (
    OVERLAPS,
    SIZES,
    Matches,
    agreement,
    average_precision,
    best_scores,
    counts,
    matches,
    mean_agreement,
    mean_over_labels,
    overlaps,
    presence,
    reached,
    true_counts,
)
from pipelines.metrics.intervals import Draws, by_mean, draw, interval_of, rounded_intervals
from pipelines.plots.boxes import Drawn, boxes_sheet
from pipelines.serving.bundle import Bundle
from pipelines.serving.detection import BOXES_NAME, in_picture, threshold_of
from pipelines.serving.sessions import Precision
from pipelines.serving.trust import Interval

if TYPE_CHECKING:
    from pipelines.kinds.evaluate import Answers

_NOTHING = "nothing"
_N_SHOWN = 24
#: What a mean of counts that are wrong can be.
_ANY = (0.0, 1e6)
_DROP = (-1.0, 1.0)


@dataclass(frozen=True, slots=True)
class _Tested:
    """The test split, and what became of each box, by precision and label.

    Attributes:
        truth: (n, t, 5) in px.
        found: (n, k, 6) in px.
        matched: at all `OVERLAPS`.
        sized: the same, of boxes of each size.
        thresholds: by label.
        bands: by label, what to add to a count, least and most; None where val gave none.
    """

    truth: NDArray[np.float32]
    found: dict[Precision, NDArray[np.float64]]
    matched: dict[Precision, list[Matches]]
    sized: dict[Precision, dict[str, list[Matches]]]
    thresholds: list[float]
    bands: list[tuple[int, int] | None]

    @classmethod
    def of(cls, answers: Answers) -> _Tested:
        labels = answers.bundle.labels
        truth = true_boxes(answers.entries, labels)
        found = {key: _in_px(answers, of[BOXES_NAME]) for key, of in answers.outputs.items()}
        n = len(labels)
        matched = {key: matches(boxes, truth, n) for key, boxes in found.items()}
        sized = {
            key: {size: matches(boxes, truth, n, areas=areas) for size, areas in SIZES.items()}
            for key, boxes in found.items()
        }
        thresholds = [threshold_of(answers.bundle, name) for name in labels]
        points = [answers.bundle.box_points.get(name) for name in labels]
        bands = [None if point is None else point.count_band for point in points]
        return cls(truth, found, matched, sized, thresholds, bands)


class TestedDetection:
    """Average precision, and counts from the thresholds on."""

    #: Or pytest would look for tests in it.
    __test__ = False

    def unknown(self, entries: Sequence[Entry], bundle: Bundle) -> str | None:
        """Nothing: boxes of other classes are not the model's to find."""
        return None

    def metrics(self, answers: Answers, params: EvaluateParams) -> dict[str, Any]:
        """AP, AP50, presence, counting error; AP by size; by label AP50 and what counts lack."""
        tested, labels = answers.once(_Tested.of), answers.bundle.labels
        alone = draw([entry.group for entry in answers.entries], 1, 0)
        found: dict[str, Any] = {key: _metrics(tested, key, labels, alone) for key in tested.found}
        same = agreement(tested.found["fp32"], tested.found["int8"], tested.thresholds)
        blind = _blind(answers, tested)
        return {
            **found,
            "agreement": mean_agreement(same),
            "ap50_drop": _drop(found, "ap50"),
            "presence_drop": _drop(found, "presence"),
            "blind": {
                "ap50": blind,
                "of": f"the commonest boxes of other groups of {answers.name}",
            },
        }

    def trust(self, answers: Answers, params: EvaluateParams) -> dict[str, Any]:
        """The thresholds on the test split, and how many pictures are refused."""
        tested = answers.once(_Tested.of)
        served = tested.matched[answers.bundle.served.precision]
        points = {}
        for label, of, at in zip(answers.bundle.labels, served, tested.thresholds, strict=True):
            point = reached(of, at)
            points[label] = {
                "threshold": at,
                "precision": point.precision,
                "recall": point.recall,
                "n_boxes": int(of.n_true.sum()),
            }
        refused = None if answers.is_ood is None else float(answers.is_ood.mean())
        return {"box_points": points, "refused": refused}

    def certainty(self, answers: Answers, draws: Draws, params: EvaluateParams) -> Certainty:
        """By group, each box staying with its image."""
        tested, labels = answers.once(_Tested.of), answers.bundle.labels
        values = {key: _values(tested, key, labels, draws) for key in tested.found}
        intervals = {key: _defined(draws, values[key]) for key in values}
        for key, found in tested.found.items():
            wrong = np.abs(_off(tested, found, len(labels)))
            each = {
                f"counting_error.{name}": off for name, off in zip(labels, wrong.T, strict=True)
            }
            each["counting_error"] = wrong.mean(axis=1)
            intervals[key] |= rounded_intervals(
                {name: by_mean(draws, off, _ANY) for name, off in each.items()}
            )
        drops = {
            f"{name}_drop": values["fp32"][name] - values["int8"][name]
            for name in ("ap", "ap50", "presence")
        }
        paired = _defined(draws, drops, _DROP)
        same = agreement(tested.found["fp32"], tested.found["int8"], tested.thresholds)
        paired |= rounded_intervals({"agreement": by_mean(draws, same)})
        return Certainty(intervals, paired)

    def tables(self, answers: Answers) -> tuple[str, str]:
        """A row a box that counts; and true against found, of boxes that overlap by half."""
        bundle = answers.bundle
        tested = answers.once(_Tested.of)
        found = tested.found[bundle.served.precision]
        rows, pairs = [], list[tuple[str, str]]()
        for entry, boxes, true in zip(answers.entries, found, tested.truth, strict=True):
            kept = _counted(boxes, tested.thresholds)
            for box in kept:
                corners = [f"{side:.2f}" for side in box[:4]]
                rows.append([entry.path, bundle.labels[int(box[5])], f"{box[4]:.6f}", *corners])
            pairs += _pairs(kept, real(true), bundle.labels)
        header = ["path", "label", "score", "x0", "y0", "x1", "y1"]
        return _csv([header, *rows]), _csv([("actual", "predicted"), *pairs])

    def figures(self, answers: Answers, params: EvaluateParams) -> dict[str, bytes]:
        """Test pictures with true boxes and those that count."""
        bundle = answers.bundle
        tested = answers.once(_Tested.of)
        found = tested.found[bundle.served.precision]
        n = len(answers.entries)
        drawn = []
        for row in np.linspace(0, n - 1, min(_N_SHOWN, n)).round().astype(int):
            entry = answers.entries[row]
            reading = bundle.preprocess.build().reading
            picture = open_image(answers.raw_dir / entry.path, name=entry.path, reading=reading)
            kept = _counted(found[row], tested.thresholds)
            drawn.append(
                Drawn(
                    np.asarray(picture.rgb),
                    [(box.label, np.array(box[1:])) for box in of_text(entry.truth)],
                    [(bundle.labels[int(b[5])], float(b[4]), b[:4]) for b in kept],
                )
            )
        return {"boxes.png": boxes_sheet(drawn, bundle.labels)}

    def gains(self, one: Answers, other: Answers, draws: Draws) -> dict[str, Gain]:
        """AP, AP50, of each label too, presence and counting error."""
        labels = one.bundle.labels
        sides = [each.once(_Tested.of) for each in (one, other)]
        values, off = [], []
        for tested in sides:
            (key,) = tested.found
            values.append(_values(tested, key, labels, draws))
            off.append(np.abs(_off(tested, tested.found[key], len(labels))).mean(axis=1))
        found = {name: gain_of(draws, values[0][name], values[1][name]) for name in values[0]}
        most = _ANY[1]
        found["counting_error"] = gain_of_means(draws, off[0], off[1], (-most, most))
        return defined(found)

    kept_of = "the boxes that count, with and without the change, that have a partner at IoU 0.5"

    def kept(self, before: Answers, after: Answers) -> NDArray[np.float64]:
        """The boxes with a partner of their label; all where neither tells of any."""
        thresholds = [threshold_of(before.bundle, label) for label in before.bundle.labels]
        one, other = (_moved_back(each) for each in (before, after))
        return np.nan_to_num(agreement(one, other, thresholds), nan=1.0)

    def summary(self, metrics: Mapping[str, Any], certainty: Certainty) -> str:
        """AP50, AP, counting error and agreement."""
        served = metrics["served"]
        of = certainty.intervals[served]["ap50"]
        return (
            f"{served} AP50 {metrics[served]['ap50']:.3f} (95 %: {of.low:.3f} to {of.high:.3f}), "
            f"AP {metrics[served]['ap']:.3f}, blind {metrics['blind']['ap50']:.3f}, counts off by "
            f"{metrics[served]['counting_error']:.2f} a picture, agreement of int8 and fp32 "
            f"{metrics['agreement']:.3f}"
        )


def _in_px(answers: Answers, boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n, k, 6) boxes in px of the upright pictures."""
    side_px = answers.bundle.input.shape[1]
    found = boxes.astype(np.float64)
    for rows, geometry in zip(found, answers.geometry, strict=True):
        rows[:, :4] = in_picture(rows[:, :4], side_px, geometry)
    return found


def _moved_back(answers: Answers) -> NDArray[np.float64]:
    """(n, k, 6) boxes in px of the pictures as they were before they were turned or mirrored."""
    side_px = answers.bundle.input.shape[1]
    found = answers.outputs[answers.only][BOXES_NAME].astype(np.float64)
    for rows, geometry in zip(found, answers.geometry, strict=True):
        rows[:, :4] = moved(rows[:, :4] * side_px, np.linalg.inv(geometry))
    return found


def _metrics(
    tested: _Tested, key: Precision, labels: Sequence[str], alone: Draws
) -> dict[str, Any]:
    values = {name: _number(of[0]) for name, of in _values(tested, key, labels, alone).items()}
    off = _off(tested, tested.found[key], len(labels))
    by_label = {}
    for number, label in enumerate(labels):
        of, band = tested.matched[key][number], tested.bands[number]
        point = reached(of, tested.thresholds[number])
        by_label[label] = {
            "ap50": values.pop(f"ap50.{label}"),
            "precision": point.precision,
            "recall": point.recall,
            "n": int(of.n_true.sum()),
            "counting_error": float(np.abs(off[:, number]).mean()),
            "counting_bias": float(off[:, number].mean()),
            "in_count_band": None
            if band is None
            else float(_is_within(off[:, number], band).mean()),
        }
    by_size = {
        size: {
            "ap": values.pop(f"ap.{size}"),
            "n": int(sum(of.n_true.sum() for of in tested.sized[key][size])),
        }
        for size in SIZES
    }
    return {
        **values,
        "counting_error": float(np.abs(off).mean()),
        "by_size": by_size,
        "per_label": by_label,
    }


def _is_within(off: NDArray[np.int64], band: tuple[int, int]) -> NDArray[np.bool_]:
    """Whether the true count is in the band around what is counted."""
    within: NDArray[np.bool_] = (-off >= band[0]) & (-off <= band[1])
    return within


def _drop(found: Mapping[str, Any], name: str) -> float | None:
    """What int8 loses; None where there is no such figure: of presence if all pictures show all."""
    fp32, int8 = found["fp32"][name], found["int8"][name]
    return None if fp32 is None or int8 is None else fp32 - int8


def _number(value: np.floating) -> float | None:
    return float(value) if np.isfinite(value) else None


def _values(
    tested: _Tested, key: Precision, labels: Sequence[str], draws: Draws
) -> dict[str, NDArray[np.float64]]:
    """By metric, (1 + r,) of the images and of each resample."""
    by_label = [average_precision(of, draws) for of in tested.matched[key]]
    means = mean_over_labels(by_label)
    there = true_counts(tested.truth, len(labels)) > 0
    return {
        "ap": means.mean(axis=0),
        "ap50": means[0],
        "presence": presence(draws, there, best_scores(tested.found[key], len(labels))),
        **{f"ap50.{label}": of[0] for label, of in zip(labels, by_label, strict=True)},
        **{
            f"ap.{size}": mean_over_labels([average_precision(of, draws) for of in each]).mean(0)
            for size, each in tested.sized[key].items()
        },
    }


def _defined(
    draws: Draws,
    values: Mapping[str, NDArray[np.float64]],
    bounds: tuple[float, float] = (0.0, 1.0),
) -> dict[str, Interval]:
    return rounded_intervals({name: interval_of(draws, of, bounds) for name, of in values.items()})


def _off(tested: _Tested, found: NDArray[np.float64], n_labels: int) -> NDArray[np.int64]:
    """(n, n_labels) by how many boxes the counts of an image are too high."""
    told = counts(found, tested.thresholds, n_labels)
    off: NDArray[np.int64] = told - true_counts(tested.truth, n_labels)
    return off


def _blind(answers: Answers, tested: _Tested) -> float | None:
    """AP50 of the commonest boxes, each image being told those of other groups."""
    n_labels, side_px = len(answers.bundle.labels), answers.bundle.input.shape[1]
    placed = tested.truth.copy()
    for rows, geometry in zip(placed, answers.geometry, strict=True):
        rows[:, :4] = moved(rows[:, :4], geometry) / side_px
    groups = [entry.group for entry in answers.entries]
    told = commonest_of_others(placed, groups, n_labels)
    each = [average_precision(of)[0] for of in matches(told, placed, n_labels, OVERLAPS[:1])]
    return _number(mean_over_labels(each)[0])


def _counted(boxes: NDArray[np.float64], thresholds: Sequence[float]) -> NDArray[np.float64]:
    at = np.asarray(thresholds)[boxes[:, 5].astype(int)]
    counted: NDArray[np.float64] = boxes[(boxes[:, 4] > 0) & (boxes[:, 4] >= at)]
    return counted


def _pairs(
    found: NDArray[np.float64], true: NDArray[np.floating], labels: Sequence[str]
) -> list[tuple[str, str]]:
    """True label and found one of boxes that overlap by half, whatever their labels."""
    shared = overlaps(found[:, :4], true[:, :4])
    left, pairs = set(range(len(true))), []
    for row, box in enumerate(found):
        best = max(left, key=lambda at: shared[row, at], default=None)
        name = labels[int(box[5])]
        if best is not None and shared[row, best] >= OVERLAPS[0]:
            left.remove(best)
            pairs.append((labels[int(true[best, 4])], name))
        else:
            pairs.append((_NOTHING, name))
    return [*pairs, *((labels[int(true[at, 4])], _NOTHING) for at in sorted(left))]


def _csv(rows: Sequence[Sequence[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()
