"""`make shots`: pictures of the apps and of the phone page for docs/img, of synthetic samples only.

Serves the project's own models; refuses any that was not trained on synthetic samples, so that no
real picture is ever published. WebP would be smaller; GitHub and every reader show PNG.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from pipelines.data.manifest import in_split, read_manifest
from pipelines.paths import Paths
from pipelines.serving.bundle import read_bundle
from tests.apps import phone_browsing
from tests.apps.browsing import DESKTOP, PHONE, ROOT, browser, open_app, served, settle, source

OUT = ROOT / "docs" / "img"
MAX_BYTES = 150_000
_COLOURS = (256, 128, 64, 32)
#: By task, which test picture is tried.
_TRIED = {"chest_xray": 0, "skin_lesion": 4, "tomato_leaf": 3, "fish_species": 1, "weld_defect": 0}
#: Tallest picture in pixels: of the hub, and of an app.
_TALL = {True: 2400, False: 1130}


def main() -> int:
    """Take all pictures."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    tasks = _painted(root)
    OUT.mkdir(parents=True, exist_ok=True)
    phone = {"FIELDLENS_PHONE_URL": "http://192.0.2.10:8502/"}
    with served("hub", root, phone) as address, browser() as program:
        for name, size, scheme in (("hub", DESKTOP, "light"), ("hub_dark", DESKTOP, "dark")):
            with _page(program, size, scheme) as page:
                open_app(page, address)
                _save(page, name, is_hub=True)
        for task in tasks:
            for suffix, size, scheme in (("", DESKTOP, "light"), ("_phone", PHONE, "dark")):
                with _page(program, size, scheme) as page:
                    open_app(page, f"{address}/{task}")
                    source(page, "Test pictures")
                    page.locator("[class*=st-key-pick-] button").nth(_TRIED.get(task, 1)).click()
                    settle(page)
                    if task in {"chest_xray", "tomato_leaf"}:
                        page.get_by_text("Show what the answer rests on").click()
                        page.wait_for_timeout(1500)
                        settle(page)
                    if suffix:
                        page.locator(".fl-phone").scroll_into_view_if_needed()
                        page.evaluate("document.querySelector('.fl-phone').scrollIntoView()")
                    _save(page, f"{task}{suffix}", is_phone=bool(suffix))
    _phone_page(root)
    return 0


def _phone_page(root: Path) -> None:
    """The page that runs in the phone's own browser: its tasks, and an answer."""
    files = Paths(root).task("tomato_leaf")
    photo = files.raw_dir / in_split(read_manifest(files.manifest), "test")[0].path
    with (
        phone_browsing.served(root) as url,
        browser() as program,
        _page(program, PHONE, "light") as page,
    ):
        page.goto(url)
        page.wait_for_selector(".card")
        _save(page, "page", is_phone=True)
        phone_browsing.open_task(page, url, "tomato_leaf")
        phone_browsing.choose(page, photo)
        phone_browsing.answered(page)
        page.evaluate("document.querySelector('.stage').scrollIntoView()")
        _save(page, "page_answer", is_phone=True)


def _painted(root: Path) -> list[str]:
    paths = Paths(root)
    tasks = []
    for path in sorted(paths.models_dir.glob("*/mobile/bundle.json")):
        if not read_bundle(path, verify=False).is_sample:
            raise SystemExit(f"{path}: no model of synthetic samples; no picture is taken.")
        tasks.append(path.parents[1].name)
    return tasks


@contextmanager
def _page(program: Any, size: dict[str, int], scheme: str) -> Iterator[Any]:
    """A page of its own size and colour scheme."""
    context = program.new_context(viewport=size, color_scheme=scheme, locale="en-GB")
    yield context.new_page()
    context.close()


def _save(page: Any, name: str, *, is_hub: bool = False, is_phone: bool = False) -> None:
    if not is_phone:
        high = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
        page.set_viewport_size(
            {"width": DESKTOP["width"], "height": min(int(high) + 16, _TALL[is_hub])}
        )
        page.evaluate("document.querySelector('[data-testid=stMain]').scrollTo(0, 0)")
    page.mouse.move(0, 0)
    page.wait_for_timeout(700)
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    for n_colours in _COLOURS:
        buffer = io.BytesIO()
        image.quantize(n_colours, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
        if buffer.tell() <= MAX_BYTES:
            break
    (OUT / f"{name}.png").write_bytes(buffer.getvalue())


if __name__ == "__main__":
    sys.exit(main())
