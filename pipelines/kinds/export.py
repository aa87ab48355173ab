"""What `export` asks of a kind, and who answers: outputs, what int8 must keep, what val fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.card import DatasetCard
from pipelines.config.export import ExportParams
from pipelines.export.attempts import Judge
from pipelines.kinds.classification.export import ExportedClassification
from pipelines.kinds.detection.export import ExportedDetection
from pipelines.kinds.embedding.export import ExportedEmbedding
from pipelines.kinds.segmentation.export import ExportedSegmentation


class ExportedKind(Protocol):
    """A kind, as far as `export` must know it."""

    #: By output, in the order of the serving half, what the numbers mean.
    meanings: Mapping[str, str]

    def finished(self, model: bytes) -> bytes:
        """An ONNX file whose outputs are the serving half's, without anything being quantised.

        Args:
            model: float32 or int8; gives ``logits``, by which name goes whatever the head says,
                and ``embedding``.
        """

    def compared(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """What of the head's outputs torch and ONNX must agree on to 0.001.

        Args:
            outputs: (n, ...).
        """

    def judge(
        self, reference: NDArray[np.float32], truth: NDArray[Any], params: ExportParams
    ) -> Judge:
        """Measures what another file's head says against what fp32 says.

        Args:
            reference: of fp32 on val.
            truth: of the same images, as their plain views show it.
            params: with the bounds that an int8 file must hold.
        """

    def fitted(
        self,
        outputs: Mapping[str, NDArray[np.float32]],
        truth: NDArray[Any],
        card: DatasetCard,
        labels: Sequence[str],
        params: ExportParams,
    ) -> dict[str, Any]:
        """The keys of the bundle that are fitted on val, for the file that is served.

        Args:
            outputs: by name, of a network that has not seen val.
            truth: of the same images.
            labels: that the model knows, in the order of its outputs.

        Raises:
            DataError: if an output is not finite, or nothing fits.
        """


KINDS: Mapping[str, ExportedKind] = {
    "classification": ExportedClassification(),
    "detection": ExportedDetection(),
    "segmentation": ExportedSegmentation(),
    "embedding": ExportedEmbedding(),
}
