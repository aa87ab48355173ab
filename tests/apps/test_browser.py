"""The real thing: Streamlit serves, Chromium opens, looks, taps, uploads and films."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.texts import load_texts
from pipelines.card import load_card
from tests.apps.browsing import (
    DESKTOP,
    PHONE,
    browser,
    chromium,
    open_app,
    served,
    settle,
    source,
)
from tests.apps.conftest import ROOT, TASKS, encoded, hue_of, tile
from tests.apps.phone_browsing import opened

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="Chromium is not installed (apt: chromium)"),
]
EN = load_texts("en")
#: Of a page of the hub that is opened by its own address, Streamlit looks for the server there too.
_EXPECTED = "/_stcore/"
_WIDTHS = {"phone": PHONE, "desktop": DESKTOP}


@pytest.fixture(scope="module")
def program() -> Iterator[Any]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def hub(app_template: Path) -> Iterator[str]:
    with served("hub", app_template) as address:
        yield address


@pytest.fixture
def page(program: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page at desktop width, or at the width that the test asks for, without console errors."""
    width = _WIDTHS[getattr(request, "param", "desktop")]
    outside: list[str] = []
    with opened(program, allowed=_EXPECTED, viewport=width, permissions=["camera"]) as page:
        page.on("request", lambda sent: outside.append(sent.url))
        yield page
    own = ("http://127.0.0.1", "data:", "blob:")
    assert [url for url in outside if not url.startswith(own)] == [], "a server abroad was asked"


def file(name: str, data: bytes) -> dict[str, object]:
    return {"name": name, "mimeType": "image/png", "buffer": data}


def give(page: Any, *files: dict[str, object]) -> None:
    page.locator("input[type=file]").set_input_files(list(files))
    page.wait_for_timeout(300)
    settle(page)


def gallery(page: Any, address: str) -> None:
    open_app(page, address)
    source(page, EN("input.gallery"))


def try_one(page: Any, address: str, name: str) -> None:
    """Choose the first test picture whose label is ``name``."""
    gallery(page, address)
    page.get_by_role("button", name=name, exact=True).first.click()
    settle(page)


def answer(page: Any) -> Any:
    return page.get_by_role("region", name=EN("answer.region"))


@pytest.mark.parametrize("page", ["phone", "desktop"], indirect=True)
@pytest.mark.parametrize("task", TASKS)
def test_app_opens_at_both_widths_and_answers(hub, page, app_template, task):
    open_app(page, f"{hub}/{task}")
    card = load_card(app_template / "datasets" / task / "card.yaml")
    label = card.labels[1]
    give(page, file("known.png", encoded(tile(hue_of(card, label)))))
    said = answer(page)
    said.get_by_role("heading", name=EN.label(task, label), exact=True).wait_for()
    assert said.get_by_role("img").count() == 1
    overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert overflow <= 0, "the page is wider than the screen"


@pytest.mark.parametrize("page", ["phone", "desktop"], indirect=True)
def test_every_card_of_the_hub_leads_to_its_app(hub, page):
    for task in TASKS:
        open_app(page, hub)
        name = EN(f"tasks.{task}.name")
        page.get_by_role("link", name=EN("hub.open", name=name)).click()
        page.get_by_role("heading", name=name, exact=True, level=1).wait_for()
        settle(page)


@pytest.mark.parametrize("task", TASKS)
def test_camera_takes_a_picture_and_gets_an_answer(hub, page, task):
    open_app(page, f"{hub}/{task}")
    source(page, EN("input.camera"))
    page.wait_for_function("document.querySelector('video')?.readyState === 4", timeout=20_000)
    page.get_by_role("button", name="Take Photo").click()
    answer(page).get_by_role("img").wait_for(timeout=20_000)
    settle(page)
    assert answer(page).get_by_role("heading").count() >= 1


@pytest.mark.parametrize("task", TASKS)
def test_test_picture_gets_its_true_label(hub, page, app_template, task):
    label = load_card(app_template / "datasets" / task / "card.yaml").labels[0]
    name = EN.label(task, label)
    try_one(page, f"{hub}/{task}", name)
    answer(page).get_by_text(EN("answer.truth_right", label=name)).wait_for()


def test_test_picture_survives_a_double_click_and_a_reload(hub, page):
    gallery(page, f"{hub}/tomato_leaf")
    page.get_by_role("button", name="Late blight", exact=True).first.dblclick()
    settle(page)
    right = EN("answer.truth_right", label="Late blight")
    answer(page).get_by_text(right).wait_for()
    page.reload()
    page.wait_for_selector(".fl-head")
    settle(page)
    # A reload is a new session: nothing was kept anywhere.
    answer(page).get_by_text(EN("answer.waiting"), exact=True).wait_for()


@pytest.mark.parametrize("page", ["phone", "desktop"], indirect=True)
def test_test_pictures_are_wide_enough_for_a_thumb(hub, page):
    gallery(page, f"{hub}/tomato_leaf")
    pictures = page.locator("[class*=st-key-pick-]")
    boxes = [pictures.nth(number).bounding_box() for number in range(pictures.count())]
    assert len(boxes) == 12
    # WCAG 2.2, 2.5.8 asks for 24 px; a label in words needs more.
    assert all(box["width"] >= 100 and box["height"] <= 2 * box["width"] for box in boxes)


@pytest.mark.parametrize("page", ["phone"], indirect=True)
def test_on_a_phone_the_answer_follows_the_picture(hub, page):
    try_one(page, f"{hub}/tomato_leaf", "Late blight")
    tops = [
        page.locator(part).bounding_box()["y"]
        for part in (".st-key-input", ".fl-phone", ".st-key-more")
    ]
    assert tops == sorted(tops)


@pytest.mark.parametrize("page", ["phone"], indirect=True)
def test_on_a_phone_both_models_fit_side_by_side(hub, page):
    try_one(page, f"{hub}/skin_lesion", "Basal cell carcinoma")
    page.get_by_text(EN("compare.title"), exact=True).click()
    settle(page)
    table = page.locator(".fl-scroll")
    table.wait_for()
    assert table.evaluate("box => box.scrollWidth - box.clientWidth") <= 0


def test_style_names_parts_that_streamlit_draws(hub, page):
    try_one(page, f"{hub}/tomato_leaf", "Late blight")
    style = (ROOT / "apps" / "style.css").read_text(encoding="utf-8")
    parts = set(re.findall(r"\.st[A-Z]\w+|\[data-testid=[^\]]+\]", style))
    assert len(parts) > 5
    assert {part for part in parts if page.locator(part).count() == 0} == set()


def test_keyboard_alone_reaches_an_answer(hub, page):
    gallery(page, f"{hub}/cats_dogs")
    page.get_by_role("button", name="Dog", exact=True).first.focus()
    page.keyboard.press("Enter")
    settle(page)
    answer(page).get_by_role("heading", name="Dog", exact=True).wait_for()


def test_language_is_chosen_and_kept_across_a_reload(hub, page):
    open_app(page, hub)
    page.locator("[data-testid=stSidebar] [data-testid=stSelectbox]").locator(
        "input, [role=combobox]"
    ).first.click()
    page.get_by_role("option", name="Bahasa Indonesia").click()
    settle(page)
    page.get_by_role("heading", name="Kesehatan").wait_for()
    page.reload()
    page.get_by_role("heading", name="Kesehatan").wait_for(timeout=30_000)


def test_deleted_pictures_leave_the_page(hub, page):
    open_app(page, f"{hub}/cats_dogs")
    give(page, file("a.png", encoded(tile(0.5))))
    page.get_by_role("button", name=EN("history.delete")).click()
    settle(page)
    answer(page).get_by_text(EN("answer.waiting"), exact=True).wait_for()
    assert page.get_by_text("a.png").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("place", ["", "/chest_xray", "/mask_detection"])
def test_axe_finds_no_serious_fault(hub, program, app_template, place, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    context = program.new_context(viewport=DESKTOP, color_scheme=scheme, locale="en-GB")
    page = context.new_page()
    open_app(page, hub + place)
    if place:
        card = load_card(app_template / "datasets" / place[1:] / "card.yaml")
        give(page, file("a.png", encoded(tile(hue_of(card, card.labels[0])))))
    result = axe.Axe().run(page)
    grave = [
        (fault["id"], node["html"][:160], node["failureSummary"][:200])
        for fault in result.response["violations"]
        if fault["impact"] in {"serious", "critical"}
        for node in fault["nodes"]
    ]
    context.close()
    assert grave == []
