from __future__ import annotations

import pytest
import torch
from torch import nn

from pipelines.backbones.heads import (
    BehindPool,
    Classifier,
    SameConv2d,
    make_head,
    with_explicit_padding,
)
from pipelines.backbones.spec import timm
from tests.backbones.toy_family import as_pretrained


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
