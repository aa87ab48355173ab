"""Both strategies: the cached one and, for the same contract, the full one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.errors import ConfigError
from pipelines.kinds.classification.train import CrossEntropy, TrainedClassification
from pipelines.training.cached import cached_phases
from pipelines.training.fit import fit
from pipelines.training.full import full_phases
from pipelines.training.runtime import Runtime


@pytest.fixture
def phases_of(splits, trunk, normalise, tmp_path):
    train, val = splits

    def make(strategy, net, params, trunks=None, val=val):
        if strategy == "full":
            return full_phases(net, params, train, val, normalise, seed=5, what="tiny")
        trunks = trunks or {"fp32": trunk}
        return cached_phases(
            net, params, train, val, trunks, tmp_path / "cache", seed=5, what="tiny"
        )

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


def test_each_view_is_shown_in_turn(phases_of, net, train_params):
    params = train_params(views=2, batch_size=64)
    _, tail = phases_of("cached", net, params)
    shown = [next(iter(tail.batches(epoch)))[0] for epoch in range(6)]
    rows = [{row.numpy().tobytes() for row in batch} for batch in shown]
    # Three slots: after three epochs every image has shown each, then it starts again.
    assert len(rows[0] | rows[1] | rows[2]) == 36
    assert rows[0] == rows[3]


def heads_of(phase, n_epochs):
    shown = [next(iter(phase.batches(epoch)))[0] for epoch in range(n_epochs)]
    return {row.numpy().tobytes() for batch in shown for row in batch}


def test_a_head_before_a_tail_sees_each_picture_in_three_ways(phases_of, net, train_params):
    head, tail = phases_of("cached", net, train_params(views=6, batch_size=64))
    assert len(heads_of(head, 14)) == 3 * 12
    assert len(heads_of(tail, 14)) == 7 * 12
    # In turn: after three epochs it has seen all that it will.
    assert len(heads_of(head, 3)) == 3 * 12


def test_a_head_that_nothing_follows_sees_every_view(phases_of, net, train_params):
    params = train_params(views=6, batch_size=64, tail_phase={"epochs": 0})
    head, _ = phases_of("cached", net, params)
    assert len(heads_of(head, 7)) == 7 * 12


def test_painted_backgrounds_leave_the_plain_view_out(phases_of, net, train_params):
    augment = {**train_params().augment.model_dump(), "background": 1.0}
    params = train_params(views=2, batch_size=64, augment=augment)
    _, tail = phases_of("cached", net, params)
    shown = [next(iter(tail.batches(epoch)))[0] for epoch in range(3)]
    rows = [{row.numpy().tobytes() for row in batch} for batch in shown]
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
    import copy

    other = copy.deepcopy(net)
    params = train_params(strategy=strategy, mixup_alpha=0.2, balance="sampling")
    first, second = run(strategy, net, params, "a"), run(strategy, other, params, "b")
    assert first == second
    ours, theirs = net.state_dict(), other.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_full_strategy_never_shows_the_same_view_twice(phases_of, net, train_params):
    params = train_params(strategy="full", batch_size=64)
    head, tail = phases_of("full", net, params)
    shown = [
        row.numpy().tobytes()
        for phase in (head, tail)
        for epoch in range(3)
        for row in next(iter(phase.batches(epoch)))[0]
    ]
    assert len(set(shown)) == 12 * 6
