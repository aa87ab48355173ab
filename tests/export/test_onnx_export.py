from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from pipelines.backbones.heads import Classifier
from pipelines.backbones.spec import IMAGENET_MEAN, IMAGENET_STD, torchvision_models
from pipelines.errors import ParityError
from pipelines.export.onnx_export import (
    ACTIVATIONS_NAME,
    INPUT_NAME,
    check_parity,
    classifier_onnx,
    trunk_onnx,
)
from pipelines.serving.answer import EMBEDDING_NAME
from pipelines.serving.classification import LOGITS_NAME, softmax
from pipelines.serving.sessions import make_session
from tests.tiny_network import pictures

NORMALISATION = (IMAGENET_MEAN, IMAGENET_STD)


def by_hand(pixels: np.ndarray) -> torch.Tensor:
    """Normalised as torchvision's transforms would do it."""
    values = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(t).reshape(1, 3, 1, 1) for t in NORMALISATION)
    return (values - mean) / std


def test_input_is_bytes_in_rows_of_pixels_and_the_batch_is_free(tiny_onnx):
    session = make_session(tiny_onnx)
    (image,) = session.get_inputs()
    assert image.name == INPUT_NAME
    assert image.type == "tensor(uint8)"
    assert image.shape[1:] == [32, 32, 3]
    assert [output.name for output in session.get_outputs()] == [LOGITS_NAME, EMBEDDING_NAME]
    pixels = pictures(7, 1)
    logits, embedding = session.run(None, {INPUT_NAME: pixels})
    assert logits.shape == (7, 4)
    assert embedding.shape == (7, 24)
    for n in (1, 3):
        some, _ = session.run(None, {INPUT_NAME: pixels[:n]})
        np.testing.assert_allclose(some, logits[:n], atol=1e-4)


def test_outputs_are_those_of_torch(tiny_net, tiny_onnx):
    pixels = pictures(16, 2)
    with torch.inference_mode():
        logits, embedding = tiny_net(by_hand(pixels))
    got = make_session(tiny_onnx).run(None, {INPUT_NAME: pixels})
    np.testing.assert_allclose(got[0], logits, atol=1e-3)
    np.testing.assert_allclose(got[1], embedding, atol=1e-3)
    np.testing.assert_allclose(softmax(got[0]), torch.softmax(logits, dim=1), atol=1e-3)
    # Pictures differ: else anything would agree with anything.
    assert logits.std(dim=0).min() > 0.1


def test_trunk_gives_the_activations_at_the_cut(tiny_net):
    pixels = pictures(3, 2)
    session = make_session(trunk_onnx(tiny_net, 32, *NORMALISATION))
    assert [output.name for output in session.get_outputs()] == [ACTIVATIONS_NAME]
    with torch.inference_mode():
        expected = tiny_net.trunk(by_hand(pixels))
    (got,) = session.run(None, {INPUT_NAME: pixels})
    np.testing.assert_allclose(got, expected, atol=1e-3)


def test_file_is_whole_and_tells_nothing_of_this_machine(tiny_onnx):
    proto = onnx.load_from_string(tiny_onnx)
    onnx.checker.check_model(proto, full_check=True)
    assert not any(tensor.external_data for tensor in proto.graph.initializer)
    root = Path(__file__).resolve().parents[2]
    traces = [b".py", b"site-packages", b"Traceback", str(root).encode(), str(Path.home()).encode()]
    assert [trace for trace in traces if trace in tiny_onnx] == []
    # Folded: nothing is left for the quantiser to be told of.
    assert "BatchNormalization" not in {node.op_type for node in proto.graph.node}


def test_blocks_can_be_found_by_the_names_of_weights(tiny_onnx):
    names = {tensor.name for tensor in onnx.load_from_string(tiny_onnx).graph.initializer}
    for index in range(5):
        assert any(f"blocks.{index}." in name for name in names)


def test_model_is_left_as_it_was(tiny_net):
    tiny_net.train()
    before = {name: tensor.clone() for name, tensor in tiny_net.state_dict().items()}
    trunk_onnx(tiny_net, 32, *NORMALISATION)
    assert tiny_net.training
    assert tiny_net.blocks[0].training
    after = tiny_net.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


# -- parity ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("is_training", [False, True])
def test_parity_of_a_faithful_file_is_small_whatever_the_mode(is_training, tiny_net, tiny_onnx):
    tiny_net.train(is_training)
    assert 0 <= check_parity(tiny_net, tiny_onnx, pictures(16, 5), *NORMALISATION) < 1e-3
    assert tiny_net.training == is_training


@pytest.mark.parametrize("part", ["head.1.bias", "blocks.0.0.weight", "blocks.3.conv.1.1.bias"])
def test_changed_weight_is_found_out(part, tiny_net, tiny_onnx):
    with torch.no_grad():
        tiny_net.get_parameter(part)[0] += 0.5
    with pytest.raises(ParityError, match=r"largest difference .* image \d+"):
        check_parity(tiny_net, tiny_onnx, pictures(16, 5), *NORMALISATION)


def test_other_normalisation_is_found_out(tiny_net, tiny_onnx):
    with pytest.raises(ParityError):
        check_parity(tiny_net, tiny_onnx, pictures(16, 5), (0.5, 0.5, 0.5), IMAGENET_STD)


@pytest.mark.slow
def test_two_processes_export_the_same_bytes():
    code = (
        "import hashlib\n"
        "from pipelines.backbones.heads import make_classifier\n"
        "from pipelines.export.onnx_export import classifier_onnx, trunk_onnx\n"
        "m = make_classifier('mobilenet_v3_small', n_classes=3, hidden=(), dropout=0.2, cut=None,"
        " seed=4)\n"
        f"for export in classifier_onnx, trunk_onnx:\n"
        f"    print(hashlib.sha256(export(m, 32, *{NORMALISATION!r})).hexdigest())\n"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    )
    assert first.stdout.splitlines()[-2:] == second.stdout.splitlines()[-2:] != []


def test_mean_over_the_picture_is_one_operator():
    squeeze = torchvision_models().mobilenetv3.SElayer(8, 8)
    model = Classifier([nn.Conv2d(3, 8, 3, 2, 1), squeeze], nn.Linear(8, 4), 1).eval()
    exported = classifier_onnx(model, 32, IMAGENET_MEAN, IMAGENET_STD)
    operators = Counter(node.op_type for node in onnx.load_from_string(exported).graph.node)
    assert operators["ReduceMean"] == 2
    assert not {"Gather", "Range", "Reshape", "Shape"} & set(operators)
    check_parity(model, exported, pictures(4, 1), IMAGENET_MEAN, IMAGENET_STD)
    # The network that is exported keeps its layer.
    assert isinstance(squeeze.avgpool, nn.AdaptiveAvgPool2d)
