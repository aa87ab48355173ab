from __future__ import annotations

from dataclasses import fields, replace
from multiprocessing.reduction import ForkingPickler

import pytest
import torch

from pipelines.commands.board import objective_of
from pipelines.config.params import load_params
from pipelines.config.search import SearchParams
from pipelines.data.manifest import in_split
from pipelines.errors import WeightsError
from pipelines.paths import Paths
from pipelines.search.accuracy import Worth
from pipelines.search.block_table import Scope
from pipelines.search.run import Evaluation
from pipelines.search.space import Space

SEARCH = SearchParams.model_validate(
    {"space": {"image_px": (32, 64)}, "warm_up": {"batch_size": 6}, "norm_images": 8}
)


@pytest.fixture
def worth(project: Paths) -> Worth:
    asked = objective_of("tiny", load_params(project.params), project)
    return Worth("tiny", asked.train, SEARCH, 7, asked.data, project)


class Knows:
    """Stands for a supernet: a network that answers one label to all, by the side of its input."""

    def __init__(self) -> None:
        self.norms: list[list[torch.Size]] = []

    def network(self, _architecture, norms):
        self.norms.append([batch.shape for batch in norms])

        def answer(pixels: torch.Tensor) -> tuple[torch.Tensor]:
            logits = torch.zeros(len(pixels), 3)
            logits[:, 0 if pixels.shape[-1] == 32 else 1] = 1
            return (logits,)

        return answer


def test_worth_is_the_share_of_val_that_is_right(worth, monkeypatch):
    knows = Knows()
    monkeypatch.setattr(Worth, "supernet", knows)
    val = in_split(worth.data.entries, "val")
    labels = worth.data.summary.labels
    space = Space.of(SEARCH.space)
    for index, px in enumerate((32, 64)):
        share = sum(entry.label == labels[index] for entry in val) / len(val)
        assert 0 < share < 1
        assert worth(space.base_at(px)) == pytest.approx(share)
    assert knows.norms == [[(8, 3, 32, 32)], [(8, 3, 64, 64)]]


def test_lessons_of_an_epoch_show_each_image_once_and_are_the_same_again(worth):
    train = in_split(worth.data.entries, "train")
    n_batches = len(train) // 6
    shown = [worth._lesson(step, 32) for step in range(n_batches)]
    counts = torch.cat([lesson.class_index for lesson in shown]).bincount(minlength=3)
    labels = worth.data.summary.labels
    whole = torch.tensor([sum(entry.label == label for entry in train) for label in labels])
    assert int((whole - counts).sum()) == len(train) - 6 * n_batches
    assert (counts <= whole).all()
    again, later = worth._lesson(0, 32), worth._lesson(n_batches, 32)
    assert torch.equal(again.pixels, shown[0].pixels)
    assert not torch.equal(later.pixels, shown[0].pixels)
    assert shown[0].pixels.shape == (6, 3, 32, 32)


def test_without_a_trained_model_labels_teach_alone_and_a_line_says_so(worth, caplog):
    assert worth._lesson(0, 32).soft_targets is None
    assert "tiny: has no trained model yet" in caplog.text


def test_key_changes_with_what_answers_depend_on_alone(worth):
    def key(**section) -> str:
        return replace(worth, search=SEARCH.model_copy(update=section)).key

    assert key() == key(candidates=7) == key(controller="random") == key(elites=3)
    assert key(norm_images=9) != key()
    assert key(warm_up=SEARCH.warm_up.model_copy(update={"steps": 9})) != key()
    assert replace(worth, seed=8).key != key()


@pytest.mark.parametrize("is_used", [False, True])
def test_what_scores_may_cross_to_another_process(is_used, worth, tmp_path):
    """Before its first use and after: the command itself asks for the smallest latency."""
    space = Space.of(SEARCH.space)
    evaluation = Evaluation(worth, Scope(space, 64, 3, "fp32"), tmp_path, None, "some processor")
    if is_used:
        worth.__dict__["supernet"] = evaluation.latency.__dict__["session"] = lambda: "no value"
        assert worth._lesson(0, 32).soft_targets is None
    there = ForkingPickler.loads(ForkingPickler.dumps(evaluation))
    assert there == evaluation
    assert there.worth.key == worth.key
    assert set(vars(there)) == {each.name for each in fields(Evaluation)}


def test_supernet_of_a_search_begins_with_pretrained_weights(worth, monkeypatch):
    """And not with random ones, where they cannot be had."""

    def none(*_):
        raise WeightsError("no provider gave imagenet weights")

    monkeypatch.setattr("pipelines.search.supernet.load_imagenet", none)
    with pytest.raises(WeightsError):
        _ = worth.supernet
