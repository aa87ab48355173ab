"""COCO's outlines are the same truth as mask files; what cannot be is one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import cli
from pipelines.data.manifest import read_manifest
from pipelines.data.tree import files_of
from pipelines.kinds.segmentation.masks import MaskFile, drawn_masks
from pipelines.kinds.segmentation.outlines import drawn_mask, filled, read_outlines
from pipelines.kinds.segmentation.prepare import PreparedSegmentation
from pipelines.paths import Paths
from tests.kinds.segmentation.spots import LABELS, card_of, paint, project

KIND = PreparedSegmentation()
N = 12
WIDTH, HEIGHT = 60, 44
SQUARE = [10, 5, 30, 5, 30, 25, 10, 25]


def runs_of(mask: np.ndarray) -> list[int]:
    """Run lengths down the columns, the first of what is outside."""
    flat = np.concatenate([[0], mask.T.ravel(), [0]])
    ends = np.flatnonzero(np.diff(flat != 0))
    return np.diff([0, *ends, mask.size]).tolist()


def outlined(raw: Path, **changes: object) -> None:
    """Masks of a folder as a COCO file of run lengths; the mask files go."""
    images, annotations = [], []
    for number, path in enumerate(sorted(raw.glob("images/*.png"))):
        images.append({"id": number, "file_name": f"images/{path.name}"})
        mask = np.asarray(Image.open(raw / "masks" / path.name)) > 0
        if mask.any():
            runs = {"size": list(mask.shape), "counts": runs_of(mask)}
            annotations.append({"image_id": number, "category_id": 10, "segmentation": runs})
    categories = [{"id": 10, "name": LABELS[0]}, {"id": 20, "name": "other"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (raw / "coco.json").write_text(json.dumps(document | changes), encoding="utf-8")
    shutil.rmtree(raw / "masks")


@pytest.fixture
def raw(tmp_path) -> Path:
    paint(tmp_path / "raw", N)
    return tmp_path / "raw"


def masks(records: list, raw: Path) -> list[np.ndarray]:
    return [each.read() for each in drawn_masks(records, LABELS, raw)]


def test_outlines_say_the_same_as_mask_files(raw):
    before = KIND.records(raw, card_of())
    seen = masks(before, raw)
    outlined(raw)
    after = KIND.records(raw, card_of())
    assert all(map(np.array_equal, seen, masks(after, raw)))
    for one, other in zip(before, after, strict=True):
        assert (one.path, one.label, one.group) == (other.path, other.label, other.group)
        shown = MaskFile.of(other.truth)
        assert (shown.shares, shown.size) == (
            MaskFile.of(one.truth).shares,
            MaskFile.of(one.truth).size,
        )
        assert shown.path == "coco.json"


def annotated(raw: Path, segmentation: object, **changes: object) -> None:
    """One annotation, of the first picture."""
    marked = {"image_id": 0, "category_id": 10, "segmentation": segmentation} | changes
    outlined(raw, annotations=[marked])


@pytest.mark.parametrize("middle", [(20.2, 14.7), (3.0, 40.0)])
def test_a_pixel_is_a_polygons_if_its_middle_is(middle):
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    corners = np.array(middle) + 12 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    far = np.hypot(x - middle[0], y - middle[1])
    found = filled(corners, (WIDTH, HEIGHT))
    assert found[far < 11.9].all()
    assert not found[far > 12].any()
    assert filled(np.reshape(SQUARE, (-1, 2)).astype(float), (WIDTH, HEIGHT)).sum() == 400


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_polygons_are_nearly_those_of_pycocotools():
    """Not among the project's dependencies: run where it is installed."""
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(3)
    for _ in range(20):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
        reach = rng.uniform(8, 20, 12)
        corners = [30, 22] + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        theirs = coco.decode(coco.frPyObjects([corners.ravel().tolist()], HEIGHT, WIDTH))[..., 0]
        ours = filled(corners, (WIDTH, HEIGHT))
        assert (ours & (theirs > 0)).sum() > 0.97 * (ours | (theirs > 0)).sum()


def test_the_later_of_two_is_seen_and_parts_are_joined(raw):
    other = [40, 10, 50, 10, 50, 20, 40, 20]
    marked = [
        {"image_id": 0, "category_id": 10, "segmentation": [SQUARE, other]},
        {"image_id": 0, "category_id": 20, "segmentation": [[20, 5, 30, 5, 30, 25, 20, 25]]},
    ]
    outlined(raw, annotations=marked)
    first = read_outlines(raw, files_of(raw))[0]
    labels = ("spot", "other")
    mask = drawn_mask(raw, first, dict(zip(labels, labels, strict=True)).get, labels)
    assert mask.shape == (HEIGHT, WIDTH)
    assert (mask[5:25, 10:20] == 1).all()
    assert (mask[5:25, 20:30] == 2).all()
    assert (mask[10:20, 40:50] == 1).all()
    assert (mask > 0).sum() == 500


@pytest.mark.parametrize("is_stored", [True, False])
def test_outlines_of_a_turned_photograph_are_upright(is_stored, raw):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.open(raw / "images/00.png").convert("RGB")
    picture.save(raw / "images/00.png", exif=exif)
    size = [WIDTH, HEIGHT] if is_stored else [HEIGHT, WIDTH]
    image = {"id": 0, "file_name": "images/00.png", "width": size[0], "height": size[1]}
    marked = {"image_id": 0, "category_id": 10, "segmentation": [SQUARE]}
    outlined(raw, images=[image], annotations=[marked])
    mask = masks(KIND.records(raw, card_of()), raw)[0]
    assert mask.shape == (WIDTH, HEIGHT)
    rows, columns = np.nonzero(mask)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert box == ((HEIGHT - 25, 10, HEIGHT - 5, 30) if is_stored else (10, 5, 30, 25))


BAD = [
    ([[70, 5, 90, 5, 90, 25]], {}, "lies outside of the picture of 60 x 44 px, or has no area"),
    ([[0.2, 0.1, 0.6, 0.1, 0.6, 0.5]], {}, "or has no area: from x, y to x, y it is 0.2, 0.1, 0.6"),
    ([[5, 5, 25, 25, 15, 15]], {}, "or has no area"),
    ([[5, 5, 25, 25]], {}, "a polygon has 4 numbers. Expected x and y of three corners or more"),
    ([[5, 5, 25, 5, 25, 25, 9]], {}, "a polygon has 7 numbers"),
    ([SQUARE, [5, 5, float("nan"), 5, 25, 25]], {}, "finite. Mend or remove it."),
    ([], {}, "there is none, maybe a box alone"),
    ({"size": [44, 60], "counts": "abc`0"}, {}, "its run lengths are compressed"),
    ({"size": [44, 60], "counts": [7, 8]}, {}, "its run lengths are of 15 px"),
    ({"size": [44, 60], "counts": ["a"]}, {}, "its run lengths are no list of numbers"),
    ({"size": 5, "counts": None}, {}, "of the size 5. Expected those of the upright picture"),
    ({"size": [60, 44], "counts": [2640]}, {}, "[height, width] [44, 60]"),
    (None, {}, "is no COCO file of outlines (TypeError("),
    ([SQUARE], {"category_id": 11}, "category_id 11, which is none of the file's"),
    ([SQUARE], {"image_id": 77}, "1 annotation(s) are of images that the file does not list"),
]


@pytest.mark.parametrize(("segmentation", "changes", "message"), BAD)
def test_bad_outlines_are_one_line_and_leave_nothing(
    segmentation, changes, message, tmp_path, capsys
):
    paths = project(tmp_path / "project", N)
    annotated(paths.task("spots").raw_dir, segmentation, **changes)
    refused(paths, message, capsys)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"categories": [{"id": 10, "name": "odd"}]},
            "an outline of the category 'odd', which the card does not know",
        ),
        (
            {"images": [{"id": n, "file_name": f"images/{n}.png"} for n in range(N)]},
            "'images/0.png' is annotated and is not there",
        ),
        ({"annotations": []}, "no mask shows spot. Expected some of each class of the card"),
        (
            {"images": [{"id": n, "file_name": "images/00.png"} for n in range(N)]},
            "1 path(s) are listed more than once ('images/00.png')",
        ),
        (
            {"images": [{"id": 0, "file_name": "images/00.png", "width": 9, "height": 9}]},
            "is said to have 9 x 9 px and has 60 x 44",
        ),
    ],
)
def test_a_file_of_other_pictures_or_categories_is_one_line(changes, message, tmp_path, capsys):
    paths = project(tmp_path / "project", N)
    marked = {"image_id": 0, "category_id": 10, "segmentation": [SQUARE]}
    outlined(paths.task("spots").raw_dir, **({"annotations": [marked]} | changes))
    refused(paths, message, capsys)


def refused(paths: Paths, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["prepare", "spots", "--root", str(paths.root)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.strip().count("\n") == 0
    assert not paths.task("spots").prepared_dir.exists()


def test_what_is_prepared_from_outlines_can_be_read_without_the_file(tmp_path):
    paths = project(tmp_path / "project", 30)
    files = paths.task("spots")
    outlined(files.raw_dir)
    assert cli.main(["prepare", "spots", "--root", str(paths.root)]) == 0
    (files.raw_dir / "coco.json").unlink()
    seen = masks(read_manifest(files.manifest), files.raw_dir)
    assert any(mask.any() for mask in seen)
