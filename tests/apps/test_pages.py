"""The apps without a browser: Streamlit's AppTest runs the script, as a session would."""

from __future__ import annotations

import csv
import io
import re
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from apps import hub
from apps.answers import truth
from apps.batch import as_csv
from apps.inference import answer_picture
from apps.models import load_model
from apps.session import MAX_SHOTS, Store
from apps.texts import LANGUAGES, load_texts
from pipelines.card import load_card
from pipelines.data.tree import FORMATS_TOLD
from tests.apps.conftest import ROOT, TASKS, black, encoded, hue_of, tile

MEDICAL = ("chest_xray", "skin_lesion")
EN = load_texts("en")


def start(task: str, *, language: str = "en") -> AppTest:
    app = AppTest.from_file(str(ROOT / "apps" / f"{task}.py"), default_timeout=30)
    app.session_state["lang"] = language
    return app.run()


def page(app: AppTest) -> str:
    """All that stands on the page, without markup."""
    assert not app.exception
    pieces = [element.proto.body for element in app.get("html")]
    for kind in ("error", "warning", "info", "caption", "markdown"):
        pieces += [element.value for element in app.get(kind)]
    return unescape(re.sub(r"<[^>]+>", " ", " ".join(pieces)))


def said(app: AppTest) -> str:
    """What the phone shows."""
    phones = [e.proto.body for e in app.get("html") if '<section class="fl-phone"' in e.proto.body]
    assert len(phones) == 1
    return unescape(re.sub(r"<[^>]+>", " ", phones[0]))


def upload(app: AppTest, *files: tuple[str, bytes, str]) -> AppTest:
    for file in files:
        app.get("file_uploader")[0].upload(*file)
    return app.run()


def go_to_gallery(app: AppTest) -> AppTest:
    app.get("button_group")[0].set_value("gallery")
    return app.run()


def button(app: AppTest, key: str):
    return next(one for one in app.button if one.key == key)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("task", TASKS)
def test_app_starts_and_waits_for_a_picture(app_root, task, language):
    t = load_texts(language)
    shown = page(start(task, language=language))
    assert t(f"tasks.{task}.name") in shown
    assert t("answer.waiting") in shown
    assert t("banners.sample") in shown


@pytest.mark.parametrize("task", TASKS)
def test_medical_apps_and_only_they_say_so_before_the_first_answer(app_root, task):
    shown = page(start(task))
    assert ("Not a medical device" in shown) == (task in MEDICAL)


def test_shortcut_in_the_data_is_said_before_the_first_answer(app_root):
    assert "size, mode and bytes of the file" in page(start("chest_xray"))
    assert "size, mode" not in page(start("cats_dogs"))


@pytest.mark.parametrize("task", TASKS)
def test_uploaded_picture_gets_its_label_meaning_and_next_step(app_root, task):
    card = load_card(app_root / "datasets" / task / "card.yaml")
    label = card.labels[-1]
    shown = said(upload(start(task), ("a.png", encoded(tile(hue_of(card, label))), "image/png")))
    assert EN.label(task, label) in shown
    assert card.next_steps[label] in shown
    assert "1 thread" in shown
    assert EN("answer.ood") not in shown


def test_answer_is_in_indonesian_when_that_is_chosen(app_root):
    card = load_card(app_root / "datasets/tomato_leaf/card.yaml")
    app = start("tomato_leaf", language="id")
    shown = said(upload(app, ("a.png", encoded(tile(hue_of(card, "healthy"))), "image/png")))
    t = load_texts("id")
    assert "Sehat" in shown
    assert t("cards.tomato_leaf.next_steps.healthy") in shown
    assert re.search(r"\d,\d%", shown)


def test_test_picture_shows_whether_the_answer_is_right(app_root):
    app = go_to_gallery(start("tomato_leaf"))
    button(app, "try-tomato_leaf-4").click()
    assert EN("answer.truth_right", label="Late blight") in said(app.run())


def test_a_picture_without_an_answer_is_not_called_right(app_root):
    model = load_model("cats_dogs")
    shot = answer_picture(model, encoded(black()), key="a", name="a.png", truth="cat")
    assert shot.prediction.is_ood
    assert EN("answer.truth_none", label="Cat") in truth(EN, "cats_dogs", shot)


def test_the_hub_says_how_wide_a_network_is(app_root):
    model = load_model("cats_dogs")
    assert "mobilenet_v2<" in hub._facts(EN, model)
    made_of = model.bundle.provenance.model_copy(update={"width": 0.5})
    narrow = replace(model, bundle=model.bundle.model_copy(update={"provenance": made_of}))
    assert "mobilenet_v2 x0.5<" in hub._facts(EN, narrow)


def test_second_click_on_a_test_picture_changes_nothing(app_root):
    app = go_to_gallery(start("tomato_leaf"))
    for _ in range(2):
        button(app, "try-tomato_leaf-1").click()
        app.run()
    assert len([one for one in app.button if (one.key or "").startswith("again-")]) == 1
    assert "Bacterial spot" in said(app)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("notes.jpg", b"this is text\n" * 40, "not an image of a known format"),
        ("empty.png", b"", "empty"),
        ("half.jpg", encoded(tile(0.1, side_px=400), "JPEG")[:3000], "truncated"),
    ],
)
def test_bad_file_is_refused_in_one_sentence(app_root, name, data, reason):
    app = upload(start("cats_dogs"), (name, data, "image/jpeg"))
    page(app)
    (sentence,) = [error.value for error in app.error]
    assert name in sentence
    assert reason in sentence
    assert "Traceback" not in sentence
    assert EN("answer.waiting") in said(app)


def test_out_of_distribution_picture_gets_no_label_first(app_root):
    app = upload(start("fish_species"), ("black.png", encoded(black()), "image/png"))
    shown = said(app)
    assert EN("answer.ood") in shown
    assert EN("answer.next") not in shown
    assert shown.index(EN("answer.ood")) < shown.index(EN("answer.ood_would"))


def test_alarm_threshold_decides_beside_the_most_probable_label(app_root):
    card = load_card(app_root / "datasets/chest_xray/card.yaml")
    app = upload(
        start("chest_xray"),
        ("a.png", encoded(tile(hue_of(card, "covid19"))), "image/png"),
    )
    assert EN("answer.above", label="COVID-19") in said(app)
    assert "93%" in page(app)
    app = upload(
        start("chest_xray"),
        ("b.png", encoded(tile(hue_of(card, "pneumonia"))), "image/png"),
    )
    assert EN("answer.below", label="COVID-19") in said(app)


def test_rotated_photo_is_shown_upright(app_root):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = tile(0.5).resize((80, 40))
    app = upload(start("cats_dogs"), ("r.jpg", encoded(photo, "JPEG", exif=exif), "image/jpeg"))
    (shot,) = app.session_state["store-cats_dogs"].shots.values()
    assert Image.open(io.BytesIO(shot.view)).size == (40, 80)
    assert not Image.open(io.BytesIO(shot.view)).getexif()


def test_several_pictures_make_a_table_a_file_and_one_answer(app_root):
    card = load_card(app_root / "datasets/tomato_leaf/card.yaml")
    files = [
        (f"{n}.png", encoded(tile(hue_of(card, "late_blight") + shift, seed=n)), "image/png")
        for n, shift in enumerate((0.0, 0.01, 0.02))
    ]
    app = upload(start("tomato_leaf"), *files, ("bad.png", b"no picture", "image/png"))
    table = app.dataframe[0].value
    assert list(table["Picture"]) == ["0.png", "1.png", "2.png"]
    assert set(table["Answer"]) == {"Late blight"}
    assert [error.value for error in app.error] == [
        EN(
            "errors.image",
            name="bad.png",
            reason=f"not an image of a known format ({FORMATS_TOLD})",
        )
    ]
    together = next(one for one in app.toggle if one.key == "together-tomato_leaf")
    together.set_value(True)
    shown = said(app.run())
    assert EN("answer.combined", n=3) in shown
    assert "Late blight" in shown


def test_csv_has_a_row_a_picture_and_no_formula(app_root):
    model = load_model("cats_dogs")
    data = encoded(tile(0.5))
    shots = [
        answer_picture(model, data, key=name, name=name)
        for name in ("a,b.png", "=HYPERLINK(1).png")
    ]
    rows = list(csv.DictReader(io.StringIO(as_csv(model, shots))))
    assert [row["picture"] for row in rows] == ["a,b.png", "'=HYPERLINK(1).png"]
    assert [row["label"] for row in rows] == ["dogs", "dogs"]
    assert float(rows[0]["cats"]) + float(rows[0]["dogs"]) == pytest.approx(1, abs=1e-5)


def test_heat_map_and_comparison_come_on_demand(app_root):
    app = upload(start("cats_dogs"), ("a.png", encoded(tile(0.5)), "image/png"))
    assert "fp32" not in page(app).replace(EN("compare.title"), "")
    for toggle in app.toggle:
        toggle.set_value(True)
    app.run()
    shown = page(app)
    assert EN("answer.explain_caption", label="Dog") in shown
    assert EN("compare.served") in shown
    assert EN("compare.megabytes") in shown


def test_deleted_pictures_are_gone_from_the_session(app_root):
    app = upload(start("cats_dogs"), ("a.png", encoded(tile(0.5)), "image/png"))
    assert len(app.session_state["store-cats_dogs"].shots) == 1
    button(app, "delete-cats_dogs").click()
    app.run()
    assert not app.session_state["store-cats_dogs"].shots
    assert EN("answer.waiting") in said(app)
    assert EN("history.deleted") in page(app)


def test_old_picture_can_be_looked_at_again(app_root):
    app = go_to_gallery(start("cats_dogs"))
    for number in (1, 2):
        button(app, f"try-cats_dogs-{number}").click()
        app.run()
    assert "Dog" in said(app).split("%")[0]
    button(app, "again-cats_dogs-1").click()
    assert "Cat " in said(app.run()).split("%")[0]


def test_session_keeps_a_bounded_number_of_pictures_and_all_that_are_looked_at(app_root):
    shot = answer_picture(load_model("cats_dogs"), encoded(tile(0.5)), key="a", name="a")
    many = [str(number) for number in range(MAX_SHOTS + 5)]
    kept = Store(shots=dict.fromkeys(many, shot))
    kept.trim(many)
    assert list(kept.shots) == many
    kept.trim({"0", many[-1]})
    assert len(kept.shots) == MAX_SHOTS
    assert {"0", many[-1]} <= set(kept.shots)
    assert "1" not in kept.shots


def test_missing_model_is_one_sentence(app_root, tmp_path, monkeypatch):
    monkeypatch.setenv("FIELDLENS_ROOT", str(tmp_path))
    app = start("cats_dogs")
    assert not app.exception
    (sentence,) = [error.value for error in app.error]
    assert "there is no bundle" in sentence


def test_changed_model_is_refused(app_root, tmp_path, monkeypatch):
    root = Path(shutil.copytree(app_root, tmp_path / "project"))
    with (root / "models/cats_dogs/mobile/model_int8.onnx").open("ab") as model:
        model.write(b"\0")
    monkeypatch.setenv("FIELDLENS_ROOT", str(root))
    app = upload(start("cats_dogs"), ("a.png", encoded(tile(0.5)), "image/png"))
    assert not app.exception
    assert "not the one that the bundle names" in app.error[0].value


def test_hub_has_a_card_a_task_with_figures_and_verdict(app_root, monkeypatch):
    monkeypatch.setenv("FIELDLENS_PHONE_URL", "http://127.0.0.1:8502/")
    app = AppTest.from_file(str(ROOT / "apps/hub.py"), default_timeout=30)
    app.session_state["lang"] = "en"
    shown = page(app.run())
    for task in TASKS:
        assert EN(f"tasks.{task}.name") in shown
    assert shown.count("90.0%") == len(TASKS)
    assert "85.0% to 95.0%" in shown
    assert shown.count(EN("verdicts.shortcut")) == 1
    assert shown.count(EN("banners.medical_title").rstrip(".")) == len(MEDICAL)
    assert "http://127.0.0.1:8502/" in shown


def test_task_without_an_app_of_its_own_gets_the_general_page(app_root, tmp_path, monkeypatch):
    root = Path(shutil.copytree(app_root, tmp_path / "project"))
    for folder in ("datasets", "models"):
        (root / folder / "cats_dogs").rename(root / folder / "rice_leaf")
    for path in (
        root / "datasets/rice_leaf/card.yaml",
        root / "models/rice_leaf/mobile/bundle.json",
    ):
        path.write_text(path.read_text(encoding="utf-8").replace("cats_dogs", "rice_leaf"))
    monkeypatch.setenv("FIELDLENS_ROOT", str(root))
    # As `fieldlens app rice_leaf` starts it.
    monkeypatch.setenv("FIELDLENS_TASK", "rice_leaf")
    app = AppTest.from_file(str(ROOT / "apps/hub.py"), default_timeout=30)
    app.session_state["lang"] = "id"
    shown = page(upload(app.run(), ("a.png", encoded(tile(0.5)), "image/png")))
    assert "Dogs" in shown
