from __future__ import annotations

import pytest
import torch
from torch import nn

from pipelines.backbones.heads import Classifier, make_classifier, make_head
from pipelines.backbones.spec import backbones
from pipelines.errors import ConfigError


def classifier(name: str = "mobilenet_v3_small", **options) -> Classifier:
    settings = {"n_classes": 3, "hidden": (), "dropout": 0.2, "cut": None, "seed": 1, **options}
    return make_classifier(name, **settings)


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("name", backbones())
@pytest.mark.parametrize("where", ["first", "default", "last"])
def test_trunk_then_tail_is_the_whole_network(name, where, pixels):
    n_blocks = len(backbones()[name].build())
    cut = {"first": 0, "default": None, "last": n_blocks}[where]
    model = classifier(name, cut=cut).eval()
    with torch.inference_mode():
        # A head that starts at almost nothing would hide a difference.
        model.head[-1].weight.normal_(std=1.0)
        logits, embedding = model(pixels)
        activations = model.trunk(pixels)
        whole = nn.Sequential(*model.blocks)(pixels).mean(dim=(2, 3))
        assert torch.equal(model.tail(activations), logits)
        assert torch.equal(model.embed(activations), embedding)
        assert torch.allclose(whole, embedding, atol=1e-6)
        assert torch.allclose(model.head(whole), logits, atol=1e-5)
    assert logits.shape == (2, 3)
    assert embedding.shape == (2, backbones()[name].n_features)
    assert (activations is pixels) == (where == "first")


@pytest.mark.parametrize("cut", [-1, 14, 1000])
def test_cut_outside_the_network_is_refused(cut):
    with pytest.raises(ConfigError, match=rf"train\.cut: .*0 to 12.*0 to 13, got {cut}\."):
        classifier(cut=cut)


def test_unknown_backbone_is_refused():
    with pytest.raises(ConfigError, match="there is no backbone 'vgg'"):
        classifier("vgg")


def test_same_seed_gives_the_same_weights_and_another_seed_others():
    first, again, other = classifier(), classifier(), classifier(seed=2)
    for (name, a), b in zip(first.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert not torch.equal(first.blocks[0][0].weight, other.blocks[0][0].weight)
    assert not torch.equal(first.head[-1].weight, other.head[-1].weight)


def test_global_generator_is_left_as_it_was():
    torch.manual_seed(99)
    expected = torch.rand(3)
    torch.manual_seed(99)
    classifier()
    assert torch.equal(torch.rand(3), expected)


def test_head_of_the_two_class_study():
    head = make_head(1280, 2, [320, 320], 0.5)
    kinds = [type(layer) for layer in head]
    assert kinds == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    assert [layer.out_features for layer in head if isinstance(layer, nn.Linear)] == [320, 320, 2]
    expected = (1280 * 320 + 320) + (320 * 320 + 320) + (320 * 2 + 2)
    assert sum(p.numel() for p in head.parameters()) == expected
    assert head[4].p == 0.5


def test_head_starts_small_and_unbiased():
    last = make_head(1280, 5, [], 0.0)[-1]
    assert torch.count_nonzero(last.bias) == 0
    assert 0.008 < float(last.weight.detach().std()) < 0.012


def test_dropout_acts_in_training_alone():
    head = make_head(64, 3, [], 0.5)
    features = torch.ones(1, 64)
    head.train()
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))
