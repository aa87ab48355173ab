"""The tiny network as files, and calibration pictures for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pipelines.backbones.heads import Classifier
from pipelines.backbones.layers import replaced
from pipelines.backbones.spec import IMAGENET_MEAN, IMAGENET_STD
from pipelines.export.onnx_export import classifier_onnx
from tests import tiny_network
from tests.tiny_network import make_net, pictures


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDLENS_WORKERS", "1")


@pytest.fixture
def tiny_net() -> Classifier:
    return make_net(doctored=False)


@pytest.fixture(scope="session")
def tiny_onnx() -> bytes:
    return tiny_network.tiny_onnx()


@pytest.fixture(scope="session")
def doctored_onnx() -> bytes:
    return classifier_onnx(make_net(doctored=True), 32, IMAGENET_MEAN, IMAGENET_STD)


@pytest.fixture(scope="session")
def batches() -> list[NDArray[np.uint8]]:
    return [pictures(16, seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="session")
def swish_onnx() -> bytes:
    """The tiny network with hard-swish for ReLU6."""
    net = make_net(doctored=False)
    replaced(net, lambda layer: isinstance(layer, nn.ReLU6), lambda _: nn.Hardswish())
    return classifier_onnx(net, 32, IMAGENET_MEAN, IMAGENET_STD)
