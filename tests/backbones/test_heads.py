from __future__ import annotations

import pytest
import torch
from torch import nn

from pipelines.backbones.heads import Classifier, make_classifier, make_head
from pipelines.backbones.layers import BehindPool, SameConv2d, with_explicit_padding
from pipelines.backbones.spec import backbone, timm
from pipelines.errors import ConfigError
from tests.backbones.toy_family import as_pretrained


def classifier(name: str = "mobilenet_v3_small", **options) -> Classifier:
    settings = {"n_classes": 3, "hidden": (), "dropout": 0.2, "cut": None, "seed": 1, **options}
    return make_classifier(name, **settings)


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mobilenet_v3_large_minimal", "squeezenet"])
@pytest.mark.parametrize("where", ["first", "default", "last"])
def test_trunk_then_tail_is_the_whole_network(name, where, pixels):
    n_blocks = len(backbone(name).build())
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
    assert embedding.shape == (2, backbone(name).n_features)
    assert (activations is pixels) == (where == "first")


@pytest.mark.parametrize("cut", [-1, 14, 1000])
def test_cut_outside_the_network_is_refused(cut):
    with pytest.raises(ConfigError, match=rf"train\.cut: .*0 to 12.*0 to 13, got {cut}\."):
        classifier(cut=cut)


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


def timm_network(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return as_pretrained([timm().create_model(name, pretrained=False)])[0]


# -- behind the pool ------------------------------------------------------------------------------
def test_what_timm_has_behind_its_pool_is_part_of_the_embedding():
    net = timm_network("mobilenetv3_small_050")
    blocks = [
        nn.Sequential(net.conv_stem, net.bn1),
        *net.blocks,
        BehindPool(net.conv_head, net.norm_head, net.act2),
    ]
    model = Classifier(blocks, make_head(1024, 2, (), 0.0), 3).eval()
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        expected = net.forward_head(net.forward_features(pixels), pre_logits=True)
        _, embedding = model(pixels)
        # From the maps, as Grad-CAM starts.
        maps = nn.Sequential(*model.blocks[: model.n_maps])(pixels)
        again = model.embed(maps, model.n_maps)
    assert expected.shape == embedding.shape == (2, 1024)
    assert maps.shape[2:] == (2, 2)
    assert float(expected.std()) > 1e-3
    torch.testing.assert_close(embedding, expected)
    torch.testing.assert_close(again, expected)


# -- padding --------------------------------------------------------------------------------------
@pytest.mark.parametrize("side", [64, 96, 224])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_is_tensorflows_where_the_stride_divides_the_side(side, kernel, stride):
    torch.manual_seed(1)
    theirs = timm().layers.Conv2dSame(4, 4, kernel, stride, groups=2)
    ours = SameConv2d(4, 4, (kernel, kernel), (stride, stride), groups=2)
    ours.load_state_dict(theirs.state_dict())
    values = torch.randn(1, 4, side, side)
    torch.testing.assert_close(ours(values), theirs(values), rtol=0, atol=1e-6)


def test_a_network_keeps_its_names_and_its_answers():
    net = timm_network("tf_efficientnet_lite0")
    explicit = with_explicit_padding(net)
    assert list(explicit.state_dict()) == list(net.state_dict())
    kinds = {type(m).__name__ for m in explicit.modules()}
    assert "SameConv2d" in kinds
    assert "Conv2dSame" not in kinds
    assert "Conv2dSame" in {type(m).__name__ for m in net.modules()}
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(explicit(pixels), net(pixels))


def test_torchs_word_for_it_is_spelt_out_too():
    net = nn.Sequential(nn.Conv2d(3, 3, 5, padding="same"))
    explicit = with_explicit_padding(net)
    assert explicit[0].padding == (2, 2)
    values = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(explicit(values), net(values))
