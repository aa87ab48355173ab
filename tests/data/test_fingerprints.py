"""Perceptual hash and thumbnail: what they do not forgive; for what they do, see duplicates."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipelines.data.fingerprints import Fingerprint, are_alike, fingerprint, stack


def scene(seed: int, side_px: int = 128) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side_px, side_px), Image.Resampling.BICUBIC)


def distance(one: Image.Image, other: Image.Image) -> int:
    return (fingerprint(one).bits ^ fingerprint(other).bits).bit_count()


def alike(one: Image.Image, other: Image.Image) -> bool:
    prints = stack([fingerprint(one), fingerprint(other)])
    return bool(are_alike(prints.coarse[:1], prints.coarse[1:])[0])


def test_other_pictures_are_far() -> None:
    for seed in range(20):
        one, other = scene(seed), scene(seed + 100)
        assert distance(one, other) > 12
        assert not alike(one, other)


def test_a_turned_picture_is_another() -> None:
    turned = scene(1).transpose(Image.Transpose.ROTATE_90)
    assert distance(scene(1), turned) > 12


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [(0, 0, True), (200, 201, True), (0, 255, False), (90, 110, False)],
)
def test_flat_pictures_are_told_apart_by_their_level(one: int, other: int, expected: bool) -> None:
    # Their hashes collide, which is why the thumbnails are asked.
    flat = [Image.new("L", (64, 64), level) for level in (one, other)]
    assert distance(*flat) == 0
    assert alike(*flat) == expected


def test_flat_and_textured_are_not_alike() -> None:
    assert not alike(Image.new("L", (64, 64), 128), scene(3))


def test_hash_is_pinned() -> None:
    # One wave, of two periods down and three across: by hand, coefficient (2, 3) and no other.
    y, x = np.mgrid[0:32, 0:32]
    wave = np.cos(np.pi * 2 * (2 * y + 1) / 64) * np.cos(np.pi * 3 * (2 * x + 1) / 64)
    grey = Image.fromarray(np.rint(127.5 + 120 * wave).astype(np.uint8))
    bits = fingerprint(grey).bits
    # Row 2 and column 3, counted from 1 and from the highest bit.
    assert bits >> (63 - (1 * 8 + 2)) & 1
    inverse = fingerprint(Image.fromarray(255 - np.asarray(grey))).bits
    assert not inverse >> (63 - (1 * 8 + 2)) & 1


def test_stack_of_nothing_is_empty() -> None:
    assert stack([]).thumbnails.shape == (0, 4096)
    assert stack([]).coarse.shape == (0, 256)


def test_coarse_thumbnails_are_means_of_blocks() -> None:
    rows = np.random.default_rng(0).integers(0, 256, (1500, 64, 64), dtype=np.uint8)
    prints = stack(Fingerprint(2**64 - 1, row.tobytes()) for row in rows)
    assert prints.bits[7] == 2**64 - 1
    assert np.array_equal(prints.thumbnails, rows.reshape(1500, -1))
    for index in (0, 1023, 1024, 1499):
        block = rows[index, 8:12, 20:24]
        assert prints.coarse[index].reshape(16, 16)[2, 5] == round(float(block.mean()))
    some = prints.of(np.array([3, 1]))
    assert np.array_equal(some.thumbnails[1], prints.thumbnails[1])
