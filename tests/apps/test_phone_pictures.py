"""The phone page in Chromium against the predictor, bit for bit, on pictures of every kind; and
what large and hostile ones cost it. The model here looks at each pixel: one that differs by a level
moves an answer by more than the tolerance.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper
from PIL import Image, features

from pipelines.card import load_card
from pipelines.paths import Paths
from pipelines.serving.predictor import Predictor
from tests.apps.browsing import FLAGS, chromium
from tests.apps.conftest import SIDE_PX, encoded, serve_model

pytest.importorskip("playwright", reason="Playwright is not installed")
from playwright.sync_api import Page, expect

from tests.apps.phone_browsing import answered, choose, open_task, opened, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

TASK = "tomato_leaf"
RANGE = (0, 4095)
RNG = np.random.default_rng(20261127)
#: What no picture may cost the page, over an ordinary one: that of the predictor.
MAX_BYTES = 500_000_000


def pixel_net(n_labels: int) -> bytes:
    """Logits that depend on each value of the input; the mean colour as embedding."""
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 17]>
        pixels (uint8[n, {SIDE_PX}, {SIDE_PX}, 3] pixels)
            => (float[n, {n_labels}] logits, float[n, 3] embedding) {{
          values = Cast<to = 1>(pixels)
          scaled = Div(values, full)
          embedding = ReduceMean<axes = [1, 2], keepdims = 0>(scaled)
          flat = Flatten(scaled)
          logits = MatMul(flat, weights)
        }}""")
    weights = RNG.normal(0, 0.02, (SIDE_PX * SIDE_PX * 3, n_labels)).astype(np.float32)
    for name, values in (("full", np.float32(255)), ("weights", weights)):
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    data: bytes = model.SerializeToString()
    return data


@pytest.fixture(scope="module")
def root(app_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures") / "project"
    shutil.copytree(app_template, root)
    n_labels = len(load_card(Paths(root).task(TASK).card).labels)
    serve_model(root, TASK, pixel_net(n_labels))
    return root


@pytest.fixture(scope="module")
def url(root: Path, browser) -> Iterator[str]:
    with served(root) as address:
        yield address


def photo(width: int, height: int) -> Image.Image:
    """Coloured blobs under noise."""
    small = RNG.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    blobs = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    noise = RNG.integers(-12, 13, (height, width, 1))
    return Image.fromarray((blobs + noise).clip(0, 255).astype(np.uint8))


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def preprocessed_otherwise(root: Path, folder: Path, **changes: object) -> Path:
    """A copy of the project whose bundle of `TASK` asks for other pixels."""
    shutil.copytree(root, folder)
    path = Paths(folder).task(TASK).bundle
    bundle = json.loads(path.read_text(encoding="utf-8"))
    bundle["preprocess"].update(changes)
    path.write_text(json.dumps(bundle), encoding="utf-8")
    return folder


def expect_parity(page: Page, n: int, data: bytes, predictor: Predictor, like: bytes) -> None:
    choose(page, data, name="photo.jpg")
    said = answered(page, n)
    rows = page.eval_on_selector_all(
        ".bars li", "rows => rows.map(row => [row.dataset.label, row.dataset.probability])"
    )
    shown = {name: float(value) for name, value in rows}
    expected = predictor.predict(like)
    assert shown == pytest.approx(expected.probabilities, abs=1e-6)
    assert float(said["oodScore"]) == pytest.approx(expected.ood_score, abs=1e-6)


def test_photos_of_every_kind_have_the_predictors_bits(browser, url, root) -> None:
    predictor = Predictor.load(Paths(root).task(TASK).bundle)
    large = photo(2101, 1533)
    pictures = {
        "small": encoded(photo(301, 211), "JPEG", quality=90),
        "large": encoded(large, "JPEG", quality=90),
        "large, 4:4:4": encoded(large, "JPEG", quality=85, subsampling=0),
        "large, 4:2:2": encoded(large, "JPEG", quality=95, subsampling=1),
        "large, progressive": encoded(large, "JPEG", quality=80, progressive=True),
        "large, grey": encoded(large.convert("L"), "JPEG"),
        "large, CMYK": encoded(large.convert("CMYK"), "JPEG"),
        **{f"turned by {n}": encoded(large, "JPEG", exif=turned(n)) for n in range(2, 9)},
        "halved": encoded(photo(150, 147), "JPEG", quality=90),
        "WebP": encoded(photo(301, 211), "WEBP", lossless=True),
        "PNG": encoded(photo(301, 211)),
        "palette": encoded(photo(301, 211).convert("P")),
        "4:1": encoded(photo(400, 100)),
    }
    with opened(browser) as page:
        open_task(page, url, TASK)
        for n, data in enumerate(pictures.values(), start=1):
            expect_parity(page, n, data, predictor, data)


def test_bicubic_photos_have_the_predictors_bits(browser, root, tmp_path) -> None:
    own = preprocessed_otherwise(root, tmp_path / "project", interpolation="bicubic")
    predictor = Predictor.load(Paths(own).task(TASK).bundle)
    pictures = [
        encoded(photo(2101, 1533), "JPEG", quality=90),
        encoded(photo(301, 211)),
        encoded(photo(21, 30)),
    ]
    of_bilinear = Predictor.load(Paths(root).task(TASK).bundle).predict(pictures[0])
    assert predictor.predict(pictures[0]).ood_score != of_bilinear.ood_score
    with served(own) as url, opened(browser) as page:
        open_task(page, url, TASK)
        for n, data in enumerate(pictures, start=1):
            expect_parity(page, n, data, predictor, data)


@pytest.mark.parametrize("size", [(900, 60), (61, 799)])
def test_long_picture_is_looked_at_in_its_middle(browser, url, root, size) -> None:
    data = encoded(photo(*size))
    with opened(browser) as page:
        open_task(page, url, TASK)
        expect_parity(page, 1, data, Predictor.load(Paths(root).task(TASK).bundle), data)


def test_avif_has_the_predictors_bits(browser, url, root) -> None:
    """Its picture is compared as Pillow decodes it, whatever formats the predictor takes."""
    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    predictor = Predictor.load(Paths(root).task(TASK).bundle)
    with opened(browser) as page:
        open_task(page, url, TASK)
        cases = [(80, "4:2:0", {}), (60, "4:4:4", {}), (90, "4:2:2", {}), (75, "4:0:0", {})]
        cases += [(80, "4:2:0", {"exif": turned(6)})]
        for n, (quality, subsampling, extra) in enumerate(cases, start=1):
            data = encoded(
                photo(301, 211), "AVIF", quality=quality, subsampling=subsampling, **extra
            )
            with Image.open(io.BytesIO(data)) as image:
                upright = encoded(image.convert("RGB"), "PNG", exif=image.getexif())
            expect_parity(page, n, data, predictor, upright)


# 16 bits a channel


def png16(values: np.ndarray, colour: int, *, is_interlaced: bool = False) -> bytes:
    """A PNG of (h, w, n) values, whose scan lines have no filter."""
    height, width, _ = values.shape
    passes = [(0, 0, 1, 1)]
    if is_interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)]
        passes += [(0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [values[y::dy, x::dx] for x, y, dx, dy in passes]
    lines = [b"\0" + line.astype(">u2").tobytes() for part in parts if part.size for line in part]

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, int(is_interlaced))
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(lines)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def deep_pictures() -> dict[str, bytes]:
    grey, colour = (RNG.integers(0, 5000, (83, 61, n)) for n in (1, 3))
    opacity = RNG.integers(0, 65_536, (83, 61, 1))
    return {
        "grey": png16(grey, 0),
        "colour": png16(colour, 2),
        "grey and opacity": png16(np.concatenate([grey, opacity], axis=2), 4),
        "colour and opacity": png16(np.concatenate([colour, opacity], axis=2), 6),
        "interlaced": png16(grey, 0, is_interlaced=True),
        "filtered": encoded(Image.fromarray(np.cumsum(grey[:, :, 0] // 20, 1).astype("u2"))),
    }


def test_deep_picture_has_the_predictors_bits(browser, root, tmp_path) -> None:
    own = preprocessed_otherwise(root, tmp_path / "project", range=RANGE)
    predictor = Predictor.load(Paths(own).task(TASK).bundle)
    with served(own) as url, opened(browser) as page:
        open_task(page, url, TASK)
        for n, data in enumerate(deep_pictures().values(), start=1):
            expect_parity(page, n, data, predictor, data)
            expect(page.locator(".answer")).to_contain_text("outside the range of values")
        within = png16(np.full((40, 40, 1), 4095), 0)
        expect_parity(page, n + 1, within, predictor, within)
        expect(page.locator(".answer")).not_to_contain_text("outside the range of values")


def test_deep_picture_without_a_range_is_refused_in_words(browser, url) -> None:
    with opened(browser) as page:
        open_task(page, url, TASK)
        for data in deep_pictures().values():
            choose(page, data)
            expect(page.locator(".trouble:visible")).to_contain_text("16 bits a channel")


# Shapes and sizes


def processes(parent: int) -> list[int]:
    """A process and those that it started, and they, while they live."""
    found = [parent]
    for path in Path(f"/proc/{parent}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [one for child in path.read_text().split() for one in processes(int(child))]
    return found


def most_memory(parent: int) -> int:
    """The most bytes that each of them has held, added up."""
    total = 0
    for process in processes(parent):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
            total += sum(int(kib) * 1024 for kib in re.findall(r"VmHWM:\s+(\d+)", status))
    return total


def test_large_and_hostile_pictures_cost_little(browser, url, tmp_path) -> None:
    """An ordinary phone's 108 megapixels are answered, what has no sensible view is refused."""
    if not Path("/proc/self/task").is_dir():
        pytest.skip("memory is read from /proc")
    wide = Image.effect_noise((1200, 900), 60).convert("RGB").resize((12_000, 9_000))
    pictures = {
        "line.png": (encoded(Image.new("L", (1, 40_000))), "nothing to look at"),
        "line.jpg": (encoded(Image.new("RGB", (65_000, 1)), "JPEG"), "nothing to look at"),
        "strip.jpg": (encoded(Image.new("RGB", (65_000, 1_000)), "JPEG"), "nothing to look at"),
        "square.jpg": (encoded(Image.new("L", (20_000, 20_000)), "JPEG"), "400 megapixels"),
        "square.png": (encoded(Image.new("L", (9_000, 9_000))), "81 megapixels"),
        "phone.jpg": (encoded(wide, "JPEG", quality=80), None),
        "scan.png": (encoded(Image.new("1", (8_000, 5_000))), None),
    }
    del wide
    costs = {}
    for name, (data, words) in pictures.items():
        # A browser of its own: the most that a process has held is never forgotten.
        others = set(processes(os.getpid()))
        fresh = browser.browser_type.launch(executable_path=chromium(), args=list(FLAGS))
        process = min(set(processes(os.getpid())) - others)
        with opened(fresh) as page:
            open_task(page, url, TASK)
            choose(page, encoded(photo(640, 480), "JPEG"))
            answered(page)
            before, start = most_memory(process), time.perf_counter()
            (tmp_path / name).write_bytes(data)
            choose(page, tmp_path / name)
            if words is None:
                answered(page, 2)
            else:
                expect(page.locator(".trouble:visible")).to_contain_text(words)
            costs[name] = (most_memory(process) - before, time.perf_counter() - start)
        fresh.close()
    told = {name: f"{n / 1e6:.0f} MB, {s:.1f} s" for name, (n, s) in costs.items()}
    assert all(n_bytes < MAX_BYTES for n_bytes, _ in costs.values()), told
