"""A DICOM file's bytes -> what its pixels are, and where; nothing else of its header.

Bounded: how much of a header is read, how far a deflated file unfolds, and nothing is allocated
for a length that is only claimed. Called by `pipelines.data.dicom`, which catches what is raised.

References:
    DICOM PS3.3 2024b (C.7.6.3, image pixel module), PS3.5 (section 7, annex A), PS3.10 (7.1).
"""

from __future__ import annotations

import io
import logging
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from pipelines.data.dicom_values import has_window, is_deep
from pipelines.errors import CorruptImageError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.tag import BaseTag

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
        data: of the file.
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
        data: of the file.
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
