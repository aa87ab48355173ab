"""Boxes move with the picture; places, shapes and losses do what the papers say; boxes are told."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from pipelines.errors import ConfigError, DataError
from pipelines.export.graphs import constant_nodes
from pipelines.export.onnx_export import classifier_onnx
from pipelines.kinds.detection.boxes import MAX_BOXES, in_view, moved, real
from pipelines.kinds.detection.decoding import LEAST_SCORE, MAX_FOUND, decoded, finished
from pipelines.kinds.detection.head import (
    N_LEVELS,
    N_SHAPES,
    STRIDES,
    BoxHead,
    map_sizes,
    places_of,
)
from pipelines.kinds.detection.train import BoxLoss, TrainedDetection, fitted_shapes
from pipelines.metrics.detection import overlaps
from pipelines.serving.sessions import make_session
from pipelines.serving.vetting import vet

SIDE = 96
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def rows(*boxes: tuple[float, ...]) -> np.ndarray:
    truth = np.full((MAX_BOXES, 5), np.nan, dtype=np.float32)
    truth[: len(boxes)] = np.reshape(boxes, (-1, 5))
    return truth


# -- in a view ------------------------------------------------------------------------------------
def test_boxes_are_cut_at_the_edge_of_a_view_and_go_where_little_is_left():
    half = np.array([[0.5, 0, -20], [0, 0.5, 0], [0, 0, 1.0]])
    truth = rows(
        (60, 20, 100, 60, 1), (30, 20, 50, 60, 0), (20, 20, 42, 60, 0), (60, 20, 63, 90, 2)
    )
    found = real(in_view(truth, half, 50))
    expected = np.array([[10, 10, 30, 30], [0, 10, 5, 30]])
    assert found[:, :4] * 50 == pytest.approx(expected, abs=1e-4)
    assert found[:, 4].tolist() == [1, 0]


def test_a_turned_box_holds_the_ellipse_within_it():
    angle = np.deg2rad(30)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    circle = moved(np.array([[-10.0, -10, 10, 10]]), turn)[0]
    assert circle == pytest.approx([-10, -10, 10, 10])
    angles = np.linspace(0, 2 * np.pi, 720)
    ellipse = turn[:2, :2] @ [20 * np.cos(angles), 5 * np.sin(angles)]
    found = moved(np.array([[-20.0, -5, 20, 5]]), turn)[0]
    assert found == pytest.approx([*ellipse.min(axis=1), *ellipse.max(axis=1)], abs=0.01)


# -- places and shapes ----------------------------------------------------------------------------
def test_places_lie_in_the_middles_of_cells_row_by_row():
    shapes = torch.tensor([[[0.1, 0.2]], [[0.5, 0.5]]])
    found = places_of([(2, 4), (1, 1)], shapes).numpy()
    assert found[:, :2].tolist() == [
        *([x, y] for y in (0.25, 0.75) for x in (0.125, 0.375, 0.625, 0.875)),
        [0.5, 0.5],
    ]
    assert found[:8, 2:] == pytest.approx(np.tile([0.1, 0.2], (8, 1)))


def test_fitted_shapes_are_those_of_the_boxes_that_a_level_has():
    rng = np.random.default_rng(3)
    kinds = np.array([[5.0, 10], [20, 10], [25, 30], [50, 40]])
    sides = np.concatenate([kind * rng.uniform(0.95, 1.05, (40, 2)) for kind in kinds])
    shapes = fitted_shapes(rng.permutation(sides))
    assert shapes.shape == (N_LEVELS, N_SHAPES, 2)
    for kind, level in zip(kinds, (0, 0, 0, 1), strict=True):
        assert np.abs(shapes[level] - kind).sum(axis=1).min() < 3
    sizes = np.sqrt(shapes.prod(axis=2))
    assert (np.diff(sizes, axis=1) >= 0).all()
    strides = np.array([*STRIDES, 2 * STRIDES[-1]])
    assert (sizes[:-1] <= 4 * strides[:-1, None] * 1.01).all()
    # Of which there are too few, a level has shapes of its own.
    assert shapes[3].tolist() == fitted_shapes(sides[:2])[3].tolist()


@pytest.fixture(scope="module")
def network():
    return TrainedDetection().network("mobilenet_v2", 1.0, 3, (), 0.0, None, 7)


@pytest.fixture
def loss(network) -> BoxLoss:
    criterion = BoxLoss(3, SIDE)
    criterion.begin(
        network, np.stack([rows((0.1, 0.1, 0.3, 0.4, 0), (0.5, 0.5, 0.9, 0.8, 2))]), embeddings=None
    )
    return criterion


def test_at_the_start_each_place_says_its_own_shape_and_no_label(network, loss):
    network.eval()
    with torch.inference_mode():
        outputs = network(torch.randn(2, 3, SIDE, SIDE))[0]
    assert outputs.shape == (2, len(loss.places), 7)
    assert len(loss.places) == N_SHAPES * sum(h * w for h, w in map_sizes(SIDE))
    nearness = (outputs[..., :2] - loss.places[:, :2]).abs() / loss.places[:, 2:]
    assert nearness.max() < 0.2
    assert torch.sigmoid(outputs[..., 4:]).mean() < 0.05


def test_each_box_has_the_nearest_places_that_fit_it_well(loss):
    tiny, large = (0.6, 0.1, 0.605, 0.105, 1), (0.1, 0.1, 0.3, 0.4, 0)
    truth = torch.from_numpy(np.stack([rows(large, tiny), rows()]))
    targets = loss.targets(truth).numpy()
    half, middle = loss.places[:, 2:].numpy() / 2, loss.places[:, :2].numpy()
    corners = np.concatenate([middle - half, middle + half], axis=1)
    shared = overlaps(corners, truth[0, :2, :4].numpy())
    for number, box in enumerate((large, tiny)):
        shows = targets[0, :, 4] == box[4]
        assert shows.any()
        assert shows[shared[:, number].argmax()]
        assert targets[0, shows, :4] == pytest.approx(np.tile(box[:4], (shows.sum(), 1)), abs=1e-6)
        if shows.sum() > 1:
            others = shows & (np.arange(len(shows)) != shared[:, number].argmax())
            inside = (middle[others] > box[:2]) & (middle[others] < box[2:4])
            assert inside.all()
    unsaid = targets[0, :, 4] == -2
    assert (shared[unsaid].max(axis=1) >= 0.5).all()
    empty = targets[0, :, 4] == -1
    assert (shared[empty].max(axis=1) < 0.5).all()
    assert (targets[1, :, 4] == -1).all()


def test_small_boxes_have_several_places_too(network):
    """By a bound on the overlap, most boxes of 8 to 20 px had the one place that was forced."""
    rng = np.random.default_rng(2)
    first = rng.uniform(0.05, 0.7, (12, 2))
    sides = rng.uniform(8, 20, (12, 2)) / SIDE
    boxes = np.concatenate([first, first + sides, np.zeros((12, 1))], axis=1)
    criterion = BoxLoss(3, SIDE)
    criterion.begin(network, np.stack([rows(*map(tuple, boxes))]), embeddings=None)
    for box in boxes:
        targets = criterion.targets(torch.from_numpy(np.stack([rows(tuple(box))])))
        assert (targets[0, :, 4] == 0).sum() >= 2


def test_loss_falls_towards_the_truth_and_counts_no_unsaid_place(loss):
    truth = torch.from_numpy(np.stack([rows((0.1, 0.1, 0.3, 0.4, 0))]))
    targets = loss.targets(truth)
    n = len(loss.places)
    outputs = torch.cat([loss.places[:, :2], loss.places[:, 2:].log(), torch.full((n, 3), -6.0)], 1)
    asked = targets[0, :, 4] == 0
    right = outputs.clone()
    right[asked, :4] = torch.tensor([0.2, 0.25, np.log(0.2), np.log(0.3)], dtype=torch.float32)
    right[asked, 4] = 8.0
    assert loss.loss(right[None], targets) < 0.1 * loss.loss(outputs[None], targets)
    # A place that overlaps the box well and does not show it.
    targets[0, (targets[0, :, 4] == -1).nonzero()[0, 0], 4] = -2.0
    unsaid = targets[0, :, 4] == -2
    other = right.clone()
    other[unsaid] = 5.0
    assert loss.loss(other[None], targets) == loss.loss(right[None], targets)
    measured = loss.measured(right[None], truth.numpy())
    assert measured["val_ap50"] == pytest.approx(1.0)
    assert loss.measured(outputs[None], truth.numpy())["val_ap50"] < 0.1


def test_no_box_at_all_is_refused(network):
    with pytest.raises(DataError, match="no plain view of the train split shows a box"):
        BoxLoss(3, SIDE).begin(network, np.stack([rows()]), embeddings=None)


@pytest.mark.parametrize(
    ("hidden", "dropout", "name", "message"),
    [
        ((8,), 0.0, "mobilenet_v2", "a detection's head has its own layers"),
        ((), 0.2, "mobilenet_v2", "dropout 0.2"),
    ],
)
def test_head_has_its_own_layers(hidden, dropout, name, message):
    with pytest.raises(ConfigError, match=message):
        TrainedDetection().network(name, 1.0, 3, hidden, dropout, None, 7)


# -- the file -------------------------------------------------------------------------------------
def test_places_are_constants_and_boxes_follow_from_them_in_float(network, loss):
    model = classifier_onnx(network.eval(), SIDE, MEAN, STD)
    graph = onnx.load_from_string(model).graph
    constant = constant_nodes(graph)
    last = {node.op_type for node in graph.node[-2:]}
    assert last == {"Div", "Sub"}
    assert not set(constant) & {node.name for node in graph.node if node.op_type == "Conv"}
    weights = {tensor.name for tensor in graph.initializer}
    made = {out for node in graph.node if node.name in constant for out in node.output} | weights
    assert all(node.input[1] in made for node in graph.node[-2:])


def test_file_tells_boxes_that_are_those_of_torch_and_may_be_loaded(network, loss):
    plain = classifier_onnx(network.eval(), SIDE, MEAN, STD)
    model = finished(plain)
    vet(model)
    pixels = np.random.default_rng(1).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    boxes, embedding = make_session(model).run(["boxes", "embedding"], {"image": pixels})
    logits = make_session(plain).run(["logits"], {"image": pixels})[0]
    assert boxes.shape == (3, MAX_FOUND, 6)
    assert embedding.shape == (3, 1280)
    assert boxes == pytest.approx(decoded(logits), abs=1e-5)


def naive(outputs: np.ndarray) -> np.ndarray:
    """One picture's boxes by non-maximum suppression as its papers tell it."""
    half = np.exp(outputs[:, 2:4].astype(np.float64)) / 2
    corners = np.concatenate([outputs[:, :2] - half, outputs[:, :2] + half], axis=1)
    scores = 1 / (1 + np.exp(-outputs[:, 4:].astype(np.float64)))
    kept = []
    for label in range(scores.shape[1]):
        left = [i for i in np.argsort(-scores[:, label]) if scores[i, label] > LEAST_SCORE]
        while left:
            best, *rest = left
            kept.append((*corners[best], scores[best, label], label))
            shared = overlaps(corners[[best]], corners[rest])[0]
            left = [i for i, overlap in zip(rest, shared, strict=True) if overlap <= 0.5]
    kept.sort(key=lambda box: -box[4])
    found = np.zeros((MAX_FOUND, 6))
    found[: min(len(kept), MAX_FOUND)] = kept[:MAX_FOUND]
    found[:, :4] = found[:, :4].clip(0, 1)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_boxes_are_those_of_a_plain_suppression(seed):
    rng = np.random.default_rng(seed)
    shape = (2, 300)
    outputs = np.concatenate(
        [
            rng.uniform(0, 1, (*shape, 2)),
            rng.uniform(-3, -1, (*shape, 2)),
            rng.normal(-4, 2, (*shape, 3)),
        ],
        axis=2,
    ).astype(np.float32)
    for one, found in zip(outputs, decoded(outputs), strict=True):
        expected = naive(one)
        n = int((expected[:, 4] > 0).sum())
        assert (found[n:, 4] == 0).all()
        assert found[:n] == pytest.approx(expected[:n], abs=1e-5)


def test_a_picture_that_shows_nothing_has_no_box():
    outputs = np.full((2, 200, 6), -20.0, dtype=np.float32)
    assert (decoded(outputs)[..., 4] == 0).all()


def test_head_reads_maps_of_any_size_and_gradients_reach_all_of_it():
    head = BoxHead([8, 12, 16], 2)
    maps = [torch.randn(2, c, 64 // s, 64 // s) for c, s in zip([8, 12, 16], STRIDES, strict=True)]
    outputs = head(*maps)
    assert outputs.shape == (2, N_SHAPES * (64 + 16 + 4 + 1), 6)
    outputs.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())
