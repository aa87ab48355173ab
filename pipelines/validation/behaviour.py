"""How often a change that means nothing flips an answer: behavioural tests of a finished model.

Pictures go through the serving `Predictor` as they are and slightly changed: stored as a JPEG,
brighter or darker, turned a little, and mirrored where the domain allows it. What is counted is
changed answers, right or wrong: a model may err and must not waver. What stays of an answer the
kind says (`pipelines.kinds.evaluate`); places are led back to where they were before the change.
Called by `fieldlens stress` and by the tests marked ``model``.

References:
    Ribeiro et al. 2020, "Beyond accuracy: behavioral testing of NLP models with CheckList":
    invariance tests.
    Hendrycks and Dietterich 2019, "Benchmarking neural network robustness to common corruptions
    and perturbations": the share of changed answers (flip probability).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from pipelines.config.evaluate import ChangeFamily
from pipelines.data.images import open_image
from pipelines.data.manifest import Entry
from pipelines.data.pixel_range import Reading
from pipelines.data.preprocess import Geometry, geometry_of
from pipelines.kinds.evaluate import KINDS, Answers, See, answered
from pipelines.serving.predictor import Predictor

#: What phones, messengers and web pages store; 50 is where blocks begin to be seen.
_JPEG_QUALITIES = (50, 65, 80, 95)
_BRIGHTNESS = (0.9, 1.1)
#: The picture has entered already.
_OF_ANY_ASPECT = Reading(max_aspect=1e9)
#: A hand that holds a phone.
_ROTATION_DEG = (-2.0, 2.0)


@dataclass(frozen=True, slots=True)
class Change:
    """One way to change a picture without changing what it shows.

    Attributes:
        family: changes of one family share a bound.
        apply: from an upright RGB picture to another of the same size.
        moves: from the size of the picture to what leads from its px to those of the changed one.
    """

    family: ChangeFamily
    name: str
    apply: Callable[[Image.Image], Image.Image]
    moves: Callable[[tuple[int, int]], Geometry] = lambda size: geometry_of()


@dataclass(frozen=True, slots=True)
class Flips:
    """How many answers a change flipped.

    Attributes:
        n_changed: answers that differ from those on the unchanged picture, in anything.
        share: of the answers that did not stay, as the kind counts it; a mean over pictures.
        n_refused: pictures that are out of distribution when changed, and were not before.
        bound: largest share of changed answers; None where there is none.
    """

    change: Change
    n_images: int
    n_changed: int
    share: float
    n_refused: int
    bound: float | None

    @property
    def holds(self) -> bool:
        """Whether the share is within the bound."""
        return self.bound is None or self.share <= self.bound


def changes(*, with_flip: bool) -> tuple[Change, ...]:
    """Every change, mildest last within JPEG."""
    found = [
        *(Change("jpeg", f"JPEG quality {q}", _jpeg(q)) for q in _JPEG_QUALITIES),
        *(Change("brightness", f"brightness x {b:g}", _brightness(b)) for b in _BRIGHTNESS),
        *(
            Change("rotation", f"rotation {d:+g} degrees", _rotation(d), _turn(d))
            for d in _ROTATION_DEG
        ),
    ]
    if with_flip:
        found.append(Change("flip", "mirrored", _mirrored, _mirror))
    return tuple(found)


def flipped_answers(
    predictor: Predictor[Any],
    entries: Sequence[Entry],
    raw_dir: Path,
    wanted: Sequence[Change],
    bounds: Mapping[ChangeFamily, float],
) -> list[Flips]:
    """How many answers each change flips, on at least one picture.

    Args:
        predictor: of the file that is served.
        entries: pictures in ``raw_dir``.
        bounds: largest share of changed answers by family; a family may be absent.

    Raises:
        CorruptImageError: if a file is not an image that may enter.
    """
    kind = KINDS[predictor.bundle.kind]

    def answers(change: Change) -> Answers:
        # Each time anew: decoded pictures of a split would not fit into memory.
        return answered(
            {predictor.precision: predictor},
            *(entries, raw_dir),
            see=_seen(change),
            doing=change.name,
        )

    before = answers(Change("jpeg", "as they are", lambda picture: picture))
    found = []
    for change in wanted:
        after = answers(change)
        kept = kind.kept(before, after)
        refused = None
        if before.is_ood is not None and after.is_ood is not None:
            refused = after.is_ood & ~before.is_ood
        found.append(
            Flips(
                change,
                n_images=len(entries),
                n_changed=int((kept < 1).sum()),
                share=float(1 - kept.mean()),
                n_refused=0 if refused is None else int(refused.sum()),
                bound=bounds.get(change.family),
            )
        )
    return found


def _seen(change: Change) -> See:
    def see(predictor: Predictor[Any], path: Path) -> tuple[Image.Image, Geometry]:
        picture = open_image(path, reading=predictor.reading).rgb
        changed = change.apply(picture)
        return changed, predictor.geometry(changed) @ change.moves(picture.size)

    return see


def _jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    def apply(picture: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        return open_image(buffer.getvalue(), reading=_OF_ANY_ASPECT).rgb

    return apply


def _brightness(factor: float) -> Callable[[Image.Image], Image.Image]:
    return lambda picture: ImageEnhance.Brightness(picture).enhance(factor)


def _rotation(degrees: float) -> Callable[[Image.Image], Image.Image]:
    """Around the centre; corners are filled by mirroring, since a black wedge would be news."""

    def apply(picture: Image.Image) -> Image.Image:
        # Enough for the corner of a square; a side of 1 px has nothing to mirror.
        margin = int(max(picture.size) * np.sin(np.radians(abs(degrees)))) + 1
        margin = min(margin, picture.width - 1, picture.height - 1)
        widths = ((margin, margin), (margin, margin), (0, 0))
        wide = Image.fromarray(np.pad(np.asarray(picture), widths, mode="reflect"))
        rotated = wide.rotate(degrees, Image.Resampling.BILINEAR)
        return rotated.crop((margin, margin, margin + picture.width, margin + picture.height))

    return apply


def _mirrored(picture: Image.Image) -> Image.Image:
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _mirror(size: tuple[int, int]) -> Geometry:
    return np.array([[-1.0, 0, size[0]], [0, 1, 0], [0, 0, 1]])


def _turn(degrees: float) -> Callable[[tuple[int, int]], Geometry]:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))

    def moves(size: tuple[int, int]) -> Geometry:
        x, y = size[0] / 2, size[1] / 2
        # Counter-clockwise to the eye, while y points down.
        return np.array(
            [[cos, sin, x - cos * x - sin * y], [-sin, cos, y + sin * x - cos * y], [0, 0, 1]]
        )

    return moves
