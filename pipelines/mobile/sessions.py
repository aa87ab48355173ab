"""ONNX Runtime sessions, as every part of the suite makes them.

Apart from `pipelines.mobile.predictor`, so that training, which runs its frozen trunk in one, does
not depend on how answers are given.
"""

from __future__ import annotations

from typing import Literal

import onnxruntime as ort

from pipelines.errors import BundleError

Precision = Literal["fp32", "int8"]

_ORT_ERRORS = tuple(
    getattr(ort.capi.onnxruntime_pybind11_state, name)
    for name in (
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NotImplemented",
        "RuntimeException",
        "NoSuchFile",
        "NoModel",
        "ModelRequiresCompilation",
    )
    if hasattr(ort.capi.onnxruntime_pybind11_state, name)
)


def make_session(model: bytes, n_threads: int = 1) -> ort.InferenceSession:
    """An ONNX Runtime session on the CPU that does not phone home.

    Args:
        model: bytes of an ONNX file.
        n_threads: threads within one operator, at least 1.

    Raises:
        BundleError: if ONNX Runtime cannot load the model.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    ort.disable_telemetry_events()
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    # The runtime's own exceptions share no public root below RuntimeError/Exception; they are
    # named by the C API's codes.
    except (RuntimeError, ValueError, *_ORT_ERRORS) as err:
        raise BundleError(f"ONNX Runtime {ort.__version__} cannot load the model: {err}") from err
