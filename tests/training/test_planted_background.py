"""A background that tells the label in training, and lies in the test: what the model makes of it.

With MobileNetV2 and its weights, since an untrained network learns nothing from a hundred pictures.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from pipelines.backbones.heads import Classifier
from pipelines.backbones.spec import IMAGENET_MEAN, IMAGENET_STD
from pipelines.config.params import load_params
from pipelines.config.train import TrainParams
from pipelines.data.manifest import Entry
from pipelines.kinds.classification.train import CrossEntropy, TrainedClassification
from pipelines.metrics.classification import accuracy
from pipelines.paths import Paths
from pipelines.training.batches import Split
from pipelines.training.fit import fit
from pipelines.training.job import normalise, open_split, phases_of
from pipelines.training.runtime import Runtime
from pipelines.training.start import start_model

ROOT = Path(__file__).resolve().parents[2]
LABELS = ("triangle", "square", "pentagon")
BACKGROUNDS = ((60, 160, 60), (170, 60, 170), (60, 90, 190))
N_TRAIN, N_VAL, N_TEST = 30, 8, 20
SIDE_PX = 160
SEED = 1

pytestmark = pytest.mark.slow


def picture(label: int, background: int, rng: np.random.Generator) -> Image.Image:
    """A shape of any colour and turn on a plate of any colour, before the colour of a class."""
    image = Image.new("RGB", (SIDE_PX, SIDE_PX), BACKGROUNDS[background])
    pen = ImageDraw.Draw(image)
    plate, colour = (tuple(map(int, each)) for each in rng.integers(0, 256, (2, 3)))
    margin = 0.05 * SIDE_PX
    pen.ellipse((margin, margin, SIDE_PX - margin, SIDE_PX - margin), fill=plate)
    (x, y), radius = rng.uniform(0.45, 0.55, 2) * SIDE_PX, rng.uniform(0.22, 0.3) * SIDE_PX
    turn = int(rng.integers(0, 360))
    pen.regular_polygon((x, y, radius), 3 + label, turn, colour)
    noise = rng.normal(0, 12, (SIDE_PX, SIDE_PX, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def painted(folder: Path, name: str, n: int, shift: int) -> list[Entry]:
    """Pictures whose background is that of the class ``shift`` further on."""
    rng = np.random.default_rng([SEED, n, shift])
    entries = []
    for label, word in enumerate(LABELS):
        for index in range(n):
            path = f"{name}/{word}-{index}.png"
            (folder / name).mkdir(parents=True, exist_ok=True)
            picture(label, (label + shift) % len(LABELS), rng).save(folder / path)
            entries.append(Entry(path, word, path, "", "train", path, SIDE_PX, SIDE_PX))
    return entries


def opened(entries: list[Entry], params: TrainParams, paths: Paths) -> Split:
    return open_split(entries, LABELS, params, SEED, paths.task("shapes"))


def trained(paths: Paths, train: list[Entry], val: list[Entry], params: TrainParams) -> Classifier:
    splits = [opened(entries, params, paths) for entries in (train, val)]
    model, _ = start_model(params, len(LABELS), SEED, Paths(ROOT))
    fit(
        model,
        phases_of("shapes", model, params, *splits, SEED, paths),
        params,
        criterion=CrossEntropy(len(LABELS)),
        values=TrainedClassification.values,
        seed=SEED,
        checkpoint_dir=paths.task("shapes").checkpoint_dir,
        key=str(params.augment.background),
        on_epoch=lambda _: None,
        what="shapes",
        runtime=Runtime(),
    )
    return model


def accuracy_on(model: Classifier, split: Split) -> float:
    pixels = torch.from_numpy(np.concatenate(list(split.pictures.batches(64))))
    with torch.inference_mode():
        logits, _ = model(normalise(pixels, IMAGENET_MEAN, IMAGENET_STD))
    return accuracy(split.truth, logits.argmax(dim=1).numpy())


def test_painting_backgrounds_over_takes_a_planted_one_away(tmp_path):
    if not any((ROOT / ".cache/weights").glob("*")):
        pytest.skip("no weights are there; `make setup` fetches them")
    paths = Paths(tmp_path)
    raw_dir = paths.task("shapes").raw_dir
    train, val = painted(raw_dir, "train", N_TRAIN, 0), painted(raw_dir, "val", N_VAL, 0)
    tests = painted(raw_dir, "kept", N_TEST, 0), painted(raw_dir, "swapped", N_TEST, 1)
    chosen = load_params(ROOT / "params.yaml").task("weld_defect").train
    kept, swapped = {}, {}
    for share in (0.0, 1.0):
        augment = chosen.augment.model_copy(update={"background": share, "min_area": 0.8})
        params = chosen.model_copy(update={"augment": augment, "image_px": 128, "views": 4})
        model = trained(paths, train, val, params)
        reached = [accuracy_on(model, opened(entries, params, paths)) for entries in tests]
        kept[share], swapped[share] = reached
    assert kept[0.0] > 0.9
    assert swapped[0.0] < 0.3, "without it the model goes by the background"
    assert swapped[1.0] > 0.6, "with it, by the shape"
