"""Pixels in a fixed order: plain views, random ones, and what calibrates int8."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.config.view import AugmentParams
from pipelines.data.images import open_image
from pipelines.data.loaders import Pictures, calibration_batches, draw_seed, stratified_sample
from pipelines.data.manifest import Entry, in_split, read_manifest
from pipelines.data.preprocess import MASK_VALUE, Preprocess, View
from pipelines.data.workers import ordered_map
from pipelines.errors import CorruptImageError
from tests.image_files import stored
from tests.tiny_params import PARAMS

AUGMENT = AugmentParams.model_validate(PARAMS["augment"])


@pytest.fixture
def pictures(tiny_project) -> Pictures:
    files = tiny_project.task("tiny")
    entries = in_split(read_manifest(files.manifest), "train")
    return Pictures(files.raw_dir, entries, Preprocess(36, 32), AUGMENT, 5)


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
    np.testing.assert_array_equal(got, expected * 3)


def test_without_an_augmentation_there_are_plain_views_only(pictures):
    entry = pictures.entries[0]
    val = Pictures(pictures.raw_dir, pictures.entries, pictures.preprocess, None, 99)
    assert np.array_equal(val.plain(entry), pictures.plain(entry))
    assert np.array_equal(val.views(entry, [])[0], val.plain(entry))
    with pytest.raises(ValueError, match="no augmentation"):
        val.views(entry, [1])


def test_draw_seed_differs_by_each_part_and_has_32_bits():
    seeds = {
        draw_seed(seed, path, view)
        for seed in range(5)
        for path in ("a/1.png", "a/2.png", "b/1.png")
        for view in range(10)
    }
    assert len(seeds) == 150
    assert 0 <= min(seeds) <= max(seeds) < 2**32


@pytest.mark.parametrize("batch_size", [1, 5, 12, 50])
def test_batches_are_all_plain_views_in_order(batch_size, pictures):
    batches = list(pictures.batches(batch_size))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= batch_size
    expected = np.stack([pictures.plain(entry) for entry in pictures.entries])
    assert np.array_equal(np.concatenate(batches), expected)
    assert list(replace(pictures, entries=[]).batches(batch_size)) == []


def test_picture_that_vanished_is_named(pictures):
    gone = replace(pictures.entries[0], path="red_tile/gone.png")
    with pytest.raises(CorruptImageError, match=r"gone\.png"):
        pictures.plain(gone)


def test_turned_photograph_is_upright_in_both_kinds_of_view(tmp_path):
    upright = Image.new("RGB", (48, 96))
    upright.paste((255, 255, 255), (0, 0, 48, 48))
    lying, exif = stored(upright, 6)
    lying.save(tmp_path / "turned.png", exif=exif)
    entry = Entry("turned.png", "a", "g", "", "train", "0" * 64, 96, 48)
    off = AUGMENT.model_copy(
        update=dict.fromkeys(set(AugmentParams.model_fields) - {"min_area", "max_aspect"}, 0)
        | {"min_area": 1.0, "max_aspect": 1.0}
    )
    pictures = Pictures(tmp_path, [entry], Preprocess(32, 32), off, 0)
    plain, view = pictures.views(entry, [1])
    for pixels in (plain, view):
        assert pixels[4].mean() > 200
        assert pixels[-5].mean() < 50


# -- what calibrates int8 --------------------------------------------------------------------------
def entries_of(counts: list[int]) -> list[Entry]:
    return [
        Entry(f"{label}/{n}.png", f"l{label}", f"{label}-{n}", "", "train", "0" * 64, 9, 9)
        for label, count in enumerate(counts)
        for n in range(count)
    ]


COUNTS = st.lists(st.integers(1, 15), min_size=2, max_size=5)


@settings(deadline=None)
@given(COUNTS, st.integers(0, 60), st.integers(0, 2**32 - 1), st.randoms(use_true_random=False))
def test_sample_is_stratified_seeded_and_without_regard_to_order(counts, n_images, seed, random):
    entries = entries_of(counts)
    chosen = stratified_sample(entries, n_images, seed)
    assert len(chosen) == min(n_images, len(entries))
    assert len({entry.path for entry in chosen}) == len(chosen)
    assert [entry.path for entry in chosen] == sorted(entry.path for entry in chosen)
    taken = Counter(entry.label for entry in chosen)
    have = Counter(entry.label for entry in entries)
    # A label that has more to give lags behind no other by more than one.
    for label in have:
        if taken[label] < have[label]:
            assert taken[label] >= max(taken.values(), default=0) - 1
    shuffled = list(entries)
    random.shuffle(shuffled)
    assert stratified_sample(shuffled, n_images, seed) == chosen


def test_another_seed_is_another_sample():
    entries = entries_of([30, 30])
    samples = {tuple(e.path for e in stratified_sample(entries, 10, seed)) for seed in range(5)}
    assert len(samples) == 5
    assert stratified_sample([], 10, 0) == []


def test_a_larger_sample_holds_the_smaller_one():
    entries = entries_of([30, 30])
    small = stratified_sample(entries, 10, 3)
    assert set(small) < set(stratified_sample(entries, 20, 3))


@pytest.mark.parametrize("n_images", [3, 12])
def test_calibration_is_by_plain_views_of_the_sample(n_images, pictures):
    chosen = stratified_sample(pictures.entries, n_images, 1)
    batches = calibration_batches(replace(pictures, entries=chosen))
    assert all(len(batch) <= 16 for batch in batches)
    expected = np.stack([pictures.plain(entry) for entry in chosen])
    assert np.array_equal(np.concatenate(batches), expected)
