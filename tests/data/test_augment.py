from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from pipelines.config.view import AugmentParams
from pipelines.data.augment import Views

OFF = {
    "min_area": 1.0,
    "max_aspect": 1.0,
    "horizontal_flip": False,
    "vertical_flip": False,
    "rotate_deg": 0,
    "brightness": 0,
    "contrast": 0,
    "saturation": 0,
    "hue": 0,
    "blur": 0,
    "noise": 0,
    "jpeg": 0,
}
ON = {
    "min_area": 0.5,
    "max_aspect": 1.3,
    "horizontal_flip": True,
    "vertical_flip": True,
    "rotate_deg": 20,
    "brightness": 0.3,
    "contrast": 0.3,
    "saturation": 0.3,
    "hue": 0.05,
    "blur": 0.5,
    "noise": 0.5,
    "jpeg": 0.5,
}
SEEDS = list(range(24))


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
    got = Views(AugmentParams.model_validate(ON), 32)(Image.fromarray(noise), [3])[0]
    assert got.shape == (32, 32, 3)
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous


def test_same_seed_is_the_same_view_whatever_came_before(picture):
    first = Views(AugmentParams.model_validate(ON), 32)
    expected = first(picture, SEEDS)
    second = Views(AugmentParams.model_validate(ON), 32)
    np.random.default_rng().random()
    backwards = [second(picture, [seed])[0] for seed in reversed(SEEDS)][::-1]
    for one, other in zip(expected, backwards, strict=True):
        assert np.array_equal(one, other)


def test_seeds_at_the_ends_of_their_range_are_taken(picture):
    low, high = Views(AugmentParams.model_validate(ON), 32)(picture, [0, 2**32 - 1])
    assert not np.array_equal(low, high)


def test_different_seeds_are_different_views(picture):
    found = Views(AugmentParams.model_validate(ON), 32)(picture, SEEDS)
    assert len({view.tobytes() for view in found}) == len(SEEDS)


def test_the_picture_is_left_alone(picture):
    before = picture.tobytes()
    Views(AugmentParams.model_validate(ON), 32)(picture, [1])
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


def test_background_that_is_off_changes_no_byte(picture):
    given = AugmentParams.model_validate(ON)
    off = AugmentParams.model_validate({**ON, "background": 0.0})
    assert off.model_dump_json() == given.model_dump_json()
    for one, other in zip(
        Views(given, 32)(picture, SEEDS), Views(off, 32)(picture, SEEDS), strict=True
    ):
        assert np.array_equal(one, other)


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


@pytest.mark.slow
def test_import_asks_nobody_for_a_newer_version():
    code = (
        "import os, socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
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
