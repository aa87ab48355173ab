"""Bytes of unknown origin -> an RGB picture, or one line that says why not.

`open_image` is the only door for pictures, and `glance` the same door with a smaller picture behind
it: training, calibration, evaluation, the predictor and the apps all come through here, and go on
to `preprocess`. A format is told by content, never by name: Pillow's own decoders are asked for
those of `tree.ALLOWED_FORMATS` and for no other; DICOM and HEIC have theirs, imported when the
first such file is met. What a picture may cost is bounded before it is decoded, by `pixel_range`
and, for the scans of a JPEG, here. Needs NumPy and Pillow alone, so that serving stays small.
"""

from __future__ import annotations

import functools
import io
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,  # noqa: F401 (registers itself; else the first AVIF imports every plugin)
    Image,
    Jpeg2KImagePlugin,  # noqa: F401
    JpegImagePlugin,
    UnidentifiedImageError,
)

from pipelines.data.deep_files import (
    TiffLayout,
    grey_levels,
    holds_deep_tiles,
    is_deep_png,
    is_tiff,
    png_levels,
    readable_png,
    tiff_layout,
    tiff_levels,
)
from pipelines.data.dicom import DicomImage, dicom_levels, open_dicom
from pipelines.data.pixel_range import (
    AS_IT_COMES,
    PIXELS_VARIABLE,
    Levels,
    Reading,
    as_rgb,
    fitting_scale,
    max_pixels,
    refuse_by_aspect,
    refuse_by_header,
    refuse_by_pixels,
    refuse_by_tile,
    told_if_memory_ends,
)
from pipelines.data.tree import (
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

#: A file larger than this is refused before it is read.
MAX_FILE_BYTES = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What a file says of its picture, before anything was normalised away.

    Attributes:
        format: Pillow's name of the decoder, e.g. ``JPEG``.
        mode: Pillow's mode as stored, e.g. ``CMYK`` or ``I;16``.
        width_px: stored width, before the EXIF rotation.
        height_px: stored height, before the EXIF rotation.
        n_bytes: size of the file.
        is_exif_rotated: whether an EXIF orientation was applied; not told of a TIFF, which Pillow
            turns itself, the sizes above too.
        outside: share of the pixels whose stored values lie outside the data set's range; 0 for
            pictures of 8 bits a channel.
    """

    format: str
    mode: str
    width_px: int
    height_px: int
    n_bytes: int
    is_exif_rotated: bool
    outside: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedImage(_Facts):
    """A decoded picture, upright and of mode RGB, and the facts of its file."""

    rgb: Image.Image

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright picture, at whatever size it was decoded."""
        stored = self.width_px, self.height_px
        is_turned = (self.rgb.width - self.rgb.height) * (stored[0] - stored[1]) < 0
        return (stored[1], stored[0]) if is_turned else stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance(_Facts):
    """A small copy of a picture, upright and of mode L, and the facts of its file."""

    grey: Image.Image


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


def open_image(
    source: Path | bytes,
    *,
    name: str | None = None,
    least_side_px: int | None = None,
    reading: Reading = AS_IT_COMES,
) -> OpenedImage:
    """The picture in a file or in its bytes, decoded fully, upright and RGB.

    Palette and alpha are composited over white, CMYK is converted, and more than 8 bits a channel
    are scaled by the range of the data set. A JPEG of more pixels than `pixel_range.max_pixels` is
    decoded at 1/2, 1/4 or 1/8 of its size.

    Args:
        source: a path, or the bytes of a file.
        name: what to call it in messages; the path by default.
        least_side_px: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as `glance` does, so
            far as neither side gets smaller than this; null decodes every pixel.
        reading: of the data set, or of the model.

    Raises:
        CorruptImageError: if it is empty, too large, truncated, animated, too long for its width,
            of another format, or deep where no range is stated.
    """
    with _undecoded(source, name, reading) as opened:
        image = opened.image
        width_px, height_px = image.size
        _draft(opened, least_side_px)
        rgb, outside = _rgb(opened, reading)
        orientation = _orientation(image)
        return OpenedImage(
            rgb=_upright(rgb, orientation),
            format=image.format or "unknown",
            mode=opened.mode,
            width_px=width_px,
            height_px=height_px,
            n_bytes=opened.n_bytes,
            is_exif_rotated=orientation in _UPRIGHT,
            outside=outside,
        )


def glance(
    source: Path | bytes,
    *,
    side_px: int,
    name: str | None = None,
    reading: Reading = AS_IT_COMES,
) -> Glance:
    """A small grey copy of a picture, for a fraction of the work of `open_image`.

    It reads the whole file and refuses what `open_image` refuses: of a JPEG the entropy-coded
    stream is read to its end, and only the arithmetic is done at a scale of 1/2, 1/4 or 1/8.
    Neither side of the copy is smaller than ``side_px``, unless the stored one is.
    """
    with _undecoded(source, name, reading) as opened:
        image = opened.image
        width_px, height_px = image.size
        image.draft("L", (side_px, side_px))
        small, outside = _rgb(opened, reading, keeps_grey=True)
        orientation = _orientation(image)
        small = small.reduce(max(1, min(small.size) // side_px))
        return Glance(
            grey=_upright(small.convert("L"), orientation),
            format=image.format or "unknown",
            mode=opened.mode,
            width_px=width_px,
            height_px=height_px,
            n_bytes=opened.n_bytes,
            is_exif_rotated=orientation in _UPRIGHT,
            outside=outside,
        )


def is_deep(source: Path | bytes, *, name: str | None = None) -> bool:
    """Whether a picture has more than 8 bits a channel; decodes nothing."""
    with _undecoded(source, name, AS_IT_COMES) as opened:
        return opened.is_deep


def levels_of(source: Path | bytes, *, name: str | None = None) -> Levels | None:
    """The stored values of a picture with more than 8 bits a channel; None of any other.

    It refuses what `open_image` refuses, but for the range and, of any other picture, the pixels.
    """
    with _undecoded(source, name, AS_IT_COMES) as opened:
        if not opened.is_deep:
            return None
        refuse_by_pixels(opened.image, opened.name, is_deep=True)
        return opened.levels()


def file_header(source: Path | bytes, name: str) -> FileHeader:
    """What a file says of its picture; whether it can be decoded is another question.

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


def readable(data: bytes, name: str) -> bytes:
    """The bytes of a file with a header that Pillow reads whole; its pixels are the same.

    Raises:
        CorruptImageError: if it is a TIFF of a layout that is not read.
    """
    return _readable(data, _readable_layout(data, name))


def read_file(path: Path, name: str) -> bytes:
    """The bytes of a regular file of at most `MAX_FILE_BYTES`.

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


# -- opened and not decoded -----------------------------------------------------------------------
_JPEG_SIGNATURE = b"\xff\xd8\xff"


@dataclass(frozen=True, slots=True)
class _Undecoded:
    """A file that may be decoded, and has not been.

    Attributes:
        data: bytes that it is read from; a header may have been made readable.
        mode: as stored.
        n_bytes: size of the file.
        is_deep: whether it has more than 8 bits a channel.
        layout: of a TIFF.
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
def _undecoded(source: Path | bytes, name: str | None, reading: Reading) -> Iterator[_Undecoded]:
    """The image, not yet decoded; what fails within the context becomes a `CorruptImageError`."""
    name = name if name is not None else (str(source) if isinstance(source, Path) else "image")
    data = read_file(source, name) if isinstance(source, Path) else source
    _refuse_by_size(len(data), name)
    try:
        with warnings.catch_warnings(), told_if_memory_ends(name):
            warnings.simplefilter("ignore")
            layout = _readable_layout(data, name)
            as_read = _readable(data, layout)
            with _opened(as_read, name) as image:
                undecoded = _Undecoded(
                    image=image,
                    data=as_read,
                    mode="LA" if as_read is not data and image.format == "PNG" else image.mode,
                    n_bytes=len(data),
                    is_deep=_is_deep(image, data, reading),
                    layout=layout,
                    name=name,
                )
                _refuse_by_header(undecoded, reading)
                yield undecoded
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


def _opened(data: bytes, name: str) -> Image.Image:
    """The image of a file; raises what `_undecoded` turns into one error."""
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


def _head(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(HEAD_BYTES)


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


def _is_deep(image: Image.Image, data: bytes, reading: Reading) -> bool:
    if isinstance(image, DicomImage):
        # A window of its own says how it is shown, where the data set states no range for all.
        facts = image.file.facts
        return facts.is_deep and not (reading.range is None and facts.has_window)
    return is_deep_png(data) or holds_deep_tiles(image)


def _unknown(data: bytes) -> str:
    layout = tiff_layout(data) if is_tiff(data) else None
    if layout is None:
        return f"not an image of a known format ({FORMATS_TOLD})"
    return (
        f"a TIFF whose layout is not read ({layout.words()}); save it as PNG, or as an ordinary "
        f"TIFF in Intel's byte order"
    )


def _refuse_by_size(n_bytes: int, name: str) -> None:
    if n_bytes == 0:
        raise CorruptImageError(name, "the file is empty (0 bytes)")
    if n_bytes > MAX_FILE_BYTES:
        raise CorruptImageError(
            name, f"the file has {n_bytes:,} bytes; at most {MAX_FILE_BYTES:,} are read"
        )


def _refuse_by_header(opened: _Undecoded, reading: Reading) -> None:
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
    _refuse_by_scans(image, opened.data, name)


# -- the scans of a JPEG --------------------------------------------------------------------------
#: Passes over a picture's pixels by a JPEG's scans: 25 scans of 64 megapixels, in about a second.
#: Encoders write 10 (libjpeg) to 20; a scan that changes nothing costs a file 200 bytes.
_MAX_SCANNED_PIXELS = 1_600_000_000
#: A JPEG of several scans is kept whole as coefficients, two bytes each, whatever its scale.
_MAX_COEFFICIENT_BYTES = 340_000_000

#: Of JPEG (ITU-T T.81, B.1.1.3 and B.2.2): markers, and where a frame's header has its components.
_START_OF_IMAGE, _START_OF_SCAN = b"\xff\xd8", b"\xff\xda"
_SEQUENTIAL_FRAMES = frozenset({b"\xff\xc0", b"\xff\xc1"})
#: Second bytes of frames with arithmetic coding, slow to read; no camera writes them.
_ARITHMETIC_FRAMES = (0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_N_COMPONENTS_AT = 5
_TABLES_AND_NOTES = frozenset(
    bytes([0xFF, code]) for code in (0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0))
)
_USUAL_SEGMENTS = _TABLES_AND_NOTES | _SEQUENTIAL_FRAMES | {_START_OF_SCAN}

_ROWS_PER_STRIP, _TILE_WIDTH, _TILE_LENGTH = 278, 322, 323


def _refuse_by_scans(image: Image.Image, data: bytes, name: str) -> None:
    """Refuse a progressive JPEG, also inside a TIFF, that goes over its pixels again and again.

    The marker cannot stand in entropy-coded data (ITU-T T.81, B.1.1.5); one in a preview counts.
    """
    is_jpeg = image.format in {"JPEG", "MPO"}
    if is_jpeg and _has_one_scan(data):
        return
    if is_jpeg or image.info.get("compression") in {"jpeg", "tiff_jpeg"}:
        # As `data.count`, which takes 5 ms for a phone's photo where this takes 1.
        codes = np.frombuffer(data, dtype=np.uint8)
        n_scans = _n_markers(codes, _START_OF_SCAN[1])
        if n_scans * image.width * image.height > _MAX_SCANNED_PIXELS * _n_parts(image):
            raise CorruptImageError(name, f"{n_scans:,} scans of so many pixels are no photograph")
        if any(_n_markers(codes, code) for code in _ARITHMETIC_FRAMES):
            raise CorruptImageError(name, "arithmetic coding; save it as an ordinary JPEG")
    if is_jpeg and _coefficient_bytes(image) > _MAX_COEFFICIENT_BYTES:
        raise CorruptImageError(
            name,
            f"{image.width:,} x {image.height:,} pixels as a progressive JPEG: it would take "
            f"{_coefficient_bytes(image) / 1e6:,.0f} MB, at most "
            f"{_MAX_COEFFICIENT_BYTES / 1e6:,.0f} are spent. Save it without progressive scans",
        )


def _coefficient_bytes(image: Image.Image) -> float:
    """Two bytes a coefficient, of every component at its own sampling (T.81, A.1.1)."""
    layers = getattr(image, "layer", None) or [(1, 1, 1, 0)] * 4
    most = max(across for _, across, _, _ in layers) * max(down for _, _, down, _ in layers)
    share: float = sum(across * down for _, across, down, _ in layers) / max(1, most)
    return 2.0 * share * image.width * image.height


def _n_parts(image: Image.Image) -> int:
    """Strips or tiles that a TIFF lies in, each a JPEG of its own; 1 of any other picture."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return 1
    across, down = tags.get(_TILE_WIDTH, image.width), tags.get(_TILE_LENGTH)
    down = down if down is not None else tags.get(_ROWS_PER_STRIP, image.height)
    if not (isinstance(across, int) and isinstance(down, int) and across > 0 and down > 0):
        return 1
    return -(-image.width // across) * -(-image.height // down)


def _n_markers(codes: NDArray[np.uint8], code: int) -> int:
    """How often the byte 0xFF stands before another."""
    return int((codes[np.flatnonzero(codes[1:] == code)] == 0xFF).sum())


def _has_one_scan(data: bytes) -> bool:
    """Whether a JPEG's header rules out a second scan, as that of most cameras' photos does.

    It does where the frame is sequential and its first scan has all of its components: libjpeg
    refuses a scan after that one. False where the header holds anything unusual.
    """
    at, n_components = len(_START_OF_IMAGE), 0
    while (marker := data[at : at + 2]) in _USUAL_SEGMENTS:
        length = int.from_bytes(data[at + 2 : at + 4])
        if length < 2:
            return False
        segment = data[at + 4 : at + 2 + length]
        if marker == _START_OF_SCAN:
            return segment[:1] == bytes([n_components])
        if marker in _SEQUENTIAL_FRAMES and len(segment) > _N_COMPONENTS_AT:
            n_components = segment[_N_COMPONENTS_AT]
        at += 2 + length
    return False


# -- decoded, upright and RGB ---------------------------------------------------------------------
#: The sides of a JPEG may be divided by these while it is decoded.
_SCALES = (8, 4, 2, 1)

#: Rows are converted so many pixels at a time where a copy of all would need a gigabyte.
_STRIP_PIXELS = 4_000_000

#: What makes a picture upright, by its EXIF orientation (tag 0x0112; EXIF 2.32, section 4.6.4).
_ORIENTATION_TAG = 0x0112
_TURN = Image.Transpose
_UPRIGHT = {
    **{2: _TURN.FLIP_LEFT_RIGHT, 3: _TURN.ROTATE_180, 4: _TURN.FLIP_TOP_BOTTOM},
    **{5: _TURN.TRANSPOSE, 6: _TURN.ROTATE_270, 7: _TURN.TRANSVERSE, 8: _TURN.ROTATE_90},
}


def _draft(opened: _Undecoded, least_side_px: int | None) -> None:
    """Let a JPEG be decoded at a fraction of its size, where that is asked for or must be."""
    image = opened.image
    width_px, height_px = image.size
    wanted = 1
    if least_side_px is not None:
        wanted = min(width_px // least_side_px, height_px // least_side_px)
        wanted = next((scale for scale in _SCALES if wanted >= scale), 1)
    needed = fitting_scale(image, is_deep=opened.is_deep)
    if needed > wanted:
        image.draft(None, (max(1, width_px // needed), max(1, height_px // needed)))
    elif least_side_px is not None:
        image.draft(None, (least_side_px, least_side_px))


def _rgb(
    opened: _Undecoded, reading: Reading, *, keeps_grey: bool = False
) -> tuple[Image.Image, float]:
    """The picture as it lies in the file, in RGB (or in L), and the share that is outside."""
    image = opened.image
    refuse_by_pixels(image, opened.name, is_deep=opened.is_deep)
    if opened.is_deep:
        return as_rgb(opened.levels(), reading.range, opened.name)
    image.load()
    is_plain = "transparency" not in image.info
    if is_plain and (image.mode == "RGB" or (keeps_grey and image.mode == "L")):
        # Not copied: of a large picture, that would be a quarter of a gigabyte more.
        return image, 0.0
    return _to_rgb(image), 0.0


def _to_rgb(image: Image.Image) -> Image.Image:
    """A picture of 8 bits a channel in RGB, transparency over white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        return _by_strips(image, _over_white)
    return image.convert("RGB")


def _by_strips(image: Image.Image, to_rgb: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """An RGB picture, made of strips of rows so that memory stays small."""
    n_rows = max(1, _STRIP_PIXELS // image.width)
    if n_rows >= image.height:
        return to_rgb(image)
    rgb = Image.new("RGB", image.size)
    for top in range(0, image.height, n_rows):
        strip = image.crop((0, top, image.width, min(top + n_rows, image.height)))
        # A crop forgets which colour is clear.
        strip.info = image.info
        rgb.paste(to_rgb(strip), (0, top))
    return rgb


def _over_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except DECODER_ERRORS:
        # The picture is whole and only its EXIF block is not: shown as stored, as browsers do.
        return 1
    return value if isinstance(value, int) else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image
