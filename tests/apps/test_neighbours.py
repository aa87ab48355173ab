"""The panel of an embedding: nearest pictures with distances, as HTML."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from apps.answers import PANELS, short
from apps.texts import LANGUAGES, load_texts
from pipelines.serving.embedding import Embedding, Neighbour

MODEL = SimpleNamespace(task="flowers", names={})
NEAR = (
    Neighbour("rose/1.jpg", "rose", 0.0312, is_same=True, thumbnail="QUJD"),
    Neighbour("x", "<b>iris</b>", 0.412, is_same=False),
)


def said(*near: Neighbour, is_ood: bool = False) -> Embedding:
    return Embedding(vector=np.zeros(3, np.float32), neighbours=near, is_ood=is_ood)


def html(answer: Embedding, language: str = "en") -> str:
    return PANELS["embedding"](load_texts(language), MODEL, answer, {})


def test_each_neighbour_has_picture_name_distance_and_verdict():
    shown = html(said(*NEAR))
    assert "Nearest: rose" in shown
    assert "distance 0.031 same" in shown
    assert "distance 0.412 not the same" in shown
    assert 'src="data:image/jpeg;base64,QUJD" alt="Picture of rose in the gallery"' in shown
    assert "&lt;b&gt;iris" in shown
    assert "<b>iris" not in shown


def test_nothing_near_enough_no_gallery_and_an_unknown_kind_are_said():
    assert "near enough to be the same" in html(said(NEAR[1]))
    assert "There is no gallery" in html(said())
    shown = html(said(*NEAR, is_ood=True))
    assert "know this kind of picture" in shown
    assert "rose" not in shown


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_the_words(language):
    assert "0.031" in html(said(*NEAR), language) or "0,031" in html(said(*NEAR), language)


def test_a_button_names_the_nearest():
    texts = load_texts("en")
    assert short(texts, MODEL, said(*NEAR)) == "rose"
    assert short(texts, MODEL, said()) == "·"
