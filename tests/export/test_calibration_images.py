from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.loaders import Pictures, calibration_batches, stratified_sample
from pipelines.data.manifest import Entry, in_split, read_manifest
from pipelines.data.preprocess import Preprocess


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


def test_a_larger_sample_holds_the_smaller_one():
    entries = entries_of([30, 30])
    small = stratified_sample(entries, 10, 3)
    assert set(small) < set(stratified_sample(entries, 20, 3))


def test_no_entries_are_no_sample():
    assert stratified_sample([], 10, 0) == []


@pytest.mark.parametrize("n_images", [3, 12])
def test_batches_are_plain_views_of_the_sample(n_images, tiny_project):
    files = tiny_project.task("tiny")
    train = in_split(read_manifest(files.manifest), "train")
    chosen = stratified_sample(train, n_images, 1)
    pictures = Pictures(files.raw_dir, chosen, Preprocess(36, 32), None, 1)
    batches = calibration_batches(pictures)
    assert all(len(batch) <= 16 for batch in batches)
    expected = np.stack([pictures.plain(entry) for entry in chosen])
    assert np.array_equal(np.concatenate(batches), expected)
