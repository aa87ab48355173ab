"""Networks that are written straight: the files that the exporter and the quantiser would make."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from pipelines.backbones.architecture import MOBILENET_V2, parse
from pipelines.backbones.heads import make_classifier
from pipelines.backbones.spec import IMAGENET_MEAN, IMAGENET_STD
from pipelines.config.search import SpaceParams
from pipelines.export.exact_sums import exact
from pipelines.export.graphs import session_with, with_inner_features
from pipelines.export.onnx_export import INPUT_NAME, classifier_onnx
from pipelines.export.quantize import static_int8, stem_nodes
from pipelines.search.graphs import all_parts, network_onnx, part_onnx, parts_of
from pipelines.search.space import Network, Space
from pipelines.serving.sessions import make_session

PX, N_CLASSES = 64, 5
SPACE = Space.of(SpaceParams())
#: Fused and plain blocks, both kernels, with and without excitation, beside the two extremes.
MIXED = parse(
    "mobilenet_v2-cn_r1_k3_s2_c16-ds_r1_k5_s1_c8-er_r2_k5_s2_e3_c24-er_r2_k3_s2_e6_c32_se0.25-"
    "ir_r2_k3_s2_e4_c64-ir_r1_k5_s1_e1_c48_se0.25-ir_r1_k3_s2_e3_c80-ir_r1_k3_s1_e3_c160-"
    "cn_r1_k1_s1_c640"
)
NETWORKS = {
    "mobilenet_v2": MOBILENET_V2,
    "smallest": SPACE.smallest.architecture,
    "largest": SPACE.largest.architecture,
    "mixed": MIXED,
}
BOTH = pytest.mark.parametrize("precision", ["fp32", "int8"])
EACH = pytest.mark.parametrize("name", NETWORKS)


def noise(n: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, PX, PX, 3), dtype=np.uint8)


def operators(model: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(model).graph.node)


def optimised(model: bytes, path) -> Counter[str]:
    """What ONNX Runtime really runs."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path)
    ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return operators(path.read_bytes())


@EACH
@BOTH
def test_pictures_in_logits_and_embedding_out(name, precision):
    model = network_onnx(Network(NETWORKS[name], PX), N_CLASSES, precision)
    logits, embedding = make_session(model).run(["logits", "embedding"], {INPUT_NAME: noise(2)})
    last = list(NETWORKS[name].blocks)[-2:]
    assert logits.shape == (2, N_CLASSES)
    assert embedding.shape == (2, last[1].channels + last[0].hidden)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mixed"])
def test_int8_has_the_operators_of_the_quantiser(name, tmp_path):
    network = Network(NETWORKS[name], PX)
    fp32 = network_onnx(network, N_CLASSES, "fp32")
    graph = onnx.load_from_string(fp32).graph
    # The embedding is added to a file that has been quantised.
    del graph.node[-2:], graph.output[-1:]
    plain = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10
    ).SerializeToString()
    excited = 2 if list(network.architecture.blocks)[1].n_squeezed else 0
    convolutions = [i for i, node in enumerate(graph.node) if node.op_type == "Conv"]
    stem = [node.name for node in graph.node[: convolutions[2 + excited] + 1]]
    expected = operators(exact(static_int8(plain, [noise()], tmp_path, float_nodes=stem)))
    found = operators(network_onnx(network, N_CLASSES, "int8"))
    assert found - expected == {"ReduceMean": 1, "Concat": 1}
    assert expected <= found


@pytest.mark.slow
def test_mobilenet_v2_is_as_the_exporter_writes_it(tmp_path):
    model = make_classifier(
        "mobilenet_v2", 1.0, n_classes=N_CLASSES, hidden=(), dropout=0.0, cut=None, seed=0
    )
    for each in model.modules():
        # The exporter leaves out a bias of zeros.
        if isinstance(each, (torch.nn.BatchNorm2d, torch.nn.Linear)):
            torch.nn.init.normal_(each.bias, std=0.1)
    exported = classifier_onnx(model.eval(), PX, IMAGENET_MEAN, IMAGENET_STD)
    network = Network(MOBILENET_V2, PX)
    fp32 = network_onnx(network, N_CLASSES, "fp32")
    assert operators(fp32) == operators(with_inner_features(exported))
    assert weights_of(fp32) == weights_of(exported)
    int8 = exact(static_int8(exported, [noise()], tmp_path, float_nodes=stem_nodes(exported)))
    assert operators(network_onnx(network, N_CLASSES, "int8")) == operators(
        with_inner_features(int8)
    )


def weights_of(model: bytes) -> Counter[tuple[int, ...]]:
    """Shapes of more than one dimension."""
    tensors = onnx.load_from_string(model).graph.initializer
    return Counter(tuple(each.dims) for each in tensors if len(each.dims) == 4)


@EACH
def test_int8_runs_as_integer_kernels(name, tmp_path):
    network = Network(NETWORKS[name], PX)
    written = operators(network_onnx(network, N_CLASSES, "int8"))
    found = optimised(network_onnx(network, N_CLASSES, "int8"), tmp_path / "o.onnx")
    blocks = list(network.architecture.blocks)
    n_excited = sum(1 for block in blocks[2:] if block.n_squeezed)
    in_float = 5 if blocks[1].n_squeezed else 3
    # What is left in float32 is fused with its activation.
    assert found["Conv"] + found["FusedConv"] == in_float
    assert found["QLinearConv"] == written["Conv"] - in_float
    assert found["QLinearAdd"] == sum(1 for part in parts_of(network, 1) if part.has_shortcut)
    assert found["QLinearMul"] == found["QLinearSigmoid"] == n_excited
    assert found["QGemm"] == 1
    assert not found["Gemm"] + found["HardSigmoid"] + found["Clip"] + found["Relu"]


@EACH
def test_values_neither_die_nor_fade(name):
    model = network_onnx(Network(NETWORKS[name], PX), N_CLASSES, "fp32")
    graph = onnx.load_from_string(model).graph
    # Excitations have few values, of one position.
    names = [node.output[0] for node in graph.node if node.op_type in ("Conv", "Clip")]
    for each, values in zip(
        names, session_with(model, names).run(names, {INPUT_NAME: noise()}), strict=True
    ):
        assert np.isfinite(values).all(), each
        assert 0.05 < values.std() < 20, each
        assert np.mean(values == 0) < 0.8, each
        assert not np.any((values != 0) & (np.abs(values) < np.finfo(np.float32).tiny)), each


@BOTH
def test_parts_fit_each_other(precision):
    *blocks, head = parts_of(Network(MIXED, PX), N_CLASSES)
    rng = np.random.default_rng(0)
    for part, behind in zip(blocks, [*blocks[1:], head], strict=True):
        model = part_onnx(part, precision)
        assert not unused(model), part.name
        session = make_session(model)
        (given,), (made,) = session.get_inputs(), session.get_outputs()
        feed = np.zeros([n if isinstance(n, int) else 1 for n in given.shape])
        kind = np.uint8 if given.type == "tensor(uint8)" else np.float32
        (values,) = session.run(None, {given.name: rng.uniform(0, 9, feed.shape).astype(kind)})
        read = make_session(part_onnx(behind, precision)).get_inputs()[0]
        assert (read.shape, read.type) == (list(values.shape), made.type), part.name
        assert values.std() > 0, part.name
    assert head.in_px == PX // 32


def unused(model: bytes) -> set[str]:
    """Constants that nobody reads: the runtime complains about each."""
    graph = onnx.load_from_string(model).graph
    read = {name for node in graph.node for name in node.input}
    return {each.name for each in graph.initializer} - read


def test_block_alone_in_int8_takes_bytes_to_bytes(tmp_path):
    """Or what is measured is mostly the way into the integer kernels, and out of them."""
    part = next(part for part in parts_of(Network(MIXED, PX), 1) if part.operator == "ir")
    assert optimised(part_onnx(part, "int8"), tmp_path / "o.onnx") == {"QLinearConv": 3}


@pytest.mark.parametrize(
    "options",
    [
        {"widths": (0.5, 1.0)},
        {"expansions": (3, 6), "fused_up_to": 24},
        {"fewer_blocks": 3, "image_px": (32, 64)},
        {"kernels": (3, 5), "fewer_blocks": 0},
        {"squeeze": True},
    ],
    ids=str,
)
def test_parts_of_a_space_are_those_of_its_networks(options):
    least = {"image_px": (64,), "kernels": (3,), "squeeze": False, "expansions": (6,)}
    least |= {"widths": (1.0,), "fewer_blocks": 0, "fused_up_to": 0}
    space = Space.of(SpaceParams(**{**least, **options}))
    names = [each.name for each in space.decisions]
    found = {
        part
        for values in product(*(each.options for each in space.decisions))
        for part in parts_of(space.network(dict(zip(names, values, strict=True))), N_CLASSES)
    }
    assert set(all_parts(space, N_CLASSES)) == found
