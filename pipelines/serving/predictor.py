"""Pictures in, answers out: what the app runs, and what `evaluate` measures.

Several pictures of one thing give one answer: leaves of a plant, frames of a fish, views of a part.
Needs onnxruntime, NumPy and Pillow (and pydantic, to read the bundle); never torch, MLflow or DVC,
which a test holds.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Generic, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import TypeVar

from pipelines.data.images import OpenedImage, open_image
from pipelines.data.pixel_range import Reading, refuse_by_aspect, told_if_memory_ends
from pipelines.data.preprocess import Geometry, geometry_of
from pipelines.serving.answer import EMBEDDING_NAME, Answer, ServedKind
from pipelines.serving.bundle import Bundle, bundle_file, read_bundle, read_model
from pipelines.serving.classification import Prediction, softmax
from pipelines.serving.kinds import served_kind
from pipelines.serving.out_of_distribution import OutOfDistribution
from pipelines.serving.sessions import Precision, check_interface, make_session

__all__ = ["Prediction", "Predictor", "combine", "processor_name"]

#: A large JPEG is decoded so that its shorter side is at least so many times that of the resized
#: picture. At 2 the model's pixels differ from those of a full decode by 0.4 of 255 on average and
#: by 4 at most, its probabilities by less than 0.02
#: (docs/experiments/apps.md); no picture with a shorter side
#: below 1024 px is touched. Pillow's own `reducing_gap` knows the same number.
_DECODED_SIDES = 2


#: Without one a predictor is taken for that of a classification.
A = TypeVar("A", bound=Answer, default=Prediction)


class Predictor(Generic[A]):
    """A bundle, ready to answer. Holds no state but its session, so threads may share it."""

    def __init__(
        self, bundle: Bundle, model: bytes, precision: Precision, *, n_threads: int = 1
    ) -> None:
        """Make the session.

        Args:
            bundle: kind, preprocessing, abstention, and what the kind needs to decode.
            model: bytes of the ONNX file, as `read_model` gives them.

        Raises:
            BundleError: if ONNX Runtime cannot load the model, or the abstention's arrays do not
                fit it.
        """
        self.bundle = bundle
        self.precision = precision
        self.n_threads = n_threads
        self._preprocess = bundle.preprocess.build()
        #: How its outputs are decoded and said.
        self.kind: ServedKind[A] = served_kind(bundle.kind)
        #: Tells pictures out of distribution; None where the bundle has no abstention.
        self.out_of_distribution = (
            OutOfDistribution.load(bundle.abstention, bundle.output(EMBEDDING_NAME).shape[-1])
            if bundle.abstention is not None
            else None
        )
        self._session = make_session(model, n_threads)
        check_interface(
            self._session,
            {bundle.input.name: bundle.input.shape},
            {output.name: output.shape for output in bundle.outputs},
        )

    @classmethod
    def load(
        cls, path: Path | str, precision: Precision | None = None, *, n_threads: int = 1
    ) -> Self:
        """A predictor for a bundle on disk.

        Args:
            precision: fp32 or int8; None for the one that the bundle serves.

        Raises:
            BundleError: if the bundle is incomplete, changed or of an unknown schema.
        """
        path = bundle_file(path)
        bundle = read_bundle(path, verify=False)
        precision = precision if precision is not None else bundle.served.precision
        model = read_model(bundle, path.parent, precision)
        predictor = cls(bundle, model, precision, n_threads=n_threads)
        predictor.kind = predictor.kind.beside(path.parent)
        return predictor

    @property
    def reading(self) -> Reading:
        """How the model's pictures are read: range of deep pixels, bound of the aspect."""
        return self._preprocess.reading

    def pixels(
        self, source: Path | bytes | Image.Image, *, name: str | None = None
    ) -> NDArray[np.uint8]:
        """The model's input for one picture.

        Args:
            source: a file, its bytes, or an upright RGB picture.

        Returns:
            (crop_px, crop_px, 3), in [0, 255].

        Raises:
            CorruptImageError: if it is not an image that may enter.
        """
        name = name or (str(source) if isinstance(source, Path) else "image")
        image = source if isinstance(source, Image.Image) else self.open(source, name=name)
        refuse_by_aspect(*image.size, self.reading, name)
        with told_if_memory_ends(name):
            return self._preprocess(image)

    def open(self, source: Path | bytes, *, name: str | None = None) -> Image.Image:
        """The picture in a file or in bytes, upright and RGB, as `pixels` opens it.

        Raises:
            CorruptImageError: if it is not an image that may enter.
        """
        return self.opened(source, name=name).rgb

    def opened(
        self, source: Path | bytes, *, name: str | None = None, least_side_px: int = 0
    ) -> OpenedImage:
        """The picture in a file or in bytes, with the facts of its file.

        A large JPEG is decoded at a fraction of its size, at least twice as large as the model's
        preprocessing needs it: of a phone's photo, most of the time goes into pixels that the
        resizing would average away.

        Args:
            least_side_px: neither side is made smaller than this.

        Raises:
            CorruptImageError: if it is not an image that may enter.
        """
        needed_px = max(self._preprocess.resize_px, self._preprocess.view.side_px or 0)
        return open_image(
            source,
            name=name,
            least_side_px=max(least_side_px, _DECODED_SIDES * needed_px),
            reading=self.reading,
        )

    def geometry(self, opened: OpenedImage | Image.Image) -> Geometry:
        """Where the model's input shows what: from px of the upright picture to px of the input.

        Args:
            opened: as `opened` gives it, or an upright picture.
        """
        if isinstance(opened, Image.Image):
            return self._preprocess.geometry(opened.size)
        sides = zip(opened.rgb.size, opened.size, strict=True)
        x, y = (decoded / stored for decoded, stored in sides)
        found: Geometry = self._preprocess.geometry(opened.rgb.size) @ geometry_of((x, y))
        return found

    def run(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        """The outputs for preprocessed pictures, in the order of the bundle.

        Args:
            pixels: (n, crop_px, crop_px, 3), in [0, 255].

        Returns:
            The first axis of each is n; of a classification (n, n_classes) logits and (n, d)
            embeddings.
        """
        spec = self.bundle
        names = [output.name for output in spec.outputs]
        return tuple(self._session.run(names, {spec.input.name: pixels}))

    def outputs(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """The outputs for preprocessed pictures by name; otherwise as `run`."""
        names = (output.name for output in self.bundle.outputs)
        return dict(zip(names, self.run(pixels), strict=True))

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Calibrated probabilities of logits.

        Args:
            logits: (n, n_classes).

        Returns:
            (n, n_classes), rows add up to 1.
        """
        return softmax(logits, self.bundle.temperature)

    def predict(self, source: Path | str | bytes | Image.Image, *, name: str | None = None) -> A:
        """The answer for one picture.

        Args:
            source: a file or its name, its bytes, or an upright RGB picture.
            name: what to call it in messages.

        Raises:
            CorruptImageError: if it is not an image that may enter.
        """
        start = time.perf_counter()
        if isinstance(source, Image.Image):
            pixels, geometry = self.pixels(source, name=name), self.geometry(source)
            return self.answer(pixels, start, geometry=geometry)
        source = Path(source) if isinstance(source, str) else source
        opened = self.opened(source, name=name)
        return self.answer(
            self.pixels(opened.rgb, name=name),
            start,
            outside=opened.outside,
            geometry=self.geometry(opened),
        )

    def answer(
        self,
        pixels: NDArray[np.uint8],
        start: float | None = None,
        *,
        outside: float = 0.0,
        geometry: Geometry | None = None,
    ) -> A:
        """The answer for one picture that is preprocessed already.

        Args:
            pixels: (crop_px, crop_px, 3), as `pixels` gives them.
            start: of the clock, in seconds of `time.perf_counter`; None for now.
            outside: share of the picture outside the range of the training data, as `opened` says.
            geometry: as `geometry` gives it; without it places are told in px of ``pixels``.
        """
        start = time.perf_counter() if start is None else start
        outputs = self.outputs(pixels[np.newaxis])
        geometry = np.eye(3) if geometry is None else geometry
        of_one = {name: of[0] for name, of in outputs.items()}
        answer = self.kind.decode(of_one, self.bundle, geometry)
        embedding = outputs.get(EMBEDDING_NAME, np.empty((1, 0), dtype=np.float32))
        ood_score, is_ood = None, False
        if self.out_of_distribution is not None:
            scores, verdicts = self.out_of_distribution.judge(embedding)
            ood_score, is_ood = float(scores[0]), bool(verdicts[0])
        return replace(
            answer,
            is_ood=is_ood,
            ood_score=ood_score,
            embedding=embedding[0],
            elapsed_ms=(time.perf_counter() - start) * 1000,
            outside=outside,
        )

    def predict_many(self, sources: Sequence[Path | str | bytes | Image.Image]) -> list[A]:
        """The answers for several pictures, one after another.

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


# -- several pictures of one thing ----------------------------------------------------------------
#: A probability of 0 would veto every other picture; no calibrated model is that sure.
_LEAST = 1e-6


def combine(views: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The probabilities of several pictures of one thing, taken together.

    The mean of the log-probabilities, brought back to probabilities that add up to 1 (a geometric
    mean). One picture alone gives its own probabilities.

    Args:
        views: by picture, the probability of each label; the same labels in each, in [0, 1].

    Returns:
        By label, in the order of the first picture; they add up to 1.

    Raises:
        ValueError: if there is no picture, or the labels differ.

    References:
        Genest and Zidek 1986, "Combining probability distributions", Statistical Science 1(1): the
        logarithmic opinion pool with equal weights.
        Mrisho et al. 2020, "Accuracy of a smartphone-based object detection model, PlantVillage
        Nuru", Frontiers in Plant Science 11: six leaves of a plant instead of one.
    """
    if not views:
        raise ValueError("expected at least one picture, got none")
    labels = list(views[0])
    if any(list(view) != labels for view in views):
        raise ValueError("expected the same labels in the same order for each picture")
    table = np.array([[view[label] for label in labels] for view in views], dtype=np.float64)
    pooled = np.log(np.clip(table, _LEAST, 1.0)).mean(axis=0)
    exponentials = np.exp(pooled - pooled.max())
    shares = exponentials / exponentials.sum()
    return dict(zip(labels, map(float, shares), strict=True))
