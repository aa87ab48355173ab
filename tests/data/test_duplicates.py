"""Exact copies; what is one picture and what one scene, in bounded time; the groups that follow."""

from __future__ import annotations

import itertools
import random
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from pipelines.data import duplicates
from pipelines.data.duplicates import (
    drop_exact,
    find,
    is_stated,
    join_groups,
    linked_by_copies,
    near_pairs,
)
from pipelines.data.fingerprints import GLANCE_PX, Fingerprint, Fingerprints, fingerprint, stack
from pipelines.data.images import glance
from pipelines.data.manifest import SPLITS, Record
from tests.data.fixed_camera import CAMERAS, jpeg, part

MAX_BITS = 4
PICTURE = (
    np.random.default_rng(0).integers(40, 216, (8, 8), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
)


def prints_of(bits: list[int]) -> Fingerprints:
    """One picture stored many times, so that the hash alone decides."""
    return stack(Fingerprint(each, PICTURE.tobytes()) for each in bits)


def hashes(max_size: int, min_size: int = 0) -> st.SearchStrategy[list[int]]:
    """Hashes that are a few flipped bits away from few others: pairs near every threshold."""
    base, flip = st.sampled_from([0, 2**64 - 1, 0x0F0F_3C3C_AAAA_5555]), st.integers(0, 63)
    near = st.builds(
        lambda base, flips: base ^ sum({1 << flip for flip in flips}),
        base,
        st.lists(flip, max_size=12),
    )
    return st.lists(near, min_size=min_size, max_size=max_size)


def pairs_within(bits: list[int], max_bits: int) -> set[tuple[int, int]]:
    return {
        (i, j)
        for i, j in itertools.combinations(range(len(bits)), 2)
        if (bits[i] ^ bits[j]).bit_count() <= max_bits
    }


# -- exact copies ---------------------------------------------------------------------------------
def records_of(groups: list[str], labels: list[str] | None = None) -> list[Record]:
    """Records; a group of "" is one that nobody stated."""
    labels = labels or ["a"] * len(groups)
    return [
        Record(f"{index:03d}.png", label, group or f"{index:03d}.png")
        for index, (label, group) in enumerate(zip(labels, groups, strict=True))
    ]


@pytest.mark.parametrize(
    ("labels", "sha256s", "dropped"),
    [
        (["a", "a", "a"], ["1", "2", "3"], {}),
        (["a", "a", "a"], ["1", "2", "1"], {2: "exact duplicate of '000.png'"}),
        (["a", "a", "a"], ["1", "1", "1"], {1: "exact duplicate", 2: "exact duplicate"}),
        (
            ["a", "b", "a"],
            ["1", "1", "1"],
            {
                0: "conflicting labels: the same bytes as '001.png' (b)",
                1: "conflicting labels: the same bytes as '000.png' (a)",
                2: "conflicting labels: the same bytes as '001.png' (b)",
            },
        ),
        (
            ["a", "a", "b"],
            ["1", "1", "1"],
            {
                0: "conflicting labels: the same bytes as '002.png' (b)",
                1: "conflicting labels: the same bytes as '002.png' (b)",
                2: "conflicting labels: the same bytes as '000.png' (a)",
            },
        ),
    ],
)
def test_exact_duplicates_are_kept_once_or_not_at_all(
    labels: list[str], sha256s: list[str], dropped: dict[int, str]
) -> None:
    records = records_of(["g"] * 3, labels)
    for order in itertools.permutations(range(3)):
        found = drop_exact([records[i] for i in order], [sha256s[i] for i in order])
        assert {order[drop.index] for drop in found} == set(dropped)
        for drop in found:
            assert drop.reason.startswith(dropped[order[drop.index]])
            assert drop.is_conflict == drop.reason.startswith("conflicting")


def test_of_copies_in_two_parts_the_one_in_test_stays_or_else_the_one_in_val() -> None:
    records = [Record(f"{n}.png", "a", "g", split=split) for n, split in enumerate(SPLITS)]
    assert [each.index for each in drop_exact(records, ["1"] * 3)] == [1, 0]
    assert [each.index for each in drop_exact(records[:2], ["1"] * 2)] == [0]


def test_copies_link_their_groups() -> None:
    records = records_of(["g", "h", "g", "i"])
    assert linked_by_copies(records, ["1", "1", "1", "2"]) == [("g", "h")]


# -- near duplicates ------------------------------------------------------------------------------
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


COPIES = {
    "quality 40": lambda image: jpeg(image, 40),
    "half the size": lambda image: jpeg(image.resize((200, 150), Image.Resampling.LANCZOS)),
    "a third more": lambda image: jpeg(image.resize((532, 399), Image.Resampling.BICUBIC)),
    "darker": lambda image: jpeg(ImageEnhance.Brightness(image).enhance(0.8)),
    "less contrast": lambda image: jpeg(ImageEnhance.Contrast(image).enhance(0.8)),
    "another aspect": lambda image: jpeg(image.resize((400, 225))),
    "cropped by 1 %": lambda image: jpeg(image.crop((2, 2, 398, 298))),
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
    root = duplicates.joined(np.arange(2 * n), *np.array(sorted(pairs), np.intp).reshape(-1, 2).T)
    # "clean" has 24 or 23 of 40, by the matrix kernel of the processor.
    assert len(set(root[:n].tolist())) >= 0.55 * n


@pytest.mark.parametrize("name", CAMERAS)
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


@given(hashes(30), st.integers(0, 16))
def test_candidates_are_those_of_the_double_loop(bits: list[int], max_bits: int) -> None:
    found = set()
    blocks = near_pairs(prints_of(bits), max_bits, lambda i, j: np.ones(len(i), dtype=bool))
    for left, right in blocks:
        found.update(zip(left.tolist(), right.tolist(), strict=True))
    assert found == pairs_within(bits, max_bits)


def test_candidates_across_tiles_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_TILE_ROWS", 4)
    monkeypatch.setattr(duplicates, "_TILE_COLUMNS", 6)
    monkeypatch.setattr(duplicates, "_COARSE_PAIRS", 3)
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


# -- groups ---------------------------------------------------------------------------------------
def components(n: int, pairs: set[tuple[int, int]]) -> list[int]:
    root = list(range(n))
    for _, (i, j) in itertools.product(range(n), pairs):
        root[i] = root[j] = min(root[i], root[j])
    return root


#: Too few images for a scene.
FEW_HASHES = hashes(5, min_size=1)


@given(FEW_HASHES, st.integers(0, 8), st.randoms(use_true_random=False))
def test_images_without_a_stated_group_are_joined_to_components(
    bits: list[int], max_bits: int, draw: random.Random
) -> None:
    records, prints = records_of([""] * len(bits)), prints_of(bits)
    pairs = pairs_within(bits, max_bits)
    root = components(len(bits), pairs)
    joined = join_groups(records, prints, max_bits)
    assert {tuple(pair) for pair in joined.pairs.tolist()} == pairs
    assert not joined.is_apart.any()
    assert joined.n_absorbed == len(bits) - len(set(joined.groups))
    # The name of a joined group is one of its own, the first.
    assert joined.groups == tuple(records[index].path for index in root)

    order = list(range(len(bits)))
    draw.shuffle(order)
    mixed = join_groups([records[i] for i in order], prints.of(np.array(order, np.intp)), max_bits)
    assert [mixed.groups[order.index(i)] for i in range(len(bits))] == list(joined.groups)


@given(FEW_HASHES, st.integers(0, 8), st.data())
def test_two_stated_groups_are_never_joined_for_looking_alike(
    bits: list[int], max_bits: int, data: st.DataObject
) -> None:
    groups = [data.draw(st.sampled_from(["", "g", "h", "i"])) for _ in bits]
    records = records_of(groups)
    joined = join_groups(records, prints_of(bits), max_bits)
    for record, group in zip(records, joined.groups, strict=True):
        assert group == record.group or not is_stated(record)
    for (i, j), is_apart in zip(joined.pairs, joined.is_apart, strict=True):
        assert is_apart == (joined.groups[i] != joined.groups[j])
        # Apart only because somebody said so of both sides, perhaps through a third image.
        if is_apart:
            assert {joined.groups[i], joined.groups[j]} <= {"g", "h", "i"}


def test_an_image_that_nobody_stated_joins_the_stated_group() -> None:
    # "a.png" sorts before "g": the stated name is kept all the same.
    records = [Record("a.png", "x", "a.png"), Record("b.png", "x", "g")]
    assert join_groups(records, prints_of([0, 0]), 2).groups == ("g", "g")


def test_a_pair_of_two_stated_groups_is_left_apart_and_told() -> None:
    records = records_of(["g", "h", ""], ["a", "b", "a"])
    joined = join_groups(records, prints_of([0, 0, 2**63 - 1]), 2)
    assert joined.groups == ("g", "h", "002.png")
    assert joined.pairs[joined.is_apart].tolist() == [[0, 1]]
    assert joined.n_conflicts == 1
    assert joined.conflicts == (("000.png", "001.png"),)


@pytest.mark.parametrize(
    ("policy", "groups", "n_apart"),
    [("join", ("000.png",) * 2, 0), ("warn", ("000.png", "001.png"), 1), ("off", None, 0)],
)
def test_the_card_says_what_becomes_of_near_duplicates(policy, groups, n_apart) -> None:
    joined = join_groups(records_of(["", ""]), prints_of([0, 1]), 2, policy=policy)
    assert joined.groups == (groups or ("000.png", "001.png"))
    assert joined.is_apart.sum() == n_apart
    assert len(joined.pairs) == (policy != "off")


def test_near_duplicates_with_different_labels_are_reported() -> None:
    records = records_of(["g", "g", "", "i"], ["a", "b", "b", "a"])
    joined = join_groups(records, prints_of([0, 1, 3, 2**60 - 1]), 2)
    # 0-1 within a group, 0-2 across groups; 1-2 agree in their label.
    assert joined.n_conflicts == 2
    assert joined.conflicts == (("000.png", "001.png"), ("000.png", "002.png"))
    assert joined.groups == ("g", "g", "g", "i")
    assert (joined.n_joined, joined.n_absorbed) == (1, 1)


def test_groups_linked_by_copies_are_joined_even_through_one_that_is_gone() -> None:
    records = records_of(["h", "i"])
    joined = join_groups(
        records,
        prints_of([0, 2**32 - 1]),
        4,
        [("g", "h"), ("g", "i")],
        left_out=[Record("x.png", "a", "g")],
    )
    assert joined.groups == ("g", "g")


def test_a_copy_that_nobody_stated_does_not_make_its_group_stated() -> None:
    # 000 was dropped as a copy of 001; a near duplicate of 001 still joins a stated group.
    records = records_of(["", "", "g"])
    joined = join_groups(
        records[1:], prints_of([0, 1]), 2, [("000.png", "001.png")], left_out=records
    )
    assert joined.groups == ("g", "g")
