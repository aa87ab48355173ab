"""A network of MobileNetV2's blocks that exports in two seconds, and pictures for it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipelines.backbones.heads import Classifier, make_head
from pipelines.backbones.spec import IMAGENET_MEAN, IMAGENET_STD
from pipelines.export.onnx_export import classifier_onnx

N_CLASSES = 4


def pictures(n: int, seed: int, side: int = 32) -> NDArray[np.uint8]:
    generator = np.random.default_rng(seed)
    patches = generator.uniform(0, 255, (n, side // 8, side // 8, 3))
    pixels = np.kron(patches, np.ones((1, 8, 8, 1)))
    return np.clip(pixels + generator.normal(0, 10, pixels.shape), 0, 255).astype(np.uint8)


def as_trained(model: Classifier, pixels: NDArray[np.uint8]) -> None:
    """Batch norms as after a training: statistics that fit pictures, and scales of their own; and a
    head that gives each label to some of the pictures.
    """
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.weight.data.uniform_(0.5, 2.0, generator=generator)
            module.bias.data.normal_(std=0.3, generator=generator)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    values = ((torch.from_numpy(pixels) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        model.train()(values)
        model.head[-1].bias -= model.eval()(values)[0].mean(dim=0)


def nearly_constant_channel(first: nn.Module, second: nn.Module) -> None:
    """What MobileNetV2's pretrained weights do to int8: a channel of a bottleneck hardly moves, and
    the next convolution makes up for it with weights of over a hundred.
    """
    norm, expand = first.conv[-1], second.conv[0]
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        norm.weight[0], norm.bias[0] = 0.01, 8.0
        weights = 127 * torch.randn(len(expand[0].weight), generator=generator)
        expand[0].weight[:, 0, 0, 0] = weights
        expand[1].running_mean += weights * 8.0


def make_net(*, doctored: bool) -> Classifier:
    """Five blocks, 32 px: a shortcut, a bottleneck without one, ReLU6 everywhere."""
    from pipelines.backbones.spec import torchvision_models

    v2 = torchvision_models().mobilenetv2
    relu6 = {"activation_layer": nn.ReLU6}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        blocks = [
            v2.Conv2dNormActivation(3, 8, stride=2, **relu6),
            v2.InvertedResidual(8, 6, 1, 1),
            v2.InvertedResidual(6, 12, 2, 3),
            v2.InvertedResidual(12, 12, 1, 3),
            v2.Conv2dNormActivation(12, 24, kernel_size=1, **relu6),
        ]
        head = make_head(24, N_CLASSES, (), 0.2)
        nn.init.normal_(head[-1].weight, std=1.0)
    model = Classifier(blocks, head, 2)
    as_trained(model, pictures(48, 0))
    if doctored:
        nearly_constant_channel(model.blocks[1], model.blocks[2])
    return model.eval()


def tiny_onnx() -> bytes:
    """The network as ONNX."""
    return classifier_onnx(make_net(doctored=False), 32, IMAGENET_MEAN, IMAGENET_STD)
