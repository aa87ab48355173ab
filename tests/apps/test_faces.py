"""The mask app's own way: boxes first, then an answer for each."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from apps import faces
from apps.batch import as_csv, together
from apps.inference import answer_picture
from apps.mask_detection import APP
from apps.models import load_model
from apps.texts import load_texts
from pipelines.card import load_card
from pipelines.serving.faces import FaceBox
from tests.apps.conftest import encoded, hue_of, tile

EN = load_texts("en")


@pytest.fixture
def scene(app_root) -> bytes:
    """Three tiles on white: worn, not worn, and worn wrongly."""
    card = load_card(app_root / "datasets/mask_detection/card.yaml")
    image = Image.new("RGB", (600, 240), "white")
    for number, label in enumerate(("with_mask", "without_mask", "mask_worn_incorrectly")):
        image.paste(tile(hue_of(card, label), side_px=160), (20 + 200 * number, 40))
    return encoded(image)


BOXES = [(40.0 + 200 * n, 60.0, 160.0 + 200 * n, 180.0) for n in range(3)]


def shot_of(data: bytes, monkeypatch: pytest.MonkeyPatch, *boxes):
    found = [FaceBox(*box, probability=0.9) for box in boxes]
    detector = SimpleNamespace(find=lambda _: found)
    monkeypatch.setattr(faces, "_detector", lambda: detector)
    return answer_picture(
        load_model("mask_detection"), data, key="k", name="scene.png", find=faces.find
    )


def test_each_face_gets_an_answer_of_its_own(scene, monkeypatch):
    shot = shot_of(scene, monkeypatch, *BOXES)
    labels = [given.label for given in shot.answers]
    assert labels == ["with_mask", "without_mask", "mask_worn_incorrectly"]
    assert shot.scene.faces[0].box == pytest.approx((40 / 600, 0.25, 160 / 600, 0.75))


def test_face_too_small_is_counted_and_not_answered(scene, monkeypatch):
    shot = shot_of(scene, monkeypatch, BOXES[0], (500.0, 10.0, 520.0, 30.0))
    assert len(shot.scene.faces) == 1
    assert shot.scene.n_too_small == 1


def test_close_up_without_a_face_is_answered_whole(scene, monkeypatch):
    shot = shot_of(scene, monkeypatch)
    assert shot.scene.faces == ()
    assert shot.answers == (shot.prediction,)
    assert shot.scene.has_detector


def test_missing_detector_is_said(scene, monkeypatch):
    monkeypatch.setattr(faces, "_detector", lambda: None)
    model = load_model("mask_detection")
    shot = answer_picture(model, scene, key="k", name="scene.png", find=faces.find)
    assert not shot.scene.has_detector
    assert shot.main is shot.prediction


def test_box_has_the_colour_of_its_alarm(scene, monkeypatch):
    drawn = faces.draw(shot_of(scene, monkeypatch, *BOXES), APP.tones)
    pixels = np.asarray(Image.open(io.BytesIO(drawn)).convert("RGB")).astype(int)
    # Below each box's corner number, on its left edge: green, red, amber.
    edges = [pixels[170, 41 + 200 * number] for number in range(3)]
    assert [int(edge.argmax()) for edge in edges[:2]] == [1, 0]
    assert edges[2][0] > 200 > edges[2][1] > 110 > edges[2][2]


def test_largest_face_speaks_for_the_picture(scene, monkeypatch):
    large = (220.0, 40.0, 380.0, 200.0)
    assert shot_of(scene, monkeypatch, BOXES[0], large).main.label == "without_mask"


def test_csv_has_a_row_a_face_and_several_pictures_one_answer(scene, monkeypatch):
    model = load_model("mask_detection")
    shot = shot_of(scene, monkeypatch, *BOXES)
    rows = as_csv(model, [shot]).splitlines()
    assert [row.split(",")[1] for row in rows[1:]] == ["1", "2", "3"]
    said = together(model, [shot_of(scene, monkeypatch, BOXES[1])] * 3)
    assert said is not None
    assert said.label == "without_mask"


def test_square_around_a_face_stays_in_the_picture():
    box = FaceBox(0, 0, 50, 100, 0.9)
    assert faces.around(box, (200, 120)) == (0, 0, 85, 110)
