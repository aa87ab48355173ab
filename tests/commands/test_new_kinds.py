"""`fieldlens new` for boxes, masks and identities: what is found, what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipelines import cli
from pipelines.card import load_card
from pipelines.config.params import load_params
from pipelines.kinds.train import KINDS as TRAINED
from tests.file_tree import file_tree
from tests.processes import ROOT, ran

SIDE = 64
N = 24
#: Category ids with holes, and names that are no slugs.
CATEGORIES = {3: "E-scooter rider", 70: "walker"}


def new(root: Path, folder: Path, *arguments: str) -> int:
    to = ["--domain", "safety", "--from", str(folder), "--root", str(root)]
    return cli.main(["new", "own", *to, *arguments])


def square(number: int) -> tuple[int, int, int, int]:
    """Where picture ``number`` has its bright square; none in every eighth."""
    x, y = 4 + 5 * (number % 5), 6 + 4 * (number % 7)
    return (x, y, x + 20, y + 24)


def picture(path: Path, number: int, colour: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 90, (SIDE, SIDE, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    if number % 8 or colour is not None:
        colours = ((230, 40, 40), (40, 60, 230))
        fill = colours[number % 2] if colour is None else (40 * colour, 250 - 40 * colour, 120)
        ImageDraw.Draw(image).rectangle(square(number), fill=fill)
    image.save(path)


def boxes(folder: Path, n: int = N) -> Path:
    """COCO: every other picture shows the one category, every eighth none."""
    images, annotations = [], []
    for number in range(n):
        picture(folder / f"images/{number:02}.png", number)
        images.append({"id": number, "file_name": f"images/{number:02}.png"})
        x0, y0, x1, y1 = square(number)
        if number % 8:
            category = list(CATEGORIES)[number % 2]
            box = [x0, y0, x1 - x0, y1 - y0]
            annotations.append({"image_id": number, "category_id": category, "bbox": box})
    write_coco(folder / "coco.json", images, annotations)
    return folder


def write_coco(path: Path, images: list, annotations: list, categories: dict = CATEGORIES) -> None:
    named = [{"id": number, "name": name} for number, name in categories.items()]
    document = {"images": images, "annotations": annotations, "categories": named}
    path.write_text(json.dumps(document), encoding="utf-8")


def yolo(folder: Path) -> Path:
    (folder / "labels").mkdir(parents=True)
    (folder / "classes.txt").write_text("rider\nwalker\n")
    for number in range(6):
        picture(folder / f"images/{number}.png", number + 1)
        if number:
            (folder / f"labels/{number}.txt").write_text(f"{number % 2} 0.5 0.5 0.4 0.4\n")
    return folder


def voc(folder: Path) -> Path:
    for number in range(6):
        picture(folder / f"{number}.png", number + 1)
        box = "<xmin>5</xmin><ymin>5</ymin><xmax>30</xmax><ymax>30</ymax>"
        found = f"<object><name>rider</name><bndbox>{box}</bndbox></object>" if number else ""
        text = f"<annotation><filename>{number}.png</filename>{found}</annotation>"
        (folder / f"{number}.xml").write_text(text)
    return folder


def masks(folder: Path, n: int = N, values: tuple[int, ...] = (255,)) -> Path:
    (folder / "masks").mkdir(parents=True)
    for number in range(n):
        picture(folder / f"images/{number:02}.png", number)
        mask = Image.new("L", (SIDE, SIDE))
        if number % 8:
            ImageDraw.Draw(mask).rectangle(square(number), fill=values[number % len(values)])
        mask.save(folder / f"masks/{number:02}.png")
    return folder


def outlines(folder: Path) -> Path:
    """The squares of `boxes` as polygons."""
    document = json.loads((boxes(folder) / "coco.json").read_text())
    for each in document["annotations"]:
        x, y, width, height = each["bbox"]
        right, low = x + width, y + height
        each["segmentation"] = [[x, y, right, y, right, low, x, low]]
    (folder / "coco.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def identities(folder: Path, n: int = 10) -> Path:
    """Three pictures each, and one of a stranger."""
    for name in range(n):
        for shot in range(3):
            picture(folder / f"id{name}/{shot}.png", 10 * name + shot + 1, colour=name % 6)
    picture(folder / "stranger/0.png", 999, colour=5)
    return folder


MADE = {"detection": boxes, "segmentation": masks, "embedding": identities}


@pytest.mark.parametrize(
    ("make", "arguments", "kind", "labels", "says"),
    [
        (boxes, (), "detection", ("e_scooter_rider", "walker"), "told by coco.json; labels"),
        (boxes, (), "detection", None, "21 boxes: e_scooter_rider 9, walker 12."),
        (boxes, (), "detection", None, "3 of 24 images show nothing that is marked, and are kept."),
        (yolo, (), "detection", ("rider", "walker"), "told by 5 YOLO text file(s)"),
        (voc, (), "detection", ("rider",), "told by 6 XML file(s) of annotations"),
        (masks, (), "segmentation", ("own",), "a folder 'masks' with 24 file(s) called like"),
        (masks, (), "segmentation", None, "3 of 24 masks show nothing, and are kept."),
        (
            lambda folder: masks(folder, values=(1, 2)),
            *((), "segmentation", ("label_1", "label_2"), "24 masks: label 1 in 9, label 2 in 12."),
        ),
        (
            *(outlines, ("--kind", "segmentation"), "segmentation"),
            *(("e_scooter_rider", "walker"), "24 masks: label 1 in 9, label 2 in 12."),
        ),
        (outlines, (), "detection", None, "21 boxes: e_scooter_rider 9, walker 12."),
        (identities, ("--kind", "embedding"), "embedding", (), "11 identities in 31 pictures."),
        (
            *(identities, ("--kind", "embedding"), "embedding", None),
            "1 of 11 identities have one picture: they stay in the gallery",
        ),
    ],
)
def test_new_finds_the_kind_counts_and_writes(
    make, arguments, kind, labels, says, toy_project, tmp_path, capsys
):
    folder = make(tmp_path / "own")
    assert new(toy_project, folder, *arguments) == 0
    out = capsys.readouterr().out
    assert says in out
    assert "TO BE SET" in out
    card = load_card(toy_project / "datasets/own/card.yaml")
    assert card.kind == kind
    assert labels is None or card.labels == labels


@pytest.mark.parametrize("kind", MADE)
def test_params_are_sensible_shared_and_taken_by_the_kind(kind, toy_project, tmp_path):
    assert new(toy_project, MADE[kind](tmp_path / "own"), "--kind", kind) == 0
    text = (toy_project / "params.yaml").read_text()
    assert "      <<: *train\n" in text.split("\n  own:\n")[1]
    assert "# To be set: floors to start from" in text
    section = load_params(toy_project / "params.yaml").task("own")
    train = section.train
    assert (train.balance, train.label_smoothing, train.head.dropout > 0) == (
        *("none", 0.0),
        kind == "segmentation",
    )
    assert train.monitor in TRAINED[kind].values
    assert train.monitor != "val_loss"
    assert train.view.whole == (kind == "detection")
    assert train.image_px == (320 if kind == "detection" else 224)
    assert section.gate.min_accuracy is None
    assert section.gate.demands[0].metric.startswith("served.")
    assert section.evaluate.max_changed == {}
    test = toy_project / "tests/safety/test_own.py"
    for check in (["check", "--ignore", "D"], ["format", "--check"]):
        ran(sys.executable, "-m", "ruff", *check, "--config", ROOT / "pyproject.toml", test)
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    assert "1 passed" in ran(*command, cwd=toy_project).stdout


def gone(folder: Path) -> None:
    (boxes(folder) / "images/05.png").unlink()


def grey(folder: Path) -> None:
    ramp = np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 256
    masks(folder)
    Image.fromarray(ramp.astype(np.uint8)).save(folder / "masks/03.png")


def coloured(folder: Path) -> None:
    masks(folder)
    Image.new("RGB", (SIDE, SIDE)).save(folder / "masks/03.png")


def mixed(folder: Path) -> None:
    boxes(folder)
    images = [{"id": 0, "file_name": "images/00.png"}]
    marked = [[0.2, 0.2, 0.3, 0.3], [10, 10, 20, 20]]
    rows = [{"image_id": 0, "category_id": 3, "bbox": box} for box in marked]
    write_coco(folder / "coco.json", images, rows)


def two_sets(folder: Path) -> None:
    boxes(folder)
    write_coco(folder / "other.json", [], [], {1: "dog"})


def unmarked(folder: Path) -> None:
    document = json.loads((boxes(folder) / "coco.json").read_text())
    (folder / "coco.json").write_text(json.dumps(document | {"annotations": []}))


def other_table(folder: Path) -> None:
    (boxes(folder) / "records.csv").write_text("path,group\nelsewhere/7.png,a\n")


def other_code_page(folder: Path) -> None:
    (yolo(folder) / "classes.txt").write_bytes("fl\xe4che\nwalker\n".encode("latin-1"))


def both(folder: Path) -> None:
    boxes(folder)
    masks(folder / "more")


@pytest.mark.parametrize(
    ("make", "arguments", "says"),
    [
        (gone, (), "1 of 24 annotated images are not there ('images/05.png')"),
        (mixed, (), "1 of 2 boxes of 'images/00.png' are in shares of the sides"),
        (two_sets, (), "have different categories"),
        (lambda folder: (boxes(folder) / "coco.json").write_text('{"annotations"'), (), "as JSON"),
        (lambda folder: boxes(folder, 2), (), "expected at least 3 images"),
        (unmarked, (), "the annotations of 24 images hold no box"),
        (unmarked, ("--kind", "segmentation"), "the annotations of 24 images hold no outline"),
        (other_table, (), "the table speaks of none of the annotated images"),
        (other_code_page, (), "classes.txt: cannot be read as text in UTF-8"),
        (lambda folder: folder.mkdir(), ("--kind", "segmentation"), "no image was found"),
        (grey, (), "grey edges: 256 values"),
        (coloured, (), "several channels or 16 bits (mode RGB)"),
        (
            lambda folder: (masks(folder) / "masks/03.png").unlink(),
            (),
            "1 of 24 pictures have no m",
        ),
        (both, (), "Say which is meant: --kind detection or --kind segmentation."),
        (lambda f: identities(f, 5), ("--kind", "embedding"), "expected at least 6"),
        (masks, ("--kind", "detection"), "no annotations of boxes were found"),
        (
            boxes,
            ("--kind", "segmentation"),
            "is no COCO file of outlines (KeyError('segmentation')",
        ),
    ],
)
def test_new_refuses_in_one_line_and_writes_nothing(
    make, arguments, says, toy_project, tmp_path, capsys
):
    make(tmp_path / "own")
    before = file_tree(toy_project)
    assert new(toy_project, tmp_path / "own", *arguments) == 2
    message = capsys.readouterr().err
    assert says in message
    assert message.strip().count("\n") == 0
    assert file_tree(toy_project) == before
