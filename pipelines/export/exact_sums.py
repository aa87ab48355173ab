"""An int8 file that gives the same bits on every processor, in a browser too (ADR 0017).

What a static int8 file computes in whole numbers is the same everywhere. Three places of it are not
whole numbers: the float stem (see `quantize`), the mean over positions before the head, and the
residual additions. There each processor adds in another order, with or without fused multiply-add,
and one value in 200,000 that is rounded the other way grows block by block, until a probability
differs by up to 0.06 (docs/experiments/phone_page.md).

The stem's activations are made whole numbers and its weights are put on a grid of powers of two.
While the sum of |weight| x |input| stays below 2**24 grid steps, float32 holds every partial sum
exactly, whatever the order. The rounding to whole numbers costs no step of its own: each bias holds
1.5 x 2**23, a number so large that the sum has no room for a fraction, and a hard sigmoid in the
place of ReLU6 takes it off again and cuts off below 0 and above 6. ONNX Runtime fuses that with the
convolution, as it did ReLU6. It holds where a convolution adds its bias last, as MLAS does on every
platform. Elsewhere answers would differ as they did before.

A residual addition is ``round(zc + (sa / sc) (a - za) + (sb / sc) (b - zb))`` in float32. It takes
two bytes, so it has 65,536 cases: the scale of its sum is enlarged by up to a hundredth, until none
of them lies so near to half a step that an order of operations could decide. The scale before the
mean gets a short mantissa, so that its sums are exact. Neither costs time, or noise that could be
measured.

References:
    IEEE 754-2019, section 5.4.1: addition and multiplication are correctly rounded.
    Muller et al. 2018, "Handbook of Floating-Point Arithmetic", section 2.2: rounding to an integer
        by adding 1.5 x 2**(p - 1).
    ONNX operator QLinearAdd (com.microsoft) as onnxruntime/core/mlas/lib/qladd.cpp computes it.
    Higham 2002, "Accuracy and Stability of Numerical Algorithms", sections 3.1 and 4.2: bounds on
        the rounding of products and sums.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import GraphProto, NodeProto, helper, numpy_helper

from pipelines.export.graphs import RELU6_TOP, Links

_LOG = logging.getLogger(__name__)


def exact(model: bytes) -> bytes:
    """The same int8 file with every sum that is not of whole numbers made independent of its order.

    Args:
        model: ONNX bytes in QDQ form. A stem other than MobileNetV2's, and blocks that were left in
            float32, stay as they are.
    """
    proto = onnx.load_from_string(model)
    make_stem_exact(proto.graph)
    graph = _QuantizedGraph(proto.graph)
    for node in proto.graph.node:
        if node.op_type == "Add":
            graph.settle_addition(node)
        elif node.op_type in {"ReduceMean", "GlobalAveragePool"}:
            graph.settle_mean(node)
    graph.adjust_biases()
    graph.drop_unused()
    onnx.checker.check_model(proto)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


class _Graph(Links):
    """A graph's nodes, and its constants, which `add` and `drop_unused` change in place."""

    def __init__(self, graph: GraphProto) -> None:
        super().__init__(graph)
        self.graph = graph
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}

    def value(self, name: str) -> NDArray[np.float64]:
        """A constant in its own shape."""
        array: NDArray[np.float64] = numpy_helper.to_array(self._tensors[name]).astype(np.float64)
        return array

    def scalar(self, name: str) -> float | None:
        """A constant of one value; None where the name is no such constant's."""
        if name not in self._tensors or self.value(name).size != 1:
            return None
        return float(self.value(name).ravel()[0])

    def add(self, name: str, values: ArrayLike, dtype: type[np.generic] = np.float32) -> str:
        """The name of a new constant: as wished for, with a number behind it if that is taken."""
        free = name
        while free in self._tensors:
            free = f"{name}_{len(self._tensors)}"
        tensor = numpy_helper.from_array(np.asarray(values, dtype=dtype), free)
        self.graph.initializer.append(tensor)
        self._tensors[free] = tensor
        return free

    def drop_unused(self) -> None:
        """Take out constants that no node reads."""
        used = {name for node in self.graph.node for name in node.input}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)


# -- stem -----------------------------------------------------------------------------------------
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
    """Make every sum of MobileNetV2's float stem exact, in place, and say whether it was done.

    Such a stem is cast and normalisation, a convolution, ReLU6, a depthwise convolution, ReLU6, a
    1x1 convolution; a graph with another is left as it is.
    """
    constants = _Graph(graph)
    stem = _stem_of(constants)
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
    """Weights and bias on the finest grid of each output channel whose sums float32 holds exactly.

    Args:
        weights: (n_out, n_in, kh, kw).
        bias: (n_out,); None where it is not part of the sum.
        largest: (n_in,) the largest |input|, a whole number.
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


def _stem_of(graph: _Graph) -> list[NodeProto] | None:
    """The nodes from the first cast to the last float convolution, if they are as expected."""
    nodes = [node for node in graph.nodes if node.op_type == "Cast"][:1]
    while nodes and len(nodes) < len(_STEM):
        users = graph.readers.get(nodes[-1].output[0], [])
        if len(users) != 1:
            return None
        nodes.append(users[0])
    if tuple(node.op_type for node in nodes) != _STEM:
        return None
    clips = [node for node in nodes if node.op_type == "Clip"]
    ends = [[graph.scalar(name) for name in node.input[1:]] for node in clips]
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    has_biases = all(len(node.input) == 3 for node in convolutions)
    return nodes if ends == [[0.0, RELU6_TOP]] * 2 and has_biases else None


# -- additions and the mean -----------------------------------------------------------------------
#: Half the distance between 1 and the next float32, and so the largest relative rounding error.
_UNIT = 2.0**-24
#: By how much a scale is enlarged at a time, and how often at most: 1 % in all.
_NUDGE, _MAX_NUDGES = 2.0**-16, 655
#: Bits of the mantissa of the scale before the mean: with 8 of a byte and 6 of 49 places, below 24.
_SHORT_BITS = 8
_BYTES = np.arange(256, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Term:
    """How one side of an addition is stored: a step, as float32 holds it, and the byte of 0."""

    scale: float
    zero: float


def n_near_halves(a: Term, b: Term, total: Term) -> int:
    """How many of the 65,536 sums of two bytes an order of operations could round either way.

    What lies outside the bytes of ``total`` is cut off, and counts as sure.
    """
    ratio_a, ratio_b = (float(np.float32(t.scale) / np.float32(total.scale)) for t in (a, b))
    shift = total.zero - (ratio_a * a.zero + ratio_b * b.zero)
    terms = ratio_a * _BYTES[:, None], ratio_b * _BYTES[None, :]
    sums = shift + terms[0] + terms[1]
    # Each product and each partial sum may be off by half a unit of its last place.
    shift_error = 2 * (ratio_a * a.zero + ratio_b * b.zero) + abs(shift)
    error = _UNIT * (shift_error + 2 * (terms[0] + terms[1]) + abs(shift) + np.abs(sums))
    distance = np.abs(sums - np.floor(sums) - 0.5)
    is_inside = (sums > -1) & (sums < 256)
    return int(np.count_nonzero((distance <= error) & is_inside))


def sure_scale(a: Term, b: Term, total: Term) -> float:
    """The smallest scale of a sum, from ``total``'s up to 1 % more, with the fewest near halves."""
    best, fewest = total.scale, n_near_halves(a, b, total)
    for number in range(1, _MAX_NUDGES + 1):
        if fewest == 0:
            break
        scale = float(np.float32(total.scale * (1 + number * _NUDGE)))
        near = n_near_halves(a, b, Term(scale, total.zero))
        if near < fewest:
            best, fewest = scale, near
    if fewest:
        _LOG.info("%d of 65,536 sums of an addition may be rounded either way", fewest)
    return best


def short_scale(scale: float) -> float:
    """The next number from a positive one upwards whose mantissa has `_SHORT_BITS` bits."""
    mantissa, exponent = np.frexp(scale)
    steps = 2.0**_SHORT_BITS
    return float(np.ldexp(np.ceil(mantissa * steps) / steps, exponent))


class _QuantizedGraph(_Graph):
    """A graph in QDQ form, whose scales can be changed."""

    def settle_addition(self, node: NodeProto) -> None:
        sides = [self._made_by("DequantizeLinear", name) for name in node.input]
        readers = self.readers.get(node.output[0], [])
        if None in sides or [reader.op_type for reader in readers] != ["QuantizeLinear"]:
            return
        a, b = (self._term(side) for side in sides if side is not None)
        self._rescale(readers[0], sure_scale(a, b, self._term(readers[0])))

    def settle_mean(self, node: NodeProto) -> None:
        dequantizer = self._made_by("DequantizeLinear", node.input[0])
        quantizer = dequantizer and self._made_by("QuantizeLinear", dequantizer.input[0])
        if quantizer is not None:
            self._rescale(quantizer, short_scale(self._term(quantizer).scale))

    def adjust_biases(self) -> None:
        """Count biases in steps of their input's scale, as it is now, times their weights'."""
        for node in self.nodes:
            if node.op_type not in {"Conv", "Gemm"} or len(node.input) < 3:
                continue
            read = [self._made_by("DequantizeLinear", name) for name in node.input]
            scales = [self.value(one.input[1]) for one in read if one is not None]
            bias = read[2]
            if bias is None or len(scales) < len(read):
                continue
            wanted = (scales[0] * scales[1]).astype(np.float32).astype(np.float64)
            if np.array_equal(wanted.ravel(), scales[2].ravel()):
                continue
            counts = np.rint(self.value(bias.input[0]) * scales[2] / wanted)
            bias.input[0] = self.add("bias", counts, np.int32)
            bias.input[1] = self.add("bias_scale", wanted.reshape(scales[2].shape))

    def _made_by(self, op_type: str, name: str) -> NodeProto | None:
        node = self.writer.get(name)
        return node if node is not None and node.op_type == op_type else None

    def _term(self, node: NodeProto) -> Term:
        scale, zero = (self.scalar(name) for name in node.input[1:3])
        if scale is None or zero is None:
            raise ValueError(f"{node.name}: expected one scale and one zero point for a tensor")
        return Term(scale, zero)

    def _rescale(self, quantizer: NodeProto, scale: float) -> None:
        quantizer.input[1] = self.add("scale", np.array(scale))
        for reader in self.readers.get(quantizer.output[0], []):
            reader.input[1] = quantizer.input[1]
