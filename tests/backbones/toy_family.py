"""A second family, as a stranger would add it: nothing of a MobileNet is in it.

Residual blocks with norms as attributes and a norm with its activation inside, grouped convolutions
that are not depthwise, padding "same", a layer behind the pool, and an input of its own.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from pipelines.backbones.layers import BehindPool, SameConv2d
from pipelines.backbones.spec import BackboneSpec, Input, Pretrained, timm
from pipelines.backbones.weights import LocalFile


class Stem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = SameConv2d(3, 8, (3, 3), (2, 2), bias=False)
        self.norm = timm().layers.BatchNormAct2d(8, act_layer=nn.ReLU6)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.norm(self.conv(pixels))


class Residual(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        sizes = (3, 3), (stride, stride)
        self.conv2 = SameConv2d(n_out, n_out, *sizes, groups=4, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.shortcut = nn.Conv2d(n_in, n_out, 1, stride, bias=False)
        self.bn3 = nn.BatchNorm2d(n_out)
        self.act = nn.ReLU()

    def forward(self, values: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(self.act(self.bn1(self.conv1(values)))))
        return self.act(inner + self.bn3(self.shortcut(values)))


def build(*_: object) -> list[nn.Module]:
    return [
        Stem(),
        Residual(8, 8, 2),
        Residual(8, 12, 2),
        Residual(12, 12, 1),
        Residual(12, 16, 2),
        Residual(16, 16, 1),
        Residual(16, 24, 2),
        BehindPool(nn.Conv2d(24, 20, 1), nn.Hardswish()),
    ]


def as_pretrained(blocks: list[nn.Module]) -> nn.ModuleList:
    """Norms with statistics and scales of their own, as after a training."""
    network = nn.ModuleList(blocks)
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_var, module.weight.data):
                tensor.uniform_(0.7, 1.5, generator=generator)
            for tensor in (module.running_mean, module.bias.data):
                tensor.normal_(std=0.2, generator=generator)
    return network.eval()


def toy(folder: Path) -> BackboneSpec:
    """The entry; its weights are put into a folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        state = as_pretrained(build()).state_dict()
    data = save({f"net.{name}": tensor for name, tensor in state.items()})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toy.safetensors").write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    return BackboneSpec(
        name="toy",
        family="toy",
        build=build,
        licence="MIT",
        widths={
            1.0: Pretrained(
                input=Input(
                    px=64,
                    mean=(0.4, 0.5, 0.6),
                    std=(0.5, 0.5, 0.5),
                    interpolation="bicubic",
                    padding="same",
                ),
                weights=(LocalFile("toy.safetensors", sha256, "net", "MIT"),),
            )
        },
    )
