"""Which finds more faces of a scene: the mask app's face finder, or the detector of mask_scene.

Both look at the photographs of mask_scene's test split, and every face counts, with a mask or
without. A box is right if it overlaps a face that no better box has taken. As their scores mean
different things, they are compared where both tell as many false boxes a picture, and where each
stands by its own threshold. Boxes of two classes on one face count once. Needs a released model
(`make real`) and the finder's file (`make setup`):

    python benchmarks/face_finders.py --root .real

A third table leaves out photographs of one shape: those of 3:4 are portraits of two men, who stand
in all splits (datasets/mask_scene/card.yaml).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from report import ROOT, header, make_parser, run, say, table, tasks_with

from pipelines.data.images import open_image
from pipelines.data.manifest import Entry, in_split, read_manifest
from pipelines.kinds.detection.boxes import of_text
from pipelines.metrics.detection import hits_of, overlaps
from pipelines.metrics.intervals import Draws, draw, interval_of
from pipelines.paths import Paths
from pipelines.serving.detection import Boxes
from pipelines.serving.faces import MIN_PROBABILITY, FaceDetector, keep_best
from pipelines.serving.predictor import Predictor

Floats = NDArray[np.float64]
#: (k, 6) corners in px of the picture, score, and whether its finder counts it.
Find = Callable[[Image.Image], Floats]

_TASK = "mask_scene"
#: Below it the finder tells of everything; the detector ends there too.
_LEAST = 0.02
#: Of two boxes of the detector that overlap by more, the less certain goes, whatever its class.
_MOST_OVERLAP = 0.5
_FALSE_BOXES = (0.1, 0.25, 0.5, 1.0, 2.0)
#: Longer side of a face in px of the photograph: below, up to, above.
_SIZES = (12, 20, 40)
_PORTRAIT = 0.7525
_RESAMPLES, _SEED = 2000, 20261122


@dataclass(frozen=True, slots=True)
class Found:
    """What became of one finder's boxes in n photographs; m faces, d boxes.

    Attributes:
        image: (d,) which photograph a box is in; ``score``, ``is_counted`` by its finder's own
            threshold, and ``is_hit`` go with it.
        by: (m,) number of the box that found each face; -1 where none did.
        ms: time a photograph.
    """

    image: NDArray[np.int64]
    score: Floats
    is_counted: NDArray[np.bool_]
    is_hit: NDArray[np.bool_]
    by: NDArray[np.int64]
    ms: float

    def until(self, n_false: float, of: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(d,) the surest boxes, up to so many false ones in those photographs."""
        false = np.sort(self.score[~self.is_hit & of[self.image]])[::-1]
        n = round(n_false)
        return self.score > (false[n] if n < len(false) else 0)

    def faces(self, told: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(m,) which faces are found by those boxes."""
        return np.append(told, False)[self.by]


def main() -> int:
    """Parse, look, print."""
    parser = make_parser(__doc__, has_root=True)
    parser.add_argument(
        "--overlap", type=float, default=0.5, help="from which on a box is right (0.5)"
    )
    parser.add_argument(
        "--finder", type=Path, default=ROOT / Paths(Path()).face_model, help="its file"
    )
    return run(compare, parser)


def compare(arguments: argparse.Namespace) -> None:
    """Print recall at equal false boxes, at the finders' own thresholds, and by size."""
    paths = Paths(arguments.root)
    tasks_with(paths, "bundle.json", [_TASK], at_least=1)
    task = paths.task(_TASK)
    entries = in_split(read_manifest(task.manifest), "test")
    predictor: Predictor[Boxes] = Predictor.load(task.bundle)
    wheel = FaceDetector.load(arguments.finder)
    finders = {"finder of the wheel": by_wheel(wheel), _TASK: by_detector(predictor)}
    header("Faces of a scene: the wheel's finder, and mask_scene")
    faces, place = truth_of(entries)
    found = {
        name: look(find, entries, task.raw_dir, (faces, place), arguments.overlap)
        for name, find in finders.items()
    }
    say(
        f"{len(entries)} test photographs, {len(faces)} faces; a box is right from an overlap of "
        f"{arguments.overlap:g} on. 95 % intervals by group; milliseconds a photograph, decoded, "
        f"on one thread: {', '.join(f'{name} {of.ms:.0f}' for name, of in found.items())}.",
        "",
    )
    draws = draw([entry.group for entry in entries], _RESAMPLES, _SEED)
    _by_false_boxes(found, draws, place, np.ones(len(entries), dtype=bool))
    _by_threshold(found, draws, faces, place)
    wide = np.array([abs(entry.width_px / entry.height_px - _PORTRAIT) > 0.01 for entry in entries])
    say(f"Without photographs of 3:4, upright: {wide.sum()} photographs.", "")
    _by_false_boxes(found, draws, place, wide)


def _by_false_boxes(
    found: dict[str, Found], draws: Draws, place: NDArray[np.int64], of: NDArray[np.bool_]
) -> None:
    rows = []
    for n_false in _FALSE_BOXES:
        hits = [each.faces(each.until(n_false * of.sum(), of)) for each in found.values()]
        recalls = [_recall(draws, place, each, of[place]) for each in hits]
        gain = _recall(draws, place, hits[1].astype(int) - hits[0].astype(int), of[place])
        rows.append([f"{n_false:g}", *recalls, gain])
    table(["false boxes a photograph", *found, "difference, in pairs"], rows)


def _by_threshold(
    found: dict[str, Found], draws: Draws, faces: Floats, place: NDArray[np.int64]
) -> None:
    side = np.maximum(*(faces[:, 2:4] - faces[:, :2]).T)
    within = {
        f"{low:g} px and more, below {high:g}": (side >= low) & (side < high)
        for low, high in pairwise([0, *_SIZES, np.inf])
    }
    rows = []
    for name, of in found.items():
        is_hit = of.faces(of.is_counted)
        n_false = (of.is_counted & ~of.is_hit).sum() / len(draws.place)
        recall = _recall(draws, place, is_hit, np.ones_like(is_hit))
        rows.append([name, f"{n_false:.2f}", recall])
        rows[-1] += [f"{is_hit[own].mean():.2f}" for own in within.values()]
    sizes = [f"{name} ({own.sum()})" for name, own in within.items()]
    table(["at its own threshold", "false boxes a photograph", "recall", *sizes], rows)


def _recall(
    draws: Draws, place: NDArray[np.int64], hits: NDArray[np.generic], counts: NDArray[np.bool_]
) -> str:
    """The share of faces, with its interval; of differences of hits, that of shares."""
    group = draws.place[place]
    n_hit, n = (
        np.bincount(group, weights=each.astype(float) * counts, minlength=draws.n_groups)
        for each in (hits, counts)
    )
    times = np.vstack([np.ones(draws.n_groups), draws.times])
    interval = interval_of(draws, times @ n_hit / np.maximum(times @ n, 1), (-1.0, 1.0))
    assert interval is not None
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def truth_of(entries: Sequence[Entry]) -> tuple[Floats, NDArray[np.int64]]:
    """(m, 4) corners of all faces, and which photograph each is in."""
    faces = [[*box[1:]] for entry in entries for box in of_text(entry.truth)]
    place = [at for at, entry in enumerate(entries) for _ in of_text(entry.truth)]
    return np.array(faces, dtype=np.float64), np.array(place)


def by_wheel(wheel: FaceDetector) -> Find:
    """The finder, told to say what it is less sure of too."""

    def find(image: Image.Image) -> Floats:
        faces = wheel.find(image, min_probability=_LEAST)
        rows = [
            [f.left, f.top, f.right, f.bottom, f.probability, f.probability >= MIN_PROBABILITY]
            for f in faces
        ]
        return np.array(rows, dtype=np.float64).reshape(-1, 6)

    return find


def by_detector(predictor: Predictor[Boxes]) -> Find:
    """The task's own detector; of classes on one face the more certain stays."""

    def find(image: Image.Image) -> Floats:
        boxes = predictor.predict(image).boxes
        rows = np.array([[b.x0, b.y0, b.x1, b.y1, b.score, b.is_counted] for b in boxes], float)
        rows = rows.reshape(-1, 6)
        scores = rows[:, 4].astype(np.float32)
        return rows[keep_best(rows[:, :4].astype(np.float32), scores, _MOST_OVERLAP)]

    return find


def look(
    find: Find,
    entries: Sequence[Entry],
    raw_dir: Path,
    truth: tuple[Floats, NDArray[np.int64]],
    overlap: float,
) -> Found:
    """Which boxes are right, and which faces were found."""
    faces, place = truth
    told, hits, images = list[Floats](), list[NDArray[np.bool_]](), list[NDArray[np.int64]]()
    by = np.full(len(faces), -1)
    spent, n = 0.0, 0
    for at, entry in enumerate(entries):
        image = open_image(raw_dir / entry.path).rgb
        start = time.thread_time()
        rows = find(image)
        spent += time.thread_time() - start
        rows = rows[np.argsort(-rows[:, 4], kind="stable")]
        own = np.flatnonzero(place == at)
        shared = overlaps(rows[:, :4], faces[own])
        hit = hits_of(shared, np.array([overlap]))[0]
        for row in np.flatnonzero(hit):
            free = own[by[own] < 0]
            by[free[shared[row, by[own] < 0].argmax()]] = n + row
        told.append(rows)
        hits.append(hit)
        images.append(np.full(len(rows), at))
        n += len(rows)
    rows = np.concatenate(told)
    return Found(
        np.concatenate(images),
        rows[:, 4],
        rows[:, 5] > 0,
        np.concatenate(hits),
        by,
        1000 * spent / len(entries),
    )


if __name__ == "__main__":
    sys.exit(main())
