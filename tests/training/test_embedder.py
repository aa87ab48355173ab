from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.backbones.spec import backbone, backbones
from pipelines.paths import Paths
from pipelines.training import embedder
from pipelines.training.embedder import kept_at
from pipelines.training.start import start_model
from tests.backbones.toy_family import toy


@pytest.fixture
def paths(tmp_path, monkeypatch) -> Paths:
    """A project that has the weights of one backbone."""
    monkeypatch.delenv("FIELDLENS_WEIGHTS", raising=False)
    paths = Paths(tmp_path / "project")
    monkeypatch.setitem(backbones(), "toy", toy(paths.weights_dir))
    # Of a family that is not there, nothing is hashed.
    monkeypatch.setattr(embedder, "_code", lambda _: iter(()))
    return paths


@pytest.fixture
def params(train_params):
    return train_params(backbone="toy", weights="imagenet", image_px=64)


def test_file_is_kept_while_other_weights_come_and_go(params, paths):
    before = kept_at(params, 1, paths)
    (paths.weights_dir / "another_backbone.pth").write_bytes(b"fetched since")
    assert kept_at(params, 1, paths) == before
    # The seed draws nothing where weights are pretrained.
    assert kept_at(params, 2, paths) == before


def test_file_is_another_one_with_its_backbones_weights(params, paths, monkeypatch):
    before = kept_at(params, 1, paths)
    (paths.weights_dir / "toy.safetensors").unlink()
    absent = kept_at(params, 1, paths)
    (provider,) = backbone("toy").weights
    (paths.weights_dir / "toy.safetensors").write_bytes(b"others")
    # A file that is not what it should be is none.
    assert kept_at(params, 1, paths) == absent
    assert before != absent
    spec = backbones()["toy"]
    known = replace(spec.widths[1.0], weights=(replace(provider, sha256=""),))
    monkeypatch.setitem(backbones(), "toy", replace(spec, widths={1.0: known}))
    assert kept_at(params, 1, paths) not in {before, absent}


def test_code_is_that_of_its_own_family(paths, monkeypatch):
    monkeypatch.undo()
    files = {path.name for path in embedder._code("mobilenet_v3")}
    assert {"mobilenet_v3.py", "folding.py", "embedder.py", "onnx_export.py"} <= files
    assert "mobilenet_v2.py" not in files


@pytest.mark.slow
def test_embedding_is_that_of_the_network_with_what_stands_behind_its_pool(params, paths):
    pixels = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), np.uint8)
    got = embedder.embed(embedder.embedder(params, 1, paths), pixels)
    model, _ = start_model(params, 2, 1, paths)
    values = (torch.from_numpy(pixels) / 255 - torch.tensor([0.4, 0.5, 0.6])) / 0.5
    with torch.inference_mode():
        expected = nn.Sequential(*model.blocks)(values.permute(0, 3, 1, 2)).flatten(1).numpy()
    assert got.shape == expected.shape == (3, 20)
    assert expected.std() > 1e-3
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_asking_where_it_is_kept_loads_no_torch(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from pipelines.backbones.spec import backbone\n"
        "from pipelines.backbones.weights import found_sha256\n"
        "from pipelines.training import embedder\n"
        "assert backbone('mobilenet_v3_small').spec.family == 'mobilenet_v3'\n"
        "assert list(embedder._code('mobilenet_v3'))\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
