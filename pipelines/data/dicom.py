"""A DICOM file -> a picture, and nothing of its header.

The header of such a file names a patient. It is read for what the pixels mean and for nothing
else: no value of it stands in a message, an output or a log; of the patient's id no more than a
salted hash leaves this module. Needs pydicom (the extra ``dicom``), imported when the first DICOM
file is met. Called by `pipelines.data.images`.

References:
    DICOM PS3.3 2024b (C.7.6.3 image pixel module, C.11.1 modality LUT, C.11.2 VOI LUT), PS3.5
    (section 7, annex A), PS3.10 (7.1).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.data.codestreams import coded_size, unpack_rle
from pipelines.data.dicom_header import COLOUR, DicomFacts, File, read_file, read_header
from pipelines.data.dicom_values import (
    Range,
    grey_levels,
    palette_colours,
    rescaled_values,
)
from pipelines.data.formats import DECODER_ERRORS, MissingExtraError, missing_extra
from pipelines.errors import CorruptImageError

#: Rows are looked up so many pixels at a time.
_STRIP_PIXELS = 4_000_000

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


def decode(
    data: bytes, name: str, pixel_range: Range, *, max_pixels: int
) -> tuple[Image.Image, DicomFacts]:
    """The picture of a DICOM file, as a viewer shows it.

    Rescale slope and intercept (or the modality LUT) come first; then the range that is given, or
    else the file's own window; MONOCHROME1 is inverted. Colour and grey of 8 bits are taken as
    they are, unless the file brings a window.

    Args:
        data: of the file.
        name: what to call it in messages.
        pixel_range: rescaled values that become black and white; ``full`` for the whole range of
            the stored type; None for the file's own window.
        max_pixels: rows times columns, at most.

    Returns:
        A picture of mode L or RGB, and the facts.

    Raises:
        CorruptImageError: if it has no pixels, several frames, too many pixels, a transfer syntax
            that is not read, or deep pixels and neither range nor window; or is damaged. The
            message holds nothing of the header.
    """
    return _guarded(lambda: _decode(data, name, pixel_range, max_pixels), name)


def read_facts(data: bytes, name: str) -> DicomFacts:
    """What a file says of its pixels, without a look at them.

    Args:
        data: of the file.
        name: what to call it in messages.

    Raises:
        CorruptImageError: as `decode`, but for what only the pixels show.
    """
    return _guarded(lambda: read_file(data, name, None).facts, name)


def value_counts(
    data: bytes, name: str, *, max_pixels: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    """The rescaled values that a deep grey picture holds, and how many pixels have each.

    Args:
        data: of the file.
        name: what to call it in messages.
        max_pixels: as for `decode`.

    Returns:
        Values in ascending order and their counts; None for colour and for 8 bits as they are.

    Raises:
        CorruptImageError: as `decode`.
    """

    def count() -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
        file = read_file(data, name, max_pixels)
        if not file.facts.is_deep:
            return None
        stored, _ = _stored(file, name)
        counts = np.zeros(2**file.facts.bits_stored, dtype=np.int64)
        for strip in _strips(stored, file):
            counts += np.bincount(strip.ravel(), minlength=len(counts))
        values = rescaled_values(file.header, file.facts.bits_stored, file.is_signed)
        there = np.flatnonzero(counts)
        order = there[np.argsort(values[there], kind="stable")]
        return values[order], counts[order]

    return _guarded(count, name)


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
    except CorruptImageError:
        raise
    except ImportError:
        raise MissingExtraError(name, missing_extra("DICOM")) from None
    except DECODER_ERRORS:
        # Neither the text of the error nor the error itself: both may quote the header.
        raise CorruptImageError(name, "a damaged or truncated DICOM file") from None


def _decode(
    data: bytes, name: str, pixel_range: Range, max_pixels: int
) -> tuple[Image.Image, DicomFacts]:
    file = read_file(data, name, max_pixels)
    facts, size = file.facts, (file.facts.width_px, file.facts.height_px)
    if facts.is_deep and pixel_range is None and not facts.has_window:
        raise CorruptImageError(name, _unstated_range(facts.bits_stored))
    stored, photometric = _stored(file, name)
    if stored.ndim == 3:
        mode = "RGB" if photometric == "RGB" else "YCbCr"
        image = Image.frombytes(mode, size, np.ascontiguousarray(stored).tobytes())
        return (image if mode == "RGB" else image.convert("RGB")), facts
    table = (
        grey_levels(file.header, facts.bits_stored, file.is_signed, pixel_range)
        if facts.mode == "L"
        else palette_colours(file.header, facts.bits_stored)
    )
    shown = np.empty((facts.height_px, facts.width_px, *table.shape[1:]), dtype=np.uint8)
    top = 0
    for strip in _strips(stored, file):
        shown[top : top + len(strip)] = table[strip]
        top += len(strip)
    return Image.fromarray(shown), facts


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
    if uid.is_encapsulated:
        frame = get_frame(file.pixels, 0, number_of_frames=1)
        if file.syntax == _RLE:
            planes = unpack_rle(frame, n_samples * file.bits_allocated // 8, facts.n_pixels)
            return _joined(planes, file, n_samples), file.photometric
        if coded_size(frame) != (facts.width_px, facts.height_px):
            raise CorruptImageError(name, "DICOM whose pixels have another size than it says")
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
        # Bits above those stored are masked by `_strips`, without a copy of all pixels.
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


def _strips(stored: NDArray[Any], file: File) -> Iterator[NDArray[np.uint16]]:
    """Some rows at a time: the bits that are stored, as places in a table of all their values."""
    is_native = not isinstance(file.pixels, bytes)
    shift = file.high_bit + 1 - file.facts.bits_stored if is_native else 0
    mask = 2**file.facts.bits_stored - 1
    n_rows = max(1, _STRIP_PIXELS // file.facts.width_px)
    for top in range(0, len(stored), n_rows):
        yield (stored[top : top + n_rows].astype(np.uint16) >> shift) & mask


def _unstated_range(bits: int) -> str:
    return (
        f"{bits} bits a pixel, and no window of its own: state card.image.range, in rescaled values"
    )


def _unread_syntax(syntax: str) -> str:
    """By the registered name: a text of the file itself is not repeated."""
    from pydicom.uid import UID_dictionary

    known = UID_dictionary.get(syntax)
    reason = f"DICOM compressed as {known[0] if known else 'nobody knows'}, which is not read"
    return f"{reason}; pip install {_WHAT_READS[syntax]}" if syntax in _WHAT_READS else reason
