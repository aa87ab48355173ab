from __future__ import annotations

import pytest
import torch
from torch import nn

from pipelines.backbones.folding import fold_batch_norms
from pipelines.backbones.heads import Classifier, make_classifier
from pipelines.backbones.registry import BACKBONES


@pytest.mark.parametrize("name", BACKBONES)
def test_folding_keeps_the_function_and_leaves_no_batch_norm(name):
    model = make_classifier(name, n_classes=2, hidden=(), dropout=0.0, cut=None, seed=1)
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.7, 1.5, generator=generator)
            module.running_mean.normal_(std=0.2, generator=generator)
    folded = fold_batch_norms(model)
    assert isinstance(folded, Classifier)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    pixels = torch.randn(2, 3, 64, 64, generator=generator)
    with torch.inference_mode():
        _, expected = model.eval()(pixels)
        _, got = folded(pixels)
    assert float(expected.abs().max()) > 1e-3
    scale = float(expected.abs().max())
    assert float((got - expected).abs().max()) < 1e-4 * scale


def test_folding_twice_is_folding_once():
    model = make_classifier("mobilenet_v2", n_classes=2, hidden=(), dropout=0.0, cut=None, seed=1)
    once = fold_batch_norms(model)
    twice = fold_batch_norms(once)
    assert list(once.state_dict()) == list(twice.state_dict())
    for name, tensor in once.state_dict().items():
        assert torch.equal(tensor, twice.state_dict()[name])


def test_step_on_a_folded_layer_is_not_blown_up_by_a_constant_channel():
    """Why norms are folded before training: the same step, before a norm that divides by 0.01."""
    block = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1)).eval()
    block[1].running_var.fill_(1e-4)
    pixels = torch.ones(1, 1, 1, 1)
    moved = {}
    for name, net in (("norm", block), ("folded", fold_batch_norms(block))):
        with torch.no_grad():
            before = net(pixels)
            net[0].weight += 0.001
            moved[name] = float((net(pixels) - before).abs())
    assert moved["folded"] == pytest.approx(0.001, rel=1e-3)
    assert moved["norm"] > 0.09
