"""The half of `segmentation` that `evaluate` asks: overlap and outline in px of the picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.config.evaluate import EvaluateParams
from pipelines.data.images import open_image
from pipelines.data.manifest import Entry
from pipelines.data.pixel_range import Reading
from pipelines.data.workers import ordered_map
from pipelines.kinds.segmentation.audit import dice_of_ellipse, dice_of_mean, grids_of
from pipelines.kinds.segmentation.masks import MaskFile, drawn_masks
from pipelines.metrics.certainty import Certainty, Gain, defined, gain_of_means
from pipelines.metrics.intervals import DIFFERENCE, Draws, by_mean, rounded_intervals
from pipelines.metrics.segmentation import boundary_f1, by_picture, dice, iou, mean_iou
from pipelines.plots.masks import Outlined, dice_histogram, mask_sheet
from pipelines.serving.bundle import Bundle
from pipelines.serving.segmentation import MASK_NAME, in_picture, indexed, thresholds_of
from pipelines.serving.sessions import Precision

if TYPE_CHECKING:
    from pipelines.kinds.evaluate import Answers

#: Quantiles that say how Dice is spread over pictures, by their keys.
_SPREAD = {"dice_p05": 0.05, "dice_p25": 0.25, "dice_median": 0.5, "dice_p75": 0.75}
#: Test pictures in the sheet, and the longer side at which they are drawn.
_N_SHOWN, _SHOWN_PX = 16, 384
#: Longer side at which masks are compared; a larger picture's are brought to it.
_MEASURED_PX = 1024
_WINDOW = 8


@dataclass(frozen=True, slots=True)
class _Of:
    """What one file says of each test image and label: (n, n_labels) each.

    Attributes:
        shares: of the picture that is said to show the label.
        is_shown: whether truth or answer shows it.
    """

    dice: NDArray[np.float64]
    iou: NDArray[np.float64]
    boundary_f1: NDArray[np.float64]
    shares: NDArray[np.float64]
    is_shown: NDArray[np.bool_]

    def by_image(self, name: str) -> NDArray[np.float64]:
        """(n,) a metric of each picture."""
        return by_picture(getattr(self, name), self.is_shown)

    def of_label(self, name: str, label: int) -> NDArray[np.float64]:
        """(n,) a metric of one label; NaN where neither truth nor answer shows it."""
        shown: NDArray[np.float64] = np.where(
            self.is_shown[:, label], getattr(self, name)[:, label], np.nan
        )
        return shown


_METRICS = ("dice", "iou", "boundary_f1")


def _measured(answers: Answers) -> dict[Precision, _Of]:
    return {precision: _of(answers, precision) for precision in answers.outputs}


def _of(answers: Answers, precision: Precision) -> _Of:
    bundle, outputs = answers.bundle, answers.outputs[precision][MASK_NAME]
    thresholds, masks = (
        thresholds_of(bundle),
        drawn_masks(answers.entries, bundle.labels, answers.raw_dir),
    )

    def measured(row: int) -> NDArray[np.float64]:
        """(n_labels, metrics, share, and whether it is shown)."""
        true, scale = _bounded(masks[row].read(), _MEASURED_PX)
        size = (true.shape[1], true.shape[0])
        maps = in_picture(outputs[row], answers.geometry[row] @ scale, size)
        found = indexed(maps, thresholds)
        return np.array([_fit(found == at, true == at) for at in range(1, len(bundle.labels) + 1)])

    rows = np.stack(list(ordered_map(measured, range(len(masks)), window=_WINDOW)))
    dices, ious, outlines, shares, is_shown = np.moveaxis(rows, 2, 0)
    return _Of(dices, ious, outlines, shares, is_shown > 0)


def _fit(found: NDArray[np.bool_], true: NDArray[np.bool_]) -> tuple[float, ...]:
    fits = (float(dice(found, true)), float(iou(found, true)), boundary_f1(found, true))
    return (*fits, float(found.mean()), float(found.any() or true.any()))


def _bounded(
    mask: NDArray[np.uint8], most_px: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """A mask whose longer side has at most so many px, and what leads from its px to the file's."""
    height, width = mask.shape
    scale = min(1.0, most_px / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
    return np.asarray(small), np.diag([width / size[0], height / size[1], 1.0])


def _blind(answers: Answers) -> dict[str, float]:
    """By baseline its Dice; nothing where no train split is there."""
    if not answers.train:
        return {}
    labels = answers.bundle.labels
    known = grids_of(answers.train, labels, answers.train_dir or answers.raw_dir)
    truth = grids_of(answers.entries, labels, answers.raw_dir)
    return {
        "mean_mask": dice_of_mean(known, truth),
        "centred_ellipse": dice_of_ellipse(known, truth),
    }


def _agreement(answers: Answers) -> NDArray[np.float64]:
    """(n,) IoU of int8's masks with those of fp32, in px of the input."""
    thresholds = thresholds_of(answers.bundle)
    numbers = np.arange(1, len(thresholds) + 1)[:, np.newaxis, np.newaxis]
    reached = []
    for pair in zip(*(answers.outputs[key][MASK_NAME] for key in ("fp32", "int8")), strict=True):
        one, other = (indexed(maps, thresholds) == numbers for maps in pair)
        reached.append(mean_iou(one[np.newaxis], other[np.newaxis]))
    return np.array(reached)


def _shown(answers: Answers, row: int, reading: Reading) -> Outlined:
    entry, bundle = answers.entries[row], answers.bundle
    picture = open_image(answers.raw_dir / entry.path, name=entry.path, reading=reading).rgb
    (masks,) = drawn_masks([entry], bundle.labels, answers.raw_dir)
    true, scale = _bounded(masks.read(), _SHOWN_PX)
    size = (true.shape[1], true.shape[0])
    outputs = answers.outputs[bundle.served.precision][MASK_NAME][row]
    maps = in_picture(outputs, answers.geometry[row] @ scale, size)
    found = indexed(maps, thresholds_of(bundle))
    return Outlined(np.asarray(picture.resize(size)), true > 0, found > 0)


class TestedSegmentation:
    """Masks of the test split, in px of the pictures."""

    #: Or pytest would look for tests in it.
    __test__ = False

    def unknown(self, entries: Sequence[Entry], bundle: Bundle) -> str | None:
        """Masks of another number of labels."""
        for mask in (MaskFile.of(entry.truth) for entry in entries):
            if len(mask.shares) != len(bundle.labels):
                n_known = len(bundle.labels)
                return f"{mask.path!r} has {len(mask.shares)} labels, the model {n_known}"
        return None

    def metrics(self, answers: Answers, params: EvaluateParams) -> dict[str, Any]:
        """Means over pictures, how Dice is spread, each label; agreement; what is reached blindly.

        A label counts in a picture where truth or answer shows it; a picture without any has 1.

        ``blind`` has the Dice of the train split's mean mask and of a centred ellipse of its mean
        area, on a grid of 64 x 64 cells of the picture.
        """
        of = answers.once(_measured)
        labels = answers.bundle.labels
        found: dict[str, Any] = {key: _summary(each, labels) for key, each in of.items()}
        return {
            **found,
            "agreement": float(answers.once(_agreement).mean()),
            "dice_drop": found["fp32"]["dice"] - found["int8"]["dice"],
            "iou_drop": found["fp32"]["iou"] - found["int8"]["iou"],
            "blind": _blind(answers),
        }

    def trust(self, answers: Answers, params: EvaluateParams) -> dict[str, Any]:
        """The share of pictures that are refused, and Dice of the others."""
        if answers.is_ood is None:
            return {}
        reached = answers.once(_measured)[answers.bundle.served.precision].by_image("dice")
        accepted = reached[~answers.is_ood]
        return {
            "refused": float(answers.is_ood.mean()),
            "dice_of_accepted": float(accepted.mean()) if len(accepted) else None,
        }

    def certainty(self, answers: Answers, draws: Draws, params: EvaluateParams) -> Certainty:
        """Of each metric, of Dice of each label, and of what int8 costs."""
        of = answers.once(_measured)
        intervals = {}
        for precision, each in of.items():
            found = {name: by_mean(draws, each.by_image(name)) for name in _METRICS}
            for at, label in enumerate(answers.bundle.labels):
                found[f"dice.{label}"] = by_mean(draws, each.of_label("dice", at))
            intervals[precision] = rounded_intervals(found)
        if answers.is_ood is not None:
            served = answers.bundle.served.precision
            reached = np.where(answers.is_ood, np.nan, of[served].by_image("dice"))
            intervals[served] |= rounded_intervals(
                {
                    "refused": by_mean(draws, answers.is_ood),
                    "dice_of_accepted": by_mean(draws, reached),
                }
            )
        paired = {
            f"{name}_drop": by_mean(
                draws, of["fp32"].by_image(name) - of["int8"].by_image(name), DIFFERENCE
            )
            for name in _METRICS
        }
        # What a page calls the same answer.
        paired["agreement"] = by_mean(draws, answers.once(_agreement))
        return Certainty(intervals, rounded_intervals(paired))

    def tables(self, answers: Answers) -> tuple[str, str]:
        """A row an image and label of the served file; nothing is confused."""
        of = answers.once(_measured)[answers.bundle.served.precision]
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["path", "group", "label", "true_share", "area_share", *_METRICS])
        masks = drawn_masks(answers.entries, answers.bundle.labels, answers.raw_dir)
        for row, (entry, drawn) in enumerate(zip(answers.entries, masks, strict=True)):
            for at, label in enumerate(answers.bundle.labels):
                figures = [of.shares[row, at], *(getattr(of, name)[row, at] for name in _METRICS)]
                said = [drawn.file.shares[at], *figures]
                writer.writerow([entry.path, entry.group, label, *(f"{v:.6f}" for v in said)])
        return buffer.getvalue(), "actual,predicted\n"

    def figures(self, answers: Answers, params: EvaluateParams) -> dict[str, bytes]:
        """Pictures from the worst to the best with both outlines, and how Dice is spread."""
        reached = answers.once(_measured)[answers.bundle.served.precision].by_image("dice")
        order = np.argsort(reached, kind="stable")
        places = np.linspace(0, len(order) - 1, min(_N_SHOWN, len(order))).round().astype(int)
        rows = order[places]
        reading = answers.bundle.preprocess.build().reading
        shown = [_shown(answers, int(row), reading) for row in rows]
        titles = [f"Dice {reached[row]:.2f}" for row in rows]
        return {
            "test_samples.png": mask_sheet(shown, titles),
            "dice_histogram.png": dice_histogram(reached),
        }

    def gains(self, one: Answers, other: Answers, draws: Draws) -> dict[str, Gain]:
        """Dice, IoU and boundary F1."""
        first, second = (each.once(_measured)[each.only] for each in (one, other))
        return defined(
            {
                name: gain_of_means(draws, first.by_image(name), second.by_image(name))
                for name in _METRICS
            }
        )

    kept_of = "the mask, as its IoU with the one before the change"

    def kept(self, before: Answers, after: Answers) -> NDArray[np.float64]:
        """IoU of the masks, in px of the input before the change; a mean over labels."""
        thresholds = thresholds_of(before.bundle)
        numbers = np.arange(1, len(thresholds) + 1)[:, np.newaxis, np.newaxis]
        reached = []
        for row, (one, other) in enumerate(
            zip(*(each.outputs[each.only][MASK_NAME] for each in (before, after)), strict=True)
        ):
            back = after.geometry[row] @ np.linalg.inv(before.geometry[row])
            placed = in_picture(other, back, (one.shape[2], one.shape[1]))
            masks = (indexed(maps, thresholds) == numbers for maps in (one, placed))
            reached.append(mean_iou(*(mask[np.newaxis] for mask in masks)))
        return np.array(reached)

    def summary(self, metrics: Mapping[str, Any], certainty: Certainty) -> str:
        """Dice, IoU, what is reached blindly, and agreement."""
        served = metrics["served"]
        of, around = metrics[served], certainty.intervals[served]["dice"]
        return (
            f"{served} Dice {of['dice']:.3f} (95 %: {around.low:.3f} to {around.high:.3f}), IoU "
            f"{of['iou']:.3f}, boundary F1 {of['boundary_f1']:.3f}; mean mask "
            f"{metrics['blind']['mean_mask']:.3f}, centred ellipse "
            f"{metrics['blind']['centred_ellipse']:.3f}; IoU of int8 and fp32 "
            f"{metrics['agreement']:.3f}"
        )


def _summary(of: _Of, labels: Sequence[str]) -> dict[str, Any]:
    dices = of.by_image("dice")
    spread = np.quantile(dices, list(_SPREAD.values()))
    return {
        **{name: float(of.by_image(name).mean()) for name in _METRICS},
        **dict(zip(_SPREAD, map(float, spread), strict=True)),
        "per_label": {
            label: {name: _mean(of.of_label(name, at)) for name in _METRICS}
            for at, label in enumerate(labels)
        },
    }


def _mean(values: NDArray[np.float64]) -> float | None:
    """The mean of what is a number; None where nothing is."""
    return None if np.isnan(values).all() else float(np.nanmean(values))
