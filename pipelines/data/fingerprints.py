"""A picture -> 64 bits and a thumbnail, by which near duplicates are found.

The hash alone collides on pictures with little texture (two dark photographs, two chest
radiographs), so a pair is a candidate only if the thumbnails correlate too. Called by the decoding
pass; `pipelines.data.duplicates` draws candidates and looks closer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Side of the grey picture that is transformed, and of the block of coefficients that is kept.
#: References: C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010),
#: section 3.2.1: 32 × 32, DCT-II, rows and columns 1 to 8, one bit a coefficient: above the median.
_SIDE_PX = 32
_BLOCK = 8
#: Side of the thumbnail that is kept, 4 kB an image, and of the coarse one made of it.
THUMBNAIL_PX = 64
_COARSE_PX = 16

#: Sides that `fingerprint` wants at least; twice its own, so that the reduction averages.
GLANCE_PX = 2 * _SIDE_PX

#: Least correlation of two thumbnails of one picture. Measured on eight sets of photographs, at
#: 4 bits: 0.98 and more for the same picture stored twice, 0.84 and less for two pictures whose
#: hashes collide (radiographs, skin lesions), 0.96 to 0.98 for neighbouring frames of a video.
_MIN_CORRELATION = 0.95

#: Standard deviation, in grey levels, below which a thumbnail has no texture to correlate; such
#: two are alike if their mean levels differ by no more than this.
_FLAT_LEVELS = 2.0

#: Thumbnails made coarse at a time: 16 MB.
_ROWS = 1024

_WAVES: NDArray[np.float64] = np.cos(
    np.pi
    * np.arange(1, _BLOCK + 1)[:, None]
    * (2 * np.arange(_SIDE_PX)[None, :] + 1)
    / (2 * _SIDE_PX)
)  # (8, 32)


class Fingerprint(NamedTuple):
    """What is kept of a picture to compare it with others."""

    #: The 64-bit perceptual hash.
    bits: int
    #: 64 × 64 grey levels, row by row.
    thumbnail: bytes


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """The fingerprints of n pictures.

    Attributes:
        bits: (n,) perceptual hashes.
        thumbnails: (n, 4096) grey levels, 64 × 64 row by row.
        coarse: (n, 256) grey levels, 16 × 16.
    """

    bits: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]
    coarse: NDArray[np.uint8]

    def of(self, places: NDArray[np.intp]) -> Fingerprints:
        """Those of the pictures at (m,) indices."""
        return Fingerprints(self.bits[places], self.thumbnails[places], self.coarse[places])


def fingerprint(grey: Image.Image) -> Fingerprint:
    """Hash and thumbnail of an upright picture of mode L; both forget its size and aspect."""
    small = grey.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BILINEAR)
    levels = np.asarray(small, dtype=np.float64)  # (32, 32)
    # Rounding keeps the noise of floating point out of pictures without texture.
    block = np.round(_WAVES @ levels @ _WAVES.T, 3)  # (8, 8)
    bits = np.packbits(block > np.median(block)).tobytes()
    thumbnail = grey.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BILINEAR)
    return Fingerprint(int.from_bytes(bits, "big"), thumbnail.tobytes())


def stack(prints: Iterable[Fingerprint]) -> Fingerprints:
    """Fingerprints as arrays."""
    bits, thumbnails = [], bytearray()
    for each in prints:
        bits.append(each.bits)
        thumbnails += each.thumbnail
    n = len(bits)
    fine = np.frombuffer(thumbnails, dtype=np.uint8).reshape(n, THUMBNAIL_PX**2)
    coarse = np.empty((n, _COARSE_PX**2), np.uint8)
    block = THUMBNAIL_PX // _COARSE_PX
    for start in range(0, n, _ROWS):
        part = fine[start : start + _ROWS].reshape(-1, _COARSE_PX, block, _COARSE_PX, block)
        means = np.rint(part.mean(axis=(2, 4), dtype=np.float32))
        coarse[start : start + _ROWS] = means.reshape(len(part), -1)
    return Fingerprints(np.array(bits, dtype=np.uint64), fine, coarse)


def are_alike(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(k,) which pairs of coarse thumbnails, (k, 256) grey levels each, may show one picture.

    Those that correlate, or that are both flat and equally bright: correlation does not see a
    change of brightness or contrast.
    """
    first, second = left.astype(np.float32), right.astype(np.float32)
    first_mean, second_mean = first.mean(axis=1), second.mean(axis=1)
    first -= first_mean[:, None]
    second -= second_mean[:, None]
    first_std = np.sqrt((first**2).mean(axis=1))
    second_std = np.sqrt((second**2).mean(axis=1))
    product = (first * second).mean(axis=1)
    correlate = product >= _MIN_CORRELATION * np.maximum(first_std * second_std, 1e-6)
    is_flat = np.maximum(first_std, second_std) < _FLAT_LEVELS
    is_level = np.abs(first_mean - second_mean) <= _FLAT_LEVELS
    has_texture = np.minimum(first_std, second_std) >= _FLAT_LEVELS
    alike: NDArray[np.bool_] = (is_flat & is_level) | (has_texture & correlate)
    return alike
