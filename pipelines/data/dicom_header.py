"""A DICOM file's bytes -> where its pixels are and what their stored values mean; no more of it.

Bounded: how much of a header is read, how far a deflated file unfolds, and nothing is allocated
for a length that is only claimed. A stored value has at most 16 bits, so that everything between it
and the screen (rescale, window, lookup tables, inversion) is one table, made once for each value
there can be and not for each pixel. Called by `pipelines.data.dicom`, which catches what is raised.

References:
    DICOM PS3.3 2024b: C.7.6.3 (image pixel module), C.7.6.3.1.2 (MONOCHROME1), C.7.9 (palettes),
    C.11.1.1 (modality LUT, rescale), C.11.2.1 (VOI LUT, window, its functions); PS3.5 (section 7,
    annex A); PS3.10 (7.1).
"""

from __future__ import annotations

import io
import logging
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import CorruptImageError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.tag import BaseTag


def rescaled_values(header: Dataset, bits: int, is_signed: bool) -> NDArray[np.float64]:
    """What each stored value means, by its bits: Hounsfield units, counts, optical density.

    Args:
        header: with the modality LUT, the rescale slope and intercept, or neither.
        bits: stored of a sample, 1 to 16.
        is_signed: whether they are a two's complement.

    Returns:
        (2**bits,), finite.

    Raises:
        ValueError: if the slope or the intercept is no number.
    """
    from pydicom.pixels import apply_modality_lut

    rescaled = np.asarray(apply_modality_lut(_stored_values(bits, is_signed), header), np.float64)
    if not np.isfinite(rescaled).all():
        raise ValueError("the rescaled values are no numbers")
    return rescaled


def is_deep(header: Dataset, bits: int, is_signed: bool) -> bool:
    """Whether 0 to 255 does not say how to show a grey picture: it is deeper, or is rescaled.

    Args:
        header: as for `rescaled_values`.
        bits: stored of a sample.
        is_signed: whether they are a two's complement.
    """
    values = rescaled_values(header, bits, is_signed)
    return bits > 8 or bool(values.min() < 0 or values.max() > 255)


def has_window(header: Dataset) -> bool:
    """Whether a file says itself how it wants to be shown.

    Args:
        header: with a VOI LUT sequence, a window, or neither.
    """
    return bool(header.get("VOILUTSequence", None)) or _window(header) is not None


def grey_levels(header: Dataset, bits: int, is_signed: bool) -> NDArray[np.uint8]:
    """The grey that each stored value is shown as: by the file's window; without one, as it is.

    Args:
        header: what the values mean.
        bits: stored of a sample, 1 to 16.
        is_signed: whether they are a two's complement.

    Returns:
        (2**bits,), 0 black and 255 white, whatever the photometric interpretation.

    Raises:
        ValueError: if the header contradicts itself, or the values are deep and have no window.
    """
    values = rescaled_values(header, bits, is_signed)
    if has_window(header):
        shares = _windowed(header, values)
    elif is_deep(header, bits, is_signed):
        raise ValueError("deep values without a window")
    else:
        shares = values / (2**bits - 1)
    grey: NDArray[np.uint8] = np.rint(255 * shares.clip(0, 1)).astype(np.uint8)
    return np.subtract(255, grey) if header.PhotometricInterpretation == "MONOCHROME1" else grey


def palette_colours(header: Dataset, bits: int) -> NDArray[np.uint8]:
    """The colour that each stored value stands for.

    Args:
        header: with the palettes.
        bits: stored of a sample, 1 to 16.

    Returns:
        (2**bits, 3).

    Raises:
        ValueError: if the header contradicts itself.
    """
    from pydicom.pixels import apply_color_lut

    colours = apply_color_lut(_stored_values(bits, is_signed=False), header)[..., :3]
    eight: NDArray[np.uint8] = (colours >> 8 if colours.dtype.itemsize > 1 else colours).astype(
        "u1"
    )
    return eight


def _stored_values(bits: int, is_signed: bool) -> NDArray[np.int64]:
    values = np.arange(2**bits, dtype=np.int64)
    return np.where(values >= 2 ** (bits - 1), values - 2**bits, values) if is_signed else values


def _window(header: Dataset) -> tuple[float, float] | None:
    """Centre and width of the first window."""
    numbers = []
    for keyword in ("WindowCenter", "WindowWidth"):
        found = header.get(keyword, None)
        first = found if found is None or isinstance(found, str | int | float) else [*found][:1]
        first = first[0] if isinstance(first, list) and first else first
        if first is None or isinstance(first, list):
            return None
        numbers.append(float(first))
    return numbers[0], numbers[1]


def _windowed(header: Dataset, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of white, 0 to 1 or beyond, by the file's lookup table or its first window."""
    if header.get("VOILUTSequence", None):
        from pydicom.pixels import apply_voi

        depth = int(header.VOILUTSequence[0].LUTDescriptor[2])
        return np.asarray(apply_voi(np.rint(values).astype(np.int64), header)) / (2.0**depth - 1)
    window = _window(header)
    if window is None:
        raise ValueError("no window")
    centre, width = window
    match str(header.get("VOILUTFunction", None) or "LINEAR").upper():
        case "LINEAR" if width >= 1:
            # A width of 1 is a threshold (C.11.2.1.2.1, note 5).
            edge = centre - 0.5
            return (
                np.where(values > edge, 1.0, 0.0)
                if width == 1
                else (values - edge) / (width - 1) + 0.5
            )
        case "LINEAR_EXACT" if width > 0:
            return (values - centre) / width + 0.5
        case "SIGMOID" if width > 0:
            inverse: NDArray[np.float64] = 1 + np.exp(
                (-4 * (values - centre) / width).clip(-700, 700)
            )
            return 1 / inverse
    raise ValueError("a window of no width, or of an unknown function")


# -- dicom header ---------------------------------------------------------------------------------
#: Bytes of a header that are read, skipped ones not counted: half a second of pydicom. A CT's
#: header has 3 to 10 kB, with the notes of its maker 200.
_MAX_HEADER_BYTES = 1_000_000
#: A deflated file may unfold to so many bytes.
_MAX_INFLATED_BYTES = 100_000_000
_PREAMBLE_BYTES = 132
_META_GROUP = 0x0002
_PIXEL_DATA = 0x7FE00010
_FLOAT_PIXELS = frozenset({0x7FE00008, 0x7FE00009})
_UNDEFINED_LENGTH = 0xFFFFFFFF
_TRANSFER_SYNTAX, _SOP_CLASS, _MEDIA_SOP_CLASS = 0x00020010, 0x00080016, 0x00020002

#: All that is read of a header: what the pixels are, and what their values mean.
_TAGS = (
    *(_SOP_CLASS, 0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011),
    *(0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00281050, 0x00281051, 0x00281052),
    *(0x00281053, 0x00281056, 0x00283000, 0x00283010, 0x00281101, 0x00281102, 0x00281103),
    *(0x00281201, 0x00281202, 0x00281203, 0x00281221, 0x00281222, 0x00281223),
)
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
#: Three samples a pixel.
COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})

_DEFLATED = "1.2.840.10008.1.2.1.99"
_IMPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomFacts:
    """What a DICOM file says of its pixels.

    Attributes:
        width_px: columns.
        height_px: rows.
        mode: ``L`` or ``RGB``: of the picture that it becomes.
        bits_stored: of a sample.
        is_deep: whether the values need a range or a window: more than 8 bits, or rescaled.
        has_window: whether the file brings its own (VOI window or lookup table).
    """

    width_px: int
    height_px: int
    mode: Literal["L", "RGB"]
    bits_stored: int
    is_deep: bool
    has_window: bool

    @property
    def n_pixels(self) -> int:
        """Rows times columns."""
        return self.width_px * self.height_px


@dataclass(frozen=True, slots=True)
class File:
    """A header, what it says of the pixels, and the bytes of these."""

    header: Dataset
    facts: DicomFacts
    syntax: str
    photometric: str
    bits_allocated: int
    high_bit: int
    is_signed: bool
    pixels: bytes | memoryview


class Place(NamedTuple):
    """Where the pixels stand."""

    is_float: bool
    offset: int
    #: None where they are encapsulated, and say themselves where they end.
    n_bytes: int | None


class Header(NamedTuple):
    """What was read of a file before its pixels."""

    elements: Dataset
    syntax: str
    #: What `pixels` is a place in: the file, or what a deflated one unfolds to.
    data: bytes
    pixels: Place | None


class _Bounded(io.BytesIO):
    """A file in memory of which only so many bytes may be read; what is skipped does not count."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self._name, self._left = name, _MAX_HEADER_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        self._left -= len(found)
        if self._left < 0:
            raise CorruptImageError(
                self._name,
                f"its DICOM header has more than {_MAX_HEADER_BYTES:,} bytes to read",
            )
        return found


def read_header(data: bytes, name: str, tags: tuple[int, ...]) -> Header:
    """The wanted elements of a header, and where the pixels are.

    Args:
        name: what to call it in messages.
        tags: of the elements; the others are skipped.

    Raises:
        CorruptImageError: if the header is too long; whatever pydicom raises, if it is damaged.
    """
    from pydicom.filereader import read_dataset
    from pydicom.tag import BaseTag
    from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

    # Its log quotes values of the header, and goes nowhere but to a handler of pydicom's own.
    logging.getLogger("pydicom").propagate = False

    stream = _Bounded(data, name)
    stream.seek(_PREAMBLE_BYTES)
    meta = read_dataset(
        stream, False, True, stop_when=lambda tag, _vr, _length: tag.group != _META_GROUP
    )
    syntax = str((meta.get(_TRANSFER_SYNTAX, None) and meta[_TRANSFER_SYNTAX].value) or _IMPLICIT)
    if syntax == _DEFLATED:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        data = inflater.decompress(data[stream.tell() :], _MAX_INFLATED_BYTES)
        if inflater.unconsumed_tail:
            raise CorruptImageError(
                name, f"it unfolds to more than {_MAX_INFLATED_BYTES:,} bytes (deflated DICOM)"
            )
        stream = _Bounded(data, name)
    found: list[tuple[int, str | None, int]] = []

    def is_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        is_found = tag == _PIXEL_DATA or tag in _FLOAT_PIXELS
        if is_found:
            found.append((int(tag), vr, length))
        return is_found

    header = read_dataset(
        stream,
        syntax == _IMPLICIT,
        syntax != _BIG_ENDIAN,
        stop_when=is_pixels,
        specific_tags=[BaseTag(tag) for tag in tags],
    )
    if _SOP_CLASS not in header and _MEDIA_SOP_CLASS in meta:
        header.SOPClassUID = str(meta[_MEDIA_SOP_CLASS].value)
    if not found:
        return Header(header, syntax, data, None)
    tag, vr, length = found[-1]
    offset = stream.tell() + (12 if vr in EXPLICIT_VR_LENGTH_32 else 8)
    n_bytes = None if length == _UNDEFINED_LENGTH else length
    return Header(header, syntax, data, Place(tag in _FLOAT_PIXELS, offset, n_bytes))


def read_file(data: bytes, name: str) -> File:
    """What a file says of its pixels, checked before any is decoded.

    Args:
        name: what to call it in messages.

    Raises:
        CorruptImageError: if it has no pixels, or such as are not read; whatever pydicom raises,
            if it is damaged.
    """
    header, syntax, body, place = read_header(data, name, _TAGS)
    if place is None:
        raise CorruptImageError(name, f"DICOM without pixel data{_what_it_is(header)}")
    if int(header.get("NumberOfFrames", None) or 1) > 1:
        raise CorruptImageError(
            name, "it holds more than one frame; one label cannot speak for several pictures"
        )
    width_px, height_px = int(header.Columns), int(header.Rows)
    if width_px * height_px == 0:
        raise CorruptImageError(name, f"it declares {width_px:,} x {height_px:,} pixels")
    allocated, stored = int(header.BitsAllocated), int(header.BitsStored)
    if place.is_float or allocated not in {8, 16} or not 1 <= stored <= allocated:
        raise CorruptImageError(
            name, f"DICOM pixels of {stored} bits in {allocated}; integers of 8 and 16 are read"
        )
    photometric, samples = str(header.PhotometricInterpretation), int(header.SamplesPerPixel)
    is_grey = photometric in _GREY and samples == 1
    is_colour = photometric in COLOUR and samples == 3
    if not (is_grey or is_colour or (photometric == "PALETTE COLOR" and samples == 1)):
        raise CorruptImageError(name, "a DICOM photometric interpretation that is not read")
    if is_colour and stored != 8:
        raise CorruptImageError(name, "DICOM colour of more than 8 bits a channel")
    is_signed = bool(header.get("PixelRepresentation", None))
    facts = DicomFacts(
        width_px=width_px,
        height_px=height_px,
        mode="L" if is_grey else "RGB",
        bits_stored=stored,
        is_deep=is_grey and is_deep(header, stored, is_signed),
        has_window=is_grey and has_window(header),
    )
    return File(
        header=header,
        facts=facts,
        syntax=syntax,
        photometric=photometric,
        bits_allocated=allocated,
        high_bit=int(header.get("HighBit", None) or stored - 1),
        is_signed=is_signed,
        # Bytes where they are encapsulated, a view where they stand as they are.
        pixels=body[place.offset :]
        if place.n_bytes is None
        else memoryview(body)[place.offset : place.offset + place.n_bytes],
    )


def _what_it_is(header: Dataset) -> str:
    """The registered name of what a file holds instead; never a text of the file itself."""
    from pydicom.uid import UID_dictionary

    known = UID_dictionary.get(str(header.get("SOPClassUID", "")))
    return f" ({known[0]})" if known else ""
