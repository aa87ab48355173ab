"""The apps' server stays small, whatever shape the pictures have."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import psutil
import pytest
from PIL import Image

from pipelines.commands.app import SERVER_ENVIRONMENT
from tests.apps.browsing import browser, chromium, open_app, served, settle
from tests.apps.conftest import encoded, tile

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(chromium() is None, reason="Chromium is not installed (apt: chromium)"),
]
N_PICTURES = 50
#: Above what the server takes after its first answer, in MB: at any moment, and when all is done.
#: Seen with 60 megapixels and lines of 40,000 px: 13 and 3. Decoded whole, one line takes 467 even
#: where the server may have no more address space than 3.5 GB.
PEAK_MB, KEPT_MB = 200, 50


@contextmanager
def watched(process: psutil.Process) -> Iterator[list[float]]:
    """Resident memory in MB, ten times a second."""
    seen, done = [process.memory_info().rss / 1e6], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            seen.append(process.memory_info().rss / 1e6)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def large_photo() -> bytes:
    """60 megapixels in two megabytes or less, as a phone's."""
    rng = np.random.default_rng(3)
    small = Image.fromarray(rng.integers(0, 256, size=(60, 80, 3), dtype=np.uint8))
    return encoded(small.resize((8944, 6708), Image.Resampling.BILINEAR), "JPEG", quality=70)


def test_server_stays_flat_through_fifty_odd_pictures_and_a_large_one(app_template):
    line = encoded(Image.new("L", (1, 40_000), 90))
    strips = [encoded(Image.new("RGB", (2 + number, 30_000))) for number in range(3)]
    odd = [line, *strips]
    files = [
        {"name": f"odd-{number}.png", "mimeType": "image/png", "buffer": odd[number % len(odd)]}
        for number in range(N_PICTURES)
    ]
    photo = {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": large_photo()}
    first = {"name": "first.png", "mimeType": "image/png", "buffer": encoded(tile(0.5))}
    with served("cats_dogs", app_template, SERVER_ENVIRONMENT) as address, browser() as program:
        (server,) = (
            child
            for child in psutil.Process().children()
            # One that an earlier test ended may not have been waited for.
            if child.status() != psutil.STATUS_ZOMBIE and "streamlit" in " ".join(child.cmdline())
        )
        page = program.new_page(locale="en-GB")
        open_app(page, address)
        page.locator("input[type=file]").set_input_files(first)
        page.wait_for_selector(".fl-phone img", timeout=60_000)
        settle(page)
        with watched(server) as seen:
            # Ten at a time, as a person would: the widget keeps what it was given.
            for start in range(0, N_PICTURES, 10):
                page.locator("input[type=file]").set_input_files(files[start : start + 10])
                settle(page)
            # Of another session: one answers fifty at once.
            page = program.new_page(locale="en-GB")
            open_app(page, address)
            page.locator("input[type=file]").set_input_files(photo)
            page.wait_for_selector(".fl-phone img[alt*='photo.jpg']", timeout=120_000)
            settle(page)
        print(f"start {seen[0]:.0f} MB, peak {max(seen):.0f} MB, end {seen[-1]:.0f} MB")  # noqa: T201
        assert max(seen) - seen[0] < PEAK_MB
        assert seen[-1] - seen[0] < KEPT_MB
