"""A look at a folder whose truth is more than a class: boxes, masks, identities. Called by `new`.

The truth is read by the reader of `prepare` itself, so that what stops `prepare` stops `new`, with
the same words and before anything is written.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipelines.card import DEFAULT_KIND, DatasetCard, load_card
from pipelines.commands.survey import FoundClass, Survey, labels_for, survey_of
from pipelines.data.layout import Labelled, Layout
from pipelines.data.manifest import Record
from pipelines.data.tree import files_of
from pipelines.errors import ConfigError, DataError, MissingDataError
from pipelines.kinds.new import KINDS
from pipelines.kinds.prepare import KINDS as READERS
from pipelines.kinds.segmentation.masks import is_mask

_NAMED = 3
_MIN_IMAGES = 3


def kind_of(folder: Path) -> tuple[str, str]:
    """The kind of task that a folder is for, and what says so; empty words for the ordinary kind.

    Raises:
        MissingDataError: if there is no such folder.
        ConfigError: if it may be for several.
    """
    if not folder.is_dir():
        raise MissingDataError(
            f"{folder}: there is no such folder. Expected a folder of images with their truth."
        )
    files = files_of(folder)
    told = {kind: by for kind, each in KINDS.items() if (by := each.told_by(folder, files))}
    if len(told) > 1:
        seen = " and ".join(f"{by} ({kind})" for kind, by in told.items())
        raise ConfigError(f"{folder}: holds {seen}. Say which is meant: {_choices(told)}.")
    if told:
        return next(iter(told.items()))
    return DEFAULT_KIND, ""


def _choices(kinds: Iterable[str]) -> str:
    return " or ".join(f"--kind {kind}" for kind in kinds)


def survey_truth(folder: Path, kind: str, task: str, card_of: Callable[[Survey], str]) -> Survey:
    """What a folder of a kind other than classes holds.

    Args:
        card_of: the text of a card for what was found.

    Raises:
        DataError: if the truth cannot be read, or says what cannot be.
    """
    files = files_of(folder)
    names = list(KINDS[kind].names(folder, files, task))
    labels = labels_for(names, str(folder))
    classes = tuple(FoundClass(labels[name], name, 0) for name in names)
    paths = [
        str(file.path)
        for file in files
        if file.kind == "image" and not (kind == "segmentation" and is_mask(file.path))
    ]
    if not paths:
        raise DataError(f"{folder}: no image was found. Expected images with their truth.")
    images = tuple(Labelled(path, "image", "", "", None, str(folder)) for path in paths)
    first = survey_of(
        folder, Layout("table", images, tuple(files), has_groups=False), classes, kind
    )
    with _told_below():
        records = READERS[kind].records(folder, _card(task, card_of(first)))
    _check(folder, records, {str(file.path) for file in files})
    has_groups = any(each.group != each.path for each in records)
    table = next((f.path.name for f in files if f.kind == "table" and len(f.path.parts) == 1), "")
    layout = Layout(
        "table",
        tuple(
            Labelled(each.path, each.label, each.group, each.source, each.split, str(folder))
            for each in records
        ),
        tuple(files),
        has_groups,
        table,
    )
    told = list(KINDS[kind].counted(records))
    if out := sorted(set(paths) - {each.path for each in records}):
        named = ", ".join(map(repr, out[:_NAMED]))
        told.append(f"{len(out):,} images are listed nowhere ({named}), and are left out")
    return survey_of(folder, layout, classes, kind, tuple(told))


@contextmanager
def _told_below() -> Iterator[None]:
    """Quiet a reader's own counts: `new` prints them with what it wrote."""
    log = logging.getLogger("pipelines.kinds")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def _card(task: str, text: str) -> DatasetCard:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, task, "card.yaml")
        path.parent.mkdir()
        path.write_text(text, encoding="utf-8")
        return load_card(path)


def _check(folder: Path, records: Sequence[Record], there: Container[str]) -> None:
    gone = [each.path for each in records if each.path not in there]
    if gone:
        raise DataError(
            f"{folder}: {len(gone)} of {len(records)} annotated images are not there "
            f"({', '.join(map(repr, gone[:_NAMED]))}). Expected each image that is annotated. Add "
            f"the files, or take them out of the annotations."
        )
    if len(records) < _MIN_IMAGES:
        raise DataError(
            f"{folder}: expected at least {_MIN_IMAGES} images, one for each of train, val and "
            f"test (got {len(records)}). Add images."
        )
