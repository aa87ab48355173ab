"""Boxes of three formats are the same truth; what cannot be true is one line that says where."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.card import DatasetCard, load_card
from pipelines.data.images import open_image
from pipelines.errors import DataError
from pipelines.kinds.detection.boxes import MAX_BOXES, of_text
from pipelines.kinds.detection.prepare import NOTHING, PreparedDetection
from tests.toy_card import CARD

WIDTH, HEIGHT = 60, 40
#: Category ids with holes.
CATEGORIES = [{"id": 3, "name": "Rot"}, {"id": 7, "name": "green"}, {"id": 90, "name": "blue"}]
TRUE = {
    "images/a.png": [("red", 10, 5, 30, 25), ("green", 40, 10, 60, 40)],
    "images/b.png": [("blue", 0, 0, 20, 20)],
    "images/empty.png": [],
}
NUMBERS = {"red": 3, "green": 7, "blue": 90}


def picture(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 30)).save(path, **options)


@pytest.fixture
def folder(tmp_path) -> Path:
    for path in TRUE:
        picture(tmp_path / path)
    return tmp_path


@pytest.fixture
def card(tmp_path_factory) -> DatasetCard:
    path = tmp_path_factory.mktemp("card") / "things/card.yaml"
    path.parent.mkdir()
    path.write_text(CARD.format(title="Things", task="things") + "kind: detection\n")
    return load_card(path)


def coco(folder: Path, name: str = "coco.json", **changes: object) -> None:
    images = [
        {"id": 10 * i, "file_name": path, "width": WIDTH, "height": HEIGHT}
        for i, path in enumerate(TRUE)
    ]
    annotations = [
        {"image_id": 10 * i, "category_id": NUMBERS[label], "bbox": [x0, y0, x1 - x0, y1 - y0]}
        for i, boxes in enumerate(TRUE.values())
        for label, x0, y0, x1, y1 in boxes
    ]
    document = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (folder / name).write_text(json.dumps(document | changes), encoding="utf-8")


def voc(folder: Path) -> None:
    for path, boxes in TRUE.items():
        objects = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin>"
            f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
            for label, x0, y0, x1, y1 in boxes
        )
        text = (
            f"<annotation><filename>{Path(path).name}</filename><size><width>{WIDTH}</width>"
            f"<height>{HEIGHT}</height></size>{objects}</annotation>"
        )
        (folder / f"{Path(path).stem}.xml").write_text(text, encoding="utf-8")


def yolo(folder: Path) -> None:
    (folder / "labels").mkdir()
    (folder / "data.yaml").write_text("names: {0: red, 1: green, 2: blue}\n", encoding="utf-8")
    for path, boxes in TRUE.items():
        rows = [
            f"{list(NUMBERS).index(label)} {(x0 + x1) / 2 / WIDTH} {(y0 + y1) / 2 / HEIGHT} "
            f"{(x1 - x0) / WIDTH} {(y1 - y0) / HEIGHT}"
            for label, x0, y0, x1, y1 in boxes
        ]
        if rows:
            text = folder / "labels" / f"{Path(path).stem}.txt"
            text.write_text("\n".join(rows), encoding="utf-8")


def read(folder: Path, card: DatasetCard) -> dict[str, list[tuple]]:
    records = PreparedDetection().records(folder, card)
    return {record.path: [tuple(box) for box in of_text(record.truth)] for record in records}


@pytest.mark.parametrize("write", [coco, voc, yolo])
def test_three_formats_say_the_same(write, folder, card):
    write(folder)
    found = read(folder, card)
    assert set(found) == set(TRUE)
    for path, boxes in TRUE.items():
        for (label, *corners), (name, *expected) in zip(found[path], boxes, strict=True):
            assert label == name
            assert corners == pytest.approx(expected, abs=0.02)


def test_images_are_filed_under_their_rarest_class_and_balanced_by_all(folder, card):
    picture(folder / "images/c.png")
    boxes = [{"image_id": 30, "category_id": 3, "bbox": [1, 1, 9, 9]}]
    coco(folder)
    document = json.loads((folder / "coco.json").read_text())
    document["images"].append({"id": 30, "file_name": "images/c.png"})
    document["annotations"] += boxes
    (folder / "coco.json").write_text(json.dumps(document))
    (folder / "records.csv").write_text("path,group\nimages/a.png,site\nimages/c.png,site\n")
    kind = PreparedDetection()
    records = {Path(record.path).stem: record for record in kind.records(folder, card)}
    assert {name: record.label for name, record in records.items()} == {
        **{"a": "green", "b": "blue", "c": "red", "empty": NOTHING}
    }
    assert list(kind.strata(records["a"])) == ["green", "red"]
    assert list(kind.strata(records["empty"])) == [NOTHING]
    assert records["a"].group == records["c"].group == "site"
    assert records["b"].group == "images/b.png"


def test_a_box_that_stands_twice_counts_once(folder, card, caplog):
    twice = [{"image_id": 10, "category_id": 90, "bbox": [0, 0, 20, 20]}] * 3
    others = [{"image_id": 0, "category_id": n, "bbox": [5, 5, 9, 9]} for n in (3, 7)]
    coco(folder, annotations=twice + others)
    with caplog.at_level("INFO"):
        assert len(read(folder, card)["images/b.png"]) == 1
    assert "2 box(es) stood twice" in caplog.text
    assert "1 image(s) show nothing" in caplog.text


def test_a_box_over_the_edge_is_cut_at_it(folder, card):
    boxes = [{"image_id": 0, "category_id": n, "bbox": [-4, 30, 20, 12]} for n in NUMBERS.values()]
    coco(folder, annotations=boxes)
    assert read(folder, card)["images/a.png"][0] == ("red", 0, 30, 16, 40)


@pytest.mark.parametrize("orientation", [3, 6, 8, 5, 7])
@pytest.mark.parametrize("is_stored", [False, True])
def test_boxes_of_a_turned_photograph_are_upright(orientation, is_stored, tmp_path, card):
    """The box is where the white spot is, whichever of the two was marked."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[4:14, 40:55] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "images").mkdir()
    path = tmp_path / "images/a.jpg"
    Image.fromarray(pixels).save(path, exif=exif, quality=95)
    upright = open_image(path, name="a").rgb
    bright = np.argwhere(np.asarray(upright)[..., 0] > 128)
    (y0, x0), (y1, x1) = bright.min(axis=0), bright.max(axis=0) + 1
    size, box = (upright.width, upright.height), (x0, y0, x1 - x0, y1 - y0)
    if is_stored and orientation >= 5:
        size, box = (WIDTH, HEIGHT), (40, 4, 15, 10)
    boxes = [
        {"image_id": 1, "category_id": n, "bbox": list(map(float, box))} for n in NUMBERS.values()
    ]
    image = {"id": 1, "file_name": "images/a.jpg", "width": size[0], "height": size[1]}
    coco(tmp_path, images=[image], annotations=boxes)
    assert read(tmp_path, card)["images/a.jpg"][0] == ("red", x0, y0, x1, y1)


def box(*corners: float, image: int = 0, category: int = 3) -> dict:
    return {"image_id": image, "category_id": category, "bbox": list(corners)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": [box(1, 1, 5, 5, image=77)]}, r"1 annotation\(s\) are of images .*77"),
        ({"annotations": [box(1, 1, 5, 5, category=4)]}, "category_id 4, which is none"),
        ({"annotations": [box(70, 1, 5, 5)]}, "lies outside of it or has no area.*70, 1, 75, 6"),
        ({"annotations": [box(50, 1, 40, 5)]}, "lies outside"),
        ({"annotations": [box(5, 5, 0, 9)]}, "has no area"),
        ({"annotations": [box(5, 5, -3, 9)]}, "has no area"),
        ({"annotations": [box(5, 5, float("nan"), 9)]}, "has no area"),
        ({"annotations": [box(1, 1, 5, 5), box(0.1, 0.1, 0.3, 0.2)]}, "1 of 2 boxes .*shares"),
        ({"annotations": [box(0.1, 0.1, 0.3, 0.2)]}, "all boxes .* in shares"),
        ({"categories": [*CATEGORIES, {"id": 3, "name": "x"}]}, "category 3 stands more than once"),
        ({"categories": [{"id": 3, "name": "purple"}, *CATEGORIES[1:]]}, "category 'purple'"),
        ({"annotations": [box(1, 1, 5, 5)]}, "no box of green, blue"),
        ({"annotations": [{"image_id": 0}]}, "is no COCO file of boxes"),
        ({"annotations": [box(1, 1, 5, 5)] * (MAX_BOXES + 1)}, f"has {MAX_BOXES + 1} boxes"),
        (
            {"images": [{"id": 0, "file_name": "images/a.png", "width": 61, "height": 40}]},
            "61 x 40",
        ),
    ],
)
def test_what_cannot_be_is_refused(changes, message, folder, card):
    if "images" in changes:
        changes = {"annotations": [box(1, 1, 5, 5)], **changes}
    coco(folder, **changes)
    with pytest.raises(DataError, match=message) as caught:
        read(folder, card)
    assert "\n" not in str(caught.value)


def test_two_files_of_other_categories_are_refused(folder, card):
    coco(folder)
    coco(folder, "more.json", categories=CATEGORIES[:2], annotations=[], images=[])
    with pytest.raises(DataError, match=r"different categories \(blue stand"):
        read(folder, card)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0 12 14 5 9", "boxes of 'images/a.png' are in px. Expected shares"),
        ("5 0.5 0.5 0.1 0.1", "class 5 has no name"),
        ("0 0.5 0.5 0.1", "expected five numbers"),
    ],
)
def test_yolo_rows_that_cannot_be_are_refused(row, message, folder, card):
    yolo(folder)
    text = folder / "labels/a.txt"
    text.write_text(f"{text.read_text()}\n{row}\n")
    with pytest.raises(DataError, match=message):
        read(folder, card)


def test_yolo_of_a_missing_image_and_without_names_are_refused(folder, card):
    yolo(folder)
    (folder / "labels/gone.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(DataError, match=r"images that are not there \('labels/gone.txt'\)"):
        read(folder, card)
    (folder / "labels/gone.txt").unlink()
    (folder / "data.yaml").unlink()
    with pytest.raises(DataError, match=r"nothing says what their numbers mean"):
        read(folder, card)


def test_voc_with_entities_and_a_folder_without_annotations_are_refused(folder, card):
    with pytest.raises(DataError, match="no annotations of boxes were found"):
        read(folder, card)
    (folder / "a.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>')
    with pytest.raises(DataError, match="declares entities"):
        read(folder, card)
