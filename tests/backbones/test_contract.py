"""What every backbone keeps; a new entry is tested here without a line of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.backbones.folding import batch_norms_of, fold_batch_norms
from pipelines.backbones.heads import Classifier, make_classifier
from pipelines.backbones.layers import SameConv2d
from pipelines.backbones.spec import backbone, backbones
from pipelines.export.graphs import convolutions_of, logits_of, with_inner_features
from pipelines.export.onnx_export import check_parity, classifier_onnx, trunk_onnx
from pipelines.export.quantize import equalized, static_int8, stem_nodes
from pipelines.metrics.classification import sqnr_db
from pipelines.serving.sessions import make_session
from pipelines.serving.vetting import vet
from tests.backbones.names import NAMES, marked
from tests.backbones.toy_family import as_pretrained, toy
from tests.tiny_network import as_trained, pictures

PX = 64


@pytest.fixture(params=[pytest.param(name, marks=marked(name)) for name in NAMES])
def name(request, tmp_path, monkeypatch) -> str:
    if request.param == "toy":
        monkeypatch.setitem(backbones(), "toy", toy(tmp_path))
    return request.param


#: At width 1 its file has 113 MB, and 100 MB are the most that is loaded.
WIDTHS = {"mobilenet_v1_full_convolutions": 0.5}
#: Norms behind a concatenation, which no one convolution can take.
UNFOLDED = {"nasnet_mobile": 4}


def classifier(name: str) -> Classifier:
    width = WIDTHS.get(name, 1.0)
    model = make_classifier(name, width, n_classes=4, hidden=(), dropout=0.1, cut=None, seed=1)
    nn.init.normal_(model.head[-1].weight, std=0.5, generator=torch.Generator().manual_seed(2))
    return model


def normalised(name: str, pixels: np.ndarray) -> torch.Tensor:
    expected = backbone(name).input
    values = torch.from_numpy(pixels) / 255 - torch.tensor(expected.mean)
    return (values / torch.tensor(expected.std)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", NAMES, indirect=True)
def test_entry_says_who_it_is(name):
    spec = backbone(name, WIDTHS.get(name, 1.0))
    assert spec.spec.name == name
    assert spec.spec.family
    assert spec.spec.licence
    assert all(provider.licence and provider.title for provider in spec.weights)
    assert spec.input.px % 32 == 0
    assert all(0 < deviation <= 1 for deviation in spec.input.std)
    with torch.device("meta"):
        blocks = spec.build()
    convolutions = [m for b in blocks for m in b.modules() if isinstance(m, nn.Conv2d)]
    kinds = {type(convolution) for convolution in convolutions}
    assert (SameConv2d in kinds) == (spec.input.padding == "same")
    # Numbers alone: nothing works out its padding while it runs.
    assert kinds <= {nn.Conv2d, SameConv2d}
    assert all(isinstance(convolution.padding, tuple) for convolution in convolutions)


def test_taps_cut_and_embedding_are_those_of_the_blocks(name):
    spec, model = backbone(name, WIDTHS.get(name, 1.0)), classifier(name).eval()
    values = normalised(name, pictures(2, 1, PX))
    seen = []
    with torch.inference_mode():
        logits, embedding = model(values)
        for block in model.blocks:
            values = block(values)
            seen.append(values.shape)
    last_but_one, last = sorted(spec.taps)[-2:]
    assert last >= 16
    for stride, tap in spec.taps.items():
        assert seen[tap.block][1] == tap.channels
        # Networks that do not pad give up to three pixels less.
        assert PX / stride - 3 <= seen[tap.block][2] == seen[tap.block][3] <= PX / stride
    # At the cut, activations are small, and the tail has the last stride to itself.
    assert model.cut == spec.taps[last_but_one].block + 1
    assert seen[model.cut][2] < seen[model.cut - 1][2]
    assert 1 <= seen[model.n_maps - 1][2] <= PX / last
    assert embedding.shape == (2, spec.n_features)
    assert logits.shape == (2, 4)


def test_folding_keeps_the_function_and_leaves_norms_behind_concatenations_alone(name):
    model = classifier(name)
    as_pretrained(list(model.blocks))
    n_norms = len(batch_norms_of(model))
    folded = fold_batch_norms(model)
    assert isinstance(folded, Classifier)
    assert len(batch_norms_of(folded)) == UNFOLDED.get(name, 0)
    assert len(batch_norms_of(model)) == n_norms
    values = torch.randn(2, 3, PX, PX, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        _, expected = model.eval()(values)
        _, got = folded(values)
    scale = float(expected.abs().max())
    assert scale > 1e-3
    assert float((got - expected).abs().max()) < 1e-4 * scale


@pytest.mark.slow
def test_exported_file_agrees_is_vetted_and_becomes_int8(name, tmp_path, monkeypatch):
    monkeypatch.setenv("FIELDLENS_WORKERS", "1")
    spec, model = backbone(name, WIDTHS.get(name, 1.0)), classifier(name)
    pixels = pictures(32, 1, PX)
    as_trained(model, pixels)
    mean, std = spec.input.mean, spec.input.std
    folded = fold_batch_norms(model)
    file = classifier_onnx(folded, PX, mean, std)
    assert check_parity(model, file, pixels, mean, std) < 1e-3
    with torch.inference_mode():
        expected = folded.trunk(normalised(name, pixels[:4])).numpy()
    trunk = make_session(trunk_onnx(folded, PX, mean, std))
    got = trunk.run(None, {"image": pixels[:4]})[0]
    assert np.abs(got - expected).max() <= 1e-4 * np.abs(expected).max()

    batches = [pixels[:16], pixels[16:]]
    better = equalized(file, batches)
    assert sqnr_db(logits_of(file, pixels), logits_of(better, pixels)) > 30
    # How good int8 is can be asked of a trained network alone; that there is one, of each.
    float_nodes = stem_nodes(file)
    int8 = with_inner_features(static_int8(better, batches, tmp_path, float_nodes=float_nodes))
    n_convolutions = len(convolutions_of(file) - set(float_nodes))
    assert vet(int8).operators["DequantizeLinear"] > 2 * n_convolutions > 0
    logits, embedding = make_session(int8).run(None, {"image": pixels})
    assert np.isfinite(logits).all()
    of_file = make_session(with_inner_features(file)).run(None, {"image": pixels})[1]
    assert embedding.shape == of_file.shape
    assert embedding.shape[1] > spec.n_features
