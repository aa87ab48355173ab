"""Near duplicates: what is one picture, what is one scene, and that time stays bounded."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from pipelines.data import duplicates as near_duplicates
from pipelines.data.duplicates import find, near_pairs
from pipelines.data.fingerprints import GLANCE_PX, Fingerprint, Fingerprints, fingerprint, stack
from pipelines.data.images import glance
from tests.data.fixed_camera import CAMERAS, jpeg, part

MAX_BITS = 4
THUMBNAIL = bytes(range(256)) * 16


def print_of(data: bytes) -> Fingerprint:
    return fingerprint(glance(data, side_px=GLANCE_PX).grey)


def found_pairs(prints: list[Fingerprint], labels: list[str]) -> set[tuple[int, int]]:
    found = find(stack(prints), labels, MAX_BITS)
    return set(zip(found.left.tolist(), found.right.tolist(), strict=True))


def photograph(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    fine = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    size = (400, 300)
    blended = Image.blend(
        coarse.resize(size, Image.Resampling.BICUBIC),
        fine.resize(size, Image.Resampling.BICUBIC),
        0.3,
    )
    return ImageEnhance.Contrast(blended).enhance(0.8)


def cropped(image: Image.Image, share: float) -> Image.Image:
    x, y = round(image.width * share / 2), round(image.height * share / 2)
    return image.crop((x, y, image.width - x, image.height - y))


COPIES = {
    "quality 40": lambda image: jpeg(image, 40),
    "half the size": lambda image: jpeg(image.resize((200, 150), Image.Resampling.LANCZOS)),
    "a third more": lambda image: jpeg(image.resize((532, 399), Image.Resampling.BICUBIC)),
    "darker": lambda image: jpeg(ImageEnhance.Brightness(image).enhance(0.8)),
    "less contrast": lambda image: jpeg(ImageEnhance.Contrast(image).enhance(0.8)),
    "cropped by 1 %": lambda image: jpeg(cropped(image, 0.01)),
}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_a_copy_is_found_among_other_pictures(copy) -> None:
    images = [photograph(seed) for seed in range(12)]
    prints = [print_of(jpeg(image)) for image in images] + [print_of(copy(images[5]))]
    assert found_pairs(prints, ["a", "b"] * 6 + ["a"]) == {(5, 12)}


@pytest.mark.parametrize("name", CAMERAS)
@pytest.mark.parametrize("n", [10, 40])
def test_parts_under_a_fixed_camera_are_no_near_duplicates(name: str, n: int) -> None:
    rng = np.random.default_rng(4)
    images = [part(CAMERAS[name], rng, i, is_scratched=i >= n) for i in range(2 * n)]
    prints = [print_of(jpeg(image)) for image in images]
    labels = ["fine"] * n + ["scratch"] * n
    pairs = found_pairs(prints, labels)
    # Two that differ to the eye are never taken for one. Two faultless parts in the same place are
    # one picture but for the noise, and are now and then.
    assert all(i < n and j < n for i, j in pairs)
    root = near_duplicates.joined(
        np.arange(2 * n), *np.array(sorted(pairs), np.intp).reshape(-1, 2).T
    )
    assert len(set(root[:n].tolist())) >= 0.6 * n


@pytest.mark.parametrize("name", list(CAMERAS))
def test_a_copy_is_found_among_parts_under_a_fixed_camera(name: str) -> None:
    rng = np.random.default_rng(5)
    images = [part(CAMERAS[name], rng, i, is_scratched=i >= 14) for i in range(28)]
    prints = [print_of(jpeg(image)) for image in images]
    prints.append(print_of(jpeg(images[20], 85)))
    assert (20, 28) in found_pairs(prints, ["fine"] * 14 + ["scratch"] * 15)


def test_a_scene_is_told() -> None:
    rng = np.random.default_rng(6)
    prints = [print_of(jpeg(part(CAMERAS["shaken"], rng, i, i % 2 == 1))) for i in range(20)]
    found = find(stack(prints), ["fine", "scratch"] * 10, MAX_BITS)
    assert [len(members) for members in found.scenes] == [20]


def test_colliding_hashes_of_different_pictures_are_no_pair() -> None:
    prints = [print_of(jpeg(photograph(seed))) for seed in (1, 2)]
    assert found_pairs([each._replace(bits=5) for each in prints], ["a", "a"]) == set()


#: Hashes that are a few flipped bits away from few others: pairs near every threshold.
HASHES = st.lists(
    st.builds(
        lambda base, flips: base ^ sum({1 << flip for flip in flips}),
        st.sampled_from([0, 2**64 - 1, 0x0F0F_3C3C_AAAA_5555]),
        st.lists(st.integers(0, 63), max_size=12),
    ),
    max_size=30,
)


def prints_of(bits: list[int]) -> Fingerprints:
    """Pictures that all look alike, so that the hash alone decides."""
    return stack(Fingerprint(each, THUMBNAIL) for each in bits)


@given(HASHES, st.integers(0, 16))
def test_candidates_are_those_of_the_double_loop(bits: list[int], max_bits: int) -> None:
    expected = {
        (i, j)
        for i, j in itertools.combinations(range(len(bits)), 2)
        if (bits[i] ^ bits[j]).bit_count() <= max_bits
    }
    found = set()
    blocks = near_pairs(prints_of(bits), max_bits, lambda i, j: np.ones(len(i), dtype=bool))
    for left, right in blocks:
        found.update(zip(left.tolist(), right.tolist(), strict=True))
    assert found == expected


def test_candidates_across_tiles_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_TILE_ROWS", 4)
    monkeypatch.setattr(near_duplicates, "_TILE_COLUMNS", 6)
    monkeypatch.setattr(near_duplicates, "_COARSE_PAIRS", 3)
    blocks = list(near_pairs(prints_of([7] * 21), 0, lambda i, j: np.ones(len(i), dtype=bool)))
    pairs = [pair for left, right in blocks for pair in zip(left, right, strict=True)]
    assert len(pairs) == len(set(pairs)) == 21 * 20 // 2
    assert all(i < j for i, j in pairs)
    assert max(len(left) for left, _ in blocks) <= 3


@pytest.mark.slow
@pytest.mark.parametrize("is_scene", [True, False])
def test_time_is_bounded_where_thousands_collide(is_scene: bool) -> None:
    # Every hash collides: once one scene, once pictures that have nothing in common.
    n, rng = 3000, np.random.default_rng(0)
    noise = rng.normal(0, 3, (n, 64, 64)) if is_scene else rng.normal(0, 60, (n, 64, 64))
    common = np.kron(rng.integers(60, 196, (8, 8)), np.ones((8, 8)))
    pixels = np.clip(common + noise, 0, 255).astype(np.uint8)
    prints = stack(Fingerprint(0, each.tobytes()) for each in pixels)
    start = time.perf_counter()
    found = find(prints, ["a"] * n, MAX_BITS)
    assert time.perf_counter() - start < 120
    assert len(found.left) < n
