"""The serving half of the kind `embedding`: a vector of unit length, and what lies near it.

Pictures of one identity (a species, a person, a part) lie near one another, also those of
identities that the model was never shown. Which ones there are a gallery says that lies beside the
bundle (`pipelines.serving.gallery`): whoever uses the model fills it, and no training is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from pipelines.columns import shown, table
from pipelines.serving.answer import EMBEDDING_NAME, Answer, Evidence, ServedKind
from pipelines.serving.gallery import Gallery, gallery_file, read_gallery

if TYPE_CHECKING:
    from pipelines.data.preprocess import Geometry
    from pipelines.serving.bundle import Bundle


VECTOR_NAME = "vector"
#: The one operating point: from which likeness on two pictures are said to be of one identity.
SAME = "same_identity"
#: Nearest pictures that an answer holds.
N_NEIGHBOURS = 5
#: Up to which distance a picture of a gallery is the one that is asked about.
_ITSELF = 1e-3
#: `Evidence.least` of a distance in [0, 1].
_LEAST_MOVE = 0.02


def distances(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far vectors of unit length lie apart: half of 1 minus their cosine.

    Args:
        one: (n, d).
        other: (m, d).

    Returns:
        (n, m) in [0, 1]: 0 in the same direction, 0.5 at a right angle; a quarter of the squared
        Euclidean distance. 1 minus it is the likeness that operating points are stated in.
    """
    cosine = one.astype(np.float64) @ other.astype(np.float64).T
    return np.clip((1 - cosine) / 2, 0, 1)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A picture of the gallery.

    Attributes:
        path: as the gallery names it.
        distance: as of `distances`.
        is_same: whether it is near enough to be of one identity; None without an operating point.
        thumbnail: a small JPEG in base64; empty where the gallery has none.
    """

    path: str
    identity: str
    distance: float
    is_same: bool | None
    thumbnail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding(Answer):
    """The answer for one picture.

    Attributes:
        vector: (d,) of unit length.
        neighbours: the nearest pictures of the gallery, the nearest first; empty without one.
    """

    vector: NDArray[np.float32]
    neighbours: tuple[Neighbour, ...]


class ServedEmbedding(ServedKind[Embedding]):
    """A vector for the whole picture; the gallery is read at the first answer that needs it."""

    outputs = (VECTOR_NAME, EMBEDDING_NAME)
    not_explained = ""

    def __init__(self, folder: Path | None = None) -> None:
        """Look for the gallery in the bundle's folder; without one nothing is near."""
        self._folder = folder
        self._gallery: Gallery | None = None

    @override
    def beside(self, folder: Path) -> ServedEmbedding:
        return ServedEmbedding(folder)

    @override
    def check_labels(self, labels: Sequence[str]) -> None:
        if labels:
            raise ValueError(f"labels: an embedding has none, got {len(labels)}")

    @override
    def check(self, bundle: Bundle) -> None:
        shape = bundle.output(VECTOR_NAME).shape
        if len(shape) != 2:
            raise ValueError(f"outputs.{VECTOR_NAME}.shape: expected [-1, d], got {list(shape)}")
        unknown = sorted(set(bundle.operating_points) - {SAME})
        if unknown:
            raise ValueError(f"operating_points: expected {SAME} alone, got {', '.join(unknown)}")

    def gallery(self, bundle: Bundle) -> Gallery | None:
        """The gallery beside the bundle; None where there is none.

        Raises:
            BundleError: if it was made by another model, or is damaged.
        """
        if self._gallery is None and self._folder is not None:
            path = gallery_file(self._folder)
            self._gallery = read_gallery(path, bundle) if path.is_file() else None
        return self._gallery

    @override
    def decode(
        self, outputs: Mapping[str, NDArray[np.float32]], bundle: Bundle, geometry: Geometry
    ) -> Embedding:
        vector, gallery = outputs[VECTOR_NAME], self.gallery(bundle)
        near = () if gallery is None else nearest(vector, gallery, bundle)
        return Embedding(vector=vector, neighbours=near)

    @override
    def evidence(
        self, outputs: Mapping[str, NDArray[np.float32]], bundle: Bundle, label: str | None
    ) -> Evidence:
        """What holds the picture near its nearest of the gallery, or that of one identity."""
        gallery, vector = self.gallery(bundle), outputs[VECTOR_NAME]
        if gallery is None:
            raise ValueError(
                f"has no gallery to be near to; make one: fieldlens gallery --task {bundle.task}"
            )
        far = distances(vector[np.newaxis], gallery.vectors)[0]
        asked = [
            row
            for row in np.argsort(far, kind="stable").tolist()
            if far[row] > _ITSELF and label in (None, gallery.pictures[row].identity)
        ]
        if not asked:
            whose = "" if label is None else f" of {label}"
            raise ValueError(f"has no other picture{whose} in the gallery to be near to")
        nearest_one, target = gallery.pictures[asked[0]], gallery.vectors[asked[0]][np.newaxis]

        def score(found: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float64]:
            return 1 - distances(found[VECTOR_NAME], target)[:, 0]

        return Evidence(
            name=nearest_one.identity,
            said=f"{nearest_one.identity} at a distance of {far[asked[0]]:.3f}",
            score=score,
            least=_LEAST_MOVE,
            fall="moves it {:.3f} farther away",
        )

    @override
    def lines(self, answer: Embedding, bundle: Bundle) -> list[str]:
        if not answer.neighbours:
            return [
                f"There is no gallery beside the model, so nothing is near. "
                f"`fieldlens gallery --task {bundle.task}` makes one."
            ]
        rows = [
            (each.identity, f"{each.distance:.3f}", _word(each.is_same), shown(each.path))
            for each in answer.neighbours
        ]
        lines = [table(("NEAREST", "DISTANCE", "SAME", "PICTURE"), rows)]
        point = bundle.operating_points.get(SAME)
        if point is not None:
            lines.append(
                f"Said to be the same up to a distance of {1 - point.threshold:.3f}; on val that "
                f"found {point.sensitivity:.0%} of the pairs of one identity and said no to "
                f"{point.specificity:.0%} of the others."
            )
        return lines

    @override
    def columns(self, bundle: Bundle) -> list[str]:
        return ["nearest", "distance", "is_same", "nearest_path"]

    @override
    def cells(self, answer: Embedding, bundle: Bundle) -> list[str]:
        if not answer.neighbours:
            return ["", "", "", ""]
        first = answer.neighbours[0]
        said = "" if first.is_same is None else str(first.is_same).lower()
        return [first.identity, f"{first.distance:.6f}", said, first.path]

    @override
    def numbers(self, bundle: Bundle) -> list[str]:
        return ["distance"]

    @override
    def document(self, answer: Embedding, bundle: Bundle) -> dict[str, Any]:
        return {
            "neighbours": [
                {
                    "identity": each.identity,
                    "distance": round(each.distance, 6),
                    "is_same": each.is_same,
                    "path": each.path,
                }
                for each in answer.neighbours
            ],
            "vector": [round(float(value), 6) for value in answer.vector],
        }


def _word(is_same: bool | None) -> str:
    return "" if is_same is None else "yes" if is_same else "no"


def nearest(vector: NDArray[np.float32], gallery: Gallery, bundle: Bundle) -> tuple[Neighbour, ...]:
    """The nearest pictures of a gallery, the nearest first; of equals, the first listed.

    Args:
        vector: (d,) of unit length.
        bundle: with the operating point, if any.
    """
    far = distances(vector[np.newaxis], gallery.vectors)[0]
    point = bundle.operating_points.get(SAME)
    return tuple(
        Neighbour(
            gallery.pictures[row].path,
            gallery.pictures[row].identity,
            float(far[row]),
            None if point is None else bool(1 - far[row] >= point.threshold),
            gallery.pictures[row].thumbnail,
        )
        for row in np.argsort(far, kind="stable")[:N_NEIGHBOURS]
    )
