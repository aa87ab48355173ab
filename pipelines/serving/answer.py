"""What serving asks of the kind of a task: which outputs a model has, and what they say.

The serving half of a kind: NumPy only, so that the predictor, the apps and the phone page need no
torch. What making, testing and releasing a model ask stands in `pipelines.kinds`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypeVar

if TYPE_CHECKING:
    from PIL import Image

    from pipelines.data.preprocess import Geometry
    from pipelines.serving.bundle import Bundle


#: The output that tells pictures out of distribution, where a kind has one.
EMBEDDING_NAME = "embedding"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What every kind says of one picture; a kind's own answer adds to it.

    Attributes:
        is_ood: the picture is out of distribution, unlike those that the model knows: do not
            believe the answer.
        ood_score: how unlike; larger is more so, on a scale of the bundle's own. None where the
            bundle has no abstention, and then nothing is refused.
        embedding: (d,) pooled features of two levels, see `inner_features`; empty where the model
            has no such output.
        elapsed_ms: wall time of preprocessing and model for this picture, in ms.
        outside: share of the picture's stored values outside the range of the training data, which
            are clipped (`pixel_range.outside_words` says it); 0 for 8 bits a channel.
    """

    is_ood: bool = False
    ood_score: float | None = None
    embedding: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    elapsed_ms: float = 0.0
    outside: float = 0.0


A = TypeVar("A", bound=Answer, default=Any)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing that a model says of a picture, and how sure it is when places are covered.

    Attributes:
        name: of the thing, for the name of a file.
        said: the thing, in words.
        score: of (n, …) outputs by name, (n,) how sure the model is of it.
        least: fall of the score that is drawn brightest at least: where no place matters much,
            noise would be drawn as a finding.
        fall: what it is to cover a place, in words with a place for the fall.
        box: left, top, right and bottom in px of the input, where the thing has a place.
    """

    name: str
    said: str
    score: Callable[[Mapping[str, NDArray[np.float32]]], NDArray[np.float64]]
    least: float
    fall: str
    box: tuple[float, float, float, float] | None = None


class ServedKind(ABC, Generic[A]):
    """A kind of a task, as far as serving must know it."""

    #: Names of the model's outputs, in the order in which the bundle lists them.
    outputs: tuple[str, ...]
    #: Whether the first output is a score a label, of which `explain` tells which places speak for
    #: it.
    is_explained: bool = False
    #: Of another kind without `evidence`, why, and what to do instead; else empty.
    not_explained: str = "no answer is explained by its places. `fieldlens predict` says what it is"

    def beside(self, folder: Path) -> ServedKind[A]:
        """The same for a bundle in a folder, where decoding needs what lies there; or as it is."""
        return self

    def check_labels(self, labels: Sequence[str]) -> None:
        """Nothing, if a model of this kind can have these labels; by default any.

        Raises:
            ValueError: begins with ``labels``.
        """

    @abstractmethod
    def check(self, bundle: Bundle) -> None:
        """Nothing, if a bundle has what this kind needs; its labels are checked.

        Raises:
            ValueError: begins with the key that is at fault.
        """

    @abstractmethod
    def decode(
        self, outputs: Mapping[str, NDArray[np.float32]], bundle: Bundle, geometry: Geometry
    ) -> A:
        """The answer that one picture's outputs mean, without what every kind says.

        Args:
            outputs: by name, without the axis of the batch.
            bundle: with what decoding needs to know, e.g. labels and temperature.
            geometry: from px of the upright picture, in which places are told, to px of the input.
        """

    @abstractmethod
    def lines(self, answer: A, bundle: Bundle) -> list[str]:
        """What a terminal shows of an answer."""

    @abstractmethod
    def columns(self, bundle: Bundle) -> list[str]:
        """The heads of `cells`."""

    @abstractmethod
    def cells(self, answer: A, bundle: Bundle) -> list[str]:
        """An answer in the row of a table."""

    @abstractmethod
    def numbers(self, bundle: Bundle) -> list[str]:
        """Those of `columns` whose cells are numbers, or empty where there is none."""

    @abstractmethod
    def document(self, answer: A, bundle: Bundle) -> dict[str, Any]:
        """An answer as JSON has it, without what every kind says."""

    def evidence(
        self, outputs: Mapping[str, NDArray[np.float32]], bundle: Bundle, label: str | None
    ) -> Evidence:
        """What of an answer `explain` asks the places about, where `not_explained` is empty.

        Args:
            outputs: as of `decode`.
            label: that is wanted; None for the answer's own.

        Raises:
            ValueError: says why there is nothing to explain in this picture.
        """
        raise ValueError(self.not_explained)

    def drawing(self, answer: A, size: tuple[int, int]) -> Image.Image | None:
        """An answer as a picture to be kept beside the other, e.g. a mask; by default none.

        Args:
            answer: of one picture.
            size: width and height of the upright picture.
        """
        return None
