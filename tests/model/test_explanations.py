"""Maps of the trained models: random weights must change them (Adebayo et al. 2018)."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from scipy.stats import spearmanr

from pipelines.serving.bundle import read_model
from pipelines.serving.occlusion import occlusion_map
from pipelines.serving.predictor import Predictor
from pipelines.serving.sessions import make_session
from tests.model.conftest import CLASSIFICATIONS, PATHS, pictures_of, trained

#: Largest mean rank correlation of the true map with that of random weights. Adebayo et al. 2018,
#: figure 4, show it near 0 for Grad-CAM once every layer is random; a method that ignores the
#: weights gives 1.
MAX_RANK_CORRELATION = 0.5
N_PICTURES = 4
#: At 224 px, half a cell of Grad-CAM's map: between such places a map holds nothing new.
STEP_PX = 16

pytestmark = [pytest.mark.model, pytest.mark.slow]


def served(task: str) -> tuple[Predictor, list[np.ndarray]]:
    """The predictor of a task, and test pictures of different labels as the model sees them."""
    files = trained(task)
    predictor = Predictor.load(files.bundle)
    test = pictures_of(files)
    chosen = [test[place * len(test) // N_PICTURES] for place in range(N_PICTURES)]
    return predictor, [predictor.pixels(path) for path in chosen]


def correlation(true: list[np.ndarray], other: list[np.ndarray]) -> float:
    found = []
    for pair in zip(true, other, strict=True):
        a, b = (each[STEP_PX // 2 :: STEP_PX, STEP_PX // 2 :: STEP_PX].ravel() for each in pair)
        found.append(0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else spearmanr(a, b).statistic)
    return float(np.mean(found))


def shuffled(model: bytes, *, head_only: bool) -> bytes:
    """The same graph with the numbers inside each large tensor in another order."""
    proto = onnx.load_from_string(model)
    rng = np.random.default_rng(17)
    weights = [tensor for tensor in proto.graph.initializer if np.prod(tensor.dims) >= 64]
    for tensor in weights[-1:] if head_only else weights:
        values = numpy_helper.to_array(tensor)
        mixed = rng.permutation(values.ravel()).reshape(values.shape)
        tensor.CopyFrom(numpy_helper.from_array(mixed, tensor.name))
    data: bytes = proto.SerializeToString()
    return data


@pytest.mark.parametrize("task", CLASSIFICATIONS)
def test_occlusion_of_the_served_file_depends_on_its_weights(task):
    predictor, pictures = served(task)
    bundle = predictor.bundle
    model = read_model(bundle, PATHS.task(task).mobile_dir, predictor.precision)
    labels = [int(predictor.run(pixels[None])[0].argmax()) for pixels in pictures]

    def maps(data: bytes) -> list[np.ndarray]:
        session = make_session(data)

        def logits_of(batch):
            return session.run(["logits"], {bundle.input.name: batch})[0]

        # A coarser grid than in use: 49 places rank as well as 144.
        return [
            occlusion_map(logits_of, pixels, label, patch_px=64, stride_px=32)
            for pixels, label in zip(pictures, labels, strict=True)
        ]

    found = correlation(maps(model), maps(shuffled(model, head_only=False)))
    assert found < MAX_RANK_CORRELATION


def random_head(n_features: int, n_classes: int, seed: int):
    import torch

    from pipelines.backbones.heads import make_head

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_head(n_features, n_classes, (), 0.0).eval()


def shuffle_weights(model, seed: int) -> None:
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                order = torch.randperm(weight.numel(), generator=generator)
                weight.copy_(weight.flatten()[order].reshape(weight.shape))


@pytest.mark.parametrize("task", CLASSIFICATIONS)
@pytest.mark.parametrize("which", ["head", "all"])
def test_grad_cam_of_the_float_model_depends_on_its_weights(task, which):
    from pipelines.training.float_model import load_float_model
    from pipelines.training.gradient_map import grad_cam

    _, pictures = served(task)
    folder = PATHS.task(task).float_dir
    if not folder.is_dir():
        pytest.skip(f"{folder}: there is no float model; `dvc repro train@{task}` makes it")
    meta, model, _ = load_float_model(folder)
    true = [grad_cam(model, pixels, None, meta.mean, meta.std) for pixels in pictures]
    labels = [int(logits.argmax()) for _, logits in true]
    found = []
    # One random net may rank places the true way by chance: all maps are warmer in the middle, and
    # of two labels a random head prefers the true one every other time.
    for seed in range(16 if which == "head" else 4):
        if which == "head":
            model.head = random_head(model.head[-1].in_features, len(meta.labels), seed)
        else:
            shuffle_weights(model, seed)
        other = [
            grad_cam(model, pixels, label, meta.mean, meta.std)[0]
            for pixels, label in zip(pictures, labels, strict=True)
        ]
        found.append(correlation([heat for heat, _ in true], other))
    assert np.mean(found) < MAX_RANK_CORRELATION, np.round(found, 2)
