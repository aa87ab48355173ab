"""Splits: a partition by whole groups, stratified, the same for one seed; and the leak check."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.duplicates import Indices
from pipelines.data.manifest import SPLITS, Entry
from pipelines.data.splits import assign_splits, check_leaks, in_two_splits
from pipelines.errors import DataError, LeakageError

Image = tuple[str, str]


def split_images(images: list[Image], seed: int = 0, share: float = 0.2) -> list[str]:
    labels, groups = zip(*images, strict=True)
    strata = [(label,) for label in labels]
    return list(assign_splits(strata, groups, val_fraction=share, test_fraction=share, seed=seed))


def images_of(**sizes: list[int]) -> list[Image]:
    """Images by label and the sizes of its groups."""
    return [
        (label, f"{label}{index}")
        for label, of_label in sizes.items()
        for index, size in enumerate(of_label)
        for _ in range(size)
    ]


SIZES = st.lists(st.integers(1, 12), min_size=3, max_size=25)


@given(SIZES, SIZES, st.integers(0, 2**32 - 1), st.randoms(use_true_random=False))
def test_split_is_a_partition_by_groups_that_does_not_depend_on_order(
    first: list[int], second: list[int], seed: int, draw: random.Random
) -> None:
    images = images_of(a=first, b=second)
    splits = split_images(images, seed)
    assert set(splits) <= set(SPLITS)
    assert len(splits) == len(images)
    of_group: dict[str, set[str]] = {}
    for (_, group), split in zip(images, splits, strict=True):
        of_group.setdefault(group, set()).add(split)
    assert all(len(found) == 1 for found in of_group.values())
    for label in "ab":
        assert {s for (found, _), s in zip(images, splits, strict=True) if found == label} == set(
            SPLITS
        )

    order = list(range(len(images)))
    draw.shuffle(order)
    mixed = split_images([images[index] for index in order], seed)
    assert [mixed[order.index(index)] for index in range(len(images))] == splits


@given(SIZES.filter(lambda sizes: len(sizes) >= 10), st.sampled_from([0.1, 0.2, 0.3]))
def test_each_label_is_near_its_fractions(sizes: list[int], share: float) -> None:
    images = images_of(a=sizes, b=[1] * 40)
    splits = split_images(images, share=share)
    counts = Counter(zip((label for label, _ in images), splits, strict=True))
    for label, total in Counter(label for label, _ in images).items():
        # Whole groups: no nearer than the largest one allows.
        slack = max(sizes) if label == "a" else 1
        for split, wanted in zip(SPLITS, (1 - 2 * share, share, share), strict=True):
            assert abs(counts[label, split] - wanted * total) <= slack


@st.composite
def mixed_groups(draw: st.DrawFn) -> list[Image]:
    """Groups that hold several labels, as a patient with two findings does."""
    images = [(label, f"{label}{index}") for label in "abc" for index in range(6)]
    for index in range(draw(st.integers(1, 10))):
        for label in draw(st.sets(st.sampled_from("abc"), min_size=2)):
            images += [(label, f"mixed{index}")] * draw(st.integers(1, 4))
    return images


@given(mixed_groups(), st.integers(0, 1000))
def test_group_of_several_labels_stays_in_one_split(images: list[Image], seed: int) -> None:
    splits = split_images(images, seed)
    found = {(group, split) for (_, group), split in zip(images, splits, strict=True)}
    assert len(found) == len({group for _, group in images})
    assert {(label, s) for (label, _), s in zip(images, splits, strict=True)} == set(
        itertools.product("abc", SPLITS)
    )


def test_same_seed_same_split_and_another_seed_another() -> None:
    images = images_of(a=[2] * 30, b=[2] * 30)
    assert split_images(images, 1) == split_images(images, 1)
    assert split_images(images, 1) != split_images(images, 2)


@pytest.mark.parametrize(
    ("sizes", "counts"),
    [
        ([10, 10, 10], (10, 10, 10)),
        ([100, 1, 1], (100, 1, 1)),
        ([1] * 10, (6, 2, 2)),
        ([5, 5, 5, 5], (10, 5, 5)),
    ],
)
def test_small_classes_are_in_every_split(sizes: list[int], counts: tuple[int, ...]) -> None:
    images = images_of(a=sizes, b=[1] * 10)
    splits = split_images(images)
    found = Counter(s for (label, _), s in zip(images, splits, strict=True) if label == "a")
    assert tuple(found[split] for split in SPLITS) == counts


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (images_of(a=[1], b=[1] * 9), r"class 'a' has 1 group\(s\) with 1 image\(s\)"),
        (images_of(a=[50, 50], b=[1] * 9), r"'a' has 2 group\(s\) with 100 .* at least 3 groups"),
        # a and b share the same three groups, c takes two of them and one of its own.
        (
            [(label, group) for label in "ab" for group in "xyz"]
            + [("c", "x"), ("d", "x"), ("c", "y"), ("d", "z"), ("c", "w"), ("d", "w")],
            "cannot be in",
        ),
    ],
)
def test_what_cannot_be_split_is_refused(images: list[Image], message: str) -> None:
    strata, groups = [(label,) for label, _ in images], [group for _, group in images]
    with pytest.raises(DataError, match=message) as caught:
        assign_splits(strata, groups, val_fraction=0.2, test_fraction=0.2, seed=0)
    assert "classes" in str(caught.value)
    assert "\n" not in str(caught.value)


def manifest() -> list[Entry]:
    return [
        Entry(f"{i}.png", "a", f"g{i // 2}", "", SPLITS[i // 4], f"{i:064x}", 9, 9)
        for i in range(12)
    ]


def pairs(*found: tuple[int, int]) -> Indices:
    return np.array(found, np.intp).reshape(-1, 2)


def with_(entries: list[Entry], place: int, **changes: str) -> list[Entry]:
    entries[place] = replace(entries[place], **changes)
    return entries


def test_clean_manifest_passes_the_leak_check() -> None:
    check_leaks(manifest(), pairs((0, 3), (4, 7)))
    check_leaks(manifest(), pairs())


@pytest.mark.parametrize(
    ("entries", "near", "message"),
    [
        (with_(manifest(), 11, split="train"), [], r"1 group\(s\).*'g5' in test and train"),
        # Many: three are named, and all are counted.
        (
            [replace(each, split=SPLITS[i % 2]) for i, each in enumerate(manifest())],
            [],
            r"6 group\(s\).*'g0'.*'g1'.*'g2' in [^']*Expected",
        ),
        (
            with_(manifest(), 11, sha256=manifest()[0].sha256),
            [],
            r"1 file content\(s\).*test and train",
        ),
        (
            manifest(),
            [(0, 3), (0, 11)],
            r"1 near-duplicate pair\(s\).*'0.png' \(train\) and '11.png' \(test\)",
        ),
    ],
    ids=["group", "many groups", "bytes", "near duplicate"],
)
def test_what_stands_in_two_splits_is_a_leak(
    entries: list[Entry], near: list[tuple[int, int]], message: str
) -> None:
    with pytest.raises(LeakageError, match=message):
        check_leaks(entries, pairs(*near))


def test_pairs_that_stand_in_two_splits_are_told() -> None:
    found = in_two_splits(manifest(), pairs((0, 3), (3, 4), (8, 11)))
    assert found.tolist() == [False, True, False]
