"""Settings of a tiny training, and networks small enough to train in a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pipelines.backbones.heads import Classifier, make_head
from pipelines.config.train import TrainParams
from pipelines.data.manifest import in_split, read_manifest
from pipelines.export.onnx_export import trunk_onnx
from pipelines.paths import Paths
from pipelines.training.batches import Split
from pipelines.training.job import open_split
from tests.tiny_params import PARAMS, PHASE


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def train_params() -> Callable[..., TrainParams]:
    """Makes `TrainParams`; head_phase and tail_phase are laid over the tiny ones."""

    def make(**changes: Any) -> TrainParams:
        for phase in ("head_phase", "tail_phase"):
            changes[phase] = {**PHASE, **changes.get(phase, {})}
        return TrainParams.model_validate({**PARAMS, **changes})

    return make


#: RGB, of pixels in [0, 1].
MEAN = STD = (0.5, 0.5, 0.5)


def make_net() -> Classifier:
    """Five of MobileNetV2's blocks for 32 px, cut after two."""
    from pipelines.backbones.spec import torchvision_models

    v2 = torchvision_models().mobilenetv2
    relu6 = {"activation_layer": nn.ReLU6}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        blocks = [
            v2.Conv2dNormActivation(3, 8, stride=2, **relu6),
            v2.InvertedResidual(8, 8, 2, 3),
            v2.InvertedResidual(8, 12, 2, 3),
            v2.InvertedResidual(12, 12, 1, 3),
            v2.Conv2dNormActivation(12, 24, kernel_size=1, **relu6),
        ]
        model = Classifier(blocks, make_head(24, 3, (), 0.0), 2)
        # Statistics that fit pictures; else the signal dies on its way through the blocks.
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None
        with torch.no_grad():
            model.train()(torch.randn(16, 3, 1, 1) * 0.3 + torch.randn(16, 3, 32, 32) * 0.1)
        for norm in norms:
            norm.momentum = 0.1
    return model.eval()


@pytest.fixture
def net() -> Classifier:
    return make_net()


@pytest.fixture(scope="session")
def trunk() -> bytes:
    """The trunk of `net` as ONNX."""
    return trunk_onnx(make_net(), 32, MEAN, STD)


@pytest.fixture
def normalise() -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda pixels: ((pixels.float() / 255 - 0.5) / 0.5).permute(0, 3, 1, 2).contiguous()


@pytest.fixture
def splits(tiny_project: Paths, train_params: Callable[..., TrainParams]) -> tuple[Split, Split]:
    """Train and val of the tiny project: tiles of three colours."""
    files, params = tiny_project.task("tiny"), train_params(crop_fraction=32 / 36)
    entries = read_manifest(files.manifest)
    labels = sorted({entry.label for entry in entries})
    train, val = (
        open_split(in_split(entries, name), labels, params, 5, files) for name in ("train", "val")
    )
    return train, val
