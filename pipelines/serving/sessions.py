"""ONNX Runtime sessions, as every part of the suite makes them.

Apart from `pipelines.serving.predictor`, so that training, which runs its frozen trunk in one, does
not depend on how answers are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import onnxruntime as ort

from pipelines.errors import BundleError
from pipelines.serving.vetting import vet

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
    """An ONNX Runtime session on the CPU that does not phone home, of a file that was vetted.

    Raises:
        BundleError: if the file may not be loaded (`vetting.vet`), or ONNX Runtime cannot.
    """
    vet(model)
    return make_unvetted_session(model, n_threads)


def make_unvetted_session(model: bytes, n_threads: int = 1) -> ort.InferenceSession:
    """The same of a file that is known by its hash: vetting is for models that people bring.

    Raises:
        BundleError: if ONNX Runtime cannot load it.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A thread that waits for work by spinning takes its core from those that decode pictures, and
    # from a second session's.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Or the bytes decide, and ONNX Runtime's own format has not been vetted.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    ort.disable_telemetry_events()
    try:
        # Without the fallback, which would try the same once more and print to stdout.
        return ort.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    # The runtime's own exceptions share no public root below RuntimeError/Exception; they are
    # named by the C API's codes.
    except (RuntimeError, ValueError, *_ORT_ERRORS) as err:
        words = " ".join(str(err).split())
        raise BundleError(f"ONNX Runtime {ort.__version__} cannot load the model: {words}") from err


def check_interface(
    session: ort.InferenceSession,
    inputs: Mapping[str, Sequence[int]],
    outputs: Mapping[str, Sequence[int]],
) -> None:
    """Nothing, if a session takes and gives what is written about it.

    Args:
        inputs: shape by name; -1 is the batch.

    Raises:
        BundleError: if a name is missing, or a size is another; names the first.
    """
    for what, promised, has in (
        ("input", inputs, session.get_inputs()),
        ("output", outputs, session.get_outputs()),
    ):
        shapes = {value.name: value.shape for value in has}
        for name, shape in promised.items():
            got = shapes.get(name)
            # A size that the file leaves open is text or None.
            if got is None or not (
                len(got) == len(shape)
                and all(
                    not isinstance(size, int) or wanted in {-1, size}
                    for size, wanted in zip(got, shape, strict=True)
                )
            ):
                found = f"{got}" if got is not None else f"only {', '.join(sorted(shapes))}"
                raise BundleError(
                    f"the model does not fit its bundle: {what} {name!r}: expected "
                    f"{list(shape)}, got {found}. Make both again with `dvc repro`."
                )
