"""Weights put on the int8 grid so that what a convolution gives changes least.

Rounding each weight to its nearest step is best only if inputs are independent. They are not:
MobileNetV2's first depthwise convolutions read nearly constant channels with weights that cancel,
so that nine small errors add up to a large one. Here the weights of an output channel are rounded
one after the other, and each error is made good by those that are still to come, as the inputs of
calibration pictures demand; what remains of the mean goes into the bias.

Real skin_lesion, all weights rounded, activations float: 7 dB by the nearest step, 24 dB so
(docs/experiments/int8.md).

References:
    Frantar et al. 2022, "GPTQ: accurate post-training quantization for generative pre-trained
    transformers", which this follows, with the inputs centred; Nagel et al. 2020, "Up or down?
    Adaptive rounding for post-training quantization", on why the nearest step is not best.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from pipelines.export.graphs import WeightGraph, n_groups_of, session_with
from pipelines.export.onnx_export import INPUT_NAME

#: Largest step of a symmetric int8 weight, as ONNX Runtime's quantiser scales them.
_LAST_STEP = 127
#: Positions of each picture at which a convolution's inputs are looked at; a 7x7 map has 49.
_POSITIONS = 48
#: Share of the mean variance that is added to each input's, as in GPTQ, so that a channel that
#: never moves on the calibration pictures cannot take up any error.
_DAMPING = 0.01


def rounded(
    model: bytes, batches: Sequence[NDArray[np.uint8]], float_nodes: Collection[str] = ()
) -> bytes:
    """A float model whose convolution weights stand on the grid that static int8 will give them.

    Args:
        model: ONNX bytes in float32, batch norms folded.
        batches: calibration pictures, each (n, h, w, 3).
        float_nodes: names of nodes that stay in float32, and are left alone.

    Returns:
        ONNX bytes in float32, for the quantiser: the largest weight of each output channel keeps
        its size, and with it the channel's scale.
    """
    graph = WeightGraph(model)
    nodes = [
        node
        for node in graph.nodes
        if node.op_type == "Conv" and graph.has_bias(node) and node.name not in float_nodes
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
        Like ``weights``: multiples of each channel's largest magnitude / 127, which is kept.
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
