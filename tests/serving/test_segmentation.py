from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data.preprocess import Preprocess
from pipelines.serving.bundle import Bundle
from pipelines.serving.segmentation import (
    MASK_NAME,
    ServedSegmentation,
    coloured,
    in_picture,
    indexed,
    region_of,
)

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
KIND = ServedSegmentation()
SIDE_PX = 64


def bundle_of(*labels: str, side_px: int = SIDE_PX, **changes: object) -> Bundle:
    document = json.loads((GOLDEN / "bundle_schema_3.json").read_text(encoding="utf-8"))
    embedding = next(each for each in document["outputs"] if each["name"] == "embedding")
    shape = [-1, len(labels), side_px, side_px]
    mask = {"name": MASK_NAME, "shape": shape, "dtype": "float32", "meaning": "where"}
    document |= {"kind": "segmentation", "labels": labels, "outputs": [mask, embedding]}
    document |= {"label_meanings": {}, "label_names": {}, "operating_points": {}, "audit": None}
    document["preprocess"] = {"resize_px": side_px, "crop_px": side_px}
    return Bundle.model_validate(document | changes)


def point(threshold: float) -> dict[str, float]:
    shares = {"min_specificity": 0.0, "sensitivity": 0.9, "specificity": 0.9}
    return {"threshold": threshold, **shares, "n_positive": 3, "n_negative": 1}


def soft(mask: np.ndarray) -> np.ndarray:
    """(1, h, w) probabilities of a mask."""
    return np.where(mask, 0.9, 0.1).astype(np.float32)[np.newaxis]


def seen(mask: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """A mask of a picture as its plain view shows it."""
    picture = Image.fromarray((255 * mask).astype(np.uint8)).convert("RGB")
    return preprocess(picture)[..., 0] > 127


CASES = json.loads((GOLDEN / "segmentation.json").read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize("case", CASES)
def test_golden_answers(case):
    """Worked out from the definitions in double precision, for every implementation."""
    points = {label: point(threshold) for label, threshold in case["thresholds"].items()}
    bundle = bundle_of(*case["labels"], side_px=case["side_px"], operating_points=points)
    outputs = {MASK_NAME: np.float32(case["mask"])}
    answer = KIND.decode(outputs, bundle, np.array(case["geometry"], dtype=np.float64))
    assert indexed(outputs[MASK_NAME], answer.thresholds).tolist() == case["indexed"]
    for label, expected in case["regions"].items():
        region = answer.regions[label]
        assert region.area_share == pytest.approx(expected["area_share"])
        assert region.area_px == pytest.approx(expected["area_px"])
        if expected["box_px"] is None:
            assert region.box_px is None
        else:
            assert region.box_px == pytest.approx(expected["box_px"])


@pytest.mark.parametrize(
    "size", [(64, 64), (120, 90), (90, 120), (640, 64), (64, 500), (300, 299), (4000, 3000)]
)
def test_what_is_seen_is_told_in_px_of_the_picture(size):
    width, height = size
    y, x = np.mgrid[:height, :width]
    half = min(size) / 2
    # In the middle, which is what a square view sees of any picture.
    true = (x - width / 2 - half / 6) ** 2 + (y - height / 2) ** 2 < (half / 2) ** 2
    preprocess = Preprocess(SIDE_PX, SIDE_PX)
    geometry = preprocess.geometry(size)
    answer = KIND.decode({MASK_NAME: soft(seen(true, preprocess))}, bundle_of("spot"), geometry)
    drawn = answer.drawn(size)
    assert drawn.shape == true.shape
    both = ((drawn == 1) & true).sum()
    assert 2 * both / (drawn.sum() + true.sum()) > 0.96
    region, near = answer.regions["spot"], 1.5 * min(size) / SIDE_PX
    columns, rows = np.flatnonzero(true.any(axis=0)), np.flatnonzero(true.any(axis=1))
    expected = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    assert region.box_px == pytest.approx(expected, abs=near)
    assert region.area_px == pytest.approx(true.sum(), rel=0.06)
    assert region.area_share == pytest.approx(true.sum() / min(size) ** 2, rel=0.06)


def test_what_the_view_leaves_out_is_not_seen():
    geometry = Preprocess(SIDE_PX, SIDE_PX).geometry((300, 100))
    maps = in_picture(np.ones((1, SIDE_PX, SIDE_PX), np.float32), geometry, (300, 100))[0]
    assert (maps[:, 101:199] == 1).all()
    assert not maps[:, :99].any()
    assert not maps[:, 201:].any()


def test_a_smaller_copy_of_the_picture_is_drawn_alike():
    size, small = (120, 90), (60, 45)
    y, x = np.mgrid[:90, :120]
    true = (x - 60) ** 2 + (y - 45) ** 2 < 20**2
    preprocess = Preprocess(SIDE_PX, SIDE_PX)
    outputs = {MASK_NAME: soft(seen(true, preprocess))}
    answer = KIND.decode(outputs, bundle_of("spot"), preprocess.geometry(size))
    assert ((answer.scaled(size, small) == 1) != true[::2, ::2]).mean() < 0.02


def test_the_label_farthest_above_its_threshold_is_shown():
    maps = np.array([[[0.55, 0.2, 0.9, 0.6]], [[0.4, 0.35, 0.9, 0.1]]], dtype=np.float32)
    assert indexed(maps, (0.5, 0.3)).tolist() == [[2, 2, 2, 1]]
    assert indexed(maps, (0.7, 0.7)).tolist() == [[0, 0, 1, 0]]


def test_thresholds_are_those_of_the_bundle():
    maps = np.full((1, SIDE_PX, SIDE_PX), 0.4, dtype=np.float32)
    for threshold, share in ((0.3, 1.0), (0.5, 0.0)):
        bundle = bundle_of("spot", operating_points={"spot": point(threshold)})
        answer = KIND.decode({MASK_NAME: maps}, bundle, np.eye(3))
        assert answer.regions["spot"].area_share == share
    assert KIND.decode({MASK_NAME: maps}, bundle_of("spot"), np.eye(3)).thresholds == (0.5,)


def test_nothing_has_no_box():
    region = region_of(np.zeros((8, 8), dtype=bool), np.eye(3))
    assert (region.area_share, region.area_px, region.box_px) == (0.0, 0.0, None)


def test_words_cells_and_document_say_the_same():
    maps = np.zeros((2, SIDE_PX, SIDE_PX), dtype=np.float32)
    maps[0, 16:32, 8:40] = 1
    bundle = bundle_of("spot", "hole")
    answer = KIND.decode({MASK_NAME: maps}, bundle, np.eye(3))
    text = "\n".join(KIND.lines(answer, bundle))
    assert "12.5%" in text
    assert "8, 16, 40, 32" in text
    assert "not seen" in text
    assert dict(zip(KIND.columns(bundle), KIND.cells(answer, bundle), strict=True)) == {
        "area_share_spot": "0.125000",
        "box_px_spot": "8.0 16.0 40.0 32.0",
        "area_share_hole": "0.000000",
        "box_px_hole": "",
    }
    document = json.loads(json.dumps(KIND.document(answer, bundle)))["regions"]
    assert document["spot"]["box_px"] == [8, 16, 40, 32]
    assert document["hole"]["box_px"] is None


def test_drawing_is_an_indexed_png_that_can_be_read_again(tmp_path):
    maps = np.zeros((2, SIDE_PX, SIDE_PX), dtype=np.float32)
    maps[1, 16:32, 8:40] = 1
    answer = KIND.decode({MASK_NAME: maps}, bundle_of("spot", "hole"), np.eye(3))
    KIND.drawing(answer, (SIDE_PX, SIDE_PX)).save(tmp_path / "m.png")
    image = Image.open(tmp_path / "m.png")
    assert image.mode == "P"
    assert np.unique(np.asarray(image)).tolist() == [0, 2]
    assert len(set(image.convert("RGB").get_flattened_data())) == 2
    assert coloured(np.full((1, 1), 254, dtype=np.uint8)).convert("RGB").getpixel((0, 0))


@pytest.mark.parametrize(
    ("labels", "changes", "message"),
    [
        ((), {}, "labels: a segmentation has 1 to 254"),
        (("spot",), {"operating_points": {"hole": point(0.5)}}, "names no label: hole"),
        (
            ("spot",),
            {"preprocess": {"resize_px": 72, "crop_px": 72}},
            r"outputs.mask.shape: expected \[-1, 1, 72, 72\]",
        ),
    ],
)
def test_a_bundle_is_held_to_the_rules_of_the_kind(labels, changes, message):
    with pytest.raises(ValueError, match=message):
        bundle_of(*labels, **changes)
