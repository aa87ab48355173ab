"""The released int8 files give the same bits from every layout of their computation (ADR 0017).

That Chromium gives them too is asked by tests/apps/test_phone_parity.py.
"""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from pipelines.serving.bundle import read_model
from pipelines.serving.predictor import Predictor
from tests.model.conftest import CLASSIFICATIONS, pictures_of, trained

N_PICTURES = 60

pytestmark = [pytest.mark.model, pytest.mark.slow]


def answers(
    model: bytes, pictures: np.ndarray, level: ort.GraphOptimizationLevel
) -> dict[str, np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = ["logits", "embedding"]
    rows = [session.run(names, {"image": one[None]}) for one in pictures]
    return {
        name: np.concatenate(part)
        for name, part in zip(names, zip(*rows, strict=True), strict=True)
    }


@pytest.mark.parametrize("task", CLASSIFICATIONS)
def test_two_layouts_give_the_same_bits(task):
    """With all optimisations the stem runs in another layout and additions are fused."""
    files = trained(task)
    predictor = Predictor.load(files.bundle)
    if predictor.bundle.provenance.backbone != "mobilenet_v2":
        pytest.skip("only MobileNetV2's stem is made exact")
    (chosen,) = (one for one in predictor.bundle.int8_path if one.is_chosen)
    if "leave_out" in chosen.remedy:
        pytest.skip(f"{task}: blocks were left in float32, whose sums depend on their order")
    model = read_model(predictor.bundle, files.mobile_dir, "int8")
    test = pictures_of(files)[:N_PICTURES]
    pictures = np.stack([predictor.pixels(path) for path in test])
    levels = ort.GraphOptimizationLevel
    found = answers(model, pictures, levels.ORT_ENABLE_ALL)
    again = answers(model, pictures, levels.ORT_ENABLE_EXTENDED)
    for name, rows in found.items():
        assert np.array_equal(rows, again[name]), name
