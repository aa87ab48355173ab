"""`fieldlens gallery`: known pictures laid beside a model, that others are compared with.

Nothing is trained: a new species or part is known as soon as pictures of it are in the gallery.
"""

from __future__ import annotations

import argparse
import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.atomic import write_text
from pipelines.columns import shown
from pipelines.commands.answer import Answer
from pipelines.commands.predict import add_model_arguments, find_bundle
from pipelines.data.layout import read_folder
from pipelines.data.manifest import read_manifest
from pipelines.errors import ConfigError, CorruptImageError, DataError
from pipelines.kinds.embedding.truth import identity_of
from pipelines.paths import Paths
from pipelines.progress import track
from pipelines.serving.embedding import VECTOR_NAME, ServedEmbedding
from pipelines.serving.gallery import MAX_PICTURES, Gallery, Picture, gallery_file, gallery_text
from pipelines.serving.predictor import Predictor

#: Longer side of a thumbnail: a few to a row of a phone.
_THUMBNAIL_PX = 96
_QUALITY = 70


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whose pictures, and beside which model."""
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        metavar="FOLDER",
        help="a folder an identity, or records.csv with path and label (default: the pictures of "
        "the task itself)",
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--no-thumbnails",
        action="store_true",
        help="leave the pictures out, e.g. of faces; paths and vectors stay",
    )


def main(arguments: argparse.Namespace, paths: Paths) -> Answer:
    """Make gallery.json; a picture that cannot be read is complained about and left out."""
    bundle_path = find_bundle(paths, arguments.task, arguments.bundle)
    predictor: Predictor[Any] = Predictor.load(bundle_path)
    bundle = predictor.bundle
    if not isinstance(predictor.kind, ServedEmbedding):
        raise ConfigError(
            f"--task: {bundle.task} is of the kind {bundle.kind}, which compares no pictures. "
            f"Expected a task of the kind embedding."
        )
    folder, listed = _listed(arguments.folder, bundle.task, paths)
    if len(listed) > MAX_PICTURES:
        raise DataError(f"{folder}: {len(listed):,} pictures; a gallery has {MAX_PICTURES:,}.")
    pictures, vectors, complaints = list[Picture](), [], []
    for path, identity in track(listed, f"{bundle.task}: gallery", len(listed)):
        try:
            image = predictor.open(folder / path)
            pixels = predictor.pixels(image, name=path)
        except CorruptImageError as err:
            complaints.append(str(err))
            continue
        thumbnail = "" if arguments.no_thumbnails else _thumbnail(image)
        pictures.append(Picture(path=path, identity=identity, thumbnail=thumbnail))
        vectors.append(predictor.outputs(pixels[np.newaxis])[VECTOR_NAME][0])
    if not pictures:
        raise DataError(f"{folder}: no picture can be read. Expected a folder an identity.")
    out = gallery_file(bundle_path.parent)
    model_sha256 = bundle.files[predictor.precision].sha256
    write_text(out, gallery_text(bundle.task, model_sha256, Gallery(pictures, np.stack(vectors))))
    n = len({picture.identity for picture in pictures})
    text = f"{shown(str(out))}: {len(pictures):,} pictures of {n:,} identities"
    return Answer(text, tuple(complaints), exit_code=2 if complaints else 0)


def _listed(folder: Path | None, task: str, paths: Paths) -> tuple[Path, list[tuple[str, str]]]:
    """A folder, and path and identity of its pictures."""
    if folder is None:
        files = paths.task(task)
        entries = read_manifest(files.manifest)
        return files.raw_dir, [(entry.path, identity_of(entry.truth)) for entry in entries]
    found = [(image.path, image.name) for image in read_folder(folder).images]
    if not found:
        raise DataError(
            f"{folder}: no picture was found. Expected a folder an identity, or records.csv with "
            f"the columns path and label."
        )
    return folder, found


def _thumbnail(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
