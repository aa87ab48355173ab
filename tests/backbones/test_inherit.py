from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from pipelines.backbones.architecture import MOBILENET_V2, parse
from pipelines.backbones.families.searched import blocks_of
from pipelines.backbones.inherit import sliced, whole
from pipelines.backbones.spec import backbone
from pipelines.config.search import SpaceParams
from pipelines.search.space import Space
from tests.backbones.toy_family import as_pretrained

PIXELS = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
V2 = MOBILENET_V2.line


@pytest.fixture(scope="module")
def base() -> nn.ModuleList:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return as_pretrained(backbone("mobilenet_v2").build())


@pytest.fixture(scope="module")
def tensors(base) -> dict[str, torch.Tensor]:
    return whole(base.state_dict(), MOBILENET_V2)


def network(line: str, tensors: dict[str, torch.Tensor]) -> nn.Sequential:
    blocks = nn.ModuleList(blocks_of(parse(line)))
    counted = {name: t for name, t in blocks.state_dict().items() if name.endswith("tracked")}
    blocks.load_state_dict({**sliced(tensors, parse(line)), **counted})
    return nn.Sequential(*blocks).eval()


def embedding(blocks: nn.Module) -> torch.Tensor:
    """(n, d), sorted: an order of channels is no difference."""
    with torch.inference_mode():
        return blocks(PIXELS).mean(dim=(2, 3)).sort(dim=1).values


@pytest.mark.parametrize("old", ["", "_k3_s2_e6", "ds_r1_k3"])
def test_base_and_its_larger_kernels_are_the_same_function(old, base, tensors):
    line = V2.replace(old, old.replace("k3", "k5")) if old else V2
    expected, got = embedding(nn.Sequential(*base)), embedding(network(line, tensors))
    assert float(expected.std()) > 0.01
    # A kernel whose ring is zeros adds up the same products in another order.
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_squeeze_passes_nearly_all(tensors):
    line = V2.replace("e6_c96", "e6_c96_se0.25")
    change = (embedding(network(line, tensors)) - embedding(network(V2, tensors))).abs().mean()
    assert 0 < float(change) < 0.05 * float(embedding(network(V2, tensors)).abs().mean())


def test_fused_kernel_is_the_product_of_two(tensors):
    line = V2.replace("ir_r2_k3_s2_e6_c24", "er_r2_k3_s2_e6_c24")
    plain, fused = (network(each, tensors)[2] for each in (V2, line))
    values = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(3))
    expand, depthwise = plain.expand, plain.depthwise
    norm = expand[1]
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    with torch.inference_mode():
        expanded = functional.conv2d(values, expand[0].weight) * scale[:, None, None]
        torch.testing.assert_close(
            fused.fused[0](values), depthwise[0](expanded), rtol=1e-4, atol=1e-5
        )


def test_narrow_network_keeps_the_channels_that_are_read_most(base, tensors):
    """Of the last stage but one, by what its only reader makes of each."""
    reader = base[18][0].weight.detach().abs().sum(dim=(0, 2, 3))
    best = reader.argsort(descending=True, stable=True)[:240]
    narrow = network(V2.replace("e6_c320", "e6_c240"), tensors)
    mine = narrow[17].project[1].running_mean
    torch.testing.assert_close(mine, base[17].conv[3].running_mean[best])


@pytest.mark.parametrize("seed", range(4))
def test_any_network_of_the_space_is_a_part(seed, tensors):
    found = Space.of(SpaceParams()).random(np.random.default_rng(seed)).architecture
    assert embedding(network(found.line, tensors)).shape == (2, found.stages[-1].channels)


def test_two_calls_give_the_same(base, tensors):
    again = whole(base.state_dict(), MOBILENET_V2)
    assert list(again) == list(tensors)
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)
