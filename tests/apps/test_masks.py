"""The app of a task of masks, without a browser; how it looks, tests/apps/test_browser.py sees."""

from __future__ import annotations

import base64
import csv
import io
import re
import zipfile
from html import unescape

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from apps.masks import as_zip, overlay
from apps.models import Model, load_model
from apps.pictures import Incoming
from apps.seen import Seen, answered, as_csv
from apps.texts import LANGUAGES, load_texts
from pipelines.card import load_card
from pipelines.paths import Paths
from pipelines.serving.segmentation import Mask
from tests.apps.conftest import ROOT, encoded
from tests.kinds.segmentation.bright_net import write_bundle

EN = load_texts("en")
TASK = "polyp"


@pytest.fixture
def model(tmp_path, monkeypatch) -> Model:
    paths = Paths(tmp_path)
    files = paths.task(TASK)
    files.card.parent.mkdir(parents=True)
    files.card.write_bytes((ROOT / "datasets/polyp/card.yaml").read_bytes())
    write_bundle(files, load_card(files.card))
    monkeypatch.setenv("FIELDLENS_ROOT", str(tmp_path))
    for name in ("FIELDLENS_MODELS_ROOT", "FIELDLENS_PHONE_URL", "FIELDLENS_TASK"):
        monkeypatch.delenv(name, raising=False)
    return load_model(TASK)


def picture(size: tuple[int, int] = (120, 90)) -> Image.Image:
    """Dark, with a red square in the middle, a third as high as the picture."""
    image = Image.new("RGB", size, (20, 60, 60))
    side = min(size) // 3
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    image.paste((230, 60, 60), (left, top, left + side, top + side))
    return image


def masked(model: Model, image: Image.Image, name: str = "a.png") -> Seen[Mask]:
    return answered(model, Incoming("key", name, encoded(image)))


def start(language: str = "en", script: str = "polyp") -> AppTest:
    app = AppTest.from_file(str(ROOT / "apps" / f"{script}.py"), default_timeout=30)
    app.session_state["lang"] = language
    return app.run()


def page(app: AppTest) -> str:
    assert not app.exception
    pieces = [element.proto.body for element in app.get("html")]
    for kind in ("error", "warning", "info", "caption", "markdown"):
        pieces += [element.value for element in app.get(kind)]
    return unescape(re.sub(r"<[^>]+>", " ", " ".join(pieces)))


def drawn(app: AppTest) -> np.ndarray:
    """The picture on the phone."""
    body = next(
        e.proto.body for e in app.get("html") if '<section class="fl-phone"' in e.proto.body
    )
    found = re.search(r"data:image/jpeg;base64,([^\"]+)", body)
    assert found is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1])))).astype(int)


@pytest.mark.parametrize("language", LANGUAGES)
def test_area_meaning_next_step_and_what_it_is_not_for(model, language):
    t = load_texts(language)
    app = start(language)
    assert t("answer.waiting") in page(app)
    app.get("file_uploader")[0].upload("a.png", encoded(picture()), "image/png")
    shown = page(app.run())
    assert t("banners.medical_title") in shown
    assert t("masks.area", share=1 / 9) in shown or re.search(r"1[01][.,]\d%", shown)
    step = t.of_card(TASK, "next_steps.polyp", model.card.next_steps["polyp"])
    assert step in shown
    assert t("masks.seen") in shown


def test_mask_is_as_strong_as_wanted_and_goes_for_before(model):
    app = start()
    app.get("file_uploader")[0].upload("a.png", encoded(picture()), "image/png")
    app.run()
    looks = {}
    for opacity in (0, 40, 100):
        app.slider[0].set_value(opacity).run()
        looks[opacity] = drawn(app)[45, 60]
    assert looks[0] == pytest.approx([230, 60, 60], abs=8)
    assert looks[100] == pytest.approx([0, 158, 115], abs=8)
    assert looks[40] == pytest.approx(0.6 * looks[0] + 0.4 * looks[100], abs=8)
    app.toggle[0].set_value(True).run()
    # But for what JPEG does at the square's edge.
    assert np.abs(drawn(app) - np.asarray(picture()).astype(int)).mean() < 4


def test_nothing_is_said_to_be_nothing(model):
    app = start()
    dark = Image.new("RGB", (64, 64), (20, 60, 60))
    app.get("file_uploader")[0].upload("a.png", encoded(dark), "image/png")
    assert EN("masks.nothing") in page(app.run())


def test_several_pictures_are_chosen_from(model):
    app = start()
    for name in ("a.png", "b.png"):
        app.get("file_uploader")[0].upload(name, encoded(picture()), "image/png")
    app.run()
    chosen = next(one for one in app.selectbox if one.key == f"one-{TASK}")
    assert chosen.options == ["a.png", "b.png"]
    assert not app.exception


def test_what_is_no_picture_is_refused_and_the_others_answered(model):
    app = start()
    for name, data in (("a.png", encoded(picture())), ("b.png", b"none")):
        app.get("file_uploader")[0].upload(name, data, "image/png")
    shown = page(app.run())
    assert "b.png" in shown
    assert re.search(r"1[01]\.\d%", shown)


def test_hub_says_dice_and_not_accuracy(model):
    shown = page(start(script="hub"))
    assert "Dice" in shown
    assert "80.0%" in shown
    assert EN("hub.accuracy") not in shown


@pytest.mark.parametrize("size", [(120, 90), (90, 120), (1600, 1200)])
def test_files_have_the_pictures_px(model, size):
    shots = [masked(model, picture(size)) for _ in range(2)]
    rows = list(csv.DictReader(io.StringIO(as_csv(model, shots))))
    assert [row["picture"] for row in rows] == ["a.png", "a.png"]
    assert float(rows[0]["area_share_polyp"]) == pytest.approx(1 / 9, abs=0.02)
    side = min(size) / 3
    box = [float(at) for at in rows[0]["box_px_polyp"].split()]
    expected = [
        (size[0] - side) / 2,
        (size[1] - side) / 2,
        (size[0] + side) / 2,
        (size[1] + side) / 2,
    ]
    assert box == pytest.approx(expected, abs=min(size) / 30)
    with zipfile.ZipFile(io.BytesIO(as_zip(shots))) as archive:
        assert archive.namelist() == ["01_a.png", "02_a.png"]
        mask = np.asarray(Image.open(io.BytesIO(archive.read("01_a.png"))))
    assert mask.shape == size[::-1]
    true = np.asarray(picture(size))[..., 0] > 200
    assert ((mask == 1) != true).mean() < 0.03


def test_formula_in_a_name_is_no_formula(model):
    shot = masked(model, picture(), "=1+1.png")
    assert as_csv(model, [shot]).splitlines()[1].startswith("'=1+1.png")


def test_outline_stays_where_the_mask_is_weak(model):
    weak = np.asarray(overlay(masked(model, picture()), 0.0)).astype(int)
    changed = np.abs(weak - np.asarray(picture()).astype(int)).sum(axis=2) > 150
    assert 0.01 < changed.mean() < 0.06
