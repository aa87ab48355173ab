from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipelines.data.manifest import in_split, read_manifest
from pipelines.serving.predictor import Predictor
from pipelines.validation.behaviour import Change, changes, flipped_answers


def photo(width: int = 60, height: int = 40) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return Image.fromarray((np.stack([x, y, 1 - x], axis=-1) * 255).astype(np.uint8))


def gap(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).mean())


@pytest.mark.parametrize("change", changes(with_flip=True), ids=lambda change: change.name)
@pytest.mark.parametrize("size", [(60, 40), (3, 200), (1, 1)])
def test_change_keeps_size_and_mode_and_the_original(change, size):
    picture = photo(*size)
    before = picture.copy()
    changed = change.apply(picture)
    assert (changed.size, changed.mode) == (size, "RGB")
    assert picture.tobytes() == before.tobytes()
    if size == (60, 40):
        assert changed.tobytes() != before.tobytes()


def test_changes_are_as_small_as_they_say():
    picture = photo()
    made = {change.name: change.apply(picture) for change in changes(with_flip=True)}
    assert gap(picture, made["JPEG quality 95"]) < gap(picture, made["JPEG quality 50"]) < 8
    darker = np.asarray(made["brightness x 0.9"], float)
    np.testing.assert_allclose(darker, np.asarray(picture, float) * 0.9, atol=1)
    brighter = np.asarray(made["brightness x 1.1"], float)
    np.testing.assert_allclose(brighter, np.minimum(np.asarray(picture, float) * 1.1, 255), atol=1)
    # 2 degrees at 36 px from the centre are 1.3 px, and a pixel is 4 to 6 levels here.
    assert 0 < gap(picture, made["rotation +2 degrees"]) < 8
    assert gap(picture, made["mirrored"].transpose(Image.Transpose.FLIP_LEFT_RIGHT)) == 0


def test_rotation_invents_no_dark_corner():
    white = Image.new("RGB", (64, 48), "white")
    for change in changes(with_flip=False):
        if change.family == "rotation":
            assert np.asarray(change.apply(white)).min() == 255


def test_rotations_go_both_ways():
    there, back = (c for c in changes(with_flip=False) if c.family == "rotation")
    inner = (8, 8, 52, 32)
    returned = back.apply(there.apply(photo())).crop(inner)
    assert gap(returned, photo().crop(inner)) < 1.5
    assert gap(there.apply(photo()), back.apply(photo())) > 1


@pytest.mark.parametrize("change", changes(with_flip=True), ids=lambda change: change.name)
def test_moves_says_where_a_place_went(change):
    size = (120, 80)
    picture = Image.new("RGB", size, "black")
    picture.paste("white", (88, 18, 96, 26))
    changed = np.asarray(change.apply(picture).convert("L"), float)
    rows, columns = np.mgrid[: size[1], : size[0]] + 0.5
    found = [(each * changed).sum() / changed.sum() for each in (columns, rows)]
    assert (change.moves(size) @ [92, 22, 1])[:2] == pytest.approx(found, abs=0.25)


def test_flip_is_asked_only_where_the_domain_allows_it():
    assert "flip" in {change.family for change in changes(with_flip=True)}
    assert "flip" not in {change.family for change in changes(with_flip=False)}


def test_flipped_answers_counts_changed_labels(tested_project):
    files = tested_project.task("tiny")
    predictor = Predictor.load(files.bundle)
    entries = in_split(read_manifest(files.manifest), "test")
    swap = Change("flip", "red and blue swapped", _swap_red_and_blue)
    none = Change("jpeg", "nothing", lambda picture: picture)
    turned, same = flipped_answers(predictor, entries, files.raw_dir, (swap, none), {"flip": 0.4})
    before = [predictor.predict(files.raw_dir / entry.path).label for entry in entries]
    assert turned.n_images == len(entries)
    # Green tiles stay green; red and blue ones change places.
    assert turned.n_changed == sum(label != "green_tile" for label in before)
    assert turned.share > 0.4
    assert not turned.holds
    assert (same.n_changed, same.bound, same.holds) == (0, None, True)


def _swap_red_and_blue(picture: Image.Image) -> Image.Image:
    red, green, blue = picture.split()
    return Image.merge("RGB", (blue, green, red))
