"""Static int8 (QDQ, weights per channel, activations per tensor), and what it loses less by.

`equalized` and `rounded` rewrite the float model before ONNX Runtime's quantiser sees it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from pipelines.export.graphs import (
    RELU6_TOP,
    WeightGraph,
    blocks_of,
    constant_nodes,
    n_groups_of,
    session_with,
)
from pipelines.export.onnx_export import INPUT_NAME

#: By name: ONNX Runtime's way to choose the range of an activation from calibration pictures. Its
#: entropy calibrator is left out: it fills as many bins as there are levels, and so always gives
#: MinMax's range (docs/experiments/int8.md).
CALIBRATORS: dict[str, CalibrationMethod] = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
}
#: Share of an activation's values inside the range of the percentile calibrator, in percent.
_PERCENTILE = 99.99
#: First blocks of a network that stay in float32. They hold under 1 % of its weights. On
#: MobileNetV2 that gains 1 to 3 dB and, since int8 convolutions of few channels are slow, takes a
#: third off the time of an answer (docs/experiments/time_and_memory.md).
FLOAT_BLOCKS = 2
#: Pictures that the percentile calibrator sees.
_HISTOGRAM_IMAGES = 32


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands calibration pictures to ONNX Runtime, batch by batch."""

    def __init__(self, batches: Sequence[NDArray[np.uint8]]) -> None:
        self._batches: Iterator[NDArray[np.uint8]] = iter(batches)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The next batch, or None."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT_NAME: batch}


def static_int8(
    model: bytes,
    batches: Sequence[NDArray[np.uint8]],
    folder: Path,
    calibrator: str = "minmax",
    float_nodes: Sequence[str] = (),
) -> bytes:
    """The int8 form of a model, with the same inputs and outputs.

    Args:
        model: ONNX bytes in float32, batch norms folded.
        batches: calibration pictures, each (n, h, w, 3).
        folder: keeps what a calibrator found out of a model, for the next time that it is asked
            about these pictures.
        calibrator: a key of `CALIBRATORS`.
        float_nodes: names of nodes that stay in float32.
    """
    if calibrator != "minmax":
        # Histograms of every activation are kept in memory, a few pictures fill them, and the
        # quantiser stacks batches, which must be of one size.
        size = len(batches[0])
        whole = [batch for batch in batches if len(batch) == size]
        batches = whole[: max(1, _HISTOGRAM_IMAGES // size)]
    options = {"CalibPercentile": _PERCENTILE} if calibrator == "percentile" else {}
    name = f"{hashlib.sha256(model).hexdigest()}-{calibrator}"
    target = folder / f"{name}.onnx"
    proto = onnx.load_from_string(model)
    with contextlib.redirect_stdout(io.StringIO()), _quiet_root_logger():
        quantize_static(
            proto,
            target,
            _Reader(batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            calibrate_method=CALIBRATORS[calibrator],
            # What is made of constants alone costs nothing when it runs, and may hold places.
            nodes_to_exclude=[*float_nodes, *constant_nodes(proto.graph)],
            calibration_cache_path=folder / f"{name}.json",
            extra_options=options,
        )
    data: bytes = onnx.load(target).SerializeToString(deterministic=True)
    return data


@contextlib.contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """Hide the quantiser's advice to pre-process: the exporter has folded what there is to fold."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def stem_nodes(model: bytes) -> tuple[str, ...]:
    """Names of the nodes of the first blocks, which had better stay in float32."""
    return tuple(name for block in blocks_of(model)[:FLOAT_BLOCKS] for name in block)


def quantized_trunk(trunk: bytes, batches: Sequence[NDArray[np.uint8]]) -> bytes:
    """The int8 form of a frozen trunk's ONNX bytes: stem in float32, equalised, rounded."""
    stem = stem_nodes(trunk)
    model = rounded(equalized(trunk, batches), batches, stem)
    with tempfile.TemporaryDirectory() as folder:
        return static_int8(model, batches, Path(folder), float_nodes=stem)


# -- cross-layer equalisation ---------------------------------------------------------------------
#: Scales beyond these do not help int8 and cost float precision.
_MIN_SCALE, _MAX_SCALE = 1e-2, 1e2
#: Share of ReLU6's upper end that scaled-up channels may reach on calibration pictures.
_HEADROOM = 1 / 1.2
#: A channel whose largest value is below this is dead, and is left alone.
_DEAD = 1e-4


class _Ranges(NamedTuple):
    """Smallest and largest value of each channel: (c,) each."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]


def equalized(model: bytes, batches: Sequence[NDArray[np.uint8]]) -> bytes:
    """A model of the same function, with weights and activations that suit int8 better.

    Two rewritings on a graph of convolutions whose batch norms are folded, exact but for float
    rounding on the calibration pictures:

    - A *bottleneck* tensor (no activation function behind it, read only by 1x1 convolutions,
      possibly summed by shortcuts) is centred and scaled channel by channel; the convolutions
      around it take up the change. MobileNetV2's pretrained weights need it: a nearly constant
      channel of the first bottleneck meets weights of 127 and biases of 1974 in the next
      convolution.
    - A tensor behind ReLU or ReLU6 that one convolution reads is scaled channel by channel. ReLU is
      unchanged by that; for ReLU6 channels are only scaled up, and not beyond what the calibration
      pictures leave of headroom, so that the clip at 6 stays where it is for those pictures.

    Args:
        model: ONNX bytes, batch norms folded.
        batches: calibration pictures, each (n, h, w, 3).

    References:
        Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction".
        Unlike there, ranges come from calibration pictures, and the bottleneck's mean moves too.
    """
    graph = WeightGraph(model)
    bottlenecks = _bottlenecks(graph)
    pairs = _activation_pairs(graph)
    wanted = [name for names, _, _ in bottlenecks for name in names]
    wanted += [name for _, name, _ in pairs]
    ranges = _channel_ranges(model, wanted, batches)
    for names, writers, readers in bottlenecks:
        _equalize_bottleneck(graph, [ranges[name] for name in names], writers, readers)
    for writer, name, reader in pairs:
        is_relu6 = graph.writer[name].op_type == "Clip"
        _equalize_pair(graph, ranges[name].high, writer, reader, is_relu6=is_relu6)
    return graph.to_bytes()


def _bottlenecks(graph: WeightGraph) -> list[tuple[list[str], list[NodeProto], list[NodeProto]]]:
    """Tensors tied by shortcuts, with the convolutions that write and read them."""
    tied: dict[str, set[str]] = {}
    for node in graph.nodes:
        if node.op_type == "Conv":
            tied.setdefault(node.output[0], {node.output[0]})
        elif node.op_type == "Add" and all(name in graph.writer for name in node.input):
            union = {node.output[0]}.union(*(tied.get(name, {name}) for name in node.input))
            for name in union:
                tied[name] = union
    found = []
    for names in {id(union): union for union in tied.values()}.values():
        ordered = sorted(names, key=list(graph.writer).index)
        writers = [graph.writer[n] for n in ordered if graph.writer[n].op_type != "Add"]
        readers = [r for n in ordered for r in graph.readers.get(n, ()) if r.op_type != "Add"]
        if (
            readers
            and not names & graph.outputs
            and all(w.op_type == "Conv" and graph.has_bias(w) for w in writers)
            and all(graph.is_pointwise(r) and graph.has_bias(r) for r in readers)
        ):
            found.append((ordered, writers, readers))
    return found


def _activation_pairs(graph: WeightGraph) -> list[tuple[NodeProto, str, NodeProto]]:
    """Convolution, tensor behind its ReLU or ReLU6, and the one convolution that reads it."""
    pairs = []
    for node in graph.nodes:
        if node.op_type != "Conv" or not graph.has_bias(node):
            continue
        after = graph.readers.get(node.output[0], [])
        if len(after) != 1 or after[0].op_type not in {"Relu", "Clip"}:
            continue
        name = after[0].output[0]
        readers = graph.readers.get(name, [])
        if len(readers) == 1 and readers[0].op_type == "Conv" and name not in graph.outputs:
            pairs.append((node, name, readers[0]))
    return pairs


def _channel_ranges(
    model: bytes, names: Iterable[str], batches: Sequence[NDArray[np.uint8]]
) -> dict[str, _Ranges]:
    names = list(dict.fromkeys(names))
    if not names:
        # A session that is asked for no output gives all of them.
        return {}
    session = session_with(model, names)
    low: dict[str, NDArray[np.float64]] = {}
    high: dict[str, NDArray[np.float64]] = {}
    for batch in batches:
        for name, values in zip(names, session.run(names, {INPUT_NAME: batch}), strict=True):
            smallest, largest = values.min(axis=(0, 2, 3)), values.max(axis=(0, 2, 3))
            low[name] = np.minimum(low.get(name, smallest), smallest).astype(np.float64)
            high[name] = np.maximum(high.get(name, largest), largest).astype(np.float64)
    return {name: _Ranges(low[name], high[name]) for name in names}


def _equalize_bottleneck(
    graph: WeightGraph, ranges: list[_Ranges], writers: list[NodeProto], readers: list[NodeProto]
) -> None:
    low = np.min([r.low for r in ranges], axis=0)
    high = np.max([r.high for r in ranges], axis=0)
    middle, reach = (low + high) / 2, (high - low) / 2
    scale = np.clip(np.median(reach) / np.maximum(reach, 1e-6), _MIN_SCALE, _MAX_SCALE)
    for index, node in enumerate(writers):
        weight, bias = node.input[1], node.input[2]
        # Shortcuts add the later writers to the first; the sum is centred if the first is.
        shift = middle if index == 0 else 0.0
        graph.weights[weight] = graph.weights[weight] * scale[:, None, None, None]
        graph.weights[bias] = (graph.weights[bias] - shift) * scale
    for node in readers:
        weight, bias = node.input[1], node.input[2]
        graph.weights[bias] = graph.weights[bias] + graph.weights[weight][:, :, 0, 0] @ middle
        graph.weights[weight] = graph.weights[weight] / scale[None, :, None, None]


def _equalize_pair(
    graph: WeightGraph,
    high: NDArray[np.float64],
    writer: NodeProto,
    reader: NodeProto,
    *,
    is_relu6: bool,
) -> None:
    top = min(high.max(), RELU6_TOP * _HEADROOM) if is_relu6 else high.max()
    scale = np.where(high > _DEAD, top / np.maximum(high, _DEAD), 1.0)
    weight = graph.weights[reader.input[1]]
    n_groups = n_groups_of(reader)
    if n_groups == 1 or weight.shape[1] > 1:
        # Here the channels share the reader's scale, so that what the activation gains the weights
        # lose; half of the way is best (docs/experiments/int8.md). A depthwise kernel loses
        # nothing.
        scale = np.sqrt(scale)
    scale = np.clip(scale, 1.0 if is_relu6 else _MIN_SCALE, _MAX_SCALE)
    graph.weights[writer.input[1]] = graph.weights[writer.input[1]] * scale[:, None, None, None]
    graph.weights[writer.input[2]] = graph.weights[writer.input[2]] * scale
    # An output channel reads the channels of its group.
    of_group = scale.reshape(n_groups, weight.shape[1])
    read = np.repeat(of_group, len(weight) // n_groups, axis=0)
    graph.weights[reader.input[1]] = weight / read[:, :, None, None]


# -- rounding -------------------------------------------------------------------------------------
#: Largest step of a symmetric int8 weight, as ONNX Runtime's quantiser scales them.
_LAST_STEP = 127
#: Positions of each picture at which a convolution's inputs are looked at; a 7x7 map has 49.
_POSITIONS = 48
#: Share of the mean variance that is added to each input's, as in GPTQ, so that a channel that
#: never moves on the calibration pictures cannot take up any error.
_DAMPING = 0.01


#: Inputs of an output channel up to which their covariance is looked at: 3x3 of 256 channels. A
#: matrix of 4,608 takes 170 MB and half a minute, and so wide a sum hardly minds the nearest step.
_MOST_INPUTS = 2304


def rounded(
    model: bytes, batches: Sequence[NDArray[np.uint8]], float_nodes: Collection[str] = ()
) -> bytes:
    """A float model whose convolution weights stand on the grid that static int8 will give them.

    Rounding each weight to its nearest step is best only if inputs are independent. They are not:
    MobileNetV2's first depthwise convolutions read nearly constant channels with weights that
    cancel, so that nine small errors add up to a large one. Here the weights of an output channel
    are rounded one after the other, and each error is made good by those that are still to come, as
    the inputs of calibration pictures demand; what remains of the mean goes into the bias.

    Real skin_lesion, all weights rounded, activations float: 7 dB by the nearest step, 24 dB so
    (docs/experiments/int8.md).

    Args:
        model: ONNX bytes in float32, batch norms folded.
        batches: calibration pictures, each (n, h, w, 3).
        float_nodes: names of nodes that stay in float32, and are left alone.

    References:
        Frantar et al. 2022, "GPTQ: accurate post-training quantization for generative pre-trained
        transformers", which this follows, with the inputs centred; Nagel et al. 2020, "Up or down?
        Adaptive rounding for post-training quantization", on why the nearest step is not best.
    """
    graph = WeightGraph(model)
    nodes = [
        node
        for node in graph.nodes
        if node.op_type == "Conv"
        and graph.has_bias(node)
        and node.name not in float_nodes
        and np.prod(graph.weights[node.input[1]].shape[1:]) <= _MOST_INPUTS
    ]
    if not nodes:
        return model
    moments = {node.name: _Moments() for node in nodes}
    names = list(dict.fromkeys(node.input[0] for node in nodes))
    session = session_with(model, names)
    for number, batch in enumerate(batches):
        values = dict(zip(names, session.run(names, {INPUT_NAME: batch}), strict=True))
        for node in nodes:
            draw = np.random.default_rng(number)
            moments[node.name].add(_inputs(graph, node, values[node.input[0]], draw))
    for node in nodes:
        weight, bias = node.input[1], node.input[2]
        old = graph.weights[weight]
        mean, covariance = moments[node.name].result()
        n_groups = n_groups_of(node)
        # (group, output channel of the group, input): a depthwise kernel is a group of its own.
        grouped = old.reshape(n_groups, old.shape[0] // n_groups, -1).astype(np.float64)
        new = round_weights(grouped, covariance)
        lost = np.einsum("gij,gj->gi", grouped - new, mean).reshape(-1)
        graph.weights[weight] = new.reshape(old.shape).astype(old.dtype)
        graph.weights[bias] = (graph.weights[bias] + lost).astype(graph.weights[bias].dtype)
    return graph.to_bytes()


def round_weights(
    weights: NDArray[np.float64], covariance: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weights on their channels' grids, so that the outputs' variance of error is small.

    Args:
        weights: (n_groups, n_outputs, n_inputs).
        covariance: (n_groups, n_inputs, n_inputs) of the inputs.

    Returns:
        Like ``weights``: multiples of each channel's largest magnitude / 127. That weight is kept,
        and with it the scale that the quantiser gives the channel.
    """
    n_inputs = weights.shape[2]
    largest = np.abs(weights).max(axis=2)
    scale = np.where(largest > 0, largest / _LAST_STEP, 1.0)
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    damping = _DAMPING * variance.mean(axis=1) + 1e-12
    # The input that matters most first: the others can still make good its error. The places of a
    # kernel often see the same values, each in another order: their variances are one up to the
    # last bits, which the order of sums decides, so that ties are told in single precision.
    order = np.argsort(-variance.astype(np.float32), axis=1, kind="stable")
    rows = np.arange(len(weights))[:, None]
    sorted_covariance = covariance[rows[:, :, None], order[:, :, None], order[:, None, :]]
    damped = sorted_covariance + damping[:, None, None] * np.eye(n_inputs)
    # Row j of the upper Cholesky factor of the inverse says how an error of input j is shared out
    # among the inputs behind it.
    factor = np.linalg.cholesky(np.linalg.inv(damped)).swapaxes(1, 2)
    left = np.take_along_axis(weights, order[:, None, :], axis=2)
    for j in range(n_inputs):
        steps = np.clip(np.round(left[:, :, j] / scale), -_LAST_STEP, _LAST_STEP)
        error = (left[:, :, j] - steps * scale) / factor[:, j, j, None]
        left[:, :, j] = steps * scale
        left[:, :, j + 1 :] -= error[:, :, None] * factor[:, None, j, j + 1 :]
    result = np.empty_like(left)
    np.put_along_axis(result, np.broadcast_to(order[:, None, :], left.shape), left, axis=2)
    keep = np.abs(weights).argmax(axis=2)[:, :, None]
    np.put_along_axis(result, keep, np.take_along_axis(weights, keep, axis=2), axis=2)
    return result


class _Moments:
    """Mean and covariance of vectors that come in batches, group by group."""

    def __init__(self) -> None:
        self._count = 0
        self._origin: NDArray[np.float32] | None = None
        self._sum: NDArray[np.float64] | float = 0.0
        self._products: NDArray[np.float64] | float = 0.0

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Count (n_groups, n, n_inputs) in."""
        if self._origin is None:
            # Near the mean, so that nearly constant inputs lose no digits to their size.
            self._origin = vectors.mean(axis=1, keepdims=True)
        # In double precision, where a BLAS kernel's order of sums moves nothing that rounding sees:
        # in single precision another kernel gave other bytes (docs/experiments/same_bits.md).
        centred = (vectors - self._origin).astype(np.float64)
        self._count += centred.shape[1]
        self._sum = self._sum + centred.sum(axis=1)
        self._products = self._products + centred.swapaxes(1, 2) @ centred

    def result(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean (n_groups, n_inputs) and covariance (n_groups, n_inputs, n_inputs)."""
        assert self._origin is not None
        shift = np.asarray(self._sum) / self._count
        covariance = np.asarray(self._products) / self._count - shift[:, :, None] * shift[:, None]
        return self._origin[:, 0] + shift, covariance


def _inputs(
    graph: WeightGraph, node: NodeProto, values: NDArray[np.float32], draw: np.random.Generator
) -> NDArray[np.float32]:
    """(n_groups, n, n_inputs) of what a convolution reads of (n, c, h, w) at random positions."""
    attributes = {a.name: list(a.ints) for a in node.attribute if a.ints}
    height, width = graph.weights[node.input[1]].shape[2:]
    strides = attributes.get("strides", [1, 1])
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    if any((top, left, bottom, right)):
        values = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    n_rows = (values.shape[2] - height) // strides[0] + 1
    n_columns = (values.shape[3] - width) // strides[1] + 1
    chosen = draw.permutation(n_rows * n_columns)[:_POSITIONS]
    y, x = (chosen // n_columns) * strides[0], (chosen % n_columns) * strides[1]
    # (image, channel, position, offset in the kernel)
    patches = np.stack(
        [values[:, :, y + dy, x + dx] for dy in range(height) for dx in range(width)], axis=3
    )
    n_images, n_channels, n_positions, size = patches.shape
    n_groups = n_groups_of(node)
    grouped = patches.reshape(n_images, n_groups, n_channels // n_groups, n_positions, size)
    return grouped.transpose(1, 0, 3, 2, 4).reshape(n_groups, n_images * n_positions, -1)
