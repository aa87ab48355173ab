"""datasets/<task>/card.yaml -> `DatasetCard`: what is true of a data set, whoever trains on it.

What changes a result is in params.yaml instead; the kinds of ``fetch.source`` that stand there are
here, since a card names one, too. Called by the stages, the report and the apps.
"""

from __future__ import annotations

import math
import re
import unicodedata
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipelines.errors import ConfigError
from pipelines.strict_yaml import Strict, read_yaml, validate

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SampleSource(Strict):
    """Painted images: they prove the plumbing and are never quoted as a result."""

    kind: Literal["sample"]
    #: Images a class before faults are planted.
    images_per_class: Annotated[int, Field(ge=4, le=10_000)] = 40
    #: Images of one subject (patient, leaf, fish, ...).
    images_per_group: Annotated[int, Field(ge=1, le=100)] = 4
    #: Shorter side of a painted image, in px.
    side_px: Annotated[int, Field(ge=64, le=2048)] = 320


class Picked(Strict):
    """Which files of a source are taken, and as what; paths are those below its ``subfolder``."""

    #: Label by pattern (``*`` also stands for ``/``; letter case counts), tried in this order. A
    #: file goes to ``<label>/<its path>``; one that no pattern fits is passed over. Empty: the
    #: source has a folder a class, or a table, of its own.
    labels: dict[str, str] = Field(default_factory=dict)
    #: Patterns of what is passed over.
    leave_out: tuple[str, ...] = Field(default=(), strict=False)


class FolderSource(Picked):
    """A folder on this machine: a folder a class, or records.csv; links in it are followed."""

    kind: Literal["folder"]
    #: Absolute, or relative to the project root.
    path: str


class ArchiveSource(Picked):
    """A zip or tar archive, local, behind http(s) or in a store."""

    kind: Literal["archive"]
    #: A path, an http(s) URL, or an address as `StoreSource` takes it.
    location: str
    sha256: Sha256 | None = None
    #: Folder inside the archive that holds the class folders.
    subfolder: str = ""
    #: Code page of a zip's names where the zip does not say: ``gbk``, ``cp850``, ``cp932``, ….
    #: Null guesses, and says so.
    encoding: str | None = None
    #: Of a store: ask as nobody, for public buckets.
    anonymous: bool = False
    max_bytes: Annotated[int, Field(ge=1)] = 20_000_000_000


class StoreSource(Picked):
    """A folder in a store, as `FolderSource`; credentials are those of this machine."""

    kind: Literal["store"]
    #: ``s3://bucket/folder``, ``gs://…``, ``az://…``, ``sftp://host/folder`` or
    #: ``hf://datasets/owner/name[@revision]/folder``.
    location: str
    #: Ask as nobody, for public buckets.
    anonymous: bool = False
    max_bytes: Annotated[int, Field(ge=1)] = 20_000_000_000


class GitSource(Picked):
    """A folder of a git repository at a revision, fetched partially and sparsely."""

    kind: Literal["git"]
    repository: str
    revision: str
    subfolder: str = ""
    max_bytes: Annotated[int, Field(ge=1)] = 20_000_000_000


class UrlListSource(Strict):
    """A CSV file with the columns url, path and optionally sha256, a row an image."""

    kind: Literal["urls"]
    #: Absolute, or relative to the project root.
    list: str
    max_bytes: Annotated[int, Field(ge=1)] = 20_000_000_000


AnySource = SampleSource | FolderSource | ArchiveSource | StoreSource | GitSource | UrlListSource


# -- card -----------------------------------------------------------------------------------------
#: Of a task that does not name its kind; nor do the files of such a task.
DEFAULT_KIND = "classification"
Domain = Literal["medical", "agriculture", "safety", "reference"]
Text = Annotated[str, Field(min_length=1)]
Slug = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]


class PublishedSource(Strict):
    """Where the published files can be fetched without a login; `make real` does, without DATA."""

    source: Annotated[GitSource | ArchiveSource | StoreSource, Field(discriminator="kind")]
    #: Of all images to be downloaded, as announced before.
    n_bytes: Annotated[int, Field(ge=1)]
    #: What is there and what is left out, in a few words.
    what: Text


class Source(Strict):
    """Who publishes the data."""

    publisher: Text
    url: Text
    version: Text
    #: Day of the look at the source, as YYYY-MM-DD.
    retrieved: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    fetch: PublishedSource | None = None
    #: How a person gets the data where no program can, or where the source cannot be reached.
    by_hand: Text | None = None


class Licence(Strict):
    """What may be done with the data."""

    #: SPDX identifier, or ``NOASSERTION`` where the publisher states none.
    spdx: Text
    url: Text
    #: May the images be handed on? One sentence.
    redistribution: Text


class Citation(Strict):
    """How to cite the data."""

    text: Text
    doi: str | None = None


class ClassEntry(Strict):
    """One class."""

    label: Slug
    #: What people call it, in their own script; null where the label serves.
    name: Text | None = None
    #: What a person sees, in one sentence.
    meaning: Text
    #: Folder names that mean this class in published copies, besides the label itself.
    source_names: tuple[Text, ...] = Field(default=(), strict=False)
    #: Whether somebody should be told to act on it; false for what is harmless or nothing at all.
    #: Where `export` fits operating points, it does so for these classes.
    is_alarm: bool = True


class PixelRange(Strict):
    """The stored values that are shown as black and as white; values outside are clipped."""

    low: float
    high: float

    @model_validator(mode="after")
    def _is_a_range(self) -> PixelRange:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"expected two numbers, low below high (got {self.low}, {self.high})")
        return self


class ImageFacts(Strict):
    """What kind of picture it is."""

    #: e.g. ``chest radiograph (PA or AP)``.
    modality: Text
    channels: Literal[1, 3]
    bit_depth: Literal[8, 10, 12, 14, 16, 32]
    #: One scale for the whole data set, where its files have more than 8 bits a channel: ``full``
    #: for the whole range of the stored type, or two stored values (of a DICOM file: after its
    #: rescale slope and intercept). Null: such a file is refused.
    range: Literal["full"] | PixelRange | None = None
    #: A picture whose longer side is more than so many times the shorter has no sensible view.
    max_aspect: Annotated[float, Field(ge=1, le=1000)] = 20.0


class DatasetCard(Strict):
    """A data set, described for people and for the pipeline."""

    title: Text
    task: Slug
    domain: Domain
    #: What the task asks of a picture, out of `pipelines.serving.kinds`. Checked by the command
    #: line: a list here would make another kind re-run every stage of every task.
    kind: Slug = DEFAULT_KIND
    source: Source
    licence: Licence
    citation: Citation
    #: What the model answers with; the kind says how many it needs.
    classes: tuple[ClassEntry, ...] = Field(default=(), strict=False)
    #: What one image shows, e.g. ``one leaf on a plain background``.
    unit_of_observation: Text
    #: What must not straddle splits, e.g. ``patient``.
    group_key: Text
    #: Regular expression with one group named ``group``, searched in the path relative to raw/;
    #: null where the file name does not carry the group.
    group_pattern: str | None = None
    #: Images in the published set; null if unknown.
    n_images: Annotated[int, Field(ge=1)] | None = None
    image: ImageFacts
    #: ``given`` by the publisher or ``made`` by `prepare`.
    splits: Literal["given", "made"]
    #: Why groups or copies that straddle the given splits are accepted; null refuses them.
    straddling_accepted: Text | None = None
    #: What `prepare` does with near duplicates: ``join`` them into one group (but never two groups
    #: that records.csv or ``group_pattern`` state), ``warn``, or ``off``.
    near_duplicates: Literal["join", "warn", "off"] = "join"
    known_biases: tuple[Text, ...] = Field(min_length=1, strict=False)
    #: Accuracies that others report on these data or on data of the same make, and where; printed
    #: beside ours where the audit finds a shortcut.
    published_figures: Text | None = None
    consent_and_privacy: Text
    intended_use: Text
    not_for: tuple[Text, ...] = Field(min_length=1, strict=False)
    #: What a user of the app should do next, by label; shown under the answer.
    next_steps: dict[str, Text] = Field(default_factory=dict)

    @field_validator("group_pattern")
    @classmethod
    def _names_one_group(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                compiled = re.compile(pattern)
            except re.error as err:
                raise ValueError(f"not a regular expression: {err}") from err
            if "group" not in compiled.groupindex:
                raise ValueError("needs a named group, e.g. (?P<group>patient\\d+)")
        return pattern

    @model_validator(mode="after")
    def _class_names_are_distinct(self) -> DatasetCard:
        seen: dict[str, str] = {}
        for entry in self.classes:
            for name in (entry.label, *entry.source_names):
                owner = seen.setdefault(_folded(name), entry.label)
                if owner != entry.label:
                    raise ValueError(f"the name {name!r} stands for both {owner} and {entry.label}")
        if len({entry.label for entry in self.classes}) != len(self.classes):
            raise ValueError("a label stands twice in classes")
        if self.source.fetch is not None:
            unknown = set(self.source.fetch.source.labels.values()) - set(self.labels)
            if unknown:
                raise ValueError(f"source.fetch names no class: {', '.join(sorted(unknown))}")
        unknown = set(self.next_steps) - set(self.labels)
        if unknown:
            raise ValueError(f"next_steps names no class: {', '.join(sorted(unknown))}")
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in the order of the card."""
        return tuple(entry.label for entry in self.classes)

    @property
    def names(self) -> dict[str, str]:
        """What people call each label, in the order of the card."""
        return {entry.label: entry.name or entry.label for entry in self.classes}

    @property
    def alarms(self) -> frozenset[str]:
        """Labels that somebody should be told to act on."""
        return frozenset(entry.label for entry in self.classes if entry.is_alarm)

    def label_of(self, folder_name: str) -> str | None:
        """The label that a class's label or source name stands for, or None.

        Case and Unicode form do not matter.
        """
        return self._label_by_name.get(_folded(folder_name))

    @cached_property
    def _label_by_name(self) -> dict[str, str]:
        return {
            _folded(name): entry.label
            for entry in self.classes
            for name in (entry.label, *entry.source_names)
        }


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def load_card(path: Path) -> DatasetCard:
    """The card at datasets/<task>/card.yaml.

    Raises:
        ConfigError: if the file is absent or breaks a rule, or its ``task`` is not its folder.
    """
    card = validate(DatasetCard, read_yaml(path), path)
    if card.task != path.parent.name:
        raise ConfigError(
            f"{path}: task: expected the folder's name {path.parent.name!r} (got {card.task!r})."
        )
    return card
