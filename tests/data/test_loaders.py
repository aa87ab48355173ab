from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.config.view import AugmentParams
from pipelines.data.images import open_image
from pipelines.data.loaders import Pictures, draw_seed
from pipelines.data.manifest import in_split, read_manifest
from pipelines.data.preprocess import MASK_VALUE, Preprocess, View
from pipelines.data.workers import ordered_map
from pipelines.errors import CorruptImageError

AUGMENT = AugmentParams(
    min_area=0.5,
    max_aspect=1.3,
    horizontal_flip=True,
    vertical_flip=False,
    rotate_deg=10,
    brightness=0.2,
    contrast=0.2,
    saturation=0.2,
    hue=0.02,
    blur=0.2,
    noise=0.2,
    jpeg=0.2,
)


@pytest.fixture
def pictures(tiny_project) -> Pictures:
    files = tiny_project.task("tiny")
    entries = in_split(read_manifest(files.manifest), "train")
    return Pictures(files.raw_dir, entries, Preprocess(36, 32), AUGMENT, 5)


# -- pictures -------------------------------------------------------------------------------------
def test_plain_is_the_preprocessing_alone(pictures):
    for entry in pictures.entries:
        image = open_image(pictures.raw_dir / entry.path, name=entry.path).rgb
        assert np.array_equal(pictures.plain(entry), pictures.preprocess(image))


def test_views_have_taken_away_what_the_plain_one_has(pictures):
    preprocess = Preprocess(36, 32, View(grey=True, side_px=24, border_mask=0.125))
    seen = replace(pictures, preprocess=preprocess)
    for entry in seen.entries:
        views = seen.views(entry, [1, 2, 3])
        assert views.shape == (4, 32, 32, 3)
        assert np.array_equal(views[0], seen.plain(entry))
        assert (views == views[..., :1]).all()
        assert (views[:, :4] == MASK_VALUE).all()
        assert (views[:, :, -4:] == MASK_VALUE).all()
        assert len({view.tobytes() for view in views}) == 4


def test_plain_depends_on_neither_seed_nor_augmentation(pictures):
    entry = pictures.entries[0]
    other = Pictures(pictures.raw_dir, pictures.entries, pictures.preprocess, None, 99)
    assert np.array_equal(pictures.plain(entry), other.plain(entry))
    assert np.array_equal(other.views(entry, [])[0], other.plain(entry))


def test_views_are_the_plain_one_and_random_ones(pictures):
    entry = pictures.entries[0]
    got = pictures.views(entry, [1, 2])
    assert got.shape == (3, 32, 32, 3)
    assert got.dtype == np.uint8
    assert np.array_equal(got[0], pictures.plain(entry))
    assert not np.array_equal(got[1], got[2])
    assert np.array_equal(pictures.views(entry, [2, 1], plain=False), got[[2, 1]])


def test_views_are_those_of_seed_path_and_number(pictures):
    first, second = pictures.entries[:2]
    again = Pictures(pictures.raw_dir, pictures.entries, pictures.preprocess, AUGMENT, 5)
    # In another order, on another object.
    other = again.views(second, [4])[1]
    assert np.array_equal(again.views(first, [4])[1], pictures.views(first, [4])[1])
    assert np.array_equal(other, pictures.views(second, [4])[1])
    reseeded = Pictures(pictures.raw_dir, pictures.entries, pictures.preprocess, AUGMENT, 6)
    assert not np.array_equal(reseeded.views(first, [4])[1], pictures.views(first, [4])[1])


def test_views_are_the_same_from_many_threads(pictures):
    expected = [pictures.views(entry, [1, 2]) for entry in pictures.entries]
    items = list(pictures.entries) * 3
    got = list(ordered_map(lambda entry: pictures.views(entry, [1, 2]), items, window=8))
    for index, views in enumerate(got):
        assert np.array_equal(views, expected[index % len(expected)])


def test_random_views_without_an_augmentation_are_refused(pictures):
    val = Pictures(pictures.raw_dir, pictures.entries, pictures.preprocess, None, 5)
    with pytest.raises(ValueError, match="no augmentation"):
        val.views(val.entries[0], [1])


@given(st.integers(0, 2**32 - 1), st.text(max_size=20), st.integers(0, 64))
def test_draw_seed_is_a_32_bit_number(seed, path, view):
    assert 0 <= draw_seed(seed, path, view) < 2**32


def test_draw_seed_differs_by_each_part():
    seeds = {
        draw_seed(seed, path, view)
        for seed in range(5)
        for path in ("a/1.png", "a/2.png", "b/1.png")
        for view in range(10)
    }
    assert len(seeds) == 150


@pytest.mark.parametrize("batch_size", [1, 5, 12, 50])
def test_batches_are_all_plain_views_in_order(batch_size, pictures):
    batches = list(pictures.batches(batch_size))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= batch_size
    expected = np.stack([pictures.plain(entry) for entry in pictures.entries])
    assert np.array_equal(np.concatenate(batches), expected)


def test_no_entries_are_no_batches(pictures):
    empty = Pictures(pictures.raw_dir, [], pictures.preprocess, None, 5)
    assert list(empty.batches(4)) == []


def test_picture_that_vanished_is_named(pictures):
    gone = replace(pictures.entries[0], path="red_tile/gone.png")
    with pytest.raises(CorruptImageError, match=r"gone\.png"):
        pictures.plain(gone)


def test_turned_photograph_is_upright_in_both_kinds_of_view(tmp_path):
    pixels = np.zeros((48, 96, 3), dtype=np.uint8)
    pixels[:, :48] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    from pipelines.data.manifest import Entry

    entry = Entry("turned.png", "a", "g", "", "train", "0" * 64, 96, 48)
    off = AUGMENT.model_copy(
        update=dict.fromkeys(
            ("rotate_deg", "brightness", "contrast", "saturation", "hue", "blur", "noise", "jpeg"),
            0.0,
        )
        | {"min_area": 1.0, "max_aspect": 1.0, "horizontal_flip": False}
    )
    pictures = Pictures(tmp_path, [entry], Preprocess(32, 32), off, 0)
    plain, view = pictures.views(entry, [1])
    # The white half was left; a quarter turn to the right brings it up.
    for upright in (plain, view):
        assert upright[4].mean() > 200
        assert upright[-5].mean() < 50
