"""An int8 file that gives the same bits on every processor, in a browser too.

Three places of a static int8 file are not whole numbers: the float stem (`exact_stem`), the mean
over positions before the head, and the residual additions, which ONNX Runtime computes as
``round(zc + (sa / sc) (a - za) + (sb / sc) (b - zb))`` in float32, with fused multiply-add on some
processors and without on others. An addition takes two bytes, so it has 65,536 cases: the scale of
its sum is enlarged by up to a hundredth, until none of them lies so near to half a step that an
order of operations could decide. The scale before the mean gets a short mantissa, so that its sums
are exact. Neither costs time, or noise that could be measured (docs/experiments/same_bits.md).

References:
    ONNX operator QLinearAdd (com.microsoft) as onnxruntime/core/mlas/lib/qladd.cpp computes it.
    Higham 2002, "Accuracy and Stability of Numerical Algorithms", sections 3.1 and 4.2: bounds on
        the rounding of products and sums.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import GraphProto, NodeProto

from pipelines.mobile.constants import Constants
from pipelines.mobile.exact_stem import make_stem_exact
from pipelines.mobile.graphs import Links

_LOG = logging.getLogger(__name__)

#: Half the distance between 1 and the next float32, and so the largest relative rounding error.
_UNIT = 2.0**-24
#: By how much a scale is enlarged at a time, and how often at most: 1 % in all.
_NUDGE, _MAX_NUDGES = 2.0**-16, 655
#: Bits of the mantissa of the scale before the mean: with 8 of a byte and 6 of 49 places, below 24.
_SHORT_BITS = 8
_BYTES = np.arange(256, dtype=np.float64)


def exact(model: bytes) -> bytes:
    """The same int8 file with every sum that is not of whole numbers made independent of its order.

    Args:
        model: int8 ONNX bytes in QDQ form. A stem other than MobileNetV2's, and blocks that were
            left in float32, stay as they are.

    Returns:
        ONNX bytes with the same inputs and outputs.
    """
    proto = onnx.load_from_string(model)
    make_stem_exact(proto.graph)
    tensors = _Quantized(proto.graph)
    for node in proto.graph.node:
        if node.op_type == "Add":
            tensors.settle_addition(node)
        elif node.op_type in {"ReduceMean", "GlobalAveragePool"}:
            tensors.settle_mean(node)
    tensors.adjust_biases()
    tensors.constants.drop_unused()
    onnx.checker.check_model(proto)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


@dataclass(frozen=True, slots=True)
class Term:
    """How one side of an addition is stored.

    Attributes:
        scale: of a step, a float32.
        zero: the byte that stands for 0.
    """

    scale: float
    zero: float


def n_near_halves(a: Term, b: Term, total: Term) -> int:
    """How many of the 65,536 sums of two bytes an order of operations could round either way.

    Args:
        a: one side.
        b: the other.
        total: the sum; what lies outside its bytes is cut off, and counts as sure.
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
    """A scale of the sum, at most 1 % larger, for which no sum of two bytes is near half a step.

    Args:
        a: one side.
        b: the other.
        total: the sum, with the scale to start from.

    Returns:
        The smallest such scale, or the one with the fewest near halves where none has none.
    """
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
    """The next larger number whose mantissa has `_SHORT_BITS` bits.

    Args:
        scale: above 0.
    """
    mantissa, exponent = np.frexp(scale)
    steps = 2.0**_SHORT_BITS
    return float(np.ldexp(np.ceil(mantissa * steps) / steps, exponent))


class _Quantized:
    """The quantised tensors of a graph, by the node that makes them, and their scales."""

    def __init__(self, graph: GraphProto) -> None:
        self.constants = Constants(graph)
        self._links = Links(graph)

    def settle_addition(self, node: NodeProto) -> None:
        sides = [self._links.writer.get(name) for name in node.input]
        quantizer = self._quantizer_of(node)
        if quantizer is None or not all(
            side is not None and side.op_type == "DequantizeLinear" for side in sides
        ):
            return
        a, b = (self._term(side) for side in sides if side is not None)
        self._rescale(quantizer, sure_scale(a, b, self._term(quantizer)))

    def settle_mean(self, node: NodeProto) -> None:
        dequantizer = self._links.writer.get(node.input[0])
        if dequantizer is None or dequantizer.op_type != "DequantizeLinear":
            return
        quantizer = self._links.writer.get(dequantizer.input[0])
        if quantizer is not None and quantizer.op_type == "QuantizeLinear":
            self._rescale(quantizer, short_scale(self._term(quantizer).scale))

    def adjust_biases(self) -> None:
        """Count biases in steps of their input's scale, as it is now, times their weights'."""
        for node in self._links.nodes:
            if node.op_type not in {"Conv", "Gemm"} or len(node.input) < 3:
                continue
            read = [self._links.writer.get(name) for name in node.input]
            if any(one is None or one.op_type != "DequantizeLinear" for one in read):
                continue
            scales = [self.constants.value(one.input[1]) for one in read if one is not None]
            bias = read[2]
            wanted = (scales[0] * scales[1]).astype(np.float32).astype(np.float64)
            if bias is None or np.array_equal(wanted.ravel(), scales[2].ravel()):
                continue
            counts = np.rint(self.constants.value(bias.input[0]) * scales[2] / wanted)
            bias.input[0] = self.constants.add("bias", counts, np.int32)
            bias.input[1] = self.constants.add("bias_scale", wanted.reshape(scales[2].shape))

    def _quantizer_of(self, node: NodeProto) -> NodeProto | None:
        readers = self._links.readers.get(node.output[0], [])
        is_one = len(readers) == 1 and readers[0].op_type == "QuantizeLinear"
        return readers[0] if is_one else None

    def _term(self, node: NodeProto) -> Term:
        scale, zero = (self.constants.scalar(name) for name in node.input[1:3])
        if scale is None or zero is None:
            raise ValueError(f"{node.name}: expected one scale and one zero point for a tensor")
        return Term(scale, zero)

    def _rescale(self, quantizer: NodeProto, scale: float) -> None:
        name = self.constants.add("scale", np.array(scale))
        quantizer.input[1] = name
        for reader in self._links.readers.get(quantizer.output[0], []):
            reader.input[1] = name
