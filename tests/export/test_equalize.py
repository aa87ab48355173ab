from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pipelines.export.graphs import logits_of
from pipelines.export.onnx_export import INPUT_NAME
from pipelines.export.quantize import StaticQuantizer, equalized
from pipelines.metrics.classification import sqnr_db
from pipelines.serving.sessions import make_session


def batches_of(pixels: np.ndarray) -> list[np.ndarray]:
    return [pixels[start : start + 16] for start in range(0, len(pixels), 16)]


def gap(one: bytes, other: bytes, pixels: np.ndarray) -> float:
    """Largest difference of both outputs, relative to their size."""
    first = make_session(one).run(None, {INPUT_NAME: pixels})
    second = make_session(other).run(None, {INPUT_NAME: pixels})
    return max(
        float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(first, second, strict=True)
    )


def int8_db(model: bytes, reference: bytes, pixels: np.ndarray, folder) -> float:
    int8 = StaticQuantizer(model, batches_of(pixels), folder).int8()
    return sqnr_db(logits_of(reference, pixels), logits_of(int8, pixels))


@pytest.mark.parametrize("which", ["tiny_onnx", "doctored_onnx"])
def test_function_is_unchanged_and_weights_are_not(which, make_pictures, request):
    model = request.getfixturevalue(which)
    pixels = make_pictures(48, 1)
    got = equalized(model, batches_of(pixels))
    assert gap(model, got, pixels) <= 1e-3
    weights = [
        {t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(m).graph.initializer}
        for m in (model, got)
    ]
    assert list(weights[0]) == list(weights[1])
    changed = [
        name for name in weights[0] if not np.array_equal(weights[0][name], weights[1][name])
    ]
    assert len(changed) >= 8
    assert all(weights[1][n].dtype == weights[0][n].dtype for n in weights[0])


def test_function_is_unchanged_on_other_pictures_too(doctored_onnx, make_pictures):
    got = equalized(doctored_onnx, batches_of(make_pictures(48, 1)))
    # Only a ReLU6 that clips later may differ; the headroom keeps that small.
    assert gap(doctored_onnx, got, make_pictures(64, 2)) <= 0.02


def test_nearly_constant_channel_no_longer_ruins_int8(doctored_onnx, make_pictures, tmp_path):
    pixels = make_pictures(48, 1)
    plain = int8_db(doctored_onnx, doctored_onnx, pixels, tmp_path)
    better = int8_db(equalized(doctored_onnx, batches_of(pixels)), doctored_onnx, pixels, tmp_path)
    # The model was doctored well enough to hurt, and is helped by at least 3 dB.
    assert plain < 20
    assert better >= plain + 3


def test_same_pictures_give_the_same_bytes(doctored_onnx, make_pictures):
    batches = batches_of(make_pictures(32, 1))
    assert equalized(doctored_onnx, batches) == equalized(doctored_onnx, batches)


def test_equalising_twice_changes_little(doctored_onnx, make_pictures):
    pixels = make_pictures(32, 1)
    once = equalized(doctored_onnx, batches_of(pixels))
    assert gap(doctored_onnx, equalized(once, batches_of(pixels)), pixels) <= 1e-3


def test_network_with_nothing_to_equalise_stays_as_it_is(tiny_onnx, make_pictures):
    proto = onnx.load_from_string(tiny_onnx)
    for node in proto.graph.node:
        # The exporter leaves out biases of zeros, as networks from scratch have them.
        if node.op_type == "Conv":
            del node.input[2]
    model = proto.SerializeToString()
    assert gap(model, equalized(model, batches_of(make_pictures(16, 1))), make_pictures(8, 2)) == 0


def small_net(*blocks):
    """A classifier of plain blocks, with weights and biases of very different sizes."""
    import torch
    from torch import nn

    from pipelines.backbones.heads import Classifier, make_head

    torch.manual_seed(4)
    network = Classifier(list(blocks), make_head(blocks[-1][0].out_channels, 3, (), 0.0), 1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                module.weight *= torch.logspace(-1, 0.7, len(module.weight))[:, None, None, None]
                module.bias.uniform_(0, 0.5)
        network.head[-1].weight.normal_()
    return network.eval()


@pytest.mark.parametrize(
    ("n_groups", "n_out"),
    [(4, 16), (4, 8), (2, 12), (8, 8), (8, 16)],
    ids=["grouped", "grouped to fewer", "two groups", "depthwise", "depthwise, two each"],
)
def test_grouped_convolutions_are_equalised_within_their_groups(n_groups, n_out, make_pictures):
    from torch import nn

    from pipelines.export.onnx_export import classifier_onnx

    net = small_net(
        nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, n_out, 3, 1, 1, groups=n_groups), nn.ReLU()),
        nn.Sequential(nn.Conv2d(n_out, 8, 1), nn.ReLU()),
    )
    model = classifier_onnx(net, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    pixels = make_pictures(32, 1)
    better = equalized(model, batches_of(pixels))
    assert better != model
    assert gap(model, better, pixels) <= 1e-4


@pytest.mark.slow
def test_mobilenet_v2_with_a_nearly_constant_channel(make_pictures, tmp_path):
    import torch
    from torch import nn

    from pipelines.backbones.heads import make_classifier
    from pipelines.backbones.spec import IMAGENET_MEAN, IMAGENET_STD
    from pipelines.export.onnx_export import classifier_onnx

    model = make_classifier("mobilenet_v2", n_classes=3, hidden=(), dropout=0.0, cut=None, seed=1)
    pixels = make_pictures(48, 1, 64)
    # Statistics that fit the pictures, so that activations stay alive through all the blocks.
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    values = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        model.train()(values)
        first, second = model.blocks[1].conv[-1], model.blocks[2].conv[0]
        first.weight[0], first.bias[0] = 0.01, 8.0
        generator = torch.Generator().manual_seed(9)
        weights = 127 * torch.randn(len(second[0].weight), generator=generator)
        second[0].weight[:, 0, 0, 0] = weights
        second[1].running_mean += weights * 8.0
        model.head[-1].weight.normal_(std=1.0, generator=generator)
    file = classifier_onnx(model.eval(), 64, IMAGENET_MEAN, IMAGENET_STD)
    batches = batches_of(pixels)
    better = equalized(file, batches)
    # Rounding grows through 19 blocks that nobody trained.
    assert gap(file, better, pixels) <= 3e-3
    plain = int8_db(file, file, pixels, tmp_path)
    assert int8_db(better, file, pixels, tmp_path) >= plain + 3
