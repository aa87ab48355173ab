"""Exact copies, and what becomes of groups whose images look alike."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.duplicates import drop_exact, is_stated, join_groups, linked_by_copies
from pipelines.data.fingerprints import Fingerprint, Fingerprints, stack
from pipelines.data.manifest import Record

PICTURE = (
    np.random.default_rng(0).integers(40, 216, (8, 8), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
)


def prints_of(bits: list[int]) -> Fingerprints:
    """One picture stored many times, so that the hash alone decides."""
    return stack(Fingerprint(each, PICTURE.tobytes()) for each in bits)


def records_of(groups: list[str], labels: list[str] | None = None) -> list[Record]:
    """Records; a group of "" is one that nobody stated."""
    labels = labels or ["a"] * len(groups)
    return [
        Record(f"{index:03d}.png", label, group or f"{index:03d}.png")
        for index, (label, group) in enumerate(zip(labels, groups, strict=True))
    ]


#: Hashes that are a few flipped bits away from few others: pairs near every threshold. Too few
#: images for a scene.
HASHES = st.lists(
    st.builds(
        lambda base, flips: base ^ sum({1 << flip for flip in flips}),
        st.sampled_from([0, 2**64 - 1]),
        st.lists(st.integers(0, 63), max_size=8),
    ),
    min_size=1,
    max_size=5,
)


def components(n: int, pairs: set[tuple[int, int]]) -> list[int]:
    root = list(range(n))
    changed = True
    while changed:
        changed = False
        for i, j in pairs:
            low = min(root[i], root[j])
            changed |= root[i] != low or root[j] != low
            root[i] = root[j] = low
    return root


@given(HASHES, st.integers(0, 8), st.randoms(use_true_random=False))
def test_images_without_a_stated_group_are_joined_to_components(
    bits: list[int], max_bits: int, draw: random.Random
) -> None:
    records, prints = records_of([""] * len(bits)), prints_of(bits)
    pairs = {
        (i, j)
        for i, j in itertools.combinations(range(len(bits)), 2)
        if (bits[i] ^ bits[j]).bit_count() <= max_bits
    }
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


@given(HASHES, st.integers(0, 8), st.data())
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


def test_conflict_names_a_copy_with_another_label() -> None:
    records = records_of(["g"] * 3, ["a", "a", "b"])
    reasons = [drop.reason for drop in drop_exact(records, ["1"] * 3)]
    assert reasons == [
        "conflicting labels: the same bytes as '002.png' (b)",
        "conflicting labels: the same bytes as '002.png' (b)",
        "conflicting labels: the same bytes as '000.png' (a)",
    ]


def test_copies_link_their_groups() -> None:
    records = records_of(["g", "h", "g", "i"])
    assert linked_by_copies(records, ["1", "1", "1", "2"]) == [("g", "h")]
