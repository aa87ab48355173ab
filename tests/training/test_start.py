from __future__ import annotations

import pytest
import torch
from torch import nn

from pipelines.errors import ConfigError
from pipelines.paths import Paths
from pipelines.training.start import set_up_torch, start_model


def test_torch_computes_the_same_each_time_and_fills_nothing_in_vain(monkeypatch):
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    n_threads = torch.get_num_threads()
    try:
        set_up_torch(1)
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
        assert torch.get_num_threads() == 1
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(n_threads)


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
