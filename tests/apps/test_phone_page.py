"""The phone page in Chromium: pictures in, answers out, offline, accessible, and no fault on the
console. Needs `make phone` and a Chromium; skips with the reason where one of them is missing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from apps.phone_site import DIST_DIR
from apps.phone_static import write_site
from pipelines.paths import Paths
from pipelines.serving.predictor import Predictor
from tests.loopback import serving

pytest.importorskip("playwright", reason="Playwright is not installed")
from playwright.sync_api import Browser, expect

from tests.apps.browsing import PHONE
from tests.apps.conftest import encoded
from tests.apps.phone_browsing import answered, axe_faults, choose, open_task, opened, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

DESKTOP = {"width": 1280, "height": 860}
#: Asked for by the issue of the phone page.
MAX_FIRST_LOAD_BYTES = 10_000_000
#: params.yaml, gate.max_int8_bytes.
MAX_MODEL_BYTES = 2_600_000


@pytest.fixture(scope="module")
def url(app_template: Path, browser: Browser) -> Iterator[str]:
    with served(app_template) as address:
        yield address


def test_every_task_answers_as_the_predictor(browser, url, app_template) -> None:
    paths = Paths(app_template)
    with opened(browser) as page:
        for number, folder in enumerate(sorted(paths.models_dir.iterdir())):
            files = paths.task(folder.name)
            predictor = Predictor.load(files.bundle)
            open_task(page, url, folder.name)
            for n, label in enumerate(predictor.bundle.labels[:3], start=1):
                picture = files.raw_dir / label / f"{number % 2}.png"
                choose(page, picture)
                said = answered(page, n)
                expected = predictor.predict(picture)
                assert said["label"] == expected.label == label
                assert said["state"] == "answer"
                assert float(said["oodScore"]) == pytest.approx(expected.ood_score, abs=1e-5)
                rows = page.eval_on_selector_all(
                    ".bars li",
                    "rows => rows.map(row => [row.dataset.label, row.dataset.probability])",
                )
                shown = {name: float(value) for name, value in rows}
                assert shown == pytest.approx(expected.probabilities, abs=1e-5)
                for watched, is_on in expected.positives.items():
                    alarm = page.locator(f'[data-point="{watched}"]')
                    assert alarm.get_attribute("data-on") == str(is_on).lower()


def test_out_of_distribution_picture_gets_no_label(browser, url) -> None:
    with opened(browser) as page:
        open_task(page, url, "tomato_leaf")
        choose(page, encoded(Image.new("RGB", (64, 64))))
        assert answered(page)["state"] == "ood"
        expect(page.locator(".headline")).to_have_text("I don't know this kind of picture")
        expect(page.locator(".bars")).not_to_be_visible()


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("leaf.jpg", b"this is a text file and no picture at all\n" * 9, "not a picture"),
        ("empty.jpg", b"", "empty"),
        ("cut.png", encoded(Image.new("RGB", (64, 64)))[:-20], "damaged"),
        ("scan.tif", b"II*\0" + bytes(64), "TIFF"),
    ],
)
def test_what_is_no_picture_is_refused_in_words(browser, url, name, data, words) -> None:
    with opened(browser) as page:
        open_task(page, url, "tomato_leaf")
        choose(page, data, name=name)
        expect(page.locator(".trouble:visible")).to_contain_text(words)
        assert page.locator(".answer").get_attribute("data-answers") is None
        choose(page, encoded(Image.new("RGB", (64, 64), (200, 30, 30))))
        answered(page)
        expect(page.locator(".trouble:visible")).to_have_count(0)


def test_clear_picture_is_laid_over_white(browser, url, app_template) -> None:
    predictor = Predictor.load(Paths(app_template).task("tomato_leaf").bundle)
    half = np.zeros((80, 48, 4), dtype=np.uint8)
    half[:30], half[30:] = (220, 40, 40, 0), (40, 60, 220, 0)
    half[..., 3] = np.repeat([0, 255, 128, 255], 12)
    data = encoded(Image.fromarray(half))
    with opened(browser) as page:
        open_task(page, url, "tomato_leaf")
        choose(page, data, name="photo.jpg")
        said, expected = answered(page), predictor.predict(data)
        # Half-transparent pixels may differ by one step between two ways of rounding.
        assert float(said["oodScore"]) == pytest.approx(expected.ood_score, abs=5e-3)
        assert said["label"] == expected.label


def test_medical_task_warns_before_the_first_answer(browser, url) -> None:
    with opened(browser) as page:
        open_task(page, url, "skin_lesion")
        expect(page.locator('[data-banner="medical"]')).to_contain_text("Not a medical device.")
        expect(page.locator('[data-banner="sample"]')).to_contain_text("Synthetic sample.")
        assert page.locator(".answer").get_attribute("data-answers") is None
        page.goto(f"{url}#/chest_xray")
        expect(page.locator('[data-banner="audit"]')).to_contain_text("Shortcut in the data.")
        page.goto(f"{url}#/tomato_leaf")
        expect(page.locator('[data-banner="sample"]')).to_be_visible()
        expect(page.locator('[data-banner="medical"]')).not_to_be_visible()


def test_camera_gives_live_answers_and_a_held_one(browser, url) -> None:
    with opened(browser, permissions=["camera"]) as page:
        open_task(page, url, "fish_species")
        page.get_by_role("button", name="Live camera").click()
        page.wait_for_function(
            "() => Number(document.querySelector('.answer').dataset.answers) >= 5"
        )
        expect(page.locator(".speed")).to_contain_text("a second")
        expect(page.locator(".speed")).to_contain_text("SIMD")
        page.get_by_role("button", name="Hold this frame").click()
        expect(page.locator(".stage")).to_have_attribute("data-state", "held")
        expect(page.locator(".speed")).not_to_contain_text("a second")
        page.get_by_role("button", name="Live camera").click()
        expect(page.locator(".stage")).to_have_attribute("data-state", "live")
        page.get_by_role("button", name="Stop camera").click()
        expect(page.locator(".stage")).to_have_attribute("data-state", "empty")
        assert page.evaluate("document.querySelector('video').srcObject") is None


def test_camera_that_may_not_be_used_is_told_in_words(browser, url) -> None:
    with opened(browser) as page:
        open_task(page, url, "fish_species")
        page.evaluate(
            "() => { navigator.mediaDevices.getUserMedia = "
            "() => Promise.reject(new DOMException('', 'NotAllowedError')); }"
        )
        page.get_by_role("button", name="Live camera").click()
        expect(page.locator(".trouble:visible")).to_contain_text("may not use the camera")


def test_double_choice_shows_the_newer_picture(browser, url, app_template) -> None:
    raw_dir = Paths(app_template).task("tomato_leaf").raw_dir
    with opened(browser) as page:
        open_task(page, url, "tomato_leaf")
        choose(page, raw_dir / "healthy/0.png")
        choose(page, raw_dir / "leaf_mold/0.png")
        page.wait_for_selector('.answer[data-label="leaf_mold"]')
        page.wait_for_timeout(500)
        assert page.locator(".answer").get_attribute("data-label") == "leaf_mold"
        page.reload()
        page.wait_for_selector(".task[data-ready=true]")


def test_works_offline_after_the_first_visit(browser, app_template) -> None:
    picture = Paths(app_template).task("tomato_leaf").raw_dir / "healthy/0.png"
    with opened(browser, allowed="Failed to load resource|ERR_") as page:
        with served(app_template) as url:
            open_task(page, url, "tomato_leaf")
            page.evaluate("navigator.serviceWorker.ready.then(() => true)")
            page.wait_for_function("() => navigator.serviceWorker.controller !== null")
            choose(page, picture)
            online = answered(page)
        # The server is gone and the network is off.
        page.context.set_offline(True)
        expect(page.locator(".net")).to_have_text("Offline")
        page.goto(url)
        expect(page.locator('.card[data-task="tomato_leaf"] .is-kept')).to_be_visible()
        page.locator('.card[data-task="tomato_leaf"]').click()
        page.wait_for_selector(".task[data-ready=true]")
        choose(page, picture)
        assert answered(page) == online
        page.goto(f"{url}#/fish_species")
        expect(page.locator(".trouble:visible")).to_contain_text("no network")


def test_first_load_is_small_even_without_brotli(browser) -> None:
    """The page, what the service worker keeps, and the largest model that `gate` lets through."""
    files = [path for path in DIST_DIR.rglob("*") if path.suffix not in {".br", ".gz"}]
    packed = [path.with_name(f"{path.name}.gz") for path in files if path.is_file()]
    sizes = [(gz if gz.is_file() else gz.with_suffix("")).stat().st_size for gz in packed]
    assert len([path for path in files if path.suffix == ".wasm"]) == 1
    assert sum(sizes) + MAX_MODEL_BYTES < MAX_FIRST_LOAD_BYTES


def test_can_be_installed(browser, url) -> None:
    with opened(browser) as page:
        page.goto(url)
        manifest = page.evaluate(
            "fetch(document.querySelector('link[rel=manifest]').href).then(r => r.json())"
        )
        assert {"name", "short_name", "start_url", "display"} <= set(manifest)
        for icon in manifest["icons"]:
            assert (DIST_DIR / icon["src"]).is_file()
        page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        client = page.context.new_cdp_session(page)
        faults = client.send("Page.getInstallabilityErrors")["installabilityErrors"]
        assert {fault["errorId"] for fault in faults} <= {"in-incognito"}


def test_nothing_is_asked_of_another_server(browser, url, app_template) -> None:
    asked: list[str] = []
    sent: list[str] = []
    with opened(browser, allowed="Content Security Policy") as page:
        page.context.on("request", lambda request: asked.append(request.url))
        page.context.on(
            "request", lambda request: sent.append(request.url) if request.post_data else None
        )
        open_task(page, url, "tomato_leaf")
        choose(page, Paths(app_template).task("tomato_leaf").raw_dir / "healthy/0.png")
        answered(page)
        outside = "fetch('https://example.org/', {method: 'POST', body: 'x'})"
        assert page.evaluate(f"{outside}.then(() => 'sent', () => 'blocked')") == "blocked"
        expect(page.locator(".privacy")).to_contain_text("No picture leaves this phone")
    own = tuple(prefix + url.removeprefix("http") for prefix in ("http", "blob:http"))
    assert [address for address in asked if not address.startswith(own)] == []
    assert sent == []


def test_bundle_of_another_schema_is_refused_in_words(browser, app_template, tmp_path) -> None:
    root = Path(shutil.copytree(app_template, tmp_path / "project"))
    with served(root) as url, opened(browser, allowed="status of 404") as page:
        page.goto(url)
        page.wait_for_selector(".card")
        path = Paths(root).task("weld_defect").bundle
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace('"schema_version": 3', '"schema_version": 4'), "utf-8")
        page.locator('.card[data-task="weld_defect"]').click()
        expect(page.locator(".trouble:visible")).to_contain_text("schema 4, this page reads 2, 3")


def test_model_that_was_changed_is_refused_in_words(browser, app_template, tmp_path) -> None:
    root = Path(shutil.copytree(app_template, tmp_path / "project"))
    path = Paths(root).task("weld_defect").onnx_int8
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with served(root) as url, opened(browser) as page:
        page.goto(f"{url}#/weld_defect")
        expect(page.locator(".trouble:visible")).to_contain_text("not the one that its description")


def test_page_works_as_files_below_a_folder_of_a_plain_server(
    browser, app_template, tmp_path
) -> None:
    """As on a static host: no headers of ours, no compression, not at the root of the address."""
    write_site(app_template, tmp_path / "host/field")
    files = Paths(app_template).task("tomato_leaf")
    with serving(tmp_path / "host") as url, opened(browser) as page:
        open_task(page, f"{url}/field/", "tomato_leaf")
        choose(page, files.raw_dir / "leaf_mold/0.png")
        assert answered(page)["label"] == "leaf_mold"


def test_indonesian_and_dark_are_chosen_and_kept(browser, url) -> None:
    with opened(browser) as page:
        page.goto(url)
        page.get_by_label("Language").select_option("id")
        expect(page.locator("h1")).to_have_text("Apa yang Anda lihat?")
        expect(page.locator("html")).to_have_attribute("lang", "id")
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.get_by_label("Warna").select_option("dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
        page.reload()
        expect(page.locator("h1")).to_have_text("Apa yang Anda lihat?")
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    with opened(browser, locale="id-ID") as page:
        page.goto(url)
        expect(page.locator("h1")).to_have_text("Apa yang Anda lihat?")


def test_colours_follow_the_system_until_they_are_chosen(browser, url) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    with opened(browser) as page:
        page.emulate_media(color_scheme="light")
        page.goto(url)
        page.wait_for_selector(".card")
        light = page.evaluate(paper)
        page.emulate_media(color_scheme="dark")
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        assert page.evaluate(paper) != light
        page.get_by_label("Colours").select_option("light")
        assert page.evaluate(paper) == light


def test_keyboard_alone_reaches_a_task_and_its_buttons(browser, url) -> None:
    with opened(browser) as page:
        page.goto(url)
        page.wait_for_selector(".card")
        page.locator(".card").first.focus()
        page.keyboard.press("Enter")
        page.wait_for_selector(".task[data-ready=true]")
        assert page.evaluate("document.activeElement.tagName") == "H1"
        page.keyboard.press("Tab")
        assert "Photo" in page.evaluate("document.activeElement.textContent")


def test_plain_http_from_another_computer_still_answers(browser, url, app_template) -> None:
    """No camera, no keeping and one thread there, and the page says so; a photo is answered."""
    address = url.replace("127.0.0.1", "field.test")
    # Chromium says on the console that plain http gets no isolation.
    with opened(browser, allowed="Cross-Origin-Opener-Policy") as page:
        page.goto(address)
        assert page.evaluate("[isSecureContext, crossOriginIsolated]") == [False, False]
        expect(page.locator(".home")).to_contain_text("need https")
        open_task(page, address, "tomato_leaf")
        expect(page.get_by_role("button", name="Live camera")).to_be_disabled()
        choose(page, Paths(app_template).task("tomato_leaf").raw_dir / "healthy/0.png")
        assert answered(page)["label"] == "healthy"
        expect(page.locator(".speed")).to_contain_text("1 thread")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_axe_finds_no_fault_and_nothing_overflows(
    browser, url, app_template, viewport, scheme
) -> None:
    with opened(browser, viewport=viewport, color_scheme=scheme) as page:
        for task in ("", "skin_lesion"):
            page.goto(f"{url}#/{task}")
            page.wait_for_selector(".task[data-ready=true]" if task else ".card")
            if task:
                files = Paths(app_template).task(task)
                choose(page, files.raw_dir / "melanoma/0.png")
                answered(page)
                page.locator(".about summary").click()
            assert axe_faults(page) == []
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
