"""A file's bytes -> the image that the right decoder makes of them; by content, never by name.

Pillow's own decoders are asked for the formats that `formats` allows and for no other; DICOM and
HEIC have theirs, imported when the first such file is met. Called by `pipelines.data.images` and
by whoever wants no more than a header.
"""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import (
    AvifImagePlugin,  # noqa: F401 (registers itself; else the first AVIF imports every plugin)
    Image,
    Jpeg2KImagePlugin,  # noqa: F401
    JpegImagePlugin,
    UnidentifiedImageError,
)

from pipelines.data.dicom import open_dicom
from pipelines.data.formats import (
    ALLOWED_FORMATS,
    DECODER_ERRORS,
    FORMATS_TOLD,
    HEAD_BYTES,
    MAX_JPEG2000_BYTES,
    ExtraFormat,
    MissingExtraError,
    extra_format_of,
    missing_extra,
)
from pipelines.errors import CorruptImageError

_JPEG_SIGNATURE = b"\xff\xd8\xff"


class FileHeader(NamedTuple):
    """What a file says of its picture, before any of it is decoded."""

    #: Pillow's name of the decoder, or DICOM.
    format: str
    #: Pillow's mode as stored; of a DICOM file ``L`` or ``RGB``.
    mode: str
    size: tuple[int, int]
    #: Mean of each JPEG quantisation table, in their order; empty without any.
    quantisation: tuple[float, ...]
    has_exif: bool


def opened(data: bytes, name: str) -> Image.Image:
    """The image of a file, not decoded yet.

    Args:
        data: of the file.
        name: what to call it in messages.

    Raises:
        CorruptImageError: if it is DICOM or HEIC, and damaged or not to be read here.
        UnidentifiedImageError: if it is of no format that is allowed.
    """
    form = extra_format_of(data)
    if form == "DICOM":
        return open_dicom(data, name)
    if data.startswith(_JPEG_SIGNATURE):
        # Not by `Image.open`, which refuses 180 megapixels whatever the scale they are decoded at.
        return JpegImagePlugin.jpeg_factory(io.BytesIO(data), "")
    image = _by_pillow(io.BytesIO(data), name, form)
    if image.format == "JPEG2000" and len(data) > MAX_JPEG2000_BYTES:
        raise CorruptImageError(
            name,
            f"a JPEG 2000 file of {len(data):,} bytes takes too long; at most "
            f"{MAX_JPEG2000_BYTES:,} are read. Save it as JPEG, PNG or TIFF",
        )
    return image


def file_header(source: Path | bytes, name: str) -> FileHeader:
    """What a file says of its picture; whether it can be decoded is another question.

    Args:
        source: a file, or its bytes.
        name: what to call it in messages.

    Raises:
        CorruptImageError: if it is of no format that is read here, or cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            form = extra_format_of(source if isinstance(source, bytes) else _head(source))
            if form == "DICOM":
                data = source if isinstance(source, bytes) else source.read_bytes()
                shown = open_dicom(data, name)
                return FileHeader(form, shown.mode, shown.size, (), has_exif=False)
            stream = io.BytesIO(source) if isinstance(source, bytes) else source
            with _by_pillow(stream, name, form) as image:
                tables: Mapping[int, Sequence[int]] = getattr(image, "quantization", {})
                return FileHeader(
                    image.format or "unknown",
                    image.mode,
                    image.size,
                    tuple(float(np.mean(tables[key])) for key in sorted(tables)),
                    has_exif="exif" in image.info,
                )
    except CorruptImageError:
        raise
    except (*DECODER_ERRORS, Image.DecompressionBombError) as err:
        raise CorruptImageError(name, f"not an image of a known format ({FORMATS_TOLD})") from err


def _head(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(HEAD_BYTES)


def _by_pillow(source: Path | io.BytesIO, name: str, form: ExtraFormat | None) -> Image.Image:
    if form != "HEIC":
        return Image.open(source, formats=ALLOWED_FORMATS)
    try:
        _register_heif()
    except ImportError:
        raise MissingExtraError(name, missing_extra(form)) from None
    try:
        return Image.open(source, formats=("HEIF",))
    except UnidentifiedImageError:
        raise CorruptImageError(name, "a damaged or truncated HEIC file") from None


@functools.cache
def _register_heif() -> None:
    """Make HEIF known to Pillow.

    Thumbnails off: in their place the photo itself is decoded, since nothing says that they show
    the same. Depth maps and other companions off: each is another way into libheif.
    """
    from pillow_heif import HeifImageFile, options

    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False

    class Checked(HeifImageFile):  # type: ignore[misc]
        """As pillow-heif has it, but that the picture has the size that was looked at before."""

        def load(self) -> Any:
            declared = self.size
            loaded = super().load()
            if self.size != declared:
                raise ValueError("the picture has another size than the file says")
            return loaded

    Image.register_open(Checked.format, Checked)
