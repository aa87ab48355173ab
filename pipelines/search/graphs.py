"""ONNX files with the cost of a network, or of a part of one, and with random weights.

A latency does not ask what a network has learned. So the file that the exporter and the quantiser
would make is written straight from an architecture: the same operators on the same shapes, in
float32 or in QDQ form, in tenths of a second where torch's export takes 3 to 15 s and its training
hours (docs/experiments/search.md). Weights are He's, so that values neither die out on their way
nor become denormal, and int8 has ranges that suit them.

As in the exporter's files, int8 leaves the first blocks in float32, and the mean over positions of
a squeeze-and-excitation too.

References:
    He et al. 2015, "Delving deep into rectifiers", equation 10.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import sqrt
from typing import Literal

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from pipelines.backbones.architecture import Block, Stage, has_shortcut
from pipelines.backbones.spec import IMAGENET_MEAN, IMAGENET_STD
from pipelines.export.exact_sums import make_stem_exact
from pipelines.export.graphs import RELU6_TOP
from pipelines.export.onnx_export import INPUT_NAME
from pipelines.search.space import PX, Network, Space
from pipelines.serving.answer import EMBEDDING_NAME
from pipelines.serving.classification import LOGITS_NAME
from pipelines.serving.sessions import Precision

HEAD = "head"
#: As the exporter's files.
_OPSET, _IR_VERSION = 20, 10
#: Where a linear layer's values are cut off in int8; they have a deviation of 1 to 3.
_LINEAR_TOP = 8.0
_BYTE_STEPS, _WEIGHT_STEPS = 255, 127
#: Bias of an excitation, so that a row of them does not fade what goes through.
_OPEN = 4.0
_Act = Literal["relu6", "relu", "linear"]


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """A block, or what stands behind the last one, with all that its cost depends on.

    Attributes:
        operator: of the block; ``head`` for global mean, linear layer and embedding.
        kernel: side of the convolution that sees neighbours; 1 of a head.
        stride: of that convolution.
        in_channels: of what it reads.
        hidden: channels inside it; of a head, those whose means are the embedding's second half.
        channels: of what it gives; of a head, classes.
        n_squeezed: channels between the two layers of squeeze-and-excitation; 0 for none.
        in_px: side of the maps that it reads.
        hidden_px: of a head, side of the maps of ``hidden``; 0 of a block.
    """

    operator: str
    kernel: int
    stride: int
    in_channels: int
    hidden: int
    channels: int
    n_squeezed: int
    in_px: int
    hidden_px: int = 0

    @classmethod
    def of_block(cls, block: Block, in_px: int) -> Part:
        """A block that reads maps of that side."""
        return cls(
            operator=block.operator,
            kernel=block.kernel,
            stride=block.stride,
            in_channels=block.in_channels,
            hidden=block.hidden,
            channels=block.channels,
            n_squeezed=block.n_squeezed,
            in_px=in_px,
        )

    @property
    def name(self) -> str:
        """For a table and a file: ``ir_k3_s1_i24_h144_c24_se6_56px``."""
        squeezed = f"_se{self.n_squeezed}" if self.n_squeezed else ""
        inner = f"_{self.hidden_px}px" if self.operator == HEAD else ""
        return (
            f"{self.operator}_k{self.kernel}_s{self.stride}_i{self.in_channels}_h{self.hidden}"
            f"_c{self.channels}{squeezed}_{self.in_px}px{inner}"
        )

    @property
    def out_px(self) -> int:
        """Side of the maps that it gives."""
        return 1 if self.operator == HEAD else -(-self.in_px // self.stride)

    @property
    def is_first(self) -> bool:
        """Whether it reads pixels."""
        return self.operator == "cn" and self.in_channels == 3

    @property
    def is_float_in_int8(self) -> bool:
        """Whether it is one of the blocks that int8 leaves in float32 (`quantize.FLOAT_BLOCKS`)."""
        return self.is_first or self.operator == "ds"

    @property
    def has_shortcut(self) -> bool:
        """Whether its input is added to its output."""
        return has_shortcut(self.operator, self.stride, self.in_channels, self.channels)


def parts_of(network: Network, n_classes: int) -> Iterator[Part]:
    """A network's blocks in order, then its head."""
    px, inner = network.image_px, (0, 0)
    channels = 0
    for block in network.architecture.blocks:
        part = Part.of_block(block, px)
        if part.kernel > 1:
            # What the last convolution with a kernel reads (`graphs.with_inner_features`).
            inner = _inner(part)
        px, channels = part.out_px, part.channels
        yield part
    yield head_of(channels, px, *inner, n_classes)


def all_parts(space: Space, n_classes: int) -> list[Part]:
    """Each part that any network of a space has, once.

    By stage and its options, since networks are too many; what a stage reads is what the one before
    may give.
    """
    options = {each.name: each.options for each in space.decisions}
    found: dict[Part, None] = {}
    for px in options.get(PX, (space.smallest.image_px,)):
        side, incoming, inner = int(px), [3], [(0, 0)]
        for index, stage in enumerate(space.base.stages):
            made = list(_parts_of_stage(index, stage, options, incoming, side))
            found |= dict.fromkeys(made)
            side, incoming = made[0].out_px, list(dict.fromkeys(part.channels for part in made))
            if stage.kernel > 1:
                inner = list(dict.fromkeys(_inner(part) for part in made))
        found |= dict.fromkeys(
            head_of(channels, side, *each, n_classes) for channels in incoming for each in inner
        )
    return list(found)


def _parts_of_stage(
    index: int,
    stage: Stage,
    options: Mapping[str, Sequence[str | int | float]],
    incoming: Sequence[int],
    in_px: int,
) -> Iterator[Part]:
    """First the blocks that read what the stage reads, then those that read what it gives."""
    names = ("operator", "kernel", "squeeze", "channels", "expansion")
    choices = [options.get(f"s{index}.{name}", (getattr(stage, name),)) for name in names]
    repeats = options.get(f"s{index}.repeats", (stage.repeats,))
    for block in range(min(2, max(int(each) for each in repeats))):
        px = in_px if block == 0 else -(-in_px // stage.stride)
        for values in product(*choices):
            own = replace(stage, **dict(zip(names, values, strict=True)))
            for channels in incoming if block == 0 else [own.channels]:
                yield Part.of_block(own.block(index, block, channels), px)


def _inner(part: Part) -> tuple[int, int]:
    """Channels and side of what the convolution with a kernel reads."""
    is_depthwise = part.operator in ("ds", "ir")
    return (part.hidden if is_depthwise else part.in_channels, part.in_px)


def head_of(in_channels: int, in_px: int, hidden: int, hidden_px: int, n_classes: int) -> Part:
    """What stands behind the last block."""
    return Part(HEAD, 1, 1, in_channels, hidden, n_classes, 0, in_px, hidden_px)


def network_onnx(network: Network, n_classes: int, precision: Precision) -> bytes:
    """A network: uint8 pictures (n, h, w, 3) in; logits and embedding out, as the exporter's."""
    writer = _Writer(precision)
    value = writer.pixels(network.image_px)
    *blocks, head = parts_of(network, n_classes)
    for block in blocks:
        value = writer.block(block, value)
    writer.head(head, value, writer.inner)
    # The exporter knows MobileNetV2's stem, which has no excitation.
    return writer.to_bytes(has_exact_stem=precision == "int8" and not blocks[1].n_squeezed)


def part_onnx(part: Part, precision: Precision) -> bytes:
    """A part alone, of one picture.

    It reads and gives maps as a network of that precision has them there: bytes in int8, which the
    file takes and gives with channels last, as ONNX Runtime's integer kernels do.
    """
    writer = _Writer(precision)
    if part.operator == HEAD:
        value, inner = (
            writer.maps(name, channels, px)
            for name, channels, px in (
                ("maps", part.in_channels, part.in_px),
                ("inner", part.hidden, part.hidden_px),
            )
        )
        writer.head(part, value, inner)
        return writer.to_bytes()
    if part.is_first:
        value = writer.pixels(part.in_px)
    else:
        # The second block reads what the first one leaves in float32.
        is_float = precision == "fp32" or part.operator == "ds"
        value = writer.maps("maps", part.in_channels, part.in_px, is_float=is_float)
    writer.give_maps(writer.block(part, value), part.out_px)
    return writer.to_bytes()


@dataclass(frozen=True, slots=True)
class _Value:
    """Maps inside a graph.

    Attributes:
        name: of the tensor of floats.
        channels: of it.
        scale: of the bytes that it was made of; None where it was none.
        byte_name: of these bytes.
    """

    name: str
    channels: int
    scale: float | None = None
    byte_name: str = ""


class _Writer:
    """A graph that grows; parts are written by the same lines in both precisions."""

    def __init__(self, precision: Precision) -> None:
        self._is_int8 = precision == "int8"
        self._is_in_int8 = False
        self._rng = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        #: What the last convolution with a kernel read.
        self.inner = _Value("", 0)

    # -- parts ------------------------------------------------------------------------------------
    def pixels(self, px: int) -> _Value:
        """Normalised pixels of the graph's input."""
        self._input(INPUT_NAME, TensorProto.UINT8, ["batch", px, px, 3])
        planes = self._node("Transpose", [INPUT_NAME], perm=[0, 3, 1, 2])
        values = self._node("Cast", [planes], to=TensorProto.FLOAT)
        mean, deviation = (np.array(each)[:, None, None] for each in (IMAGENET_MEAN, IMAGENET_STD))
        scaled = self._node("Mul", [values, self._constant(1 / (255 * deviation))])
        return _Value(self._node("Add", [scaled, self._constant(-mean / deviation)]), 3)

    def maps(self, name: str, channels: int, px: int, *, is_float: bool = False) -> _Value:
        """Maps that a graph reads."""
        if is_float or not self._is_int8:
            self._input(name, TensorProto.FLOAT, [1, channels, px, px])
            return _Value(name, channels)
        self._input(name, TensorProto.UINT8, [1, px, px, channels])
        planes = self._node("Transpose", [name], perm=[0, 3, 1, 2])
        return self._of_bytes(planes, channels, 2 * _LINEAR_TOP / _BYTE_STEPS, 128)

    def give_maps(self, value: _Value, px: int) -> None:
        """Make them the graph's output."""
        if value.scale is None:
            self._output(value.name, TensorProto.FLOAT, [1, value.channels, px, px])
            return
        # What dequantised it, by a scale and a zero of its own, has no reader.
        self._nodes.pop()
        del self._constants[-2:]
        last = self._node("Transpose", [value.byte_name], perm=[0, 2, 3, 1])
        self._output(last, TensorProto.UINT8, [1, px, px, value.channels])

    def block(self, part: Part, value: _Value) -> _Value:
        """One block."""
        self._is_in_int8 = self._is_int8 and not part.is_float_in_int8
        into = value
        if part.operator == "cn":
            return self._end(self._convolution(value, part.channels, part.kernel, part.stride))
        if part.operator == "ir":
            value = self._convolution(value, part.hidden)
        is_depthwise = part.operator != "er"
        value = self._convolution(
            value, part.hidden, part.kernel, part.stride, is_depthwise=is_depthwise
        )
        if part.n_squeezed:
            value = self._excited(value, part.n_squeezed)
        value = self._convolution(value, part.channels, act="linear")
        if part.operator == "ds" and self._is_int8:
            # The last that is left in float32; the next reads bytes.
            return self._to_bytes(value.name, value.channels, "linear")
        return self._binary("Add", into, value, "linear") if part.has_shortcut else value

    def head(self, part: Part, value: _Value, inner: _Value) -> None:
        """Logits, and the means of what the last convolution with a kernel reads beside them."""
        self._is_in_int8 = self._is_int8
        name = self._node("ReduceMean", [value.name, self._axes()], keepdims=0)
        mean = self._end(_Value(name, value.channels), "relu6")
        weights, bias = self._weights(mean, (part.channels, value.channels))
        logits = self._node("Gemm", [mean.name, weights, bias], transB=1)
        value = self._end(_Value(logits, part.channels), "linear")
        means = self._node("ReduceMean", [inner.name, self._axes()], keepdims=0)
        size = mean.channels + inner.channels
        for made, name, n_values in (
            (value.name, LOGITS_NAME, part.channels),
            (self._node("Concat", [mean.name, means], axis=1), EMBEDDING_NAME, size),
        ):
            self._rename(made, name)
            self._output(name, TensorProto.FLOAT, ["batch", n_values])

    def _excited(self, value: _Value, n_squeezed: int) -> _Value:
        name = self._node("ReduceMean", [value.name, self._axes()], keepdims=1)
        mean = self._end(_Value(name, value.channels), "relu6")
        few = self._convolution(mean, n_squeezed, act="relu")
        gates = self._convolution(few, value.channels, act="linear", bias=_OPEN)
        gate = self._end(_Value(self._node("Sigmoid", [gates.name]), value.channels), "relu6")
        return self._binary("Mul", value, gate, "relu6")

    # -- layers -----------------------------------------------------------------------------------
    def _convolution(
        self,
        value: _Value,
        channels: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        is_depthwise: bool = False,
        act: _Act = "relu6",
        bias: float = 0.0,
    ) -> _Value:
        if kernel > 1:
            self.inner = value
        fan_in = 1 if is_depthwise else value.channels
        inputs = self._weights(value, (channels, fan_in, kernel, kernel), bias)
        made = self._node(
            "Conv",
            [value.name, *inputs],
            group=channels if is_depthwise else 1,
            pads=[kernel // 2] * 4,
            strides=[stride] * 2,
            dilations=[1, 1],
            kernel_shape=[kernel] * 2,
        )
        if not self._is_in_int8 and act == "relu6":
            ends = [self._constant(end) for end in (0.0, RELU6_TOP)]
            made = self._node("Clip", [made, *ends])
        elif not self._is_in_int8 and act == "relu":
            made = self._node("Relu", [made])
        return self._end(_Value(made, channels), act)

    def _weights(self, value: _Value, shape: Sequence[int], bias: float = 0.0) -> tuple[str, str]:
        """He's, uniform, and small biases."""
        bound = sqrt(6 / np.prod(shape[1:]))
        biases = bias + self._rng.uniform(-0.1, 0.1, shape[0])
        if not self._is_in_int8:
            weights = self._rng.random(shape, dtype=np.float32) * np.float32(2 * bound)
            return self._constant(weights - np.float32(bound)), self._constant(biases)
        if value.scale is None:
            raise ValueError("an int8 layer reads bytes")
        steps = self._rng.integers(-_WEIGHT_STEPS, _WEIGHT_STEPS, shape, np.int8, endpoint=True)
        scales = np.full(shape[0], bound / _WEIGHT_STEPS, dtype=np.float32)
        bias_scales = scales * np.float32(value.scale)
        counts = np.rint(biases / bias_scales)
        return (
            self._dequantized(self._constant(steps, np.int8), scales, np.int8),
            self._dequantized(self._constant(counts, np.int32), bias_scales, np.int32),
        )

    def _dequantized(self, name: str, scales: NDArray[np.float32], dtype: type[np.generic]) -> str:
        zeros = self._constant(np.zeros(len(scales)), dtype)
        return self._node("DequantizeLinear", [name, self._constant(scales), zeros], axis=0)

    def _binary(self, operator: str, a: _Value, b: _Value, act: _Act) -> _Value:
        return self._end(_Value(self._node(operator, [a.name, b.name]), a.channels), act)

    def _end(self, value: _Value, act: _Act = "relu6") -> _Value:
        """A layer's values, by way of bytes in int8; these also cut off as ReLU6 does."""
        if not self._is_in_int8 or value.scale is not None:
            return value
        return self._to_bytes(value.name, value.channels, act)

    def _to_bytes(self, name: str, channels: int, act: _Act) -> _Value:
        is_linear = act == "linear"
        scale = (2 * _LINEAR_TOP if is_linear else RELU6_TOP) / _BYTE_STEPS
        zero = 128 if is_linear else 0
        made = self._node("QuantizeLinear", [name, *self._scale_and_zero(scale, zero)])
        return self._of_bytes(made, channels, scale, zero)

    def _of_bytes(self, name: str, channels: int, scale: float, zero: int) -> _Value:
        made = self._node("DequantizeLinear", [name, *self._scale_and_zero(scale, zero)])
        return _Value(made, channels, scale, name)

    def _scale_and_zero(self, scale: float, zero: int) -> list[str]:
        return [self._constant(scale), self._constant(zero, np.uint8)]

    # -- the graph --------------------------------------------------------------------------------
    def _node(self, operator: str, inputs: Sequence[str], **attributes: object) -> str:
        output = f"t{len(self._nodes)}_{operator}"
        name = f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [output], name, **attributes))
        return output

    def _rename(self, old: str, new: str) -> None:
        for node in self._nodes:
            node.output[:] = [new if name == old else name for name in node.output]

    def _constant(self, values: ArrayLike, dtype: type[np.generic] = np.float32) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name

    def _axes(self) -> str:
        return self._constant([2, 3], np.int64)

    def _input(self, name: str, kind: int, shape: Sequence[int | str]) -> None:
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))

    def _output(self, name: str, kind: int, shape: Sequence[int | str]) -> None:
        self._outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def to_bytes(self, *, has_exact_stem: bool = False) -> bytes:
        """The file."""
        graph = helper.make_graph(
            self._nodes, "network", self._inputs, self._outputs, self._constants
        )
        if has_exact_stem:
            make_stem_exact(graph)
        proto = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
        )
        onnx.checker.check_model(proto)
        data: bytes = proto.SerializeToString()
        return data
