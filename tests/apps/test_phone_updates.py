"""A newer model, and a newer page, under a network and a storage as phones have them: whatever
breaks off, what was there before answers, and afterwards the newer one arrives.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from apps.phone_site import DIST_DIR
from apps.phone_static import write_site
from pipelines.atomic import file_sha256
from pipelines.card import load_card
from pipelines.paths import Paths
from tests.apps.conftest import hue_model, serve_model
from tests.loopback import serving

pytest.importorskip("playwright", reason="Playwright is not installed")
from playwright.sync_api import Page, expect

from tests.apps.phone_browsing import Faults, answered, choose, open_task, opened, served

expect.set_options(timeout=30_000)  # a download may stand still for 15 s
pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

TASK = "tomato_leaf"
BUNDLE, MODEL = rf"{TASK}/bundle\.json", rf"{TASK}/model_int8\.onnx"
#: What the browser says on the console of a request that fails.
NETWORK = "Failed to load resource|ERR_"
KEPT = f"""async () => {{
  const cache = await caches.open('fieldlens-models');
  return (await cache.keys()).map(entry => entry.url).filter(url => url.includes('/{TASK}/'));
}}"""


@pytest.fixture
def root(app_template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(app_template, tmp_path / "project"))


@pytest.fixture
def picture(app_template: Path) -> Path:
    return Paths(app_template).task(TASK).raw_dir / "healthy/0.png"


def make_newer(root: Path) -> str:
    """Another model under the same name; its hash."""
    model = hue_model(len(load_card(Paths(root).task(TASK).card).labels), 5.0)
    serve_model(root, TASK, model.SerializeToString())
    return hash_of(root)


def hash_of(root: Path) -> str:
    return file_sha256(Paths(root).task(TASK).onnx_int8)


def expect_model(page: Page, sha256: str, picture: Path) -> None:
    """The model with this hash is ready, and answers."""
    page.wait_for_selector(".task[data-ready=true]")
    expect(page.locator(".about")).to_contain_text(sha256[:16])
    answers = page.locator(".answer").get_attribute("data-answers")
    choose(page, picture)
    assert answered(page, int(answers or 0) + 1)["label"] == "healthy"


def expect_model_offline(page: Page, sha256: str, picture: Path) -> None:
    page.context.set_offline(True)
    page.reload()
    expect_model(page, sha256, picture)
    reached = "fetch('models/index.json?now').then(() => true, () => false)"
    assert page.evaluate(reached) is False
    page.context.set_offline(False)


def expect_kept(page: Page, sha256: str) -> None:
    """This pair is kept, and nothing of another one."""
    for _ in range(50):
        kept = page.evaluate(KEPT)
        if len(kept) == 2 and all(sha256 in url for url in kept):
            return
        page.wait_for_timeout(100)
    assert len(kept) == 2, kept
    assert all(sha256 in url for url in kept)


def use_newer(page: Page) -> None:
    page.get_by_role("button", name="Use the newer model").click()


def expect_newer_after_reload(page: Page, sha256: str, picture: Path) -> None:
    page.reload()
    use_newer(page)
    expect_model(page, sha256, picture)
    expect_kept(page, sha256)


def settle(page: Page) -> None:
    """Until the page itself is kept too, so that it can be opened offline."""
    page.wait_for_function("() => navigator.serviceWorker.controller !== null")


@contextlib.contextmanager
def visited(browser, root: Path, **options: object) -> Iterator[tuple[Page, str, Faults]]:
    """A page, the server's address, and the server's faults to come."""
    faults = Faults()
    options = {"allowed": NETWORK, **options}
    with served(root, faults=faults) as url, opened(browser, **options) as page:
        yield page, url, faults


@contextlib.contextmanager
def kept_before(browser, root: Path, **options: object) -> Iterator[tuple[Page, str, Faults]]:
    """The same of a page that has a model from before."""
    with visited(browser, root, **options) as (page, url, faults):
        open_task(page, url, TASK)
        settle(page)
        expect(page.locator(".news")).to_be_empty()
        yield page, url, faults


@pytest.mark.parametrize(
    ("pattern", "kind", "words"),
    [
        (BUNDLE, "503", "error 503"),
        (BUNDLE, "portal", "log in first"),
        (BUNDLE, "cut", "broke off"),
        (BUNDLE, "silent", "Nothing came over the network for 15 seconds"),
        (MODEL, "503", "error 503"),
        (MODEL, "portal", "not the one"),
        (MODEL, "cut", "broke off"),
        (MODEL, "hang", "Nothing came over the network for 15 seconds"),
    ],
)
def test_update_that_fails_leaves_the_model_from_before(
    browser, root, picture, pattern, kind, words
) -> None:
    old = hash_of(root)
    with kept_before(browser, root) as (page, _, faults):
        new = make_newer(root)
        faults.set(pattern, kind)
        page.reload()
        expect_model(page, old, picture)
        expect(page.locator(".news")).to_contain_text(words)
        expect(page.locator(".news")).to_contain_text("the one on this phone answers")
        expect_kept(page, old)
        expect_model(page, old, picture)
        expect_model_offline(page, old, picture)
        faults.heal()
        expect_newer_after_reload(page, new, picture)
        expect_model_offline(page, new, picture)


def test_update_is_tried_again_by_a_button(browser, root, picture) -> None:
    old = hash_of(root)
    with kept_before(browser, root, locale="id") as (page, _, faults):
        new = make_newer(root)
        faults.set(MODEL, "cut")
        page.reload()
        expect(page.locator(".news")).to_contain_text("Sambungan terputus di tengah jalan.")
        faults.heal()
        page.get_by_role("button", name="Coba lagi").click()
        expect(page.locator(".news")).to_contain_text("Model yang lebih baru sudah siap.")
        expect_model(page, old, picture)  # until the person says so
        page.get_by_role("button", name="Pakai model yang lebih baru").click()
        expect_model(page, new, picture)


@pytest.mark.parametrize("end", ["reload", "close"])
def test_offline_reload_in_the_middle_of_an_update(browser, root, picture, end) -> None:
    old = hash_of(root)
    with kept_before(browser, root) as (page, url, faults):
        new = make_newer(root)
        faults.set(MODEL, "hang")
        page.reload()
        expect(page.locator(".news progress")).to_be_visible()
        expect(page.locator(".news")).to_contain_text("of 0.0 MB")
        expect_model(page, old, picture)
        if end == "close":
            again = page.context.new_page()
            again.goto(f"{url}#/{TASK}")
            page.close()
            page = again
        expect_model_offline(page, old, picture)
        faults.heal()
        expect_newer_after_reload(page, new, picture)


def test_another_task_does_not_wait_for_a_download_that_hangs(browser, root) -> None:
    with visited(browser, root) as (page, url, faults):
        faults.set(MODEL, "hang")
        page.goto(f"{url}#/{TASK}")
        expect(page.locator(".loading").first).to_contain_text("of 0.0 MB")
        page.goto(f"{url}#/weld_defect")
        page.wait_for_selector(".task[data-ready=true]", timeout=8000)


@pytest.mark.parametrize(("kind", "words"), [("503", "error 503"), ("hang", "for 15 seconds")])
def test_first_download_that_fails_is_told_and_tried_again(
    browser, root, picture, kind, words
) -> None:
    with visited(browser, root) as (page, url, faults):
        faults.set(MODEL, kind)
        page.goto(f"{url}#/{TASK}")
        expect(page.locator(".trouble:visible")).to_contain_text("not on this phone yet")
        expect(page.locator(".trouble:visible")).to_contain_text(words)
        assert page.evaluate(KEPT) == []
        faults.heal()
        page.get_by_role("button", name="Try again").click()
        expect_model(page, hash_of(root), picture)
        expect_kept(page, hash_of(root))


def test_list_of_models_that_does_not_come_is_the_one_from_before(browser, root, picture) -> None:
    with kept_before(browser, root) as (page, url, faults):
        for kind in ("portal", "silent"):
            faults.set(r"index\.json|bundle\.json", kind)
            page.goto(f"{url}#/")
            page.reload()
            # At once, not after a time-out.
            page.locator(f'.card[data-task="{TASK}"] .is-kept').wait_for(timeout=5000)
        page.locator(f'.card[data-task="{TASK}"]').click()
        expect_model(page, hash_of(root), picture)


def test_slow_download_is_not_ended(browser, root, picture) -> None:
    """It takes longer than a download may stand still, and never stands still so long."""
    with visited(browser, root, allowed="^$") as (page, url, faults):
        faults.set(MODEL, "slow")
        page.goto(f"{url}#/{TASK}")
        page.wait_for_timeout(16_000)
        expect(page.locator(".loading progress")).to_be_visible()
        expect_model(page, hash_of(root), picture)


def override_quota(page: Page, n_bytes: int | None) -> None:
    client = page.context.new_cdp_session(page)
    origin = page.evaluate("location.origin")
    quota = {} if n_bytes is None else {"quotaSize": n_bytes}
    client.send("Storage.overrideQuotaForOrigin", {"origin": origin, **quota})


def test_full_storage_is_told_and_the_model_answers(browser, root, picture) -> None:
    with served(root) as url, opened(browser, allowed=NETWORK) as page:
        page.goto(url)
        page.wait_for_selector(".card")
        settle(page)
        override_quota(page, 1)
        page.goto(f"{url}#/{TASK}")
        expect_model(page, hash_of(root), picture)
        expect(page.locator(".news .trouble")).to_contain_text("This phone's storage is full")
        assert page.evaluate(KEPT) == []
        # Another view and back: it need not be loaded again.
        page.get_by_label("Language").select_option("id")
        expect(page.locator(".news .trouble")).to_contain_text("Penyimpanan ponsel ini penuh")
        expect_model(page, hash_of(root), picture)
        override_quota(page, None)
        page.get_by_role("button", name="Coba lagi").click()
        expect(page.locator(".news")).to_be_empty()
        expect_kept(page, hash_of(root))
        page.get_by_label("Bahasa").select_option("en")
        expect_model_offline(page, hash_of(root), picture)


def test_update_that_storage_has_no_room_for(browser, root, picture) -> None:
    """The newer model answers from memory; the older one is there without a network."""
    old = hash_of(root)
    with kept_before(browser, root) as (page, _, _faults):
        new = make_newer(root)
        override_quota(page, 1)
        page.reload()
        expect(page.locator(".news .trouble")).to_contain_text("storage is full")
        expect_model(page, old, picture)
        use_newer(page)
        expect_model(page, new, picture)
        expect_kept(page, old)
        expect_model_offline(page, old, picture)
        override_quota(page, None)
        expect_newer_after_reload(page, new, picture)


def test_model_that_cannot_run_here_does_not_take_the_place_of_one_that_can(
    browser, root, picture
) -> None:
    old = hash_of(root)
    with kept_before(browser, root) as (page, _, _faults):
        files = Paths(root).task(TASK)
        text = files.bundle.read_text(encoding="utf-8")
        serve_model(root, TASK, b"no model, but the one that the bundle names")
        page.reload()
        expect(page.locator(".news")).to_contain_text("cannot run in this browser")
        expect_model(page, old, picture)
        files.bundle.write_text(text.replace('"schema_version": 3', '"schema_version": 4'))
        page.reload()
        expect(page.locator(".news")).to_contain_text("schema 4, this page reads 2, 3")
        expect_model(page, old, picture)
        expect_kept(page, old)


def test_what_an_earlier_page_kept_answers_and_is_replaced(browser, root, picture) -> None:
    """Its bundle.json has no version."""
    old = hash_of(root)
    with kept_before(browser, root) as (page, url, _faults):
        page.evaluate(
            """async () => {
              const cache = await caches.open('fieldlens-models');
              for (const entry of await cache.keys()) {
                if (!entry.url.includes('version=')) continue;
                await cache.put(entry.url.split('?')[0], await cache.match(entry));
                await cache.delete(entry);
              }
            }"""
        )
        expect_model_offline(page, old, picture)
        page.goto(f"{url}#/")
        page.locator(f'.card[data-task="{TASK}"] .is-kept').wait_for()
        new = make_newer(root)
        page.goto(f"{url}#/{TASK}")
        expect_newer_after_reload(page, new, picture)


def test_kept_model_that_was_damaged_is_loaded_again(browser, root, picture) -> None:
    with kept_before(browser, root) as (page, _, _faults):
        page.evaluate(
            """async () => {
              const cache = await caches.open('fieldlens-models');
              for (const entry of await cache.keys()) {
                if (entry.url.includes('?sha256=')) await cache.put(entry, new Response('x'));
              }
            }"""
        )
        page.reload()
        expect_model(page, hash_of(root), picture)
        expect_kept(page, hash_of(root))


# The page itself


@pytest.fixture
def dist(browser, tmp_path: Path) -> Path:
    """The built page, whose small files may be changed under a server that runs."""
    copy = Path(shutil.copytree(DIST_DIR, tmp_path / "dist"))
    for name in ("index.html", "licences.txt", "sw.js"):
        for suffix in (".br", ".gz"):
            (copy / f"{name}{suffix}").unlink(missing_ok=True)
    return copy


def build_newer(dist: Path) -> None:
    """As if another version was built: two other files, and the worker that names their hashes."""
    worker = (dist / "sw.js").read_text(encoding="utf-8")
    for name in ("index.html", "licences.txt"):
        path = dist / name
        before = path.read_bytes()
        path.write_bytes(before.replace(b"<head>", b'<head><meta name="version" content="2">'))
        if name == "licences.txt":
            path.write_bytes(before + b"\nMore.\n")
        assert hashlib.sha256(before).hexdigest() in worker
        worker = worker.replace(hashlib.sha256(before).hexdigest(), file_sha256(path))
    worker, n = re.subn(r"(?<![0-9a-f])[0-9a-f]{16}(?![0-9a-f])", "0123456789abcdef", worker)
    assert n == 1
    (dist / "sw.js").write_text(worker, encoding="utf-8")


def version(page: Page) -> int:
    return page.evaluate("document.querySelector('meta[name=version]')?.content ?? '1'")


def page_caches(page: Page) -> list[str]:
    names = page.evaluate("caches.keys()")
    return [name for name in names if name.startswith("fieldlens-page")]


def wait_until_asked(page: Page, faults: Faults, part: str) -> None:
    for _ in range(100):
        if any(part in address for address in faults.asked):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{part}: the server was asked for {faults.asked}")


@pytest.mark.parametrize("kind", ["503", "portal", "cut", "hang"])
def test_update_of_the_page_that_fails_leaves_the_page_from_before(
    browser, root, picture, dist, kind
) -> None:
    faults = Faults()
    with (
        served(root, faults=faults, dist_dir=dist) as url,
        opened(browser, allowed=f"{NETWORK}|service worker|ServiceWorker") as page,
    ):
        open_task(page, url, TASK)
        settle(page)
        before = page_caches(page)
        build_newer(dist)
        faults.set(r"^/licences\.txt", kind)
        faults.asked.clear()
        page.reload()
        wait_until_asked(page, faults, "licences")
        page.wait_for_timeout(300)
        expect_model_offline(page, hash_of(root), picture)
        assert version(page) == "1"
        faults.heal()
        page.wait_for_timeout(500)
        page.reload()
        expect(page.locator(".notice-bar")).to_contain_text("A newer version is ready.")
        assert version(page) == "1"
        with page.expect_navigation():
            page.get_by_role("button", name="Load it").click()
        page.wait_for_selector(".task[data-ready=true]")
        assert version(page) == "2"
        expect_model_offline(page, hash_of(root), picture)
        assert version(page) == "2"
        # The version before is gone, and what had not changed was not loaded again.
        assert len(page_caches(page)) == 1
        assert page_caches(page) != before
        assert not any(address.endswith(".wasm") for address in faults.asked)


def test_page_that_storage_has_no_room_for_works_online(browser, root, picture, dist) -> None:
    with served(root, dist_dir=dist) as url, opened(browser, allowed=NETWORK) as page:
        page.goto(f"{url}licences.txt")
        override_quota(page, 1_000_000)  # the page has 14
        open_task(page, url, TASK)
        expect_model(page, hash_of(root), picture)
        page.wait_for_timeout(1000)
        assert page_caches(page) == []
        override_quota(page, None)
        page.reload()
        settle(page)
        expect_model_offline(page, hash_of(root), picture)


def test_two_pages_of_one_host_leave_each_other_alone(browser, root, picture, tmp_path) -> None:
    """Each in a folder of its own, as on a static host that several teams use."""
    write_site(root, tmp_path / "host/a")
    write_site(root, tmp_path / "host/a/b")
    with serving(tmp_path / "host") as host, opened(browser, allowed=NETWORK) as page:
        ids = []
        for folder in ("a", "a/b"):
            open_task(page, f"{host}/{folder}/", TASK)
            settle(page)
            scope = page.evaluate("navigator.serviceWorker.ready.then(ready => ready.scope)")
            assert scope == f"{host}/{folder}/"
            client = page.context.new_cdp_session(page)
            ids.append(client.send("Page.getAppId")["appId"])
        assert ids == [f"{host}/a/", f"{host}/a/b/"]
        assert len(page_caches(page)) == 2
        # A newer page in the one folder takes nothing of the other's.
        build_newer(tmp_path / "host/a")
        page.goto(f"{host}/a/#/{TASK}")
        with page.expect_navigation():
            page.get_by_role("button", name="Load it").click()
        page.wait_for_selector(".task[data-ready=true]")
        assert version(page) == "2"
        assert len(page_caches(page)) == 2
        for folder in ("a", "a/b"):
            page.goto(f"{host}/{folder}/#/{TASK}")
            expect_model_offline(page, hash_of(root), picture)
