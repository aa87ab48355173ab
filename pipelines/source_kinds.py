"""Where images come from: the kinds of ``fetch.source``."""

from __future__ import annotations

from typing import Annotated, Literal

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
