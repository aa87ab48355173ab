"""What later stages need of prepared/summary.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines.data.reading import AS_IT_COMES, MAX_ASPECT, Reading
from pipelines.errors import DataError, MissingDataError


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
