"""What the stored values of a DICOM file mean: one table from each of them to what is shown.

A stored value has at most 16 bits, so that everything between it and the screen (rescale, window,
lookup tables, inversion) is done once for each value there can be, and not for each pixel.

References:
    DICOM PS3.3 2024b: C.11.1.1 (modality LUT, rescale), C.11.2.1 (VOI LUT, window, its
    functions), C.7.6.3.1.2 (MONOCHROME1), C.7.9 (palettes).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

#: One scale for a data set: two rescaled values, ``full``, or None for each file's own window.
Range = tuple[float, float] | Literal["full"] | None


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


def grey_levels(
    header: Dataset, bits: int, is_signed: bool, pixel_range: Range
) -> NDArray[np.uint8]:
    """The grey that each stored value is shown as.

    Args:
        header: what the values mean.
        bits: stored of a sample, 1 to 16.
        is_signed: whether they are a two's complement.
        pixel_range: used for deep values, in the place of the file's window.

    Returns:
        (2**bits,), 0 black and 255 white, whatever the photometric interpretation.

    Raises:
        ValueError: if the header contradicts itself.
    """
    values = rescaled_values(header, bits, is_signed)
    if pixel_range is not None and is_deep(header, bits, is_signed):
        low, high = (values.min(), values.max()) if pixel_range == "full" else pixel_range
        shares = (values - low) / (high - low)
    elif has_window(header):
        shares = _windowed(header, values)
    else:
        shares = (values - values.min()) / max(1.0, float(np.ptp(values)))
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
