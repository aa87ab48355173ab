"""The half of `segmentation` that `audit` asks: how well masks are told without the subject.

A blind model tells a coarse grid of how much of each cell is shown. The threshold that makes a mask
of it is the one that is best on all answers, which errs in the blind model's favour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.data.manifest import Entry
from pipelines.data.workers import ordered_map
from pipelines.errors import DataError
from pipelines.kinds.blind import Features, Fold, folds_by_group
from pipelines.kinds.segmentation.masks import Drawn, drawn_masks
from pipelines.metrics.classification import DECIMALS
from pipelines.metrics.intervals import Draws, by_mean, draw, rounded_interval
from pipelines.metrics.segmentation import (
    STEPS,
    best_threshold,
    by_picture,
    centred_ellipse,
    dice,
)
from pipelines.serving.trust import Interval

#: Cells along each side of what blind models tell, and of the grid on which Dice is measured.
_TOLD, _GRID = 8, 64
_N_TREES = 100
#: Of the probe's ridge; embeddings have more columns than there are images.
_RIDGE = 100.0
_WINDOW = 16


class AuditedSegmentation:
    """Blind models answer with grids."""

    metric: str = "dice"
    constant: str = "mean mask"

    def blind(
        self,
        entries: Sequence[Entry],
        labels: Sequence[str],
        raw_dir: Path,
        n_folds: int,
        seed: int,
        resamples: int,
    ) -> BlindMasks:
        """Folds by group, stratified by whether more than the middling area is shown."""
        grids = grids_of(entries, labels, raw_dir)
        areas = grids.mean(axis=(1, 2, 3))
        halves = (areas > np.median(areas)).astype(np.int64)
        groups = np.array([entry.group for entry in entries])
        folds = folds_by_group(halves, int(halves.max()) + 1, groups, n_folds, seed)
        return BlindMasks(grids, folds, draw(groups, resamples, seed), seed)


def grids_of(entries: Sequence[Entry], labels: Sequence[str], raw_dir: Path) -> NDArray[np.float32]:
    """(n, n_labels, 64, 64) share of each cell of the picture that shows a label."""

    def grid(drawn: Drawn) -> NDArray[np.float32]:
        mask = drawn.read()
        size = (_GRID, _GRID)
        cells = [
            Image.fromarray((mask == number).astype(np.float32)).resize(size, Image.Resampling.BOX)
            for number in range(1, len(labels) + 1)
        ]
        return np.stack([np.asarray(each, dtype=np.float32) for each in cells])

    return np.stack(list(ordered_map(grid, drawn_masks(entries, labels, raw_dir), window=_WINDOW)))


@dataclass(frozen=True)
class BlindMasks:
    """What all audits of a segmentation share.

    Attributes:
        grids: (n, n_labels, 64, 64) truth.
        folds: rows to learn from and rows to answer, by group.
        draws: resamples of groups.
        seed: of forests.
    """

    grids: NDArray[np.float32]
    folds: list[Fold]
    draws: Draws
    seed: int
    class_index: NDArray[np.int64] | None = None

    @property
    def floor(self) -> float:
        """Dice of the mean mask, or of a centred ellipse of the mean area if that is better."""
        return max(self.chance(), dice_of_ellipse(self.grids, self.grids))

    @cached_property
    def _coarse(self) -> NDArray[np.float32]:
        n, n_labels = self.grids.shape[:2]
        step = _GRID // _TOLD
        cells = self.grids.reshape(n, n_labels, _TOLD, step, _TOLD, step)
        coarse: NDArray[np.float32] = cells.mean(axis=(3, 5)).reshape(n, -1)
        return coarse

    def told(self, features: Features, by: Literal["forest", "probe"]) -> NDArray[np.float32]:
        """(n, n_labels, 64, 64) shares of cells, out of fold."""
        from sklearn.ensemble import ExtraTreesRegressor
        from sklearn.linear_model import Ridge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        n, n_labels = self.grids.shape[:2]
        found = np.zeros_like(self._coarse)
        for learn, answer in self.folds:
            model = (
                make_pipeline(StandardScaler(), Ridge(_RIDGE))
                if by == "probe"
                else ExtraTreesRegressor(_N_TREES, random_state=self.seed, min_samples_leaf=3)
            )
            model.fit(features[learn], self._coarse[learn])
            found[answer] = model.predict(features[answer])
        grids = found.reshape(n * n_labels, _TOLD, _TOLD)
        fine = [
            Image.fromarray(grid).resize((_GRID, _GRID), Image.Resampling.BILINEAR)
            for grid in grids
        ]
        return np.stack([np.asarray(each) for each in fine]).reshape(self.grids.shape)

    def interval(self, answers: NDArray[Any]) -> Interval:
        """Mean Dice over images."""
        found = by_mean(self.draws, dice_of_grids(answers, self.grids, answers, self.grids))
        if found is None:
            raise DataError("Dice is not defined: there is no image.")
        return rounded_interval(found)

    def chance(self) -> float:
        """Dice of the mean mask."""
        return round(dice_of_mean(self.grids, self.grids), DECIMALS)


def dice_of_grids(
    known: NDArray[Any], known_truth: NDArray[Any], said: NDArray[Any], truth: NDArray[Any]
) -> NDArray[np.float64]:
    """(n,) Dice of shares of cells, `by_picture`, by the threshold that is best on others.

    Args:
        known: (m, n_labels, h, w) answers by which thresholds are chosen.
        known_truth: of the same.
        said: (n, n_labels, h, w).
        truth: of the same.
    """
    found = [
        said[:, label] >= best_threshold(known[:, label], known_truth[:, label] >= 0.5, STEPS)
        for label in range(truth.shape[1])
    ]
    return _dice(np.stack(found, axis=1), truth)


def _dice(found: NDArray[np.bool_], truth: NDArray[Any]) -> NDArray[np.float64]:
    true = truth >= 0.5
    return by_picture(dice(found, true, (2, 3)), np.asarray((found | true).any(axis=(2, 3))))


def dice_of_mean(known: NDArray[Any], truth: NDArray[Any]) -> float:
    """Mean Dice of the mean mask of known pictures, (m, n_labels, h, w), on others."""
    mean = known.mean(axis=0, keepdims=True)
    # As a share of its largest, or a mask that is nowhere in half of the pictures would be empty.
    mean = mean / np.maximum(mean.max(axis=(2, 3), keepdims=True), 1e-9)
    of_known, of_others = (np.broadcast_to(mean, each.shape) for each in (known, truth))
    return float(dice_of_grids(of_known, known, of_others, truth).mean())


def dice_of_ellipse(known: NDArray[Any], truth: NDArray[Any]) -> float:
    """The same of an ellipse in the middle, of the mean area that known pictures show."""
    found = np.zeros(truth.shape, dtype=bool)
    for label in range(truth.shape[1]):
        shares = known[:, label].mean(axis=(1, 2))
        share = float(shares[shares > 0].mean()) if shares.any() else 0.0
        shape: tuple[int, int] = (truth.shape[2], truth.shape[3])
        found[:, label] = centred_ellipse(share, shape)
    return float(_dice(found, truth).mean())
