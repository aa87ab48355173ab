"""Grad-CAM and occlusion on a net that is trained here, in seconds, to find a planted patch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from pipelines.backbones.heads import Classifier, make_head
from pipelines.serving.occlusion import occlusion_map
from pipelines.training.gradient_map import grad_cam

SIDE, PATCH = 32, 8
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
#: Adebayo et al. 2018 randomise weights and look at the rank correlation with the true map: a map
#: of a random net that still ranks places as before explains the picture's edges, not the net.
MAX_RANK_CORRELATION = 0.5
N_PICTURES = 8
#: One random net may rank places the true way by chance; the mean of several does not.
SEEDS = range(7, 11)
COLOURS = ((230, 40, 40), (40, 40, 230), (40, 220, 40), (220, 220, 40))


def planted(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise with one patch, whose colour is the class. Pictures, classes, (top, left)."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(60, 180, (n, SIDE, SIDE, 3), dtype=np.uint8)
    classes = np.arange(n) % len(COLOURS)
    places = rng.integers(0, SIDE - PATCH + 1, (n, 2))
    for picture, index, (top, left) in zip(pixels, classes, places, strict=True):
        picture[top : top + PATCH, left : left + PATCH] = COLOURS[index]
    return pixels, classes, places


def normalised(pixels: np.ndarray) -> torch.Tensor:
    values = torch.from_numpy(pixels).float() / 255
    return ((values - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)


def untrained(seed: int) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        blocks = [
            nn.Sequential(nn.Conv2d(before, after, 3, stride, 1), nn.ReLU())
            for before, after, stride in ((3, 12, 2), (12, 16, 2), (16, 16, 1))
        ]
        head = make_head(16, len(COLOURS), (), 0.0)
        nn.init.normal_(head[-1].weight, std=0.5)
        return Classifier(blocks, head, 1).eval()


@pytest.fixture(scope="module")
def trained() -> Classifier:
    torch.set_num_threads(1)
    model = untrained(1)
    pixels, classes, _ = planted(96, 0)
    inputs, truth = normalised(pixels), torch.from_numpy(classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs)[0], truth).backward()
        optimizer.step()
    optimizer.zero_grad()
    unseen, answers, _ = planted(64, 1)
    with torch.no_grad():
        assert (model(normalised(unseen))[0].argmax(dim=1).numpy() == answers).mean() > 0.95
    return model


def cam(model: Classifier, pixels: np.ndarray, index: int) -> np.ndarray:
    return grad_cam(model, pixels, index, MEAN, STD)[0]


def occlusion(model: Classifier, pixels: np.ndarray, index: int) -> np.ndarray:
    def logits_of(batch: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(normalised(batch))[0].numpy()

    return occlusion_map(logits_of, pixels, index)


METHODS = pytest.mark.parametrize("explain", [cam, occlusion])


@METHODS
def test_map_points_at_the_patch_that_decides(trained, explain):
    pixels, classes, places = planted(N_PICTURES, 2)
    hits = 0
    for picture, index, (top, left) in zip(pixels, classes, places, strict=True):
        row, column = np.unravel_index(explain(trained, picture, index).argmax(), (SIDE, SIDE))
        # Within half a cell of the feature map, or one stride of the cover.
        hits += top - 3 <= row < top + PATCH + 3 and left - 3 <= column < left + PATCH + 3
    assert hits == N_PICTURES


# Every weight is drawn anew. A random head alone would not do here: the trained features fire on
# the patch and nowhere else, so any head's map is the patch or nothing. The tests in tests/model
# draw the head alone too, on nets whose features see more than one thing.
@METHODS
def test_map_of_random_weights_is_another(trained, explain):
    pixels, classes, _ = planted(2 * len(SEEDS), 3)
    found = []
    for place, (picture, index) in enumerate(zip(pixels, classes, strict=True)):
        other = untrained(SEEDS[place % len(SEEDS)])
        maps = [explain(model, picture, index)[::4, ::4].ravel() for model in (trained, other)]
        # A constant map ranks nothing: it has lost all that the true one said.
        is_flat = any(np.ptp(each) == 0 for each in maps)
        found.append(0.0 if is_flat else spearmanr(*maps).statistic)
    assert np.mean(found) < MAX_RANK_CORRELATION, np.round(found, 2)
    assert np.mean(found) > -MAX_RANK_CORRELATION, np.round(found, 2)


def test_grad_cam_explains_the_answer_where_no_label_is_named(trained):
    picture = planted(1, 5)[0][0]
    heat, logits = grad_cam(trained, picture, None, MEAN, STD)
    with torch.no_grad():
        np.testing.assert_allclose(logits, trained(normalised(picture[None]))[0][0], atol=1e-5)
    assert (heat == cam(trained, picture, int(logits.argmax()))).all()
    assert heat.shape == (SIDE, SIDE)
    assert heat.min() >= 0


def test_grad_cam_leaves_weights_and_gradients(trained):
    picture = planted(1, 6)[0][0]
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    cam(trained, picture, 0)
    assert all((trained.state_dict()[name] == value).all() for name, value in before.items())
    assert all(weight.grad is None for weight in trained.parameters())
