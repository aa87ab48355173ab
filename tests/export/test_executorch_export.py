"""Programs for ExecuTorch: the taps need torch alone, the rest skips where the extra is absent."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.backbones.folding import fold_batch_norms
from pipelines.backbones.heads import Classifier, make_classifier
from pipelines.backbones.spec import IMAGENET_MEAN, IMAGENET_STD, backbones
from pipelines.errors import ConfigError, ParityError
from pipelines.export import executorch_export
from pipelines.export.executorch_export import (
    OUTPUT_NAMES,
    Program,
    check_program,
    float_program,
    int8_program,
    phone_network,
    require_executorch,
)
from pipelines.export.graphs import logits_of, with_inner_features
from pipelines.export.onnx_export import INPUT_NAME, TakesBytes, classifier_onnx
from pipelines.export.quantize import equalized, rounded, stem_nodes
from pipelines.metrics.classification import agreement, sqnr_db
from pipelines.serving.sessions import make_session
from tests.backbones.toy_family import toy
from tests.tiny_network import as_trained, make_net, pictures

needs_executorch = pytest.mark.skipif(
    importlib.util.find_spec("executorch") is None,
    reason="executorch is not installed: pip install 'fieldlens[train,executorch]'",
)
MEAN_STD = (IMAGENET_MEAN, IMAGENET_STD)
#: One of each way to the last convolution with a kernel: shortcuts, squeeze-and-excite, padding
#: "same" of a wheel's, dense kernels with norms in attributes, 1x1 beside 3x3, a layer behind the
#: pool with groups that are not depthwise.
NAMES = ("mobilenet_v2", "mobilenet_v3_small", "efficientnet_lite0", "resnet18", "squeezenet")


BATCHES = [pictures(16, seed) for seed in (11, 12)]


def network_of(name: str, px: int) -> Classifier:
    model = make_classifier(name, n_classes=4, hidden=(), dropout=0.1, cut=None, seed=1)
    nn.init.normal_(model.head[-1].weight, generator=torch.Generator().manual_seed(2))
    as_trained(model, pictures(32, 1, px))
    return model.eval()


def onnx_outputs(model: Classifier, pixels: np.ndarray) -> dict[str, np.ndarray]:
    return answers_of_onnx(classifier_onnx(model, pixels.shape[1], *MEAN_STD), pixels)


def answers_of_onnx(file: bytes, pixels: np.ndarray) -> dict[str, np.ndarray]:
    found = make_session(with_inner_features(file)).run(list(OUTPUT_NAMES), {INPUT_NAME: pixels})
    return dict(zip(OUTPUT_NAMES, found, strict=True))


def outputs(program: Program, pixels: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(OUTPUT_NAMES, program.ask(OUTPUT_NAMES, pixels), strict=True))


# -- without the extra ----------------------------------------------------------------------------
def test_without_the_extra_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"executorch and torchao .*fieldlens\[train,executorch\]"
    ):
        require_executorch()


@pytest.mark.parametrize(
    "name", ["tiny", "toy", *(pytest.param(n, marks=pytest.mark.slow) for n in NAMES)]
)
def test_tapped_network_gives_both_levels_as_the_onnx_file_does(name, tmp_path, monkeypatch):
    monkeypatch.setitem(backbones(), "toy", toy(tmp_path))
    px = 32 if name == "tiny" else 64
    model = make_net(doctored=False) if name == "tiny" else network_of(name, px)
    pixels = pictures(3, 5, px)
    expected = onnx_outputs(model, pixels)
    with torch.inference_mode():
        found = phone_network(model, *MEAN_STD)(torch.from_numpy(pixels))
    got = dict(zip(OUTPUT_NAMES, (each.numpy() for each in found), strict=True))
    assert got["embedding"].shape[1] > model.embed(torch.zeros(1, 3, px, px), 0).shape[1]
    assert check_program(expected, got) < 1e-5


@pytest.mark.parametrize(
    "name", ["tiny", *(pytest.param(n, marks=pytest.mark.slow) for n in NAMES)]
)
def test_network_takes_the_weights_that_its_onnx_file_gets(name):
    px = 32 if name == "tiny" else 64
    model = make_net(doctored=True) if name == "tiny" else network_of(name, px)
    pixels, batches = pictures(3, 5, px), [pictures(8, seed, px) for seed in (11, 12)]
    plain = classifier_onnx(model, px, *MEAN_STD)
    remedied = rounded(equalized(plain, batches), batches, stem_nodes(plain))
    network = executorch_export._folded(model)
    executorch_export._remedy(network, plain, batches)
    with torch.inference_mode():
        got, _ = TakesBytes(network, *MEAN_STD)(torch.from_numpy(pixels))
    expected = logits_of(remedied, pixels)
    assert np.abs(expected - got.numpy()).max() < 1e-3 * np.abs(expected).max()
    # Of SqueezeNet, which has no depthwise convolutions, they move no answer by a thousandth.
    assert name == "squeezenet" or not np.allclose(expected, logits_of(plain, pixels), rtol=1e-3)


def test_classifier_itself_is_not_changed():
    model = make_net(doctored=False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    phone_network(model, *MEAN_STD)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(layer._forward_pre_hooks for layer in model.modules())


@pytest.mark.parametrize(
    ("changed", "by", "message"),
    [
        ("logits", 0.1, "largest difference"),
        ("logits", np.nan, "largest difference"),
        ("embedding", 0.1, "embeddings differ by"),
        ("embedding", np.nan, "embeddings differ by"),
    ],
)
def test_program_that_disagrees_is_refused(changed, by, message):
    reference = {"logits": np.float32([[1, 0]]), "embedding": np.float32([[1, 2, 3]])}
    assert check_program(reference, reference) == 0
    other = {name: values.copy() for name, values in reference.items()}
    other[changed][0, 0] += by
    with pytest.raises(ParityError, match=message):
        check_program(reference, other)


# -- with it --------------------------------------------------------------------------------------
# Lowering takes some ten seconds a program, minutes on a busy machine.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def tiny_programs() -> dict[str, bytes]:
    model = make_net(doctored=False)
    return {
        "fp32": float_program(model, 32, *MEAN_STD),
        "int8": int8_program(model, 32, *MEAN_STD, BATCHES),
    }


@needs_executorch
def test_program_in_float32_answers_as_the_onnx_file(tiny_programs):
    pixels = pictures(24, 5)
    program = Program(tiny_programs["fp32"])
    assert program.input_shape == (1, 32, 32, 3)
    assert program.output_shapes == ((1, 4), (1, 24 + 36))
    expected = onnx_outputs(make_net(doctored=False), pixels)
    assert check_program(expected, outputs(program, pixels)) < 1e-5


@needs_executorch
def test_program_in_int8_loses_little(tiny_programs):
    pixels = pictures(64, 5)
    plain = classifier_onnx(make_net(doctored=False), 32, *MEAN_STD)
    # The means of equalised channels are others than those of fp32.
    expected = answers_of_onnx(
        rounded(equalized(plain, BATCHES), BATCHES, stem_nodes(plain)), pixels
    )
    got = outputs(Program(tiny_programs["int8"]), pixels)
    assert not np.array_equal(expected["logits"], got["logits"])
    assert agreement(expected["logits"], got["logits"]) > 0.9
    assert sqnr_db(expected["logits"], got["logits"]) > 25
    assert sqnr_db(expected["embedding"], got["embedding"]) > 25


@needs_executorch
def test_nothing_is_quantised_between_a_convolution_and_its_relu6():
    network = executorch_export._folded(make_net(doctored=False))
    exported = torch.export.export(nn.Sequential(*network.blocks), (torch.zeros(1, 3, 32, 32),))
    with executorch_export._quiet():
        from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

        prepared = prepare_pt2e(exported.module(), executorch_export._quantizer())
    clips = [n for n in prepared.graph.nodes if n.target is torch.ops.aten.hardtanh.default]
    assert len(clips) == 7
    assert all(clip.args[0].target is torch.ops.aten.conv2d.default for clip in clips)
    # And what the clip leaves is.
    assert all("activation_post_process" in str(next(iter(clip.users))) for clip in clips)


@needs_executorch
def test_xnnpack_computes_all_but_the_cast(tiny_programs):
    for program in tiny_programs.values():
        assert b"XnnpackBackend" in program
        assert b"_to_dim_order_copy" in program
        for name in (b"aten::convolution", b"aten::mean", b"aten::hardtanh", b"aten::addmm"):
            assert name not in program
    assert b"quantize_per_tensor" not in tiny_programs["int8"]


@needs_executorch
def test_answers_of_a_batch_are_those_of_each_picture_and_stay(tiny_programs):
    program, pixels = Program(tiny_programs["int8"]), pictures(3, 6)
    alone = [program.ask(["logits"], picture[None])[0] for picture in pixels]
    kept = [logits.copy() for logits in alone]
    (together,) = program.ask(["logits"], pixels)
    assert np.array_equal(np.concatenate(alone), together)
    assert all(np.array_equal(*pair) for pair in zip(alone, kept, strict=True))
    assert not np.array_equal(kept[0], kept[1])
    swapped = program.ask(["embedding", "logits"], pixels)
    assert np.array_equal(swapped[1], together)


@needs_executorch
def test_program_is_the_same_bytes_when_made_again(tiny_programs):
    assert float_program(make_net(doctored=False), 32, *MEAN_STD) == tiny_programs["fp32"]


@needs_executorch
@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small"])
def test_programs_of_a_whole_network_with_random_weights(name):
    model, pixels = network_of(name, 64), pictures(32, 1, 64)
    expected = onnx_outputs(model, pixels)
    in_float = Program(float_program(model, 64, *MEAN_STD))
    assert check_program(expected, outputs(in_float, pixels)) < 1e-4
    made = int8_program(model, 64, *MEAN_STD, [pixels[:16], pixels[16:]])
    got = outputs(Program(made), pixels)
    assert np.isfinite(got["logits"]).all()
    # How good int8 is can be asked of a trained network alone.
    assert len(made) < 0.45 * 4 * sum(p.numel() for p in fold_batch_norms(model).parameters())
    assert b"aten::convolution" not in made


def test_module_does_not_import_the_extra_by_itself():
    import subprocess
    import sys

    code = (
        f"import sys, {executorch_export.__name__}; "
        "print([n for n in sys.modules if n.split('.')[0] in {'executorch', 'torchao'}])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
