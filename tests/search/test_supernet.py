from __future__ import annotations

import pytest
import torch
from torch import nn

from pipelines.backbones.architecture import MOBILENET_V2
from pipelines.backbones.heads import make_classifier
from pipelines.backbones.inherit import whole
from pipelines.backbones.spec import backbone
from pipelines.config.search import SpaceParams, WarmUpParams
from pipelines.search import supernet as module
from pipelines.search.space import Space
from pipelines.search.supernet import HeadShape, Lesson, Supernet, estimate_norms, sandwich, warm_up
from tests.backbones.toy_family import as_pretrained

HEAD = HeadShape(3, (), 0.0)
SPACE = Space.of(SpaceParams(image_px=(32,)))
PARAMS = WarmUpParams(steps=3, batch_size=4, n_random=1)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        blocks = as_pretrained(backbone("mobilenet_v2").build())
        head = make_classifier(
            "mobilenet_v2", n_classes=3, hidden=(), dropout=0.0, cut=None, seed=1
        ).head
    found = whole(blocks.state_dict(), MOBILENET_V2)
    return {**found, **{f"head.{name}": t for name, t in head.state_dict().items()}}


@pytest.fixture
def supernet(state) -> Supernet:
    return Supernet({name: tensor.detach().clone() for name, tensor in state.items()}, HEAD)


def lesson(step: int, image_px: int) -> Lesson:
    generator = torch.Generator().manual_seed(step)
    class_index = torch.tensor([0, 1, 2, 0])
    pixels = torch.randn(4, 3, image_px, image_px, generator=generator)
    # A class is a brightness, so that there is something to learn.
    return Lesson(pixels + class_index[:, None, None, None], class_index, None)


def test_part_is_a_view_and_its_gradient_stays_within_it(supernet):
    trained = supernet.parameters()
    smallest = SPACE.smallest.architecture
    supernet.logits(smallest, lesson(0, 32).pixels).sum().backward()
    grad = supernet.tensors["8.0.conv.0.weight"].grad
    n_out, n_in = smallest.stages[8].channels, smallest.stages[7].channels
    assert grad is not None
    assert float(grad[:n_out, :n_in].abs().sum()) > 0
    assert float(grad[n_out:].abs().sum() + grad[:, n_in:].abs().sum()) == 0
    # Blocks that the smallest leaves out.
    assert supernet.tensors["4.3.project.0.weight"].grad is None
    n_counted = sum(name.endswith(("running_mean", "running_var")) for name in supernet.tensors)
    assert len(trained) == len(supernet.tensors) - n_counted


def test_others_learn_from_the_largest_and_it_from_labels_alone(supernet):
    largest, smallest = SPACE.largest.architecture, SPACE.smallest.architecture

    def gradient(*networks) -> torch.Tensor:
        for tensor in supernet.parameters():
            tensor.grad = None
        sandwich(supernet, networks, lesson(0, 32), PARAMS, 0.0)
        found = supernet.tensors["head.1.weight"].grad
        assert found is not None
        return found

    alone, both = gradient(largest), gradient(largest, smallest)
    n = smallest.stages[-1].channels
    assert not torch.equal(alone[:, :n], both[:, :n])
    # What the smallest does not read comes from the largest alone.
    torch.testing.assert_close(alone[:, n:], both[:, n:])


def test_teacher_counts_for_its_share(supernet):
    one = lesson(0, 32)
    supernet.parameters()
    taught = Lesson(one.pixels, one.class_index, torch.full((4, 3), 1 / 3))
    largest = SPACE.largest.architecture
    losses = [
        sandwich(supernet, [largest], each, PARAMS.model_copy(update={"teacher_weight": w}), 0.0)
        for each, w in ((one, 0.5), (taught, 0.0), (taught, 1.0), (taught, 0.25))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5), "without a teacher labels have all"
    assert losses[3] == pytest.approx(0.75 * losses[1] + 0.25 * losses[2], rel=1e-4)


def warmed(supernet: Supernet, folder, *, kill_after: int | None = None, **params) -> Supernet:
    def until(step: int, image_px: int) -> Lesson:
        if step == kill_after:
            raise KeyboardInterrupt
        return lesson(step, image_px)

    warm_up(
        supernet,
        SPACE,
        until,
        PARAMS.model_copy(update=params),
        label_smoothing=0.0,
        seed=1,
        folder=folder,
        key="key",
        what="tiny",
    )
    return supernet


def test_killed_warm_up_ends_with_the_same_bytes(state, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_STEPS_KEPT", 1)

    def new() -> Supernet:
        return Supernet({name: tensor.detach().clone() for name, tensor in state.items()}, HEAD)

    through = warmed(new(), tmp_path / "through")
    with pytest.raises(KeyboardInterrupt):
        warmed(new(), tmp_path / "killed", kill_after=2)
    resumed = warmed(new(), tmp_path / "killed")
    # A third call reads what is there, and trains nothing.
    read = warmed(new(), tmp_path / "killed", kill_after=0)
    for name, tensor in through.tensors.items():
        assert torch.equal(resumed.tensors[name], tensor), name
        assert torch.equal(read.tensors[name], tensor), name
    changed = [n for n, tensor in through.tensors.items() if not torch.equal(tensor, state[n])]
    assert any(name.endswith("expand.0.weight") for name in changed)
    assert not any(name.endswith(("running_mean", "running_var")) for name in changed)


def test_norms_take_the_mean_of_batches():
    norm = nn.BatchNorm2d(1)
    norm.running_mean.fill_(9.0)
    batches = [torch.full((2, 1, 2, 2), value) for value in (1.0, 3.0)]
    estimate_norms(norm, batches)
    assert norm.running_mean.item() == pytest.approx(2.0)
    assert not norm.training
