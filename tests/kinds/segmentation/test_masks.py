from __future__ import annotations

import io
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from pipelines.config.view import AugmentParams
from pipelines.data.loaders import Pictures
from pipelines.data.manifest import Entry
from pipelines.data.preprocess import Preprocess
from pipelines.errors import DataError
from pipelines.kinds.segmentation.masks import (
    Drawn,
    MaskFile,
    covered,
    in_view,
    is_mask,
    key_of,
    read_mask,
    shares_of,
)

SIDE_PX = 64


def png(values: np.ndarray, mode: str = "L") -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(values.astype(np.uint8))
    if mode == "P":
        image.putpalette([0, 0, 0, 200, 30, 30, 30, 200, 30] + [9] * 759)
    else:
        image = image.convert(mode)
    image.save(buffer, "PNG")
    return buffer.getvalue()


SQUARE = np.zeros((12, 16))
SQUARE[3:9, 4:10] = 1
#: A blur of its edge: what an editor saves that smooths.
GREY = SQUARE * 255
GREY[2, 4:10] = 96


@pytest.mark.parametrize(
    ("data", "labels"),
    [
        (png(255 * SQUARE), ["polyp"]),
        (png(SQUARE), ["polyp"]),
        (png(255 * SQUARE, "1"), ["polyp"]),
        (png(SQUARE, "P"), ["polyp"]),
        (png(SQUARE, "P"), ["polyp", "tool"]),
        (png(SQUARE), ["polyp", "tool"]),
    ],
)
def test_binary_and_indexed_masks_say_the_same(data, labels):
    mask = read_mask(data, "m.png", labels)
    assert mask.dtype == np.uint8
    assert (mask == SQUARE).all()
    assert shares_of(mask, len(labels))[0] == pytest.approx(36 / 192, abs=1e-6)


@pytest.mark.parametrize(
    ("data", "labels", "message"),
    [
        (png(GREY), ["polyp"], r"grey edges: 3 values, 96, 255 .*Threshold it at 128"),
        (png(255 * SQUARE, "RGB"), ["polyp"], "several channels or 16 bits .mode RGB"),
        (png(255 * SQUARE, "RGBA"), ["polyp"], "several channels or 16 bits .mode RGBA"),
        (png(3 * SQUARE, "P"), ["polyp", "tool"], "index 3, which no label has.*1 polyp, 2 tool"),
        (png(255 * SQUARE), ["polyp", "tool"], "index 255, which no label has"),
        (b"\xff\xd8\xff jpeg", ["polyp"], "is no PNG that can be read"),
        (png(255 * SQUARE)[:40], ["polyp"], "is no PNG that can be read"),
    ],
)
def test_what_is_no_mask_is_refused_in_one_line(data, labels, message):
    with pytest.raises(DataError, match=message) as caught:
        read_mask(data, "raw/masks/m.png", labels)
    assert str(caught.value).startswith("raw/masks/m.png: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("picture", "mask"),
    [
        ("images/001.jpg", "masks/001.png"),
        ("a.jpg", "masks/a.png"),
        ("polyp/frame_1.jpg", "masks/polyp/frame_1.png"),
        ("polyp/frame_1.jpg", "polyp/masks/frame_1.png"),
        ("train/Images/a.JPG", "train/Masks/a.png"),
    ],
)
def test_a_mask_has_the_name_of_its_picture(picture, mask):
    assert key_of(PurePosixPath(picture)) == key_of(PurePosixPath(mask))
    assert is_mask(PurePosixPath(mask))
    assert not is_mask(PurePosixPath(picture))


def test_a_file_called_masks_is_a_picture():
    assert not is_mask(PurePosixPath("images/masks"))


@pytest.mark.parametrize("truth", ["", "[1, 2]", '{"path": "a"}', '{"shares": 3}'])
def test_damaged_truth_is_told(truth):
    with pytest.raises(DataError, match="is no mask of a picture"):
        MaskFile.of(truth)


def test_a_mask_that_changed_is_told(tmp_path):
    (tmp_path / "m.png").write_bytes(png(SQUARE))
    with pytest.raises(DataError, match="the mask changed since `prepare`"):
        Drawn(MaskFile("m.png", "0" * 64, (0.1,)), tmp_path, ("polyp",)).read()


# -- views ----------------------------------------------------------------------------------------
def pictures(folder: Path, mask: np.ndarray, augment: dict) -> tuple[Pictures, Entry]:
    """One picture that is white where a mask shows something and black elsewhere."""
    Image.fromarray((255 * mask).astype(np.uint8)).convert("RGB").save(folder / "a.png")
    entry = Entry("a.png", "shown", "a", "", "train", "", mask.shape[1], mask.shape[0])
    still = {
        **{"min_area": 0.3, "max_aspect": 1.3, "horizontal_flip": True, "vertical_flip": True},
        **{"rotate_deg": 0, "brightness": 0, "contrast": 0, "saturation": 0, "hue": 0},
        **{"blur": 0, "noise": 0, "jpeg": 0},
    }
    params = AugmentParams.model_validate(still | augment)
    return Pictures(folder, [entry], Preprocess(SIDE_PX, SIDE_PX), params, 3), entry


@pytest.mark.parametrize("rotate_deg", [0, 20, 90, 180])
def test_a_view_moves_the_mask_with_the_picture(tmp_path, rotate_deg):
    y, x = np.mgrid[:90, :120]
    # At the edge, so that a turned view mirrors a part of it.
    mask = ((x - 96) ** 2 + (y - 60) ** 2 < 32**2) | ((x < 20) & (y > 70))
    numbers = list(range(1, 25))
    shown, entry = pictures(tmp_path, mask, {"rotate_deg": rotate_deg})
    views = shown.views(entry, numbers)
    places = shown.geometry(entry, [0, *numbers])
    for view, place in zip(views, places, strict=True):
        seen = in_view(mask.astype(np.uint8), place, SIDE_PX) > 0
        white = view[..., 0] > 127
        assert (seen != white).mean() < 0.03


def test_cells_hold_the_share_of_each_label():
    seen = np.zeros((8, 8), dtype=np.uint8)
    seen[:4, :2] = 1
    seen[4:, 4:] = 2
    assert covered(seen, 2).tolist() == [[[0.5, 0], [0, 0]], [[0, 0], [0, 1]]]
