"""Bytes of unknown origin -> a file that Pillow has opened, within bounds, and not yet decoded.

What cannot enter is refused here, with one line; `pipelines.data.images` decodes the rest.
"""

from __future__ import annotations

import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from pipelines.data.bounds import (
    PIXELS_VARIABLE,
    max_pixels,
    refuse_by_aspect,
    refuse_by_header,
    refuse_by_pixels,
    refuse_by_tile,
    told_if_memory_ends,
)
from pipelines.data.deep import Levels
from pipelines.data.deep_files import (
    grey_levels,
    holds_deep_tiles,
    is_deep_png,
    png_levels,
    readable_png,
    tiff_levels,
)
from pipelines.data.dicom import DicomImage, dicom_levels
from pipelines.data.formats import DECODER_ERRORS as DECODER_ERRORS
from pipelines.data.formats import FORMATS_TOLD, extra_format_of
from pipelines.data.jpeg_scans import refuse_by_scans
from pipelines.data.opening import opened as opened_by_content
from pipelines.data.reading import Reading
from pipelines.data.tiff_layout import TiffLayout, is_tiff, tiff_layout
from pipelines.errors import CorruptImageError

#: A file larger than this is refused before it is read.
MAX_FILE_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class Undecoded:
    """A file that may be decoded, and has not been.

    Attributes:
        image: open.
        data: bytes that it is read from; a header may have been made readable.
        mode: as stored.
        n_bytes: size of the file.
        is_deep: whether it has more than 8 bits a channel.
        layout: of a TIFF.
        name: for messages.
    """

    image: Image.Image
    data: bytes
    mode: str
    n_bytes: int
    is_deep: bool
    layout: TiffLayout | None
    name: str

    def levels(self) -> Levels:
        """The stored values of a deep picture."""
        if isinstance(self.image, DicomImage):
            return dicom_levels(self.image)
        if self.image.format == "PNG":
            return png_levels(self.image, self.data)
        if self.image.format == "TIFF" and self.layout is not None:
            return tiff_levels(self.image, self.data, self.layout, self.name)
        return grey_levels(self.image)


@contextmanager
def undecoded(source: Path | bytes, name: str | None, reading: Reading) -> Iterator[Undecoded]:
    """The image, not yet decoded; all that fails within the context becomes one error.

    Args:
        source: a path, or the bytes of a file.
        name: what to call it in messages; the path by default.
        reading: of the data set, or of the model.

    Raises:
        CorruptImageError: if it may not enter, or anything fails that a decoder is known to raise.
    """
    name = name if name is not None else (str(source) if isinstance(source, Path) else "image")
    data = read_file(source, name) if isinstance(source, Path) else source
    _refuse_by_size(len(data), name)
    try:
        with warnings.catch_warnings(), told_if_memory_ends(name):
            warnings.simplefilter("ignore")
            layout = _readable_layout(data, name)
            as_read = _readable(data, layout)
            with opened_by_content(as_read, name) as image:
                opened = Undecoded(
                    image=image,
                    data=as_read,
                    mode="LA" if as_read is not data and image.format == "PNG" else image.mode,
                    n_bytes=len(data),
                    is_deep=_is_deep(image, data, reading),
                    layout=layout,
                    name=name,
                )
                _refuse_by_header(opened, reading)
                yield opened
    except CorruptImageError:
        raise
    except Image.DecompressionBombError:
        most = f"{max_pixels():,} that are decoded, by the setting {PIXELS_VARIABLE}"
        raise CorruptImageError(name, f"it declares more pixels than the {most}") from None
    except UnidentifiedImageError:
        raise CorruptImageError(name, _unknown(data)) from None
    except DECODER_ERRORS as err:
        reason = " ".join(str(err).split()) or type(err).__name__
        raise CorruptImageError(name, f"damaged or truncated ({reason})") from err


def _is_deep(image: Image.Image, data: bytes, reading: Reading) -> bool:
    if isinstance(image, DicomImage):
        # A window of its own says how it is shown, where the data set states no range for all.
        return image.facts.is_deep and not (reading.range is None and image.facts.has_window)
    return is_deep_png(data) or holds_deep_tiles(image)


def readable(data: bytes, name: str) -> bytes:
    """The bytes of a file with a header that Pillow reads whole; its pixels are the same.

    Args:
        data: of the file.
        name: what to call it in messages.

    Raises:
        CorruptImageError: if it is a TIFF of a layout that is not read.
    """
    return _readable(data, _readable_layout(data, name))


def _readable_layout(data: bytes, name: str) -> TiffLayout | None:
    # A DICOM file may begin as a TIFF does, for viewers that know nothing else.
    layout = tiff_layout(data) if is_tiff(data) and not extra_format_of(data) else None
    complaint = layout.complaint() if layout is not None else None
    if complaint is not None:
        raise CorruptImageError(name, complaint)
    return layout


def _readable(data: bytes, layout: TiffLayout | None) -> bytes:
    """The bytes, with a header that Pillow reads whole."""
    if extra_format_of(data):
        return data
    if is_deep_png(data):
        return readable_png(data)
    return layout.with_black_as_zero(data) if layout is not None and layout.is_deep else data


def _unknown(data: bytes) -> str:
    layout = tiff_layout(data) if is_tiff(data) else None
    if layout is None:
        return f"not an image of a known format ({FORMATS_TOLD})"
    return (
        f"a TIFF whose layout is not read ({layout.words()}); save it as PNG, or as an ordinary "
        f"TIFF in Intel's byte order"
    )


def read_file(path: Path, name: str) -> bytes:
    """The bytes of a regular file of at most `MAX_FILE_BYTES`.

    Args:
        path: the file.
        name: what to call it in messages.

    Raises:
        CorruptImageError: if it is not there, not regular, empty, too large or forbidden.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a named pipe would block for ever
            raise CorruptImageError(name, "not a regular file")
        _refuse_by_size(status.st_size, name)
        return path.read_bytes()
    except OSError as err:
        raise CorruptImageError(name, f"cannot be read ({err.strerror or err})") from err


def _refuse_by_size(n_bytes: int, name: str) -> None:
    if n_bytes == 0:
        raise CorruptImageError(name, "the file is empty (0 bytes)")
    if n_bytes > MAX_FILE_BYTES:
        raise CorruptImageError(
            name, f"the file has {n_bytes:,} bytes; at most {MAX_FILE_BYTES:,} are read"
        )


def _refuse_by_header(opened: Undecoded, reading: Reading) -> None:
    image, name = opened.image, opened.name
    refuse_by_aspect(*image.size, reading, name)
    refuse_by_header(image, opened.n_bytes, name)
    if image.format not in {"JPEG", "MPO"}:
        refuse_by_pixels(image, name, is_deep=opened.is_deep)
    if opened.layout is not None:
        refuse_by_tile(opened.layout.tile_pixels, image, name)
    # Not by the number of frames: to count them, Pillow walks through the whole file. MPO is how
    # phones store a JPEG with a depth map or a preview: its first frame is the photo.
    if getattr(image, "is_animated", False) and image.format not in {"MPO", "HEIF"}:
        raise CorruptImageError(
            name, "it holds more than one frame; one label cannot speak for several pictures"
        )
    refuse_by_scans(image, opened.data, name)
