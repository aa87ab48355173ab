"""Where images come from: the kinds of ``fetch.source``, and the folders of `make real`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from pipelines.strict_yaml import Strict

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


class FolderSource(Strict):
    """A folder on this machine: a folder a class, or records.csv."""

    kind: Literal["folder"]
    #: Absolute, or relative to the project root.
    path: str


class ArchiveSource(Strict):
    """A zip or tar archive, local or behind http(s)."""

    kind: Literal["archive"]
    #: A path, or an http(s) URL.
    location: str
    sha256: Sha256 | None = None
    #: Folder inside the archive that holds the class folders.
    subfolder: str = ""
    max_bytes: Annotated[int, Field(ge=1)] = 20_000_000_000


class GitSource(Strict):
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


AnySource = SampleSource | FolderSource | ArchiveSource | GitSource | UrlListSource


class RealParams(Strict):
    """What `make real` does otherwise with one task, on folders of real images."""

    #: Folder of the data folder that holds the task's images; null for the one of its name.
    data: str | None = None
    #: Folders of the data folder on which the released model is validated: other sites' images.
    validate_on: tuple[str, ...] = Field(default=(), strict=False)
    #: Laid over the sections of the same name below ``tasks``.
    prepare: dict[str, Any] = Field(default_factory=dict)
    audit: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)
    export: dict[str, Any] = Field(default_factory=dict)
    evaluate: dict[str, Any] = Field(default_factory=dict)
    gate: dict[str, Any] = Field(default_factory=dict)

    @property
    def sections(self) -> dict[str, dict[str, Any]]:
        """What is laid over the task's sections, by section."""
        return self.model_dump(exclude={"data", "validate_on"}, exclude_unset=True)
