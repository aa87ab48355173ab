from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipelines.errors import BundleError
from pipelines.paths import Paths
from pipelines.serving.faces import FaceDetector, decode, keep_best
from tests.apps.conftest import ROOT


def test_decode_reads_centre_size_and_offset():
    heat = np.zeros((4, 6), dtype=np.float32)
    size, offset = np.zeros((2, 2, 4, 6), dtype=np.float32)
    heat[1, 3] = 0.9
    size[:, 1, 3] = np.log([5, 2])
    offset[:, 1, 3] = [0.25, -0.5]
    boxes, probabilities = decode(heat, size, offset)
    # Centre: y = (1 + 0.25 + 0.5) x 4 = 7, x = (3 - 0.5 + 0.5) x 4 = 12; 20 px high, 8 px wide.
    np.testing.assert_allclose(boxes, [[8, -3, 16, 17]], rtol=1e-5)
    np.testing.assert_allclose(probabilities, [0.9])


def test_decode_of_an_empty_scene_gives_nothing():
    zeros = np.zeros((2, 4, 4), dtype=np.float32)
    boxes, probabilities = decode(zeros[0], zeros, zeros)
    assert boxes.shape == (0, 4)
    assert keep_best(boxes, probabilities, 0.3) == []


def test_of_two_boxes_on_one_face_the_more_probable_stays():
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [30, 0, 40, 10]], dtype=np.float32)
    assert keep_best(boxes, np.array([0.6, 0.9, 0.7], dtype=np.float32), 0.3) == [1, 2]


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "centerface.onnx"
    path.write_bytes(b"something else")
    with pytest.raises(BundleError, match="another file"):
        FaceDetector.load(path)
    with pytest.raises(BundleError, match="make setup"):
        FaceDetector.load(tmp_path / "absent.onnx")


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    path = Paths(ROOT).face_model
    if not path.is_file():
        pytest.skip("the face detector is not here; `make setup` fetches it")
    return FaceDetector.load(path)


@pytest.mark.parametrize("size", [(640, 480), (33, 700), (1, 1), (2000, 900)])
def test_picture_of_any_shape_without_a_face_gives_none(detector, size):
    assert detector.find(Image.new("RGB", size, "teal")) == []


def test_boxes_lie_in_the_picture(detector):
    noise = np.random.default_rng(1).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    for box in detector.find(Image.fromarray(noise)):
        assert 0 <= box.left < box.right <= 400
        assert 0 <= box.top < box.bottom <= 300
