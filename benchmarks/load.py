"""Twenty people at one server for two minutes: no error, and memory that stays flat.

Each person is a browser window of their own (Chromium, phone width) that opens a task's app, gives
it a photo, waits for the answer, thinks for a while and gives the next. The server is the hub as
`fieldlens app` starts it, one process; its resident memory is read once a second. Browser and
server share this machine's cores, so the times are upper bounds. Needs bundles, and Chromium:

    python benchmarks/load.py --root . --people 20 --seconds 120
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from PIL import Image
from report import ROOT, header, make_parser, run, say, table, tasks_with

from pipelines.commands.app import SERVER_ENVIRONMENT, command_line
from pipelines.errors import ConfigError
from pipelines.paths import Paths

if TYPE_CHECKING:
    from playwright.async_api import ViewportSize

_PHONE: ViewportSize = {"width": 390, "height": 844}
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
#: Photos that are given in turns: 3 megapixels, each another.
_N_PHOTOS, _PHOTO_PX = 12, (2000, 1500)
#: Seconds that a person thinks between two photos.
_THINK_S = (2.0, 6.0)
#: Seconds between taking one file away and giving the next.
_HAND_S = 1.0
_WAIT_MS = 60_000
# The chip goes at once; the phone asks for a picture only when the server has taken the file away.
_EMPTY = """() => !document.querySelector('[data-testid=stFileChip]')
  && document.querySelector('.fl-phone .fl-wait')
  && document.querySelector('.stApp').dataset.testScriptState !== 'running'"""
_ANSWERED = """n => {
  const phone = document.querySelector('.fl-phone img');
  return phone && phone.alt.includes(n)
    && document.querySelector('.stApp').dataset.testScriptState !== 'running';
}"""


@dataclass
class Seen:
    """What happened."""

    answers_s: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)


def main() -> int:
    """Parse, load, print."""
    parser = make_parser(__doc__, has_root=True)
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=120)
    return run(load, parser)


def load(arguments: argparse.Namespace) -> None:
    """Print how many answers there were, how long they took, and the server's memory."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise ConfigError("Chromium is not installed (apt: chromium).")
    paths = Paths(arguments.root)
    tasks = tasks_with(paths, "bundle.json", None, at_least=1)
    seen = Seen()
    with served(paths) as (address, process), watched(process, seen):
        asyncio.run(crowd(chromium, address, tasks, arguments.people, arguments.seconds, seen))
    report(arguments, seen)


@contextmanager
def served(paths: Paths) -> Iterator[tuple[str, psutil.Process]]:
    """The hub's address and process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen(
        command_line("127.0.0.1", port),
        cwd=ROOT,
        env={**SERVER_ENVIRONMENT, **os.environ, "FIELDLENS_ROOT": str(paths.root.resolve())},
        stdout=subprocess.DEVNULL,
    )
    try:
        while process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def watched(process: psutil.Process, seen: Seen) -> Iterator[None]:
    """Read the server's memory once a second."""
    done, start = threading.Event(), time.monotonic()

    def watch() -> None:
        while not done.wait(1):
            try:
                seen.memory.append((time.monotonic() - start, process.memory_info().rss / 1e6))
            except psutil.NoSuchProcess:
                seen.faults.append("the server ended")
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield
    done.set()
    thread.join()


async def crowd(
    chromium: str, address: str, tasks: list[str], n_people: int, seconds: float, seen: Seen
) -> None:
    """Let everybody in, one after another, and wait until the time is up."""
    from playwright.async_api import async_playwright

    photos = [photo(number) for number in range(_N_PHOTOS)]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=_FLAGS)
        pages = []
        for number in range(n_people):
            context = await browser.new_context(viewport=_PHONE, locale="en-GB")
            page = await context.new_page()
            page.on("pageerror", lambda error: seen.faults.append(f"page: {error}"))
            await page.goto(f"{address}/{tasks[number % len(tasks)]}")
            await page.wait_for_selector("input[type=file]", state="attached", timeout=_WAIT_MS)
            pages.append(page)
        end = time.monotonic() + seconds
        await asyncio.gather(
            *(person(page, number, photos, end, seen) for number, page in enumerate(pages))
        )
        await browser.close()


async def person(page: Any, number: int, photos: list[bytes], end: float, seen: Seen) -> None:
    """Give photos until the time is up."""
    rng = np.random.default_rng(number)
    turn = 0
    while time.monotonic() < end:
        name = f"photo-{number}-{turn}.jpg"
        data = photos[int(rng.integers(len(photos)))]
        try:
            # The earlier photo is taken out, as a person would.
            for cross in await page.locator("[data-testid=stFileChipDeleteBtn] button").all():
                await cross.click(timeout=_WAIT_MS)
            await page.wait_for_function(_EMPTY, timeout=_WAIT_MS)
            # No hand is quicker; a script is, and loses the file while the page draws itself anew.
            await asyncio.sleep(_HAND_S)
            start = time.monotonic()
            await page.locator("input[type=file]").set_input_files(
                {"name": name, "mimeType": "image/jpeg", "buffer": data}
            )
            await page.wait_for_function(_ANSWERED, arg=name, timeout=_WAIT_MS)
        except Exception as err:  # noqa: BLE001 - a fault of any kind is what is counted
            seen.faults.append(f"{number}: {str(err).splitlines()[0]}")
        else:
            seen.answers_s.append(time.monotonic() - start)
        if await page.locator("[data-testid=stException]").count():
            seen.faults.append(f"{number}: an exception is on the page")
        turn += 1
        await asyncio.sleep(float(rng.uniform(*_THINK_S)))


def photo(number: int) -> bytes:
    """A noisy picture in the colours of nothing."""
    rng = np.random.default_rng([20261122, number])
    small = rng.integers(0, 256, size=(12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize(_PHOTO_PX, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def report(arguments: argparse.Namespace, seen: Seen) -> None:
    """Print the section."""
    header("Load")
    say(
        f"{arguments.people} browser windows for {arguments.seconds:.0f} s; browser and server "
        f"share the cores.",
        "",
    )
    times = sorted(seen.answers_s)
    rows = [
        ["answers", str(len(times))],
        ["faults", str(len(seen.faults))],
        ["from the photo to the answer on the page, median", _seconds(times, 0.5)],
        ["the same, 95th percentile", _seconds(times, 0.95)],
    ]
    loaded = seen.memory[-1][0] - arguments.seconds if seen.memory else 0
    for start, stop in ((0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)):
        part = [
            megabytes
            for moment, megabytes in seen.memory
            if start <= (moment - loaded) / arguments.seconds < stop
        ]
        shown = f"{statistics.mean(part):.0f} MB" if part else "-"
        rows.append([f"memory of the server, {start:.0%} to {stop:.0%} of the time", shown])
    table(["", ""], rows)
    for line in seen.faults[:10]:
        say(f"- {line}")


def _seconds(times: list[float], share: float) -> str:
    return f"{times[min(len(times) - 1, int(share * len(times)))]:.1f} s" if times else "-"


if __name__ == "__main__":
    sys.exit(main())
