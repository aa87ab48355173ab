"""Cross-layer equalisation: the same function with weights and activations that int8 suits better.

Two exact rewritings on a graph of convolutions whose batch norms are folded:

- A *bottleneck* tensor (no activation function behind it, read only by 1x1 convolutions, possibly
  summed by shortcuts) is centred and scaled channel by channel; the convolutions around it take up
  the change. MobileNetV2's pretrained weights need it: a nearly constant channel of the
  first bottleneck meets weights of 127 and biases of 1974 in the next convolution.
- A tensor behind ReLU or ReLU6 that one convolution reads is scaled channel by channel. ReLU is
  unchanged by that; for ReLU6 channels are only scaled up, and not beyond what the calibration
  pictures leave of headroom, so that the clip at 6 stays where it is for those pictures.

References:
    Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction".
    Unlike there, ranges come from calibration pictures, and the bottleneck's mean moves too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from pipelines.export.graphs import RELU6_TOP, WeightGraph, n_groups_of, session_with
from pipelines.export.onnx_export import INPUT_NAME

#: Scales beyond these do not help int8 and cost float precision.
_MIN_SCALE, _MAX_SCALE = 1e-2, 1e2
#: Share of ReLU6's upper end that scaled-up channels may reach on calibration pictures.
_HEADROOM = 1 / 1.2
#: A channel whose largest value is below this is dead, and is left alone.
_DEAD = 1e-4


@dataclass(frozen=True, slots=True)
class _Ranges:
    """Smallest and largest value of each channel: (c,) each."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]


def equalized(model: bytes, batches: Sequence[NDArray[np.uint8]]) -> bytes:
    """A model of the same function that loses less in int8.

    Args:
        model: ONNX bytes, batch norms folded.
        batches: calibration pictures, each (n, h, w, 3).

    Returns:
        ONNX bytes; outputs differ by float rounding on the calibration pictures.
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
        # lose; half of the way is best
        # (docs/experiments/int8.md). A depthwise kernel loses nothing.
        scale = np.sqrt(scale)
    scale = np.clip(scale, 1.0 if is_relu6 else _MIN_SCALE, _MAX_SCALE)
    graph.weights[writer.input[1]] = graph.weights[writer.input[1]] * scale[:, None, None, None]
    graph.weights[writer.input[2]] = graph.weights[writer.input[2]] * scale
    # An output channel reads the channels of its group.
    of_group = scale.reshape(n_groups, weight.shape[1])
    read = np.repeat(of_group, len(weight) // n_groups, axis=0)
    graph.weights[reader.input[1]] = weight / read[:, :, None, None]
