from __future__ import annotations

import pytest
import torch
from torch import nn

from pipelines.errors import ConfigError
from pipelines.paths import Paths
from pipelines.training.start import start_model


def test_network_that_starts_from_nothing_keeps_its_norms(train_params, tmp_path):
    params = train_params(backbone="mobilenet_v3_small", weights="none")
    model, weights = start_model(params, 3, 1, Paths(tmp_path))
    assert weights is None
    assert [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    again, _ = start_model(params, 3, 1, Paths(tmp_path))
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )


def test_unknown_backbone_is_refused(train_params, tmp_path):
    with pytest.raises(ConfigError, match="no backbone 'resnet'"):
        start_model(train_params(backbone="resnet"), 3, 1, Paths(tmp_path))


@pytest.mark.parametrize("weights", ["none", "imagenet"])
def test_network_that_is_too_deep_is_told_before_any_weights_are_asked_for(
    weights, train_params, tmp_path
):
    params = train_params(backbone="alexnet", image_px=32, weights=weights)
    with pytest.raises(ConfigError, match=r"train\.image_px: alexnet is too deep for 32 px"):
        start_model(params, 3, 1, Paths(tmp_path))
    assert not list(tmp_path.iterdir())
