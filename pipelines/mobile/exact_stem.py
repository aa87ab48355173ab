"""A float stem whose sums come out the same, bit for bit, on every processor and in a browser.

What a static int8 file computes in whole numbers is the same everywhere. Its first blocks stay in
float32 (see `quantize`), and there each processor adds in another order, with or without fused
multiply-add. One value in 200,000 that is rounded the other way grows block by block, until a
probability differs by up to 0.06 (docs/experiments/phone_page.md).

So the stem's activations are made whole numbers and its weights are put on a grid of powers of two.
While the sum of |weight| x |input| stays below 2**24 grid steps, float32 holds every partial sum
exactly, whatever the order. The rounding to whole numbers costs no step of its own: each bias holds
1.5 x 2**23, a number so large that the sum has no room for a fraction, and a hard sigmoid in the
place of ReLU6 takes it off again and cuts off below 0 and above 6. ONNX Runtime fuses that with the
convolution, as it did ReLU6.

It holds where a convolution adds its bias last, as MLAS does on every platform. Elsewhere answers
would differ as they did before.

References:
    IEEE 754-2019, section 5.4.1: addition and multiplication are correctly rounded.
    Muller et al. 2018, "Handbook of Floating-Point Arithmetic", section 2.2: rounding to an integer
        by adding 1.5 x 2**(p - 1).
"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, helper

from pipelines.mobile.constants import Constants
from pipelines.mobile.graphs import RELU6_TOP

_LOG = logging.getLogger(__name__)

#: Whole numbers that an activation in [0, 6] may take. Of 2**9, 2**10 and 2**11 the one with the
#: least noise: more make the weights' grid too coarse, fewer the activations
#: (docs/experiments/same_bits.md).
_LEVELS = 2.0**10
#: float32 holds every whole number up to here.
_EXACT = 2.0**24
#: Added to a number below 2**22, leaves no room for its fraction.
_ROUNDER = 1.5 * 2.0**23
#: How MobileNetV2's file begins, from the first cast on.
_STEM = ("Cast", "Mul", "Add", "Conv", "Clip", "Conv", "Clip", "Conv")


def make_stem_exact(graph: GraphProto) -> bool:
    """Make every sum of a float stem exact, in place.

    Args:
        graph: of an int8 file whose stem is in float32: cast and normalisation, a convolution,
            ReLU6, a depthwise convolution, ReLU6, a 1x1 convolution.

    Returns:
        Whether it was done; a graph with another stem is left as it is.
    """
    constants = Constants(graph)
    stem = _stem_of(graph, constants)
    if stem is None:
        _LOG.info("the stem is not MobileNetV2's: its sums may differ in the last bit by processor")
        return False
    _cast, scale, shift, first, relu, depthwise, second_relu, last = stem
    factors = constants.value(scale.input[1]).ravel()
    offsets = constants.value(shift.input[1]).ravel()
    # Bytes less a whole number near the mean colour: small, whole, and zero where padded.
    middle = np.rint(-offsets / factors)
    steps = _LEVELS / RELU6_TOP
    kernel = constants.value(first.input[1])
    rest = np.einsum("oikl,i->o", kernel, factors * middle + offsets)
    largest = np.maximum(middle, 255 - middle)
    weights, _ = on_grid(kernel * factors[:, None, None] * steps, None, largest)
    first.input[1] = constants.add("stem_weights_1", weights)
    bias = (constants.value(first.input[2]) + rest) * steps
    first.input[2] = constants.add("stem_bias_1", _ROUNDER + np.rint(bias))

    # A hard sigmoid gives whole numbers divided by their largest; the weights make up for it.
    weights, _ = on_grid(constants.value(depthwise.input[1]), None, np.full(1, _LEVELS))
    bias = constants.value(depthwise.input[2]) * steps
    depthwise.input[1] = constants.add("stem_weights_2", weights * _LEVELS)
    depthwise.input[2] = constants.add("stem_bias_2", _ROUNDER + np.rint(bias))

    weights, exact_bias = on_grid(
        constants.value(last.input[1]) / steps,
        constants.value(last.input[2]),
        np.full(len(kernel), _LEVELS),
    )
    last.input[1] = constants.add("stem_weights_3", weights * _LEVELS)
    last.input[2] = constants.add("stem_bias_3", exact_bias)

    first.input[0] = scale.output[0]
    scale.op_type = "Sub"
    scale.input[1] = constants.add("stem_middle", middle.reshape(-1, 1, 1))
    for node in (relu, second_relu):
        node.op_type = "HardSigmoid"
        del node.input[1:]
        node.attribute.extend(
            [
                helper.make_attribute("alpha", 1 / _LEVELS),
                helper.make_attribute("beta", -_ROUNDER / _LEVELS),
            ]
        )
    graph.node.remove(shift)
    constants.drop_unused()
    return True


def on_grid(
    weights: NDArray[np.float64],
    bias: NDArray[np.float64] | None,
    largest: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights and bias, rounded a channel at a time to the finest grid whose sums are exact.

    Args:
        weights: (n_out, n_in, kh, kw).
        bias: (n_out,); None where it is not part of the sum.
        largest: (n_in,) the largest |input|, a whole number.

    Returns:
        Weights and bias on their grids; float32 holds them exactly.
    """
    offsets = np.zeros(len(weights)) if bias is None else bias
    grid_weights, grid_bias = np.empty_like(weights), np.empty_like(offsets)
    for channel, (kernel, offset) in enumerate(zip(weights, offsets, strict=True)):
        bound = float(np.abs(kernel).sum(axis=(1, 2)) @ largest + abs(offset))
        exponent = 24 - int(np.ceil(np.log2(max(bound, 1e-30))))
        while True:
            step = 2.0**-exponent
            rounded, rounded_offset = np.rint(kernel / step), np.rint(offset / step)
            if np.abs(rounded).sum(axis=(1, 2)) @ largest + abs(rounded_offset) < _EXACT:
                break
            exponent -= 1
        grid_weights[channel], grid_bias[channel] = rounded * step, rounded_offset * step
    return grid_weights, grid_bias


def _stem_of(graph: GraphProto, constants: Constants) -> list[NodeProto] | None:
    """The nodes from the first cast to the last float convolution, if they are as expected."""
    cast = next((node for node in graph.node if node.op_type == "Cast"), None)
    nodes = [] if cast is None else [cast]
    while nodes and len(nodes) < len(_STEM):
        users = [node for node in graph.node if nodes[-1].output[0] in node.input]
        if len(users) != 1:
            return None
        nodes.append(users[0])
    if tuple(node.op_type for node in nodes) != _STEM:
        return None
    clips = [node for node in nodes if node.op_type == "Clip"]
    ends = [[constants.scalar(name) for name in node.input[1:]] for node in clips]
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    has_biases = all(len(node.input) == 3 for node in convolutions)
    return nodes if ends == [[0.0, RELU6_TOP]] * 2 and has_biases else None
