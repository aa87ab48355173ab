"""Pictures in, probabilities out: what the app runs, and what `evaluate` measures.

Needs onnxruntime, NumPy and Pillow (and pydantic, to read the bundle); never torch, MLflow or DVC,
which a test holds.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.data.images import open_image
from pipelines.mobile.bundle import Bundle, read_bundle, read_model
from pipelines.mobile.probabilities import softmax
from pipelines.mobile.sessions import Precision, make_session


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one picture.

    Attributes:
        label: the most probable label.
        probabilities: by label, in the bundle's order; they add up to 1.
        embedding: (d,) pooled features.
        elapsed_ms: wall time of preprocessing and model for this picture, in ms.
    """

    label: str
    probabilities: dict[str, float]
    embedding: NDArray[np.float32]
    elapsed_ms: float


class Predictor:
    """A bundle, ready to answer. Holds no state but its session, so threads may share it."""

    def __init__(
        self, bundle: Bundle, model: bytes, precision: Precision, *, n_threads: int = 1
    ) -> None:
        """Make the session.

        Args:
            bundle: labels, preprocessing, temperature.
            model: bytes of the ONNX file, as `read_model` gives them.
            precision: which of the bundle's files that is.
            n_threads: at least 1.
        """
        self.bundle = bundle
        self.precision = precision
        self.n_threads = n_threads
        self._preprocess = bundle.preprocess.build()
        self._session = make_session(model, n_threads)

    @classmethod
    def load(
        cls, path: Path, precision: Precision | None = None, *, n_threads: int = 1
    ) -> Predictor:
        """A predictor for a bundle on disk.

        Args:
            path: bundle.json (or candidate.json).
            precision: fp32 or int8; None for the one that the bundle serves.
            n_threads: at least 1.

        Raises:
            BundleError: if the bundle is incomplete, changed or of an unknown schema.
        """
        bundle = read_bundle(path, verify=False)
        precision = precision if precision is not None else bundle.served.precision
        return cls(
            bundle, read_model(bundle, path.parent, precision), precision, n_threads=n_threads
        )

    def pixels(
        self, source: Path | bytes | Image.Image, *, name: str | None = None
    ) -> NDArray[np.uint8]:
        """The model's input for one picture.

        Args:
            source: a file, its bytes, or an upright RGB picture.
            name: what to call it in messages.

        Returns:
            (crop_px, crop_px, 3), in [0, 255].

        Raises:
            CorruptImageError: if it is not an image that may enter.
        """
        image = source if isinstance(source, Image.Image) else open_image(source, name=name).rgb
        return self._preprocess(image)

    def run(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits and embeddings of preprocessed pictures.

        Args:
            pixels: (n, crop_px, crop_px, 3), in [0, 255].

        Returns:
            (n, n_classes) logits and (n, d) embeddings.
        """
        spec = self.bundle
        logits, embedding = self._session.run(
            [spec.logits.name, spec.embedding.name], {spec.input.name: pixels}
        )
        return logits, embedding

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Calibrated probabilities of logits.

        Args:
            logits: (n, n_classes).

        Returns:
            (n, n_classes), rows add up to 1.
        """
        return softmax(logits, self.bundle.temperature)

    def predict(self, source: Path | bytes | Image.Image, *, name: str | None = None) -> Prediction:
        """The answer for one picture.

        Args:
            source: a file, its bytes, or an upright RGB picture.
            name: what to call it in messages.

        Raises:
            CorruptImageError: if it is not an image that may enter.
        """
        start = time.perf_counter()
        logits, embedding = self.run(self.pixels(source, name=name)[np.newaxis])
        row = self.probabilities(logits)[0]
        labels = self.bundle.labels
        return Prediction(
            label=labels[int(row.argmax())],
            probabilities=dict(zip(labels, map(float, row), strict=True)),
            embedding=embedding[0],
            elapsed_ms=(time.perf_counter() - start) * 1000,
        )

    def predict_many(self, sources: Sequence[Path | bytes | Image.Image]) -> list[Prediction]:
        """The answers for several pictures, one after another.

        Args:
            sources: files, bytes or upright RGB pictures.

        Raises:
            CorruptImageError: at the first that is not an image that may enter.
        """
        return [self.predict(source) for source in sources]


def processor_name() -> str:
    """The processor's name, as people know it; a latency means nothing without it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
