"""gallery.json: known pictures beside a bundle, each with its identity, vector and thumbnail.

Made by `fieldlens gallery` with the file that the bundle serves; vectors of two models mean nothing
to each other, so the model's hash stands in it and is checked. The phone page reads the same file.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.errors import BundleError

if TYPE_CHECKING:
    from pipelines.serving.bundle import Bundle

_NAME = "gallery.json"
#: A phone holds it in memory: 10,000 pictures with thumbnails are about 30 MB.
MAX_PICTURES = 10_000
_MAX_BYTES = 64_000_000


class Picture(BaseModel):
    """One known picture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Relative to the folder that the gallery was made of.
    path: str
    identity: Annotated[str, Field(min_length=1)]
    #: A small JPEG, base64; empty where none was wanted.
    thumbnail: Annotated[str, Field(max_length=20_000)] = ""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1]
    task: str
    #: Of the model file that made the vectors.
    model_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    #: Of the bytes of ``vectors``.
    vectors_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    dimensions: Annotated[int, Field(ge=1, le=4096)]
    pictures: Annotated[tuple[Picture, ...], Field(min_length=1, max_length=MAX_PICTURES)]
    #: (n, d) little-endian IEEE 754 binary16 in C order, base64.
    vectors: str


@dataclass(frozen=True, slots=True)
class Gallery:
    """Known pictures.

    Attributes:
        vectors: (n, d) of unit length.
    """

    pictures: Sequence[Picture]
    vectors: NDArray[np.float32]


def gallery_file(folder: Path) -> Path:
    """Where the gallery of a bundle's folder lies."""
    return folder / _NAME


def gallery_text(task: str, model_sha256: str, gallery: Gallery) -> str:
    """The text of gallery.json.

    Args:
        model_sha256: of the model file that made the vectors.
    """
    data = gallery.vectors.astype("<f2").tobytes()
    document = _Document(
        schema_version=1,
        task=task,
        model_sha256=model_sha256,
        vectors_sha256=hashlib.sha256(data).hexdigest(),
        dimensions=gallery.vectors.shape[1],
        pictures=tuple(gallery.pictures),
        vectors=base64.b64encode(data).decode("ascii"),
    )
    return document.model_dump_json(indent=1) + "\n"


def read_gallery(path: Path, bundle: Bundle) -> Gallery:
    """The gallery in a file, if it is one of this bundle's models.

    Raises:
        BundleError: if it is another model's, damaged or too large.
    """
    again = f"Make it again with `fieldlens gallery --task {bundle.task}`."
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BundleError(f"{path}: has more than {_MAX_BYTES:,} bytes. {again}")
        document = _Document.model_validate_json(path.read_text(encoding="utf-8"))
        data = base64.b64decode(document.vectors, validate=True)
    except ValidationError as err:
        fault = err.errors(include_url=False)[0]
        key = ".".join(str(part) for part in fault["loc"])
        raise BundleError(f"{path}: is no gallery ({key}: {fault['msg']}). {again}") from err
    except (OSError, ValueError) as err:
        raise BundleError(f"{path}: the gallery cannot be read ({err}). {again}") from err
    known = {artefact.sha256 for artefact in bundle.artefacts}
    if document.model_sha256 not in known:
        raise BundleError(
            f"{path}: the gallery was made by another model (sha256 "
            f"{document.model_sha256[:12]}…, of task {document.task}) than those of the bundle "
            f"({', '.join(sorted(each[:12] + '…' for each in known))}). {again}"
        )
    shape = (len(document.pictures), document.dimensions)
    if hashlib.sha256(data).hexdigest() != document.vectors_sha256 or len(data) != 2 * np.prod(
        shape
    ):
        raise BundleError(f"{path}: the gallery's vectors were changed or cut. {again}")
    vectors = np.frombuffer(data, dtype="<f2").reshape(shape).astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(vectors).all() or (lengths < 0.5).any():
        raise BundleError(f"{path}: the gallery's vectors are not of unit length. {again}")
    # Binary16 has moved the lengths by a thousandth.
    return Gallery(document.pictures, vectors / lengths)
