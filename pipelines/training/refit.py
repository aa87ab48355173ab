"""The training that is released where ``train.refit`` asks for it: on train and val together.

A model that is trained on 80 % of the images is better than one that is trained on 65 % of them;
what needs answers to pictures that were not trained on, the temperature and the operating points,
is taken from the training before (docs/adr/0019, docs/experiments/training.md).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipelines.backbones.heads import Classifier
from pipelines.config.train import TrainParams
from pipelines.paths import Paths
from pipelines.training.assembly import phases_of
from pipelines.training.batches import Split
from pipelines.training.fit import EpochLog, fit
from pipelines.training.start import start_model, training_device


def refit(
    task: str,
    params: TrainParams,
    n_classes: int,
    train: Split,
    val: Split,
    seed: int,
    paths: Paths,
    *,
    checkpoint_dir: Path,
    key: str,
    on_epoch: Callable[[EpochLog], None],
) -> Classifier:
    """Train anew, through all epochs, on two splits together; no image is left to choose an epoch.

    Args:
        task: slug, for progress bars.
        params: as for the training before.
        n_classes: number of logits.
        train: the train split.
        val: the val split.
        seed: of the run.
        paths: of weights and caches.
        checkpoint_dir: of this training alone.
        key: as for `fit`.
        on_epoch: told of each epoch.

    Returns:
        The network of the last epoch, in inference mode.

    Raises:
        ConfigError: if the activations would not fit into ``max_cache_bytes``.
        StorageError: if the disk is full.

    References:
        scikit-learn's ``CalibratedClassifierCV(ensemble=False)``: the model of all images, with a
        calibration of answers to images that were held out.
    """
    both = train + val
    model, _ = start_model(params, n_classes, seed, paths)
    model.to(training_device())
    what = f"{task} refit"
    fit(
        model,
        phases_of(what, model, params, both, None, seed, paths),
        params,
        train_class_index=both.class_index,
        n_classes=n_classes,
        seed=seed,
        checkpoint_dir=checkpoint_dir,
        key=key,
        on_epoch=on_epoch,
        what=what,
    )
    return model
