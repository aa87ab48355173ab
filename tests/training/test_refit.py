from __future__ import annotations

import math

import pytest
import torch

from pipelines.errors import CorruptImageError
from pipelines.training.refit import refit


@pytest.fixture
def run(tiny_project, splits, train_params):
    def go(strategy="full", **changes):
        params = train_params(strategy=strategy, views=1, **changes)
        logs = []
        model = refit(
            "tiny",
            params,
            3,
            *splits,
            7,
            tiny_project,
            checkpoint_dir=tiny_project.task("tiny").refit_checkpoint_dir,
            key="key",
            on_epoch=logs.append,
        )
        return model, logs

    return go


@pytest.mark.parametrize("strategy", ["full", "cached"])
def test_all_epochs_are_trained_on_the_images_of_both(strategy, run, splits, tiny_project):
    model, logs = run(strategy)
    assert [log.phase for log in logs] == ["head"] * 3 + ["tail"] * 3
    assert all(math.isnan(log.val_loss) for log in logs)
    assert not model.training
    # An image of val that cannot be read stops it, as one of train would.
    entry = splits[1].pictures.entries[0]
    (splits[1].pictures.raw_dir / entry.path).write_bytes(b"not an image")
    for folder in (tiny_project.activations_dir, tiny_project.task("tiny").checkpoint_dir):
        if folder.exists():
            folder.rename(folder.with_name(f"{folder.name}-moved"))
    with pytest.raises(CorruptImageError):
        run(strategy)


def test_a_refit_that_was_killed_ends_with_the_same_weights(run, tiny_project):
    expected = run()[0].state_dict()
    moved = tiny_project.task("tiny").refit_checkpoint_dir
    moved.rename(moved.with_name("moved"))
    first = run(tail_phase={"epochs": 0})[0].state_dict()
    # The same key, and a checkpoint at the end of the head.
    again = run()[0].state_dict()
    assert all(torch.equal(expected[name], again[name]) for name in expected)
    assert not all(torch.equal(first[name], again[name]) for name in expected)
