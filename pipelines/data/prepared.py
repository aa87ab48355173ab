"""What later stages need of a prepared data set: its summary, and how its pictures are seen."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipelines.card import DatasetCard, PixelRange
from pipelines.data.pixel_range import AS_IT_COMES, MAX_ASPECT, Reading
from pipelines.data.preprocess import Interpolation, Preprocess, View
from pipelines.errors import DataError, MissingDataError

if TYPE_CHECKING:
    from pipelines.config.train import TrainParams


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared set in short.

    Attributes:
        labels: in the order of the model's outputs.
        data_source: kind of the source, ``sample`` for painted images.
        splits: ``given`` by the publisher or ``made`` by `prepare`.
        reading: how its files were read, and must be from now on.
    """

    labels: tuple[str, ...]
    data_source: str
    splits: Literal["given", "made"] = "made"
    reading: Reading = AS_IT_COMES


def read_summary(path: Path) -> Prepared:
    """The summary that `prepare` wrote.

    Args:
        path: datasets/<task>/prepared/summary.json.

    Raises:
        MissingDataError: if it is not there.
        DataError: if it is damaged.
    """
    if not path.is_file():
        task = path.parent.parent.name
        raise MissingDataError(
            f"{path}: there is no summary. Run `fieldlens prepare {task}` first."
        )
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Prepared(
            tuple(document["labels"]),
            document["data_source"],
            document.get("splits", {}).get("by", "made"),
            _reading(document.get("reading")),
        )
    except (ValueError, KeyError, TypeError) as err:
        raise DataError(f"{path}: is damaged ({err!r}). Run `fieldlens prepare` again.") from err


def written(reading: Reading) -> dict[str, Any]:
    """A reading as it stands in summary.json; empty where it is the usual one.

    Args:
        reading: of the card.
    """
    stated = {"range": reading.range, "max_aspect": reading.max_aspect}
    usual = {"range": None, "max_aspect": MAX_ASPECT}
    return {key: value for key, value in stated.items() if value != usual[key]}


def _reading(stated: dict[str, Any] | None) -> Reading:
    found = dict(stated or {})
    scale = found.get("range")
    return Reading(
        range=(float(scale[0]), float(scale[1])) if isinstance(scale, list) else scale,
        max_aspect=float(found.get("max_aspect", MAX_ASPECT)),
    )


# -- plain view -----------------------------------------------------------------------------------
def preprocess_of(
    params: TrainParams,
    reading: Reading = AS_IT_COMES,
    interpolation: Interpolation = "bilinear",
) -> Preprocess:
    """The plain view that a network of these params takes.

    Args:
        params: side, crop and what is taken away.
        reading: of the prepared set.
        interpolation: that the backbone asks for.
    """
    view = View(**dict(params.view))
    resize_px = round(params.image_px / params.crop_fraction)
    return Preprocess(resize_px, params.image_px, view, reading, interpolation)


def reading_of(card: DatasetCard) -> Reading:
    """How the files of a data set are read.

    Args:
        card: states the range of deep pixels and the longest aspect.
    """
    stated = card.image.range
    scale = (stated.low, stated.high) if isinstance(stated, PixelRange) else stated
    return Reading(range=scale, max_aspect=card.image.max_aspect)
