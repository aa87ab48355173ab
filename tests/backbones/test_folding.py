from __future__ import annotations

import pytest
import torch
from torch import nn

from pipelines.backbones import folding
from pipelines.backbones.folding import batch_norms_of, fold_batch_norms
from pipelines.backbones.heads import make_classifier
from pipelines.backbones.spec import timm, torchvision_models
from pipelines.errors import ParityError
from tests.backbones.toy_family import as_pretrained


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
    for name, net in (("norm", block), ("folded", fold_batch_norms(block, pixels))):
        with torch.no_grad():
            before = net(pixels)
            net[0].weight += 0.001
            moved[name] = float((net(pixels) - before).abs())
    assert moved["folded"] == pytest.approx(0.001, rel=1e-3)
    assert moved["norm"] > 0.09


# -- whatever a network is built of ---------------------------------------------------------------
PIXELS = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(6))


def difference(net: nn.Module, folded: nn.Module) -> float:
    """Largest difference of the answers, as a share of the largest answer."""
    with torch.inference_mode():
        expected, got = net.eval()(PIXELS), folded(PIXELS)
    assert float(expected.std()) > 1e-3
    return float((got - expected).abs().max() / expected.abs().max())


def made(name: str) -> nn.Module:
    if hasattr(torchvision_models(), name):
        net = getattr(torchvision_models(), name)(weights=None)
    else:
        net = timm().create_model(name, pretrained=False)
    return as_pretrained([net])[0]


#: Norms as attributes; norms with an activation inside; grouped and branching convolutions.
NETWORKS = [
    "resnet18",
    "tf_mobilenetv3_small_minimal_100",
    "shufflenet_v2_x0_5",
    "mobilenetv4_conv_small",
]


@pytest.mark.parametrize("name", NETWORKS)
def test_norms_of_any_network_are_folded_and_nothing_else_is_lost(name):
    torch.manual_seed(1)
    net = made(name)
    assert len(batch_norms_of(net)) > 15
    folded = fold_batch_norms(net)
    assert batch_norms_of(folded) == ()
    assert difference(net, folded) < 1e-4
    # What is new is the bias of convolutions that had none.
    new = set(folded.state_dict()) - set(net.state_dict())
    assert {name.rpartition(".")[2] for name in new} == {"bias"}


class Wired(nn.Module):
    """A convolution and a norm, wired by a function."""

    def __init__(self, wiring) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.wiring = wiring

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.wiring(self, x)


def both_read(net: Wired, x: torch.Tensor) -> torch.Tensor:
    y = net.conv(x)
    return net.norm(y) + y


@pytest.mark.parametrize(
    "wiring",
    [
        pytest.param(both_read, id="a shortcut reads the convolution too"),
        pytest.param(lambda net, x: net.conv(net.norm(x)), id="the norm comes first"),
        pytest.param(
            lambda net, x: net.norm(net.conv(net.conv(x))), id="the convolution runs twice"
        ),
        pytest.param(lambda net, x: net.norm(net.norm(net.conv(x))), id="the norm runs twice"),
        pytest.param(
            lambda net, x: net.norm(net.conv(x)) + net.norm(x), id="the norm reads something else"
        ),
        pytest.param(
            lambda net, x: net.norm(net.conv(x)) + net.conv(-x), id="one run is not normed"
        ),
        pytest.param(lambda net, x: net.norm(net.conv(x).relu_()), id="changed in between"),
        pytest.param(lambda net, x: net.norm(net.conv(x)[:, :, 1:]), id="cut in between"),
        pytest.param(lambda net, x: net.norm(net.conv(x) + 1), id="added to in between"),
    ],
)
def test_a_norm_that_no_convolution_can_take_stays_and_is_named(wiring):
    net = as_pretrained([Wired(wiring)])[0]
    folded = fold_batch_norms(net)
    assert batch_norms_of(folded) == ("norm",)
    assert difference(net, folded) == 0


@pytest.mark.parametrize(
    "wiring",
    [
        pytest.param(lambda net, x: net.norm(net.conv(x)), id="in no container"),
        pytest.param(
            lambda net, x: net.norm(net.conv(x)) + net.norm(net.conv(-x)), id="both run twice"
        ),
    ],
)
def test_a_norm_is_folded_wherever_it_stands(wiring):
    net = as_pretrained([Wired(wiring)])[0]
    folded = fold_batch_norms(net)
    assert batch_norms_of(folded) == ()
    assert 0 < difference(net, folded) < 1e-5


def test_folding_that_changes_the_function_is_an_error(monkeypatch):
    monkeypatch.setattr(folding, "_without_norm", lambda _: nn.Identity())
    with pytest.raises(ParityError, match="changed what MobileNetV3 computes"):
        fold_batch_norms(made("tf_mobilenetv3_small_minimal_100"))
