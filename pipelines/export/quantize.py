"""Static int8 (QDQ, weights per channel, activations per tensor) by ONNX Runtime's quantiser."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from pipelines.export.equalize import equalized
from pipelines.export.graphs import blocks_of
from pipelines.export.onnx_export import INPUT_NAME
from pipelines.export.rounding import rounded

#: By name: ONNX Runtime's way to choose the range of an activation from calibration pictures. Its
#: entropy calibrator is left out: it fills as many bins as there are levels, and so always gives
#: MinMax's range (docs/experiments/int8.md).
CALIBRATORS: dict[str, CalibrationMethod] = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
}
#: Share of an activation's values inside the range of the percentile calibrator, in percent.
_PERCENTILE = 99.99
#: First blocks of a network that stay in float32. They hold under 1 % of its weights. On
#: MobileNetV2 that gains 1 to 3 dB and, since int8 convolutions of few channels are slow, takes a
#: third off the time of an answer (docs/experiments/time_and_memory.md).
_FLOAT_BLOCKS = 2
#: Pictures that the percentile calibrator sees.
_HISTOGRAM_IMAGES = 32


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands calibration pictures to ONNX Runtime, batch by batch."""

    def __init__(self, batches: Sequence[NDArray[np.uint8]]) -> None:
        self._batches: Iterator[NDArray[np.uint8]] = iter(batches)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The next batch, or None."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT_NAME: batch}


class StaticQuantizer:
    """Quantises one model in several ways; what a calibrator finds out is found out once."""

    def __init__(self, model: bytes, batches: Sequence[NDArray[np.uint8]], folder: Path) -> None:
        """Take a model and its calibration pictures.

        Args:
            model: ONNX bytes in float32, batch norms folded.
            batches: calibration pictures, each (n, h, w, 3).
            folder: for temporary files; must outlive the object.
        """
        self.model = model
        self._batches = batches
        self._folder = folder
        self._number = 0

    def int8(self, calibrator: str = "minmax", float_nodes: Sequence[str] = ()) -> bytes:
        """An int8 form of the model.

        Args:
            calibrator: a key of `CALIBRATORS`.
            float_nodes: names of nodes that stay in float32.

        Returns:
            ONNX bytes with the same inputs and outputs.
        """
        batches = self._batches
        if calibrator != "minmax":
            # Histograms of every activation are kept in memory, a few pictures fill them, and the
            # quantiser stacks batches, which must be of one size.
            size = len(batches[0])
            whole = [batch for batch in batches if len(batch) == size]
            batches = whole[: max(1, _HISTOGRAM_IMAGES // size)]
        options = {"CalibPercentile": _PERCENTILE} if calibrator == "percentile" else {}
        self._number += 1
        target = self._folder / f"{id(self)}-{self._number}.onnx"
        with contextlib.redirect_stdout(io.StringIO()), _quiet_root_logger():
            quantize_static(
                onnx.load_from_string(self.model),
                target,
                _Reader(batches),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                weight_type=QuantType.QInt8,
                activation_type=QuantType.QUInt8,
                calibrate_method=CALIBRATORS[calibrator],
                nodes_to_exclude=list(float_nodes),
                calibration_cache_path=self._folder / f"{id(self)}-{calibrator}.json",
                extra_options=options,
            )
        proto = onnx.load(target)
        target.unlink()
        data: bytes = proto.SerializeToString(deterministic=True)
        return data


@contextlib.contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """Hide the quantiser's advice to pre-process: the exporter has folded what there is to fold."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def stem_nodes(model: bytes) -> tuple[str, ...]:
    """Names of the nodes of the first blocks, which had better stay in float32.

    Args:
        model: ONNX bytes in float32.
    """
    return tuple(name for block in blocks_of(model)[:_FLOAT_BLOCKS] for name in block)


def quantized_trunk(trunk: bytes, batches: Sequence[NDArray[np.uint8]]) -> bytes:
    """The int8 form of a frozen trunk: stem in float32, equalised, rounded.

    Args:
        trunk: ONNX bytes, as `export.trunk_onnx` gives them.
        batches: calibration pictures, each (n, h, w, 3).
    """
    stem = stem_nodes(trunk)
    model = rounded(equalized(trunk, batches), batches, stem)
    with tempfile.TemporaryDirectory() as folder:
        return StaticQuantizer(model, batches, Path(folder)).int8(float_nodes=stem)
