"""Exact and near duplicates, against the slow and obvious way."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data import duplicates
from pipelines.data.duplicates import drop_exact, join_groups, linked_by_copies, near_pairs
from pipelines.data.fingerprints import Fingerprints
from pipelines.data.manifest import Record

THUMBNAIL = np.arange(256, dtype=np.uint8)


def prints_of(bits: list[int]) -> Fingerprints:
    """Pictures that all look alike, so that the hash alone decides."""
    thumbnails = np.tile(THUMBNAIL, (len(bits), 1))
    return Fingerprints(np.array(bits, dtype=np.uint64), thumbnails)


def records_of(groups: list[str], labels: list[str] | None = None) -> list[Record]:
    labels = labels or ["a"] * len(groups)
    return [
        Record(f"{index:03d}.png", label, group)
        for index, (label, group) in enumerate(zip(labels, groups, strict=True))
    ]


def all_pairs(prints: Fingerprints, max_bits: int) -> set[tuple[int, int]]:
    found = set()
    for left, right in near_pairs(prints, max_bits, lambda i, j: np.ones(len(i), dtype=bool)):
        found.update(zip(left.tolist(), right.tolist(), strict=True))
    return found


#: Hashes that are a few flipped bits away from few others: pairs near every threshold.
HASHES = st.lists(
    st.builds(
        lambda base, flips: base ^ sum({1 << flip for flip in flips}),
        st.sampled_from([0, 2**64 - 1, 0x0F0F_3C3C_AAAA_5555]),
        st.lists(st.integers(0, 63), max_size=12),
    ),
    max_size=30,
)


@given(HASHES, st.integers(0, 16))
def test_near_pairs_are_those_of_the_double_loop(bits: list[int], max_bits: int) -> None:
    expected = {
        (i, j)
        for i, j in itertools.combinations(range(len(bits)), 2)
        if (bits[i] ^ bits[j]).bit_count() <= max_bits
    }
    assert all_pairs(prints_of(bits), max_bits) == expected


def test_near_pairs_across_tiles_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_TILE_ROWS", 4)
    monkeypatch.setattr(duplicates, "_TILE_COLUMNS", 6)
    monkeypatch.setattr(duplicates, "_THUMBNAIL_PAIRS", 3)
    prints = prints_of([7] * 21)
    blocks = list(near_pairs(prints, 0, lambda i, j: np.ones(len(i), dtype=bool)))
    pairs = [pair for left, right in blocks for pair in zip(left, right, strict=True)]
    assert len(pairs) == len(set(pairs)) == 21 * 20 // 2
    assert all(i < j for i, j in pairs)
    assert max(len(left) for left, _ in blocks) <= 3


def test_colliding_hashes_of_different_pictures_are_no_pair() -> None:
    prints = prints_of([5, 5])
    prints.thumbnails[1] = np.random.default_rng(0).permutation(THUMBNAIL)
    assert all_pairs(prints, 16) == set()


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


@given(HASHES.filter(bool), st.integers(0, 8), st.randoms(use_true_random=False))
def test_joined_groups_are_the_connected_components(
    bits: list[int], max_bits: int, draw: random.Random
) -> None:
    groups = [f"g{draw.randrange(len(bits)):02d}" for _ in bits]
    records, prints = records_of(groups), prints_of(bits)
    pairs = all_pairs(prints, max_bits)
    same = {
        (i, j) for i, j in itertools.combinations(range(len(bits)), 2) if groups[i] == groups[j]
    }
    root = components(len(bits), pairs | same)
    joined = join_groups(records, prints, max_bits)
    for i, j in itertools.combinations(range(len(bits)), 2):
        assert (joined.groups[i] == joined.groups[j]) == (root[i] == root[j])
    assert joined.n_absorbed == len(set(groups)) - len(set(joined.groups))
    # The name of a joined group is one of its own, the first.
    for index, name in enumerate(joined.groups):
        assert name == min(groups[i] for i in range(len(bits)) if root[i] == root[index])

    order = list(range(len(bits)))
    draw.shuffle(order)
    mixed = join_groups(
        [records[i] for i in order],
        Fingerprints(prints.bits[order], prints.thumbnails[order]),
        max_bits,
    )
    assert [mixed.groups[order.index(i)] for i in range(len(bits))] == list(joined.groups)


def test_near_duplicates_with_different_labels_are_reported() -> None:
    records = records_of(["g", "g", "h", "i"], ["a", "b", "b", "a"])
    joined = join_groups(records, prints_of([0, 1, 3, 2**60 - 1]), 2)
    # 0-1 within a group, 0-2 across groups; 1-2 agree in their label.
    assert joined.n_conflicts == 2
    assert joined.conflicts == (("000.png", "001.png"), ("000.png", "002.png"))
    assert joined.groups == ("g", "g", "g", "i")
    assert (joined.n_joined, joined.n_absorbed) == (1, 1)


def test_many_conflicts_are_counted_and_few_are_listed() -> None:
    records = records_of([str(i) for i in range(20)], ["a", "b"] * 10)
    joined = join_groups(records, prints_of([0] * 20), 4)
    assert joined.n_conflicts == 100
    assert len(joined.conflicts) == 20


def test_groups_linked_by_copies_are_joined_even_through_one_that_is_gone() -> None:
    records = records_of(["h", "i"])
    joined = join_groups(records, prints_of([0, 2**32 - 1]), 4, [("g", "h"), ("g", "i")])
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


def test_a_clique_of_thousands_is_joined() -> None:
    # All at once flat (one clique) and random: the two ends of what can come.
    n = 12_000
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**63, n, dtype=np.uint64)
    bits[: n // 2] = 0
    thumbnails = np.tile(THUMBNAIL, (n, 1))
    records = [Record(f"{index:05d}.png", "a", str(index)) for index in range(n)]
    joined = join_groups(records, Fingerprints(bits, thumbnails), 4)
    assert joined.n_absorbed >= n // 2 - 1
    assert joined.groups.count(joined.groups[0]) >= n // 2
