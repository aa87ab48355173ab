"""Before the first step of a training: the network that params ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.backbones.folding import fold_batch_norms
from pipelines.backbones.heads import Classifier
from pipelines.backbones.spec import backbone
from pipelines.backbones.weights import LoadedWeights, load_imagenet
from pipelines.card import DEFAULT_KIND
from pipelines.kinds.train import KINDS
from pipelines.paths import Paths

if TYPE_CHECKING:
    from pipelines.config.train import TrainParams


def start_model(
    params: TrainParams, n_labels: int, seed: int, paths: Paths, kind: str = DEFAULT_KIND
) -> tuple[Classifier, LoadedWeights | None]:
    """The network before its first step.

    The seed draws what is not pretrained. Pretrained norms are folded (ADR 0011); those of a
    network whose weights are cut out of another's are not: their statistics are the other's.

    Returns:
        The network, and where its weights come from; None where it starts from nothing.

    Raises:
        ConfigError: if the backbone is unknown, or too deep for the side of its input.
        WeightsError: if the weights cannot be had.
    """
    # Said before the weights are fetched, and not by a kernel in the middle of a training.
    network = backbone(params.backbone, params.width)
    network.shapes(params.image_px)
    head = params.head
    model = KINDS[kind].network(
        params.backbone, params.width, n_labels, head.hidden, head.dropout, params.cut, seed
    )
    if params.weights == "none":
        return model, None
    weights = load_imagenet(params.backbone, paths.weights_dir, params.width)
    model.blocks.load_state_dict(weights.tensors)
    return (model if network.spec.inherits else fold_batch_norms(model)), weights
