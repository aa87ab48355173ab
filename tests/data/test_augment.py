"""Random views, and the background that is painted around some: drawn by their seeds alone."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.config.view import AugmentParams
from pipelines.data.augment import Views, paint_background

AMOUNTS = ("rotate_deg", "brightness", "contrast", "saturation", "hue", "blur", "noise", "jpeg")
OFF = {"min_area": 1.0, "max_aspect": 1.0, "horizontal_flip": False, "vertical_flip": False}
OFF |= dict.fromkeys(AMOUNTS, 0.0)
ON = {"min_area": 0.5, "max_aspect": 1.3, "horizontal_flip": True, "vertical_flip": True}
ON |= {"rotate_deg": 20, "brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.05}
ON |= {"blur": 0.5, "noise": 0.5, "jpeg": 0.5, "background": 0.5}
#: The ends of their range among them.
SEEDS = [*range(23), 2**32 - 1]


def views(**changes) -> Views:
    return Views(AugmentParams.model_validate({**OFF, **changes}), 32)


@pytest.fixture
def picture() -> Image.Image:
    """A smooth square that is the same under no flip and no turn."""
    y, x = np.mgrid[0:48, 0:48] / 47
    pixels = np.stack([255 * x, 255 * y, 100 + 100 * x * y], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def test_all_off_is_the_picture_resized(picture):
    got = views()(picture, [7])[0].astype(int)
    expected = np.asarray(picture.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(got - expected).max() <= 6
    assert np.array_equal(got, views()(picture, [8])[0])


@pytest.mark.parametrize("size", [(32, 32), (200, 40), (33, 300), (16, 16), (1, 1), (640, 480)])
def test_view_has_the_models_shape(size):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    got = views(**ON)(Image.fromarray(noise), [3])[0]
    assert got.shape == (32, 32, 3)
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous


def test_views_are_those_of_their_seeds_whatever_came_before(picture):
    before = picture.tobytes()
    expected = views(**ON)(picture, SEEDS)
    assert len({view.tobytes() for view in expected}) == len(SEEDS)
    second = views(**ON)
    np.random.default_rng().random()
    backwards = [second(picture, [seed])[0] for seed in reversed(SEEDS)][::-1]
    np.testing.assert_array_equal(expected, backwards)
    assert picture.tobytes() == before


@pytest.mark.parametrize(
    ("knob", "axis"), [("horizontal_flip", 1), ("vertical_flip", 0)], ids=["left", "up"]
)
def test_flips_happen_when_asked_for_and_never_else(knob, axis, picture):
    plain = views()(picture, [0])[0]
    flipped = np.flip(plain, axis=axis)
    found = {view.tobytes() for view in views(**{knob: True})(picture, SEEDS)}
    assert found == {plain.tobytes(), flipped.tobytes()}
    # Nothing but the flips was on: without them there is one view.
    assert {view.tobytes() for view in views()(picture, SEEDS)} == {plain.tobytes()}


@pytest.mark.parametrize(
    "change",
    [
        {"min_area": 0.5},
        {"max_aspect": 1.3, "min_area": 0.8},
        {"rotate_deg": 15},
        {"brightness": 0.3},
        {"contrast": 0.3},
        {"saturation": 0.3},
        {"hue": 0.1},
        {"blur": 1.0},
        {"noise": 1.0},
        {"jpeg": 1.0},
        {"background": 1.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_knob_does_something(change, picture):
    found = {view.tobytes() for view in views(**change)(picture, SEEDS)}
    assert found != {views()(picture, [0])[0].tobytes()}


def test_background_is_painted_around_the_middle(picture):
    plain = views()(picture, [0])[0].astype(int)
    painted = np.stack(views(background=1.0)(picture, SEEDS)).astype(int)
    gap = np.abs(painted - plain).max(axis=-1)
    # The middle is the picture's; corners hardly ever are.
    assert gap[:, 15:17, 15:17].max() <= 6
    assert (gap[:, 0, 0] > 6).mean() > 0.8
    # Each share of the views that was asked for, drawn by the view's own seed.
    some = views(background=0.5)(picture, SEEDS)
    n_plain = sum(np.array_equal(view, plain) for view in some)
    assert 4 <= n_plain <= len(SEEDS) - 4


def test_colour_knobs_leave_a_grey_picture_grey():
    grey = Image.new("RGB", (40, 40), (90, 90, 90))
    for view in views(saturation=0.5, hue=0.2, brightness=0.2)(grey, SEEDS):
        assert int(np.ptp(view, axis=2).max()) <= 1


# -- the painted background -----------------------------------------------------------------------
def flat(height_px: int = 60, width_px: int = 80) -> np.ndarray:
    return np.full((height_px, width_px, 3), 77, dtype=np.uint8)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_share_of_none_is_the_very_picture(seed: int) -> None:
    pixels = flat()
    assert paint_background(pixels, 0.0, seed) is pixels


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_middle_is_kept_whatever_is_drawn(height_px: int, width_px: int, seed: int) -> None:
    pixels = flat(height_px, width_px)
    painted = paint_background(pixels, 1.0, seed)
    assert painted.shape == pixels.shape
    assert painted.dtype == np.uint8
    # Half the smallest axis less shift and soft edge is kept, whatever was drawn; of fewer pixels
    # than eight none lies near enough to the middle.
    if min(height_px, width_px) >= 8:
        assert (painted[height_px // 2, width_px // 2] == 77).all()
    assert (pixels == 77).all()


@pytest.mark.parametrize("share", [0.25, 0.7])
def test_as_many_are_painted_as_asked_for(share: float) -> None:
    pixels = flat(20, 20)
    n = 1500
    painted = sum(paint_background(pixels, share, seed) is not pixels for seed in range(n))
    # Five standard deviations.
    assert abs(painted / n - share) < 5 * np.sqrt(share * (1 - share) / n)


def test_background_no_longer_tells_the_label() -> None:
    """Two classes, told apart by the colour of their corners alone."""

    def corner(value: int, share: float) -> np.ndarray:
        pixels = np.full((40, 40, 3), value, dtype=np.uint8)
        seeds = range(value, value + 300)
        return np.array([paint_background(pixels, share, seed)[0, 0].mean() for seed in seeds])

    def best_threshold(share: float) -> float:
        dark, light = corner(100, share), corner(150, share)
        cuts = np.linspace(0, 255, 256)
        right = [((dark < cut).mean() + (light >= cut).mean()) / 2 for cut in cuts]
        return max(max(right), 1 - min(right))

    assert best_threshold(0.0) == 1.0
    assert best_threshold(1.0) < 0.65


# -- albumentations -------------------------------------------------------------------------------
@pytest.mark.slow
def test_import_asks_nobody_for_a_newer_version():
    code = (
        "import os, sys\n"
        "def hook(event, args):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo'): os._exit(9)\n"
        "sys.addaudithook(hook)\n"
        "os.environ.pop('NO_ALBUMENTATIONS_UPDATE', None)\n"
        "from pipelines.config.view import AugmentParams\n"
        "from pipelines.data.augment import Views\n"
        f"Views(AugmentParams.model_validate({ON!r}), 32)\n"
        "print('albumentations' in sys.modules, os.environ['NO_ALBUMENTATIONS_UPDATE'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "1"]
