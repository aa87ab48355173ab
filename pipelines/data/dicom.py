"""A DICOM file -> a picture, and nothing of its header.

The header of such a file names a patient. It is read for what the pixels mean and for nothing
else: no value of it stands in a message, an output or a log; of the patient's id no more than a
salted hash leaves this module. A compressed frame tells its size before a decoder trusts it.
Needs pydicom (the extra ``dicom``), imported when the first DICOM file is met. Called by
`pipelines.data.image_bytes`.

References:
    DICOM PS3.3 2024b (C.7.6.3 image pixel module, C.11.1 modality LUT, C.11.2 VOI LUT), PS3.5
    (section 7, annexes A and G: run-length coding, which is TIFF's PackBits). JPEG (ITU-T T.81,
    B.2.2), JPEG-LS (ITU-T T.87, C.2.2), JPEG 2000 (ITU-T T.800, A.5.1).
"""

from __future__ import annotations

import hashlib
import struct
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.data.dicom_header import (
    COLOUR,
    File,
    grey_levels,
    palette_colours,
    read_file,
    read_header,
    rescaled_values,
)
from pipelines.data.formats import MAX_JPEG2000_BYTES, MissingExtraError, missing_extra
from pipelines.data.pixel_range import Levels
from pipelines.errors import CorruptImageError

#: Frames of JPEG that DICOM knows: sequential, lossless, JPEG-LS. Progressive ones were retired.
_FRAMES = frozenset({0xC0, 0xC1, 0xC3, 0xF7})
_OTHER_FRAMES = frozenset({0xC2, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)})
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = b"\xff\xd9"
_RLE_HEADER_BYTES = 64


def coded_size(frame: bytes) -> tuple[int, int] | None:
    """Width and height that a JPEG, JPEG-LS or JPEG 2000 codestream declares; None for another.

    None, too, where the end of a JPEG or JPEG-LS is missing: of such a file of 1 kB, CharLS looks
    for more for 2 seconds.

    Args:
        frame: the codestream.
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


def unpack_rle(frame: bytes, n_planes: int, n_bytes: int) -> NDArray[np.uint8]:
    """The planes of bytes of a run-length coded frame.

    Args:
        frame: a header of 16 numbers, and segments.
        n_planes: how many there must be: samples times bytes of each.
        n_bytes: of each plane once unpacked; no more is unpacked.

    Returns:
        (n_planes, n_bytes).

    Raises:
        ValueError: if there are more or fewer, or a plane is too short.
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


# -- dicom ----------------------------------------------------------------------------------------
#: Rows are looked up so many pixels at a time.
_STRIP_PIXELS = 4_000_000

#: As of a JPEG 2000 file (`pipelines.data.bounds`).
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
_PATIENT_ID = 0x00100020

_T = TypeVar("_T")


class DicomImage(Image.Image):
    """The picture of a DICOM file, decoded when it is first looked at, as Pillow's own are.

    Of mode L or RGB. Rescale slope and intercept (or the modality LUT) come first, then the file's
    own window, then MONOCHROME1 is inverted. Colour, and grey of 8 bits, are taken as they are
    where there is no window. What is deep may be shown by a range instead (`dicom_levels`).
    """

    format = "DICOM"

    def __init__(self, file: File, name: str) -> None:
        """Decode nothing yet.

        Args:
            file: its header and the bytes of its pixels.
            name: what to call it in messages.
        """
        super().__init__()
        self.file, self.name = file, name
        self._size, self._mode = (file.facts.width_px, file.facts.height_px), file.facts.mode
        #: What the file says of its pixels.
        self.facts = file.facts

    def load(self) -> Any:
        """Decode, once.

        Raises:
            CorruptImageError: if the pixels are damaged or of a transfer syntax that is not read.
        """
        if self._im is None:
            self.im = _guarded(lambda: _shown(self.file, self.name), self.name).im
        return super().load()


def open_dicom(data: bytes, name: str) -> DicomImage:
    """The picture of a DICOM file, not decoded yet.

    Args:
        name: what to call it in messages.

    Raises:
        CorruptImageError: if it has no pixels, several frames or such pixels as are not read, or
            its header is damaged. The message holds nothing of the header.
    """
    return DicomImage(_guarded(lambda: read_file(data, name), name), name)


def dicom_levels(image: DicomImage) -> Levels:
    """The rescaled values of a deep picture, to be shown by the range of a data set.

    Args:
        image: as `open_dicom` gives it.

    Raises:
        CorruptImageError: as `DicomImage.load`.
    """
    file = image.file

    def decode() -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        stored, _ = _stored(file, image.name)
        values = rescaled_values(file.header, file.facts.bits_stored, file.is_signed)
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

    Args:
        data: of a DICOM file.
        salt: at least 16 random bytes, the same for all files that are told apart.

    Raises:
        CorruptImageError: if the header cannot be read.
    """

    def key() -> str | None:
        header = read_header(data, "a DICOM file", (_PATIENT_ID,)).elements
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


def _shown(file: File, name: str) -> Image.Image:
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
        else palette_colours(file.header, facts.bits_stored)
    )
    shown = np.empty((facts.height_px, facts.width_px, *table.shape[1:]), dtype=np.uint8)
    n_rows = max(1, _STRIP_PIXELS // facts.width_px)
    for top in range(0, facts.height_px, n_rows):
        shown[top : top + n_rows] = table[_places(stored[top : top + n_rows], file)]
    return Image.fromarray(shown)


def _stored(file: File, name: str) -> tuple[NDArray[Any], str]:
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
    n_samples = 3 if file.photometric in COLOUR else 1
    if isinstance(file.pixels, bytes):
        if file.pixels.count(_ITEM) > _MAX_FRAGMENTS:
            raise CorruptImageError(name, "a DICOM frame in too many pieces")
        frame = get_frame(file.pixels, 0, number_of_frames=1)
        if file.syntax == _RLE:
            planes = unpack_rle(frame, n_samples * file.bits_allocated // 8, facts.n_pixels)
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
        if coded_size(frame) != (facts.width_px, facts.height_px):
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


def _joined(planes: NDArray[np.uint8], file: File, n_samples: int) -> NDArray[Any]:
    """Planes of bytes (PS3.5, G.2: for each sample the most significant first) as samples."""
    size = (file.facts.height_px, file.facts.width_px)
    if n_samples == 3:
        return planes.reshape(3, *size).transpose(1, 2, 0)
    if len(planes) == 1:
        return planes.reshape(size)
    joined: NDArray[np.uint16] = planes[0].astype(np.uint16) << 8 | planes[1]
    return joined.reshape(size)


def _places(stored: NDArray[Any], file: File) -> NDArray[np.uint16]:
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
