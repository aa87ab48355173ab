"""What later stages need of prepared/summary.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.errors import DataError, MissingDataError


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared set in short.

    Attributes:
        labels: in the order of the model's outputs.
        data_source: kind of the source, ``sample`` for painted images.
        splits: ``given`` by the publisher or ``made`` by `prepare`.
    """

    labels: tuple[str, ...]
    data_source: str
    splits: Literal["given", "made"] = "made"


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
        )
    except (ValueError, KeyError, TypeError) as err:
        raise DataError(f"{path}: is damaged ({err!r}). Run `fieldlens prepare` again.") from err
