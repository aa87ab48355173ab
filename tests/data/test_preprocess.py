"""The only way from a picture to a model's pixels, and what a view takes away on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.data.images import open_image
from pipelines.data.preprocess import MASK_VALUE, Preprocess, View

GOLDEN = Path(__file__).parent.parent / "golden"
RED, WHITE = (255, 0, 0), (255, 255, 255)


def noise(width_px: int, height_px: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def bands(width_px: int, height_px: int) -> Image.Image:
    """Smooth in both directions, so that resizing changes little."""
    y, x = np.mgrid[0:height_px, 0:width_px]
    pixels = np.stack([255 * x / width_px, 255 * y / height_px, 0 * x + 90], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def with_side(
    image: Image.Image, side_px: int, filter_: Image.Resampling = Image.Resampling.BILINEAR
) -> Image.Image:
    scale = side_px / min(image.size)
    size = tuple(max(side_px, round(side * scale)) for side in image.size)
    return image if size == image.size else image.resize(size, filter_)


def middle_of(image: Image.Image, side_px: int) -> np.ndarray:
    left, top = (image.width - side_px) // 2, (image.height - side_px) // 2
    return np.asarray(image.crop((left, top, left + side_px, top + side_px)))


def before_there_were_views(image: Image.Image, resize_px: int, crop_px: int) -> np.ndarray:
    """What `Preprocess` was without a view, spelt out."""
    return middle_of(with_side(image, resize_px), crop_px)


SHAPES = [
    *((640, 480), (480, 640), (1, 1), (3, 2), (224, 224), (256, 256), (257, 256), (255, 1020)),
    *((1600, 400), (400, 1600), (2000, 500), (37, 148), (96, 95), (300, 1199), (1024, 1024)),
]


@pytest.mark.parametrize("size", SHAPES, ids=str)
@pytest.mark.parametrize(("resize_px", "crop_px"), [(256, 224), (224, 224), (96, 64)])
def test_pictures_up_to_four_to_one_keep_their_bytes(size, resize_px, crop_px) -> None:
    image = noise(*size)
    pixels = Preprocess(resize_px, crop_px)(image)
    np.testing.assert_array_equal(pixels, before_there_were_views(image, resize_px, crop_px))


@pytest.mark.parametrize(
    "size", [(402, 100), (100, 401), (3001, 150), (60, 1200), (1, 20), (900, 45)]
)
@pytest.mark.parametrize("view", [View(), View(side_px=64), View(grey=True, border_mask=0.1)])
def test_a_longer_picture_shows_the_same_middle(size, view) -> None:
    image = bands(*size)
    pixels = Preprocess(96, 64, view)(image).astype(int)
    whole = Preprocess(96, 64, View(grey=view.grey, border_mask=view.border_mask))
    resized = image if view.side_px is None else with_side(image, view.side_px)
    resized = with_side(resized.convert("L").convert("RGB") if view.grey else resized, 96)
    expected = whole.finish(whole.inner(middle_of(resized, 64)))
    # At most half a stored pixel apart: the middle of an even and of an odd number of pixels.
    steps = 0.5 * 255 / max(size) * 2 + 2
    assert np.abs(pixels - expected).max() <= max(
        steps, 0.6 * 255 / min(size) if min(size) < 4 else 0
    )


@pytest.mark.parametrize("view", [View(), View(side_px=320), View(border_mask=0.2)])
def test_a_line_costs_no_more_than_a_square(view) -> None:
    preprocess = Preprocess(256, 224, view)
    for size in ((1, 400_000), (400_000, 1)):
        # Resized whole it would have 26 thousand million pixels, which no memory holds.
        line = Image.new("RGB", size, RED)
        assert preprocess(line).shape == (224, 224, 3)
        assert max(preprocess.visible(line).size) <= 4 * max(1, view.side_px or 1)


def test_weights_that_were_trained_on_bicubic_pictures_get_them() -> None:
    image = noise(150, 120)
    got = Preprocess(96, 64, interpolation="bicubic")(image)
    whole = with_side(image, 96, Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(got, middle_of(whole, 64))
    assert not np.array_equal(got, Preprocess(96, 64)(image))


@pytest.mark.parametrize(
    ("file", "preprocess"),
    [
        ("preprocess_48_32.npy", Preprocess(48, 32)),
        ("preprocess_48_32_bicubic.npy", Preprocess(48, 32, interpolation="bicubic")),
        (
            "preprocess_48_32_view.npy",
            Preprocess(48, 32, View(grey=True, side_px=20, border_mask=0.1)),
        ),
    ],
)
def test_golden_pixels(file: str, preprocess: Preprocess) -> None:
    pixels = preprocess(open_image(GOLDEN / "preprocess_input.png").rgb)
    assert pixels.shape == (32, 32, 3)
    np.testing.assert_array_equal(pixels, np.load(GOLDEN / file, allow_pickle=False))


@settings(deadline=None, max_examples=40)
@given(*(st.integers(*ends) for ends in ((1, 90), (1, 90), (1, 48), (0, 20), (0, 9))))
def test_view_that_is_off_changes_no_byte(width_px, height_px, crop_px, more_px, seed) -> None:
    # Longer than 4:1, only the middle is resized; see below.
    width_px = min(width_px, 4 * height_px)
    height_px = min(height_px, 4 * width_px)
    image = noise(width_px, height_px, seed)
    preprocess = Preprocess(crop_px + more_px, crop_px)
    assert preprocess == Preprocess(crop_px + more_px, crop_px, View())
    pixels = preprocess(image)
    np.testing.assert_array_equal(
        pixels, before_there_were_views(image, crop_px + more_px, crop_px)
    )
    assert preprocess.visible(image) is image
    assert preprocess.finish(pixels) is pixels
    assert preprocess.inner(pixels) is pixels
    assert (preprocess.border_px, preprocess.inner_px) == (0, crop_px)


def test_aspect_and_centre_are_kept() -> None:
    image = Image.new("RGB", (300, 100), WHITE)
    image.paste(RED, (100, 0, 200, 100))
    pixels = Preprocess(resize_px=50, crop_px=40)(image)
    assert (pixels == RED).all()


@pytest.mark.parametrize(
    ("made", "changes", "named"),
    [
        (Preprocess, {"resize_px": 32, "crop_px": 33}, "crop_px"),
        (Preprocess, {"resize_px": 32, "crop_px": 0}, "crop_px"),
        (Preprocess, {"resize_px": 0, "crop_px": 0}, "crop_px"),
        (View, {"side_px": 0}, "side_px"),
        (View, {"side_px": -4}, "side_px"),
        (View, {"border_mask": -0.1}, "border_mask"),
        (View, {"border_mask": 0.46}, "border_mask"),
        (View, {"border_mask": float("nan")}, "border_mask"),
    ],
)
def test_what_cannot_be_is_refused(made: type, changes: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        made(**changes)


@settings(deadline=None, max_examples=30)
@given(st.integers(20, 90), st.integers(20, 90), st.integers(0, 99))
def test_grey_makes_the_channels_equal(width_px, height_px, seed) -> None:
    image = noise(width_px, height_px, seed)
    pixels = Preprocess(40, 32, View(grey=True))(image)
    assert (pixels == pixels[:, :, :1]).all()
    # Luma, so that nothing but the colour is gone.
    expected = Preprocess(40, 32)(image.convert("L").convert("RGB"))
    np.testing.assert_array_equal(pixels, expected)


def test_side_is_reached_by_large_and_small_pictures() -> None:
    preprocess = Preprocess(64, 56, View(side_px=24))
    for size in [(300, 200), (24, 24), (10, 40), (24, 90)]:
        image = noise(*size)
        by_hand = Preprocess(64, 56)(with_side(image, 24))
        np.testing.assert_array_equal(preprocess(image), by_hand)


def test_side_takes_away_how_large_a_picture_was() -> None:
    def sharpness(pixels: np.ndarray) -> float:
        return float(np.abs(np.diff(pixels.astype(int), axis=1)).mean())

    large = noise(200, 200)
    small = large.resize((40, 40), Image.Resampling.BILINEAR)
    off, on = Preprocess(64, 56), Preprocess(64, 56, View(side_px=16))
    gap_off = 1 - sharpness(off(small)) / sharpness(off(large))
    gap_on = 1 - sharpness(on(small)) / sharpness(on(large))
    assert gap_off > 0.1
    assert abs(gap_on) < gap_off / 4


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 64), st.floats(0, 0.45), st.integers(0, 99))
def test_mask_is_painted_and_the_middle_is_left(crop_px, border_mask, seed) -> None:
    image = noise(70, 64, seed)
    preprocess = Preprocess(64, crop_px, View(border_mask=border_mask))
    edge = int(border_mask * crop_px)
    pixels = preprocess(image)
    plain = Preprocess(64, crop_px)(image)
    middle = slice(edge, crop_px - edge)
    np.testing.assert_array_equal(pixels[middle, middle], plain[middle, middle])
    assert plain[middle, middle].size > 0
    np.testing.assert_array_equal(preprocess.inner(pixels), plain[middle, middle])
    frame = np.ones((crop_px, crop_px), dtype=bool)
    frame[middle, middle] = False
    assert (pixels[frame] == MASK_VALUE).all()
    assert preprocess.inner_px == crop_px - 2 * edge


def test_mask_hides_the_border_whatever_it_holds() -> None:
    preprocess = Preprocess(40, 32, View(border_mask=0.25))
    image = bands(80, 80)
    other = image.copy()
    # Outside of the middle half of the crop, which is 0.4 of the picture's side.
    other.paste(RED, (0, 0, 80, 20))
    other.paste(RED, (0, 0, 20, 80))
    np.testing.assert_array_equal(preprocess(image), preprocess(other))
    assert not np.array_equal(Preprocess(40, 32)(image), Preprocess(40, 32)(other))


@pytest.mark.parametrize("size", [(80, 80), (200, 80), (40, 31), (7, 300)])
def test_random_views_are_drawn_from_what_the_mask_leaves(size) -> None:
    preprocess = Preprocess(40, 32, View(border_mask=0.25))
    image = bands(*size)
    source = preprocess.visible(image)
    expected = max(1, round(16 * min(size) / 40))
    assert source.size == (expected, expected)
    seen = np.asarray(source.resize((16, 16), Image.Resampling.BILINEAR)).astype(int)
    plain = preprocess(image)[8:24, 8:24].astype(int)
    # The same part of the picture: the gradients agree within a pixel's step.
    assert np.abs(seen - plain).max() <= 255 * 2 / min(expected, 16) + 2


def test_finished_views_are_grey_and_framed() -> None:
    preprocess = Preprocess(40, 32, View(grey=True, border_mask=0.25))
    inner = np.asarray(noise(16, 16))
    pixels = preprocess.finish(inner)
    assert pixels.shape == (32, 32, 3)
    assert (pixels == pixels[:, :, :1]).all()
    expected = np.asarray(Image.fromarray(inner).convert("L"))
    np.testing.assert_array_equal(pixels[8:24, 8:24, 0], expected)
    assert (pixels[:8] == MASK_VALUE).all()


# -- the whole picture ----------------------------------------------------------------------------
WHOLE = View(whole=True)


@pytest.mark.parametrize("size", [(640, 480), (480, 641), (64, 64), (30, 20), (2000, 37), (1, 90)])
def test_whole_picture_lies_in_the_middle_with_grey_beside_it(size) -> None:
    pixels = Preprocess(64, 64, WHOLE)(Image.new("RGB", size, RED))
    is_red = (pixels == RED).all(axis=2)
    assert (pixels[~is_red] == MASK_VALUE).all()
    rows, columns = (np.flatnonzero(is_red.any(axis=axis)) for axis in (1, 0))
    assert is_red.sum() == len(rows) * len(columns)
    assert max(len(rows), len(columns)) == 64
    for found in (rows, columns):
        assert abs((63 - found[-1]) - found[0]) <= 1
    geometry = Preprocess(64, 64, WHOLE).geometry(size)
    corners = geometry @ np.array([[0, size[0]], [0, size[1]], [1, 1]])
    expected = [[columns[0], columns[-1] + 1], [rows[0], rows[-1] + 1]]
    assert corners[:2] == pytest.approx(np.array(expected))


def test_random_views_are_cut_from_the_framed_picture_with_its_geometry() -> None:
    preprocess = Preprocess(64, 64, WHOLE)
    image = bands(600, 400)
    framed = preprocess.visible(image)
    assert framed.size == (128, 128)
    geometry, size = preprocess.visible_geometry(image.size)
    assert size == framed.size
    for x, y in ((1, 1), (300, 200), (599, 399)):
        column, row, _ = geometry @ [x, y, 1]
        found = framed.getpixel((min(int(column), 127), min(int(row), 127)))
        assert np.abs(np.array(found) - image.getpixel((x, y))).max() < 6
    # A small picture is brought to the input's side, and a long one costs no memory.
    assert preprocess.visible(Image.new("RGB", (20, 10))).size == (64, 64)
    assert preprocess.visible(Image.new("RGB", (40_000, 2_000))).size == (128, 128)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: View(whole=True, border_mask=0.1), "no border_mask"),
        (lambda: View(whole=True, side_px=64), "no side_px"),
        (lambda: Preprocess(80, 64, WHOLE), "crop_fraction 1"),
    ],
)
def test_whole_stands_alone(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()
