"""What the head says -> a fixed number of boxes, as nodes of ONNX behind all that is quantised.

Training, export and the phone decode by the same nodes: ONNX Runtime's non-maximum suppression is
quick, and one in Python would take a fifth of a second a picture.

References:
    ONNX operators NonMaxSuppression (opset 11), TopK (11), GatherND (13), ScatterND (18).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import GraphProto, TensorProto, ValueInfoProto, helper, numpy_helper

from pipelines.data.workers import n_workers
from pipelines.export.graphs import with_output
from pipelines.serving.classification import LOGITS_NAME
from pipelines.serving.detection import BOXES_NAME, N_COLUMNS
from pipelines.serving.sessions import make_session

#: Boxes that a model tells of a picture, at most.
MAX_FOUND = 100
#: Of two boxes of one label that overlap by more, the less certain goes.
MOST_OVERLAP = 0.5
#: Less certain boxes are not told. Lower ones change AP in the third digit, and cost time.
LEAST_SCORE = 0.02
#: Logarithms of sides, as shares of the view's: from a thousandth to twice.
_LOG_SIDES = (-7.0, 0.7)
_OPSET, _IR = 20, 10


def finished(model: bytes) -> bytes:
    """An ONNX file that gives boxes in the place of what its head says.

    Args:
        model: with the output `LOGITS_NAME`, (n, places, 4 + labels), as `head` gives it.

    Returns:
        The same, whose output `BOXES_NAME` is (n, k, 6) with the columns of `serving.detection`.
    """
    return with_output(model, _boxes)


def _boxes(graph: GraphProto, given: ValueInfoProto) -> ValueInfoProto:
    batch, n_places, n_values = given.type.tensor_type.shape.dim
    n_found = _append(graph, n_places.dim_value, n_values.dim_value)
    boxes = helper.make_tensor_value_info(BOXES_NAME, TensorProto.FLOAT, [None, n_found, N_COLUMNS])
    boxes.type.tensor_type.shape.dim[0].CopyFrom(batch)
    return boxes


def decoded(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, k, 6) boxes of what a head says, (n, places, 4 + labels)."""
    session = _session(*outputs.shape[1:])
    found: NDArray[np.float32] = session.run([BOXES_NAME], {LOGITS_NAME: outputs})[0]
    return found


@lru_cache(maxsize=4)
def _session(n_places: int, n_values: int) -> ort.InferenceSession:
    values = helper.make_tensor_value_info(
        LOGITS_NAME, TensorProto.FLOAT, ["batch", n_places, n_values]
    )
    graph = helper.make_graph([], "decoding", [values], [])
    n_found = _append(graph, n_places, n_values)
    graph.output.append(
        helper.make_tensor_value_info(BOXES_NAME, TensorProto.FLOAT, ["batch", n_found, N_COLUMNS])
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR
    )
    return make_session(model.SerializeToString(), n_workers())


def _append(graph: GraphProto, n_places: int, n_values: int) -> int:
    """Add the nodes from `LOGITS_NAME` to `BOXES_NAME`; gives how many boxes there are."""
    n_found = min(MAX_FOUND, n_places * (n_values - 4))

    def constant(name: str, values: object, dtype: type[np.generic]) -> str:
        name = f"{BOXES_NAME}_{name}"
        graph.initializer.append(numpy_helper.from_array(np.array(values, dtype=dtype), name))
        return name

    def node(operator: str, inputs: list[str], *outputs: str, **attributes: object) -> str:
        names = [out if out == BOXES_NAME else f"{BOXES_NAME}_{out}" for out in outputs]
        graph.node.append(helper.make_node(operator, inputs, names, names[0], **attributes))
        return names[0]

    last_axis = constant("last_axis", [2], np.int64)
    ends = [constant(f"at_{at}", [at], np.int64) for at in (0, 2, 4, n_values)]
    middle, logs, logits = (
        node("Slice", [LOGITS_NAME, first, last, last_axis], name)
        for name, first, last in zip(("middle", "logs", "logits"), ends[:-1], ends[1:], strict=True)
    )
    least, most = (constant(f"log_{side}", side, np.float32) for side in _LOG_SIDES)
    sides = node("Exp", [node("Clip", [logs, least, most], "clipped")], "sides")
    half = node("Mul", [sides, constant("half", 0.5, np.float32)], "halves")
    edges = [node("Sub", [middle, half], "first"), node("Add", [middle, half], "last")]
    corners = node("Concat", edges, "corners", axis=2)
    # Labels before places, as suppression wants them.
    scores = node("Transpose", [node("Sigmoid", [logits], "sigmoid")], "scores", perm=[0, 2, 1])
    bounds = [
        constant("most", [n_found], np.int64),
        constant("overlap", [MOST_OVERLAP], np.float32),
        constant("score", [LEAST_SCORE], np.float32),
    ]
    # (m, 3): picture, label, place. Of the others the score becomes 0.
    kept = node("NonMaxSuppression", [corners, scores, *bounds], "kept")
    none = node("Mul", [scores, constant("zero", 0, np.float32)], "none")
    sparse = node("ScatterND", [none, kept, node("GatherND", [scores, kept], "of_kept")], "sparse")
    flat = node("Reshape", [sparse, constant("flat_shape", [0, -1], np.int64)], "flat")
    best = node("TopK", [flat, bounds[0]], "best", "best_at", axis=1)
    n = constant("n_places", n_places, np.int64)
    at = f"{BOXES_NAME}_best_at"
    place = node("Unsqueeze", [node("Mod", [at, n], "place"), last_axis], "places")
    number = node("Cast", [node("Div", [at, n], "number")], "numbers", to=TensorProto.FLOAT)
    found = node("GatherND", [corners, place], "found", batch_dims=1)
    zero, one = (constant(f"edge_{edge}", edge, np.float32) for edge in (0, 1))
    columns = [
        node("Clip", [found, zero, one], "inside"),
        node("Unsqueeze", [best, last_axis], "score_column"),
        node("Unsqueeze", [number, last_axis], "number_column"),
    ]
    node("Concat", columns, BOXES_NAME, axis=2)
    return n_found
