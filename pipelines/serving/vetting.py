"""Which ONNX files may reach ONNX Runtime: plain networks that hold all that they need.

A model file may name other files to read (external data), other operators (custom domains) and
graphs inside nodes (loops). None of these is needed by what Fieldlens exports, so none is let in.
Serving has no `onnx` and no `protobuf`: the fields of a message are read one level at a time, with
nothing copied, and stricter than a protobuf parser, so that whatever passes here means the same
there: groups, field number 0 and varints that are too long are refused, where other parsers differ.
Called by `sessions.make_session`. `Resize` and `Pad`, which make a picture larger by a number of
their own, and `NonMaxSuppression` and `TopK`, which keep so many, must have it in the file and
within a bound. Otherwise it does not bound how much a model computes: a bundle's hashes say who
made it, not this.

References:
    onnx.proto of ONNX 1.23 (onnx/onnx, IR version 14) for the field numbers below.
    Protocol Buffers, Encoding (protobuf.dev/programming-guides/encoding): tags, varints, wire
    types.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pipelines.errors import BundleError

#: What backbones and heads of other kinds export to, in float32 and as int8 QDQ.
OPERATORS = frozenset(
    {
        *("Conv", "Gemm", "MatMul", "Add", "Sub", "Mul", "Div"),
        *("Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Softmax", "Erf", "Gelu"),
        *("ReduceMean", "GlobalAveragePool", "AveragePool", "MaxPool", "BatchNormalization"),
        *("Cast", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"),
        *("Shape", "Gather", "Range", "Concat", "Split", "Slice", "Pad", "Resize"),
        *("QuantizeLinear", "DequantizeLinear"),
        # Unit length, of embeddings: a value for each that goes in.
        "LpNormalization",
        # Boxes: where they are proposed, and which of them are told (pipelines.kinds.detection).
        *("Exp", "Log", "Neg", "Reciprocal", "Mod"),
        *("NonMaxSuppression", "TopK", "GatherND", "ScatterND"),
    }
)
#: Two spellings of ONNX's own domain; others are custom operators.
DOMAINS = frozenset({"", "ai.onnx"})
#: From the first with per-channel (De)QuantizeLinear to the one that `export` writes.
OPSETS = range(13, 21)

#: A phone-sized model: the largest of the four backbones has 22 MB in float32.
MAX_MODEL_BYTES = 100_000_000
#: What `Resize` may make of a map by given sizes: 2048 x 2048 px.
MAX_RESIZED = 2**22
#: How many times more values all `Resize` by given scales may make together: an output of stride 32
#: brought to its input (1,024), and two maps on the way doubled.
MAX_GROWTH = 2**14
#: What `Pad` may add at one end of an axis: "same" padding needs half a kernel.
MAX_PAD = 64
#: What `NonMaxSuppression` may keep of a class, and `TopK` of an axis.
MAX_COUNT = 1000
#: Which input of an operator says how much it keeps.
_COUNTED = {"NonMaxSuppression": 2, "TopK": 1}
#: Numbers that `Resize` and `Pad` may be given at once: a pair for each axis of up to 8.
_MAX_GIVEN = 16
#: An honest file has below 10,000 fields; each costs about a microsecond.
MAX_FIELDS = 200_000

#: ONNX Runtime takes a file with this at byte 4 for a FlatBuffer of its own, which has no such
#: checks (``kFileIdentifier`` in onnxruntime's ort.fbs).
_ORT_MAGIC, _ORT_MAGIC_AT = b"ORTM", slice(4, 8)

#: For each message: field number -> name, and whether it may stand once or often. A field that is
#: not listed refuses the file: functions (25) and training_info (20) of a model, sparse_initializer
#: (15) of a graph, graphs (6, 11), tensors (5, 10, 22, 23) and types (14, 15) of an attribute.
_MODEL = {
    1: ("ir_version", "number"),
    2: ("producer_name", "skip"),
    3: ("producer_version", "skip"),
    4: ("domain", "skip"),
    5: ("model_version", "skip"),
    6: ("doc_string", "skip"),
    7: ("graph", "one"),
    8: ("opset_import", "many"),
    14: ("metadata_props", "skip"),
}
_OPSET = {1: ("domain", "one"), 2: ("version", "number")}
_GRAPH = {
    1: ("node", "many"),
    2: ("name", "skip"),
    5: ("initializer", "many"),
    10: ("doc_string", "skip"),
    11: ("input", "many"),
    12: ("output", "many"),
    13: ("value_info", "many"),
    14: ("quantization_annotation", "skip"),
    16: ("metadata_props", "skip"),
}
_NODE = {
    1: ("input", "many"),
    2: ("output", "many"),
    3: ("name", "skip"),
    4: ("op_type", "one"),
    5: ("attribute", "many"),
    6: ("doc_string", "skip"),
    7: ("domain", "one"),
    9: ("metadata_props", "skip"),
}
_ATTRIBUTE = {
    1: ("name", "one"),
    2: ("f", "skip"),
    3: ("i", "number"),
    4: ("s", "one"),
    7: ("floats", "skip"),
    8: ("ints", "skip"),
    13: ("doc_string", "skip"),
    20: ("type", "number"),
}
_TENSOR = {
    1: ("dims", "skip"),
    2: ("data_type", "number"),
    4: ("float_data", "skip"),
    5: ("int32_data", "skip"),
    7: ("int64_data", "skip"),
    8: ("name", "one"),
    9: ("raw_data", "one"),
    12: ("doc_string", "skip"),
    13: ("external_data", "many"),
    14: ("data_location", "number"),
    16: ("metadata_props", "skip"),
}
_VALUE = {1: ("name", "one"), 2: ("type", "one"), 3: ("doc_string", "skip"), 4: ("meta", "skip")}
#: Only tensors; sequences, maps and optionals nest in one another.
_TYPE = {1: ("tensor_type", "skip"), 6: ("denotation", "skip")}
#: AttributeType: FLOAT, INT, STRING, FLOATS, INTS.
_ATTRIBUTE_TYPES = frozenset({1, 2, 3, 6, 7})
_FLOAT, _INT64 = 1, 7
#: DataType: FLOAT, UINT8, INT8, INT32, INT64, BOOL. Strings are not among them.
_TENSOR_TYPES = frozenset({1, 2, 3, 6, 7, 9})

#: Wire types 0, 1, 2 and 5; 3 and 4 are groups, which onnx.proto does not use.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
#: A 64-bit varint has at most 10 bytes, a tag (32 bits) at most 5.
_MAX_VARINT_BYTES = 10
_MAX_TAG = 2**32 - 1
_MAX_VALUE = 2**64 - 1
_Fields = dict[str, list[int | memoryview]]
_WIRES = {"one": {_BYTES}, "many": {_BYTES}, "number": {_VARINT}}
_ANY = frozenset({_VARINT, _FIXED64, _BYTES, _FIXED32})


@dataclass(frozen=True, slots=True)
class Vetted:
    """What a file that may be loaded says of itself.

    Attributes:
        inputs: names, without those of the weights.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: Counter[str]
    n_weights: int


def vet(model: bytes) -> Vetted:
    """What an ONNX file is made of, if it may be loaded.

    Raises:
        BundleError: if it is too large, not ONNX, or holds what no exported network needs.
    """
    if len(model) > MAX_MODEL_BYTES:
        raise _refusal(f"it has {len(model):,} bytes; at most {MAX_MODEL_BYTES:,} are loaded")
    if model[_ORT_MAGIC_AT] == _ORT_MAGIC:
        raise _refusal("it is in ONNX Runtime's own format, expected ONNX")
    try:
        with memoryview(model) as view:
            return _Vetting().model(view)
    except _WireError as err:
        raise _refusal(f"not an ONNX file: {err}") from err


def _refusal(reason: str) -> BundleError:
    return BundleError(
        f"the model file was not loaded: {reason}. Use only models that you or somebody you trust "
        f"exported with Fieldlens."
    )


# -- one pass over a file: model, graph, node, attribute ------------------------------------------
@dataclass(frozen=True, slots=True)
class _Node:
    operator: str
    inputs: list[str]
    outputs: list[str]
    #: Whole numbers and texts; others are "".
    attributes: dict[str, int | str]


class _Vetting:
    def __init__(self) -> None:
        self._reader = _Reader(MAX_FIELDS)
        self._weights: dict[str, _Fields] = {}
        #: By the name of what it gives.
        self._nodes: dict[str, _Node] = {}
        self._growth = 1.0

    def model(self, message: memoryview) -> Vetted:
        fields = self._read(message, _MODEL, "the model")
        graphs = _views(fields["graph"])
        if not graphs or not fields["opset_import"]:
            raise _WireError("it has no graph or no operator set")
        for opset in _views(fields["opset_import"]):
            self._opset(opset)
        graph = self._read(graphs[0], _GRAPH, "the graph")
        for tensor in _views(graph["initializer"]):
            self._tensor(tensor)
        inputs, outputs, _ = (
            [self._value(value) for value in _views(graph[key])]
            for key in ("input", "output", "value_info")
        )
        # A weight may be listed among the inputs as well.
        inputs = [name for name in inputs if name not in self._weights]
        nodes = [self._node(message) for message in _views(graph["node"])]
        names = [name for node in nodes for name in node.outputs if name]
        self._nodes = {name: node for node in nodes for name in node.outputs}
        if len({*names, *inputs, *self._weights}) < len([*names, *inputs, *self._weights]):
            raise _WireError("two values have one name")
        for node in nodes:
            if node.operator == "Resize":
                self._resize(node)
            if node.operator == "Pad":
                self._pad(node)
            if node.operator in _COUNTED:
                self._count(node)
        return Vetted(
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            operators=Counter(node.operator for node in nodes),
            n_weights=len(self._weights),
        )

    def _read(self, message: memoryview, schema: Mapping[int, tuple[str, str]], of: str) -> _Fields:
        found: _Fields = {name: [] for name, kind in schema.values() if kind != "skip"}
        for number, wire, value in self._reader.fields(message):
            if number not in schema:
                raise _refusal(f"{of} has a field (number {number}) that no exported network needs")
            name, kind = schema[number]
            if wire not in _WIRES.get(kind, _ANY):
                raise _WireError(f"{of} has a {name} of another kind")
            if kind == "skip":
                continue
            # Parsers join or replace what stands twice; what is checked must be what is run.
            if kind != "many" and found[name]:
                raise _WireError(f"{of} has two of {name}")
            found[name].append(value)
        return found

    def _opset(self, message: memoryview) -> None:
        fields = self._read(message, _OPSET, "an operator set")
        domain, version = _text(fields["domain"]), _number(fields["version"])
        if domain not in DOMAINS:
            raise _refusal(f"it uses operators of the domain {domain[:60]!r}")
        if version not in OPSETS:
            raise _refusal(f"operator set {version}: expected {OPSETS.start} to {OPSETS.stop - 1}")

    def _node(self, message: memoryview) -> _Node:
        fields = self._read(message, _NODE, "a node")
        domain, operator = _text(fields["domain"]), _text(fields["op_type"])
        if domain not in DOMAINS:
            raise _refusal(f"it uses operators of the domain {domain[:60]!r}")
        if operator not in OPERATORS:
            raise _refusal(f"it uses the operator {operator[:60]!r}, which no export needs")
        attributes: dict[str, int | str] = {}
        for attribute in _views(fields["attribute"]):
            of = f"an attribute of {operator}"
            given = self._read(attribute, _ATTRIBUTE, of)
            kind = _number(given["type"])
            if kind not in _ATTRIBUTE_TYPES:
                raise _refusal(f"{of} is of type {kind}; expected numbers or text")
            value = _number(given["i"]) if given["i"] else _text(given["s"])
            attributes[_text(given["name"])] = value
        if len(attributes) < len(fields["attribute"]):
            raise _WireError(f"two attributes of {operator} have one name")
        inputs, outputs = (list(map(_decoded, _views(fields[key]))) for key in ("input", "output"))
        return _Node(operator, inputs, outputs, attributes)

    def _resize(self, node: _Node) -> None:
        _, region, scales, sizes, *_ = [*node.inputs, *[""] * 4]
        policy = node.attributes.get("keep_aspect_ratio_policy", "stretch")
        if region or policy != "stretch" or bool(scales) == bool(sizes):
            raise _refusal("a Resize by a region or an aspect; expected scales, or sizes, alone")
        if sizes:
            made = math.prod(self._sizes(sizes))
            if not 0 < made <= MAX_RESIZED:
                raise _refusal(f"a Resize to {made:,} places; at most {MAX_RESIZED:,} are made")
            return
        factors = self._given(scales, _FLOAT)
        self._growth *= math.prod(max(1.0, factor) for factor in factors)
        # NaN is not above 0.
        if self._growth > MAX_GROWTH or not all(factor > 0 for factor in factors):
            raise _refusal(
                f"its Resize make pictures {self._growth:,.0f} times larger; at most "
                f"{MAX_GROWTH:,} times is done"
            )

    def _sizes(self, name: str) -> list[float]:
        """The sizes that a `Resize` is given, but for those of the batch and the channels.

        The exporter writes them as Concat(Shape(x)[0:2], weight), where the batch is of any size.
        """
        node = self._nodes.get(name)
        parts = node.inputs if node is not None and node.operator == "Concat" else [name]
        kept = [part for part in parts if self._is_batch_and_channels(part)]
        sizes = [size for part in parts if part not in kept for size in self._given(part, _INT64)]
        if len(kept) > 1 or any(size < 1 for size in sizes):
            raise _refusal("a Resize to sizes that cannot be")
        return sizes

    def _is_batch_and_channels(self, name: str) -> bool:
        node = self._nodes.get(name)
        if node is None or node.operator != "Shape":
            return False
        return (node.attributes.get("start", 0), node.attributes.get("end")) == (0, 2)

    def _pad(self, node: _Node) -> None:
        _, pads, *_ = [*node.inputs, "", ""]
        if (most := max(self._given(pads, _INT64))) > MAX_PAD:
            raise _refusal(f"a Pad of {most:,.0f}; at most {MAX_PAD} is added at an end")

    def _count(self, node: _Node) -> None:
        name = [*node.inputs, "", "", ""][_COUNTED[node.operator]]
        if not 0 <= (most := max(self._given(name, _INT64))) <= MAX_COUNT:
            raise _refusal(f"a {node.operator} of {most:,.0f}; at most {MAX_COUNT:,} are kept")

    def _given(self, name: str, kind: int) -> list[float]:
        """The numbers of a small weight, which must stand in the file as `raw_data`."""
        weight = self._weights.get(name)
        raw = _views(weight["raw_data"]) if weight is not None else []
        if weight is None or not raw or _number(weight["data_type"]) != kind:
            raise _refusal(f"{name[:60]!r} bounds an output and is no number in the file")
        item = np.dtype({_FLOAT: "<f4", _INT64: "<i8"}[kind])
        if len(raw[0]) % item.itemsize or not 0 < len(raw[0]) <= _MAX_GIVEN * item.itemsize:
            raise _refusal(f"{name[:60]!r} has {len(raw[0])} bytes; expected a few numbers")
        numbers: list[float] = np.frombuffer(raw[0], item).tolist()
        return numbers

    def _tensor(self, message: memoryview) -> None:
        fields = self._read(message, _TENSOR, "a weight")
        name = _text(fields["name"])
        if fields["external_data"] or _number(fields["data_location"]) != 0:
            raise _refusal(f"the weight {name[:60]!r} is in another file (external data)")
        if (kind := _number(fields["data_type"])) not in _TENSOR_TYPES:
            raise _refusal(f"the weight {name[:60]!r} is of type {kind}; expected numbers")
        if name in self._weights:
            raise _WireError("two values have one name")
        self._weights[name] = fields

    def _value(self, message: memoryview) -> str:
        fields = self._read(message, _VALUE, "an input or output")
        for kind in _views(fields["type"]):
            self._read(kind, _TYPE, "the type of an input or output")
        return _text(fields["name"])


def _views(values: list[int | memoryview]) -> list[memoryview]:
    return [value for value in values if isinstance(value, memoryview)]


def _text(values: list[int | memoryview]) -> str:
    return _decoded(_views(values)[0]) if values else ""


def _decoded(value: memoryview) -> str:
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise _WireError("it has a name that is no text") from None


def _number(values: list[int | memoryview]) -> int:
    return next((value for value in values if isinstance(value, int)), 0)


# -- the encoding of protobuf ---------------------------------------------------------------------
class _WireError(ValueError):
    """The bytes are not a message of the kinds that are read here."""


class _Reader:
    """Reads messages, and counts their fields so that their number is bounded over all of them."""

    def __init__(self, max_fields: int) -> None:
        """Allow so many fields in all."""
        self._left = max_fields

    def fields(self, message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
        """Field number, wire type and value of each field, in order.

        Yields:
            The value is an unsigned integer of a varint, else a view of the bytes.

        Raises:
            _WireError: if they are cut short, too many, or of another kind.
        """
        at, end = 0, len(message)
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise _WireError("it has too many fields")
            tag, at = _varint(message, at)
            number, wire = tag >> 3, tag & 7
            if number == 0 or tag > _MAX_TAG:
                raise _WireError("it has a field that cannot be")
            if wire == _VARINT:
                value, at = _varint(message, at)
                yield number, wire, value
                continue
            if wire == _BYTES:
                length, at = _varint(message, at)
            elif wire in _FIXED_BYTES:
                length = _FIXED_BYTES[wire]
            else:
                raise _WireError("it has a field of an unknown kind")
            if length > end - at:
                raise _WireError("it is cut short")
            yield number, wire, message[at : at + length]
            at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number that starts at a byte, and where it ends."""
    try:
        first = message[at]
        if first < 0x80:
            return first, at + 1
        value, shift = first & 0x7F, 7
        for place in range(at + 1, at + _MAX_VARINT_BYTES):
            byte = message[place]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > _MAX_VALUE:
                    break
                return value, place + 1
            shift += 7
    except IndexError:
        raise _WireError("it is cut short") from None
    raise _WireError("it has a number that is too long")
