"""Activations of the frozen trunk, and the phases of both strategies, for one contract."""

from __future__ import annotations

import copy
import os
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from pipelines.errors import ConfigError, CorruptImageError
from pipelines.kinds.classification.train import CrossEntropy, TrainedClassification
from pipelines.training.cached import (
    Slot,
    cached_activations,
    cached_phases,
    plain_slots,
    train_slots,
)
from pipelines.training.fit import fit
from pipelines.training.full import full_phases
from pipelines.training.runtime import Runtime
from tests.training.toy import same

SLOTS = [Slot(0, "fp32"), Slot(1, "fp32"), Slot(2, "fp32")]


@pytest.fixture
def stored(splits, trunk, tmp_path):
    """Makes the activations of the train split; keyword arguments change what is asked for."""

    def make(**changes):
        train = splits[0]
        settings = {
            "split": replace(train, pictures=changes.pop("pictures", train.pictures)),
            "slots": SLOTS,
            "trunks": {"fp32": trunk},
            "cache_dir": tmp_path / "cache",
            "max_bytes": 10**8,
            "what": "tiny: train",
            **changes,
        }
        return cached_activations(**settings)

    return make


def folders(tmp_path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    ("n_views", "share", "expected"),
    [
        (0, 0.0, [(0, "fp32")]),
        (0, 1.0, [(0, "int8")]),
        (2, 0.0, [(0, "fp32"), (1, "fp32"), (2, "fp32")]),
        (2, 1.0, [(0, "int8"), (1, "int8"), (2, "int8")]),
        (3, 1 / 3, [(0, "fp32"), (0, "int8"), (1, "int8"), (2, "fp32"), (3, "fp32")]),
    ],
)
def test_slots_are_the_plain_view_in_each_precision_then_random_ones(n_views, share, expected):
    assert train_slots(n_views, share) == [Slot(*each) for each in expected]
    assert plain_slots(share) == [Slot(*each) for each in expected if each[0] == 0]
    random = [Slot(*each) for each in expected if each[0] > 0]
    assert train_slots(n_views, share, has_plain=False) == random


def test_stored_activations_are_those_of_the_trunk(stored, splits, net, normalise):
    activations = stored()
    pictures = splits[0].pictures
    assert activations.values.shape[:2] == (12, 3)
    assert activations.values.dtype == np.float16
    net.eval()
    for row, entry in enumerate(pictures.entries):
        pixels = torch.from_numpy(pictures.views(entry, [1, 2]))
        with torch.inference_mode():
            expected = net.trunk(normalise(pixels))
        got = activations.take(np.full(3, row), np.arange(3))
        # Half precision keeps 11 bits.
        assert got.dtype == torch.float32
        assert torch.allclose(got, expected, rtol=2e-3, atol=2e-3)
    assert float(expected.abs().max()) > 0.1


def test_take_picks_rows_and_slots_together(stored):
    activations = stored()
    got = activations.take(np.array([5, 0]), np.array([2, 1]))
    assert np.array_equal(got[0].numpy(), activations.values[5, 2].astype(np.float32))
    assert np.array_equal(got[1].numpy(), activations.values[0, 1].astype(np.float32))
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_int8_slots_go_through_the_int8_trunk(stored, splits, trunk, monkeypatch):
    from pipelines.export.quantize import quantized_trunk

    # The tiny trunk has two blocks; one of them must be left to quantise.
    monkeypatch.setattr("pipelines.export.quantize.FLOAT_BLOCKS", 1)

    pixels = list(splits[0].pictures.batches(16))
    trunks = {"fp32": trunk, "int8": quantized_trunk(trunk, pixels)}
    both = stored(trunks=trunks, slots=[Slot(0, "fp32"), Slot(0, "int8")])
    fp32, int8 = both.values[:, 0].astype(float), both.values[:, 1].astype(float)
    gap = np.abs(fp32 - int8).mean() / np.abs(fp32).mean()
    assert 1e-4 < gap < 0.2
    assert np.array_equal(both.values[:, :1], stored(slots=[Slot(0, "fp32")]).values)


def test_second_time_comes_from_the_cache(stored, splits, tmp_path):
    first = np.array(stored().values)
    # With the images gone nothing can be computed anew.
    shutil.rmtree(splits[0].pictures.raw_dir)
    again = stored()
    assert np.array_equal(again.values, first)
    assert again.slots == SLOTS
    with pytest.raises(CorruptImageError):
        stored(slots=SLOTS[:2])


def test_key_changes_with_all_that_matters(stored, splits, trunk, tmp_path):
    pictures = splits[0].pictures
    stored()
    other_augment = pictures.augment.model_copy(update={"rotate_deg": 3.0})
    other_bytes = [replace(pictures.entries[0], sha256="0" * 64), *pictures.entries[1:]]
    other_trunk = onnx.load_from_string(trunk)
    other_trunk.doc_string = "another"
    for n_known, changes in enumerate(
        (
            {"pictures": replace(pictures, augment=other_augment)},
            {"pictures": replace(pictures, seed=6)},
            {"pictures": replace(pictures, entries=pictures.entries[1:])},
            {"pictures": replace(pictures, entries=other_bytes)},
            {"pictures": replace(pictures, preprocess=replace(pictures.preprocess, resize_px=40))},
            {"slots": SLOTS[:2]},
            {"trunks": {"fp32": other_trunk.SerializeToString()}},
        ),
        start=1,
    ):
        assert len(folders(tmp_path)) == n_known
        stored(**changes)
        assert len(folders(tmp_path)) == n_known + 1, changes


def test_plain_views_are_shared_by_seeds_and_augmentations(stored, splits, tmp_path):
    pictures = splits[0].pictures
    stored(slots=SLOTS[:1])
    stored(slots=SLOTS[:1], pictures=replace(pictures, seed=6, augment=None))
    assert len(folders(tmp_path)) == 1


def test_too_large_a_split_is_refused_before_any_work(stored, tmp_path):
    with pytest.raises(ConfigError, match=r"train\.max_cache_bytes: .*tiny: train") as caught:
        stored(max_bytes=1000)
    assert "Lower train.views" in str(caught.value)
    assert "at most 1,000" in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_bound_is_the_size_of_the_activations(stored):
    n_bytes = int(np.prod(stored().values.shape)) * 2
    with pytest.raises(ConfigError):
        stored(max_bytes=n_bytes - 1, slots=[*SLOTS[:2], Slot(3, "fp32")])
    stored(max_bytes=n_bytes, slots=[*SLOTS[:2], Slot(3, "fp32")])


def test_least_recently_used_split_goes_first(stored, splits, tmp_path):
    pictures = splits[0].pictures
    size = 0
    names = []
    for seed in (1, 2, 3):
        stored(pictures=replace(pictures, seed=seed))
        (new,) = set(folders(tmp_path)) - set(names)
        names.append(new)
        folder = tmp_path / "cache" / new
        size = sum(file.stat().st_size for file in folder.iterdir())
        os.utime(folder / "meta.json", (seed * 1000, seed * 1000))
    # The first is used again; then the second is the one that was not used for longest.
    stored(pictures=replace(pictures, seed=1))
    stored(pictures=replace(pictures, seed=4), max_bytes=3 * size + 100)
    left = folders(tmp_path)
    assert len(left) == 3
    assert set(left) & set(names) == {names[0], names[2]}


def test_build_that_ends_half_way_is_not_taken_for_whole(stored, splits, tmp_path):
    pictures = splits[0].pictures
    victim = pictures.raw_dir / pictures.entries[7].path
    data = victim.read_bytes()
    victim.write_bytes(b"gone bad")
    with pytest.raises(CorruptImageError, match=victim.name):
        stored()
    assert folders(tmp_path) == []
    victim.write_bytes(data)
    whole = stored().values
    assert np.abs(whole.astype(float)).reshape(12, -1).max(axis=1).min() > 0


def test_folder_without_its_last_file_is_made_anew(stored, tmp_path):
    expected = np.array(stored().values)
    (name,) = folders(tmp_path)
    folder = tmp_path / "cache" / name
    (folder / "meta.json").unlink()
    (folder / "values.npy").write_bytes(b"half")
    assert np.array_equal(stored().values, expected)
    assert folders(tmp_path) == [name]


# -- phases ---------------------------------------------------------------------------------------
@pytest.fixture
def phases_of(splits, trunk, normalise, tmp_path):
    train, val = splits

    def make(strategy, net, params, trunks=None, val=val):
        same = {"seed": 5, "what": "tiny", "runtime": Runtime()}
        if strategy == "full":
            return full_phases(net, params, train, val, normalise, **same)
        trunks = trunks or {"fp32": trunk}
        return cached_phases(net, params, train, val, trunks, tmp_path / "cache", **same)

    return make


@pytest.fixture
def run(phases_of, splits, tmp_path):
    def go(strategy, net, params, folder="checkpoints"):
        return fit(
            net,
            phases_of(strategy, net, params),
            params,
            criterion=CrossEntropy(3),
            values=TrainedClassification.values,
            seed=5,
            checkpoint_dir=tmp_path / folder,
            key="key",
            on_epoch=lambda log: None,
            what="tiny",
            runtime=Runtime(),
        )

    return go


@pytest.mark.parametrize("strategy", ["cached", "full"])
def test_balance_by_source_needs_sources_that_can_help(strategy, phases_of, net, train_params):
    params = train_params(strategy=strategy, balance="source")
    with pytest.raises(ConfigError, match=r"tiny: train\.balance: source"):
        phases_of(strategy, net, params)


@pytest.mark.parametrize("strategy", ["cached", "full"])
def test_balance_by_source_draws_each_label_as_often(
    strategy, phases_of, net, train_params, splits
):
    train = splits[0]
    entries = list(train.pictures.entries)
    # One image of each label is from elsewhere.
    firsts = {entry.label: i for i, entry in reversed(list(enumerate(entries)))}
    for i, entry in enumerate(entries):
        source = "there" if i in firsts.values() else "here"
        entries[i] = replace(entry, source=source)
    train.pictures.entries = entries
    params = train_params(strategy=strategy, balance="source", batch_size=5)
    head = phases_of(strategy, net, params)[0]
    drawn = [np.concatenate([batch[1].numpy() for batch in head.batches(i)]) for i in range(2)]
    assert all(len(epoch) == len(entries) for epoch in drawn)
    # With replacement: hardly ever each image once.
    assert any(sorted(epoch) != sorted(train.truth) for epoch in drawn)


@pytest.mark.parametrize("strategy", ["cached", "full"])
def test_phases_keep_the_contract(strategy, phases_of, net, train_params, splits):
    params = train_params(strategy=strategy, batch_size=5)
    head, tail = phases_of(strategy, net, params)
    assert (head.name, tail.name) == ("head", "tail")
    assert head.params is params.head_phase
    assert tail.params is params.tail_phase
    for phase in (head, tail):
        phase.train_mode()
        seen = []
        batches = list(phase.batches(0))
        assert len(batches) == phase.n_batches == 3
        for inputs, class_index in batches:
            assert len(inputs) == len(class_index)
            assert phase.forward(inputs).shape == (len(inputs), 3)
            seen += class_index.tolist()
        assert sorted(seen) == sorted(splits[0].truth.tolist())
        again = list(phase.batches(0))
        assert all(torch.equal(a[0], b[0]) for a, b in zip(batches, again, strict=True))
        other = list(phase.batches(1))
        assert not all(torch.equal(a[0], b[0]) for a, b in zip(batches, other, strict=True))
        assert phase.val_outputs().shape == (len(phase.val_truth), 3)
        trained = {id(p) for module, _ in phase.modules for p in module.parameters()}
        assert trained == {id(p) for p in net.parameters() if p.requires_grad}


@pytest.mark.parametrize("strategy", ["cached", "full"])
def test_without_val_the_same_is_trained_and_nothing_is_asked(
    strategy, phases_of, net, train_params, tmp_path
):
    params = train_params(strategy=strategy)
    alone = phases_of(strategy, net, params, val=None)
    # Activations of the train split are the only ones that were made.
    assert len(list(tmp_path.glob("cache/*/values.npy"))) == (strategy == "cached")
    for without, phase in zip(alone, phases_of(strategy, net, params), strict=True):
        assert without.val_outputs is None
        assert len(without.val_truth) == 0
        for one, other in zip(without.batches(1), phase.batches(1), strict=True):
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])


@pytest.mark.parametrize("strategy", ["cached", "full"])
def test_strategy_learns_three_colours(strategy, run, net, train_params):
    phase = {"epochs": 10, "learning_rate": 0.02}
    params = train_params(strategy=strategy, head_phase=phase, tail_phase=phase)
    history = run(strategy, net, params)
    assert max(log.val["val_accuracy"] for log in history) >= 0.9


@pytest.mark.parametrize("strategy", ["cached", "full"])
@pytest.mark.parametrize("weights", ["imagenet", "none"])
def test_head_phase_leaves_the_blocks_and_pretrained_statistics_stay(
    strategy, weights, run, net, train_params
):
    start = {name: t.clone() for name, t in net.state_dict().items()}
    short = {"epochs": 2, "learning_rate": 0.02}
    params = train_params(
        strategy=strategy, weights=weights, head_phase=short, tail_phase={"epochs": 0}
    )
    run(strategy, net, params, "a")
    after = net.state_dict()
    blocks = [name for name in start if name.startswith("blocks.")]
    assert all(torch.equal(start[name], after[name]) for name in blocks)
    assert not torch.equal(start["head.1.weight"], after["head.1.weight"])

    params = train_params(
        strategy=strategy, weights=weights, head_phase={"epochs": 0}, tail_phase=short
    )
    run(strategy, net, params, "b")
    after = net.state_dict()
    statistics = [name for name in blocks if "running_" in name]
    in_tail = [name for name in statistics if int(name.split(".")[1]) >= 2]
    moved = [name for name in statistics if not torch.equal(start[name], after[name])]
    if weights == "imagenet":
        assert moved == []
    else:
        assert set(in_tail) <= set(moved)
    trunk_weights = [n for n in blocks if int(n.split(".")[1]) < 2]
    is_same = all(torch.equal(start[name], after[name]) for name in trunk_weights)
    assert is_same == (strategy == "cached")
    tail_weights = [n for n in blocks if int(n.split(".")[1]) >= 2 and n.endswith("weight")]
    assert any(not torch.equal(start[name], after[name]) for name in tail_weights)


def test_cached_logits_are_those_of_the_whole_network(
    phases_of, net, train_params, splits, normalise
):
    nn.init.normal_(net.head[-1].weight, std=1.0)
    head, tail = phases_of("cached", net, train_params(weights="imagenet"))
    val = splits[1].pictures
    pixels = torch.from_numpy(np.concatenate(list(val.batches(64))))
    net.eval()
    with torch.inference_mode():
        expected, _ = net(normalise(pixels))
        for phase in (head, tail):
            assert torch.allclose(phase.val_outputs(), expected, atol=2e-2)
    assert float(expected.std(dim=0).min()) > 0.05


def rows_of(phase, epoch):
    """The distinct rows of an epoch's one batch."""
    return {row.numpy().tobytes() for row in next(iter(phase.batches(epoch)))[0]}


def rows_within(phase, n_epochs):
    return set().union(*(rows_of(phase, epoch) for epoch in range(n_epochs)))


def test_each_view_is_shown_in_turn(phases_of, net, train_params):
    params = train_params(views=2, batch_size=64)
    _, tail = phases_of("cached", net, params)
    rows = [rows_of(tail, epoch) for epoch in range(6)]
    # Three slots: after three epochs every image has shown each, then it starts again.
    assert len(rows[0] | rows[1] | rows[2]) == 36
    assert rows[0] == rows[3]


def test_a_head_before_a_tail_sees_three_slots_and_one_that_nothing_follows_every_slot(
    phases_of, net, train_params
):
    params = train_params(views=6, batch_size=64)
    head, tail = phases_of("cached", net, params)
    assert len(rows_within(head, 14)) == 3 * 12
    assert len(rows_within(tail, 14)) == 7 * 12
    # In turn: after three epochs it has seen all that it will.
    assert len(rows_within(head, 3)) == 3 * 12
    params = train_params(views=6, batch_size=64, tail_phase={"epochs": 0})
    head, _ = phases_of("cached", net, params)
    assert len(rows_within(head, 7)) == 7 * 12


def test_painted_backgrounds_leave_the_plain_view_out(phases_of, net, train_params):
    augment = {**train_params().augment.model_dump(), "background": 1.0}
    params = train_params(views=2, batch_size=64, augment=augment)
    _, tail = phases_of("cached", net, params)
    rows = [rows_of(tail, epoch) for epoch in range(3)]
    assert len(rows[0] | rows[1]) == 24, "two slots an image"
    assert rows[0] == rows[2]


def test_painted_backgrounds_ask_for_views(train_params):
    augment = {**train_params().augment.model_dump(), "background": 0.5}
    with pytest.raises(ValueError, match="views is 0"):
        train_params(views=0, augment=augment)
    assert train_params(views=0, augment=augment, strategy="full").views == 0


def test_both_precisions_count_on_val(phases_of, net, train_params, splits, trunk):
    params = train_params(int8_views=0.5)
    both = {"fp32": trunk, "int8": trunk}
    for phase in phases_of("cached", net, params, both):
        assert len(phase.val_truth) == 2 * len(splits[1].truth)
        logits = phase.val_outputs()
        # Rows of a picture stand side by side, and here both trunks are the same.
        assert torch.allclose(logits[::2], logits[1::2], atol=1e-5)
        assert np.array_equal(phase.val_truth[::2], splits[1].truth)


@pytest.mark.parametrize("strategy", ["cached", "full"])
def test_two_runs_are_the_same_bits(strategy, run, train_params, net):
    other = copy.deepcopy(net)
    params = train_params(strategy=strategy, mixup_alpha=0.2, balance="sampling")
    first, second = run(strategy, net, params, "a"), run(strategy, other, params, "b")
    assert first == second
    assert same(net, other)


def test_full_strategy_never_shows_the_same_view_twice(phases_of, net, train_params):
    params = train_params(strategy="full", batch_size=64)
    head, tail = phases_of("full", net, params)
    assert len(rows_within(head, 3) | rows_within(tail, 3)) == 12 * 6
