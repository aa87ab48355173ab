"""A DICOM file -> a picture, and nothing of its header.

The header of such a file names a patient. It is read for what the pixels mean and for nothing
else: no value of it stands in a message, an output or a log; of the patient's id no more than a
salted hash leaves this module. How much of a header is read is bounded, and how far a deflated file
unfolds; nothing is allocated for a length that is only claimed, and a compressed frame tells its
size before a decoder trusts it. A stored value has at most 16 bits, so that everything between it
and the screen (rescale, window, lookup tables, inversion) is one table, made once for each value
there can be and not for each pixel. Needs pydicom (the extra ``dicom``), imported when the first
DICOM file is met. Called by `pipelines.data.images`.

References:
    DICOM PS3.3 2024b: C.7.6.3 (image pixel module), C.7.6.3.1.2 (MONOCHROME1), C.7.9 (palettes),
    C.11.1.1 (modality LUT, rescale), C.11.2.1 (VOI LUT, window, its functions); PS3.5 (section 7,
    annexes A and G: run-length coding, which is TIFF's PackBits); PS3.10 (7.1). JPEG (ITU-T T.81,
    B.2.2), JPEG-LS (ITU-T T.87, C.2.2), JPEG 2000 (ITU-T T.800, A.5.1).
"""

from __future__ import annotations

import hashlib
import io
import logging
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.data.pixel_range import Levels
from pipelines.data.tree import MAX_JPEG2000_BYTES, MissingExtraError, missing_extra
from pipelines.errors import CorruptImageError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.tag import BaseTag

_T = TypeVar("_T")


class DicomImage(Image.Image):
    """The picture of a DICOM file, decoded when it is first looked at, as Pillow's own are.

    Of mode L or RGB. Rescale slope and intercept (or the modality LUT) come first, then the file's
    own window, then MONOCHROME1 is inverted. Colour, and grey of 8 bits, are taken as they are
    where there is no window. What is deep may be shown by a range instead (`dicom_levels`).
    """

    format = "DICOM"

    def __init__(self, file: _File, name: str) -> None:
        super().__init__()
        self.file, self.name = file, name
        self._size, self._mode = (file.facts.width_px, file.facts.height_px), file.facts.mode

    def load(self) -> Any:
        """Decode, once; raises CorruptImageError where the pixels are damaged or not to be read."""
        if self._im is None:
            self.im = _guarded(lambda: _shown(self.file, self.name), self.name).im
        return super().load()


def open_dicom(data: bytes, name: str) -> DicomImage:
    """The picture of a DICOM file, not decoded yet.

    Raises:
        CorruptImageError: if it has no pixels, several frames or such pixels as are not read, or
            its header is damaged. The message holds nothing of the header.
    """
    return DicomImage(_guarded(lambda: _read_file(data, name), name), name)


def dicom_levels(image: DicomImage) -> Levels:
    """The rescaled values of a deep picture, to be shown by the range of a data set."""
    file = image.file

    def decode() -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        stored, _ = _stored(file, image.name)
        values = _rescaled_values(file.header, file.facts.bits_stored, file.is_signed)
        whole = values.clip(0, 65_535).astype(np.uint16)
        return stored, values, whole if np.array_equal(whole, values) else values

    stored, values, meant = _guarded(decode, image.name)
    return Levels(
        *image.size,
        lambda top, bottom: (meant[_places(stored[top:bottom], file)], None),
        (float(values.min()), float(values.max())),
        is_inverted=file.photometric == "MONOCHROME1",
    )


def patient_key(data: bytes, salt: bytes) -> str | None:
    """A salted hash of the patient's id, for telling patients apart; None where there is no id.

    The salt has at least 16 random bytes, the same for all files that are told apart.

    Raises:
        CorruptImageError: if the header cannot be read.
    """

    def key() -> str | None:
        header = _read_header(data, "a DICOM file", (_PATIENT_ID,)).elements
        element = header.get_item(_PATIENT_ID)
        raw = getattr(element, "value", None) or b""
        text = raw if isinstance(raw, bytes) else str(raw).encode("utf-8", "replace")
        text = text.strip(b" \0")
        return hashlib.blake2b(text, key=salt, digest_size=16).hexdigest() if text else None

    return _guarded(key, "a DICOM file")


def _guarded(work: Callable[[], _T], name: str) -> _T:
    try:
        with warnings.catch_warnings():
            # pydicom's warnings quote values of the header.
            warnings.simplefilter("ignore")
            return work()
    except (CorruptImageError, MemoryError):
        raise
    except ImportError:
        raise MissingExtraError(name, missing_extra("DICOM")) from None
    except Exception:  # noqa: BLE001 (pydicom's own errors have no common root)
        # Neither the text of the error nor the error itself: both may quote the header.
        raise CorruptImageError(name, "a damaged or truncated DICOM file") from None


# -- the header -----------------------------------------------------------------------------------
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
_PATIENT_ID = 0x00100020

#: All that is read of a header: what the pixels are, and what their values mean.
_TAGS = (
    *(_SOP_CLASS, 0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011),
    *(0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00281050, 0x00281051, 0x00281052),
    *(0x00281053, 0x00281056, 0x00283000, 0x00283010, 0x00281101, 0x00281102, 0x00281103),
    *(0x00281201, 0x00281202, 0x00281203, 0x00281221, 0x00281222, 0x00281223),
)
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
#: Three samples a pixel.
_COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})

_DEFLATED = "1.2.840.10008.1.2.1.99"
_IMPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What a DICOM file says of its pixels.

    Attributes:
        mode: of the picture that it becomes.
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
class _File:
    """A header, what it says of the pixels, and the bytes of these."""

    header: Dataset
    facts: _Facts
    syntax: str
    photometric: str
    bits_allocated: int
    high_bit: int
    is_signed: bool
    pixels: bytes | memoryview


class _Place(NamedTuple):
    """Where the pixels stand."""

    is_float: bool
    offset: int
    #: None where they are encapsulated, and say themselves where they end.
    n_bytes: int | None


class _Header(NamedTuple):
    """What was read of a file before its pixels."""

    elements: Dataset
    syntax: str
    #: What `pixels` is a place in: the file, or what a deflated one unfolds to.
    data: bytes
    pixels: _Place | None


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


def _read_header(data: bytes, name: str, tags: tuple[int, ...]) -> _Header:
    """The elements with the wanted tags, and where the pixels are; the others are skipped.

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
        return _Header(header, syntax, data, None)
    tag, vr, length = found[-1]
    offset = stream.tell() + (12 if vr in EXPLICIT_VR_LENGTH_32 else 8)
    n_bytes = None if length == _UNDEFINED_LENGTH else length
    return _Header(header, syntax, data, _Place(tag in _FLOAT_PIXELS, offset, n_bytes))


def _read_file(data: bytes, name: str) -> _File:
    """What a file says of its pixels, checked before any is decoded.

    Raises:
        CorruptImageError: if it has no pixels, or such as are not read; whatever pydicom raises,
            if it is damaged.
    """
    header, syntax, body, place = _read_header(data, name, _TAGS)
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
    is_colour = photometric in _COLOUR and samples == 3
    if not (is_grey or is_colour or (photometric == "PALETTE COLOR" and samples == 1)):
        raise CorruptImageError(name, "a DICOM photometric interpretation that is not read")
    if is_colour and stored != 8:
        raise CorruptImageError(name, "DICOM colour of more than 8 bits a channel")
    is_signed = bool(header.get("PixelRepresentation", None))
    facts = _Facts(
        width_px=width_px,
        height_px=height_px,
        mode="L" if is_grey else "RGB",
        bits_stored=stored,
        is_deep=is_grey and _is_deep(header, stored, is_signed),
        has_window=is_grey and _has_window(header),
    )
    return _File(
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


# -- what a stored value means --------------------------------------------------------------------
def _rescaled_values(header: Dataset, bits: int, is_signed: bool) -> NDArray[np.float64]:
    """What each stored value means, by its bits: Hounsfield units, counts, optical density.

    Finite, (2**bits,), of ``bits`` from 1 to 16; raises ValueError where the rescale is no number.
    """
    from pydicom.pixels import apply_modality_lut

    rescaled = np.asarray(apply_modality_lut(_stored_values(bits, is_signed), header), np.float64)
    if not np.isfinite(rescaled).all():
        raise ValueError("the rescaled values are no numbers")
    return rescaled


def _is_deep(header: Dataset, bits: int, is_signed: bool) -> bool:
    """Whether 0 to 255 does not say how to show a grey picture: it is deeper, or is rescaled."""
    values = _rescaled_values(header, bits, is_signed)
    return bits > 8 or bool(values.min() < 0 or values.max() > 255)


def _has_window(header: Dataset) -> bool:
    """Whether a file says itself how it wants to be shown."""
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
    values = _rescaled_values(header, bits, is_signed)
    if _has_window(header):
        shares = _windowed(header, values)
    elif _is_deep(header, bits, is_signed):
        raise ValueError("deep values without a window")
    else:
        shares = values / (2**bits - 1)
    grey: NDArray[np.uint8] = np.rint(255 * shares.clip(0, 1)).astype(np.uint8)
    return np.subtract(255, grey) if header.PhotometricInterpretation == "MONOCHROME1" else grey


def _palette_colours(header: Dataset, bits: int) -> NDArray[np.uint8]:
    """The colour that each stored value stands for, (2**bits, 3)."""
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


# -- the pixels -----------------------------------------------------------------------------------
#: Rows are looked up so many pixels at a time.
_STRIP_PIXELS = 4_000_000

#: As of a JPEG 2000 file (`pipelines.data.pixel_range`).
_MAX_JPEG2000_PIXELS = 21_000_000

#: Of one frame, each an item (PS3.5, A.4); encoders write one, or one for each 64 kB.
_MAX_FRAGMENTS, _ITEM = 10_000, b"\xfe\xff\x00\xe0"

#: What reads a transfer syntax that neither pydicom nor the extra's decoders read.
_WHAT_READS = {
    "1.2.840.10008.1.2.4.51": "python-gdcm",
    "1.2.840.10008.1.2.4.57": "python-gdcm",
    "1.2.840.10008.1.2.4.70": "python-gdcm",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.201": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.202": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg pylibjpeg-openjpeg",
}
_RLE = "1.2.840.10008.1.2.5"
_RLE_HEADER_BYTES = 64

#: Frames of JPEG that DICOM knows: sequential, lossless, JPEG-LS. Progressive ones were retired.
_FRAMES = frozenset({0xC0, 0xC1, 0xC3, 0xF7})
_OTHER_FRAMES = frozenset({0xC2, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)})
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = b"\xff\xd9"


def _shown(file: _File, name: str) -> Image.Image:
    """The picture as the file itself wants it."""
    facts, size = file.facts, (file.facts.width_px, file.facts.height_px)
    stored, photometric = _stored(file, name)
    if stored.ndim == 3:
        mode = "RGB" if photometric == "RGB" else "YCbCr"
        image = Image.frombytes(mode, size, np.ascontiguousarray(stored).tobytes())
        return image if mode == "RGB" else image.convert("RGB")
    table = (
        grey_levels(file.header, facts.bits_stored, file.is_signed)
        if facts.mode == "L"
        else _palette_colours(file.header, facts.bits_stored)
    )
    shown = np.empty((facts.height_px, facts.width_px, *table.shape[1:]), dtype=np.uint8)
    n_rows = max(1, _STRIP_PIXELS // facts.width_px)
    for top in range(0, facts.height_px, n_rows):
        shown[top : top + n_rows] = table[_places(stored[top : top + n_rows], file)]
    return Image.fromarray(shown)


def _stored(file: _File, name: str) -> tuple[NDArray[Any], str]:
    """The samples as stored, (height, width[, 3]), and the colour space that they are in."""
    from pydicom.encaps import get_frame
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    uid, facts = UID(file.syntax), file.facts
    try:
        decoder = get_decoder(uid)
    except NotImplementedError:
        decoder = None
    if decoder is None or not decoder.is_available:
        raise CorruptImageError(name, _unread_syntax(file.syntax))
    if uid.is_encapsulated != isinstance(file.pixels, bytes):
        raise CorruptImageError(name, "DICOM pixel data that is not what its transfer syntax says")
    n_samples = 3 if file.photometric in _COLOUR else 1
    if isinstance(file.pixels, bytes):
        if file.pixels.count(_ITEM) > _MAX_FRAGMENTS:
            raise CorruptImageError(name, "a DICOM frame in too many pieces")
        frame = get_frame(file.pixels, 0, number_of_frames=1)
        if file.syntax == _RLE:
            planes = _unpack_rle(frame, n_samples * file.bits_allocated // 8, facts.n_pixels)
            return _joined(planes, file, n_samples), file.photometric
        is_jpeg2000 = frame.startswith(b"\xff\x4f")
        if is_jpeg2000 and (
            len(frame) > MAX_JPEG2000_BYTES or facts.n_pixels > _MAX_JPEG2000_PIXELS
        ):
            raise CorruptImageError(
                name,
                f"DICOM compressed as JPEG 2000 with more than {MAX_JPEG2000_BYTES:,} bytes or "
                f"{_MAX_JPEG2000_PIXELS:,} pixels, which takes too long",
            )
        if _coded_size(frame) != (facts.width_px, facts.height_px):
            raise CorruptImageError(
                name, "DICOM pixels that are cut off, or of another size than it says"
            )
    array, properties = decoder.as_array(
        file.pixels,
        index=0,
        raw=True,
        rows=facts.height_px,
        columns=facts.width_px,
        samples_per_pixel=n_samples,
        number_of_frames=1,
        bits_allocated=file.bits_allocated,
        bits_stored=facts.bits_stored,
        photometric_interpretation=file.photometric,
        pixel_keyword="PixelData",
        pixel_representation=int(file.is_signed),
        planar_configuration=int(file.header.get("PlanarConfiguration", None) or 0),
        pixel_vr="OW" if file.bits_allocated > 8 else "OB",
        # Bits above those stored are masked by `_places`, without a copy of all pixels.
        **({} if uid.is_encapsulated else {"view_only": True, "correct_unused_bits": False}),
    )
    return array, str(properties["photometric_interpretation"])


def _coded_size(frame: bytes) -> tuple[int, int] | None:
    """Width and height that a JPEG, JPEG-LS or JPEG 2000 codestream declares; None for another.

    None, too, where the end of a JPEG or JPEG-LS is missing: of such a file of 1 kB, CharLS looks
    for more for 2 seconds.
    """
    if frame.startswith(b"\xff\x4f\xff\x51"):
        if len(frame) < 24:
            return None
        right, bottom, left, top = struct.unpack(">4I", frame[8:24])
        return right - left, bottom - top
    if not (frame.startswith(b"\xff\xd8") and frame.rstrip(b"\0").endswith(_END_OF_IMAGE)):
        return None
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        code = frame[at + 1]
        if code in _FRAMES:
            height, width = struct.unpack(">2H", frame[at + 5 : at + 9])
            return width, height
        if code in _OTHER_FRAMES or code == _START_OF_SCAN:
            return None
        at += 2 + int.from_bytes(frame[at + 2 : at + 4])
    return None


def _unpack_rle(frame: bytes, n_planes: int, n_bytes: int) -> NDArray[np.uint8]:
    """The planes of bytes of a run-length coded frame, (n_planes, n_bytes); no more is unpacked.

    A plane is a sample's most significant bytes, or its next; raises ValueError where there are
    more or fewer of them, or one is too short.
    """
    count, *offsets = struct.unpack("<16I", frame[:_RLE_HEADER_BYTES])
    if count != n_planes:
        raise ValueError(f"expected {n_planes} segments (got {count})")
    ends = [*offsets[1:count], len(frame)]
    planes = np.empty((n_planes, n_bytes), dtype=np.uint8)
    for plane, start, end in zip(planes, offsets, ends, strict=False):
        row = Image.frombytes("L", (n_bytes, 1), frame[start:end], "packbits", "L")
        plane[:] = np.asarray(row)[0]
    return planes


def _joined(planes: NDArray[np.uint8], file: _File, n_samples: int) -> NDArray[Any]:
    """Planes of bytes (PS3.5, G.2: for each sample the most significant first) as samples."""
    size = (file.facts.height_px, file.facts.width_px)
    if n_samples == 3:
        return planes.reshape(3, *size).transpose(1, 2, 0)
    if len(planes) == 1:
        return planes.reshape(size)
    joined: NDArray[np.uint16] = planes[0].astype(np.uint16) << 8 | planes[1]
    return joined.reshape(size)


def _places(stored: NDArray[Any], file: _File) -> NDArray[np.uint16]:
    """The bits that are stored, as places in a table of all values that they can have."""
    is_native = not isinstance(file.pixels, bytes)
    shift = file.high_bit + 1 - file.facts.bits_stored if is_native else 0
    mask = np.uint16(2**file.facts.bits_stored - 1)
    places = stored.astype(np.uint16)
    places >>= np.uint16(shift)
    places &= mask
    return places


def _unread_syntax(syntax: str) -> str:
    """By the registered name: a text of the file itself is not repeated."""
    from pydicom.uid import UID_dictionary

    known = UID_dictionary.get(syntax)
    reason = f"DICOM compressed as {known[0] if known else 'nobody knows'}, which is not read"
    return f"{reason}; pip install {_WHAT_READS[syntax]}" if syntax in _WHAT_READS else reason
