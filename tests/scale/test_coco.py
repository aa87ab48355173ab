"""Answers as COCO are read by the project's own reader of truth, and by pycocotools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines import cli
from pipelines.data.tree import files_of
from pipelines.kinds.detection.formats import read_boxes
from pipelines.kinds.segmentation.outlines import drawn_mask, read_outlines
from pipelines.scale import scoring
from pipelines.scale.coco import runs_of
from pipelines.serving.bundle import Artefact, Bundle, read_bundle
from pipelines.serving.predictor import Predictor
from tests.serving import test_detection, test_segmentation

#: As shares of a square view: two that count, one that does not, and padding.
ROWS = [[0.25, 0.5, 0.5, 0.75, 0.9, 1], [0.5, 0.5, 0.75, 0.625, 0.8, 0], [0, 0, 1, 1, 0.2, 0]]
#: Width and height; the view frames the whole picture with grey.
SIZES = {"a.png": (64, 64), "below/b.jpg": (640, 480), "c.png": (30, 60)}
BAD = "bad.png"


def model_of(outputs: str, constant: str, nodes: str, side: int) -> bytes:
    text = f"""
        <ir_version: 10, opset_import: ["": 20]>
        answers (uint8[n, {side}, {side}, 3] pixels) => ({outputs}, float[n, 3] embedding)
        <int64[2] axes = {{1, 2}}, int64[1] one = {{1}}, int64[1] last = {{3}}, {constant}> {{
            wide = Cast<to = 1>(pixels)
            embedding = ReduceMean<keepdims = 0>(wide, axes)
            {nodes}
        }}"""
    return onnx.parser.parse_model(text).SerializeToString()


def written(bundle: Bundle, model: bytes, folder: Path) -> Path:
    """bundle.json of a model, complete."""
    folder.mkdir()
    files = tuple(Artefact.of(f"{key}.onnx", key, model) for key in ("fp32", "int8"))
    for file in files:
        (folder / file.name).write_bytes(model)
    outputs = [each.model_copy(update={"shape": (-1, 3)}) for each in bundle.outputs[1:]]
    changes = {"outputs": (bundle.outputs[0], *outputs), "artefacts": files}
    path = folder / "bundle.json"
    path.write_text(bundle.model_copy(update=changes).to_json(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def detection(tmp_path_factory) -> Path:
    """Finds the same boxes in every picture."""
    rows = ", ".join(str(float(cell)) for row in [*ROWS, [0] * 6] for cell in row)
    nodes = """
        grey = ReduceMean<keepdims = 1>(embedding, one)
        none = Sub(grey, grey)
        deep = Unsqueeze(none, one)
        boxes = Add(deep, fixed)"""
    fixed = f"float[1, 4, 6] fixed = {{{rows}}}"
    bundle = test_detection.bundle_of(["spot", "hole"], {"spot": 0.5, "hole": 0.5})
    model = model_of("float[n, 4, 6] boxes", fixed, nodes, test_detection.SIDE)
    return written(bundle, model, tmp_path_factory.mktemp("detection") / "m")


@pytest.fixture(scope="module")
def segmentation(tmp_path_factory) -> Path:
    """Takes what is bright for its one label."""
    side = 32
    nodes = """
        share = Div(wide, full)
        bright = ReduceMean<keepdims = 0>(share, last)
        mask = Unsqueeze(bright, one)"""
    bundle = test_segmentation.bundle_of("spot", side_px=side)
    model = model_of(f"float[n, 1, {side}, {side}] mask", "float full = {255.0}", nodes, side)
    return written(bundle, model, tmp_path_factory.mktemp("segmentation") / "m")


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Dark pictures with a bright middle, and one that is none."""
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    for name, (width, height) in SIZES.items():
        picture = Image.new("RGB", (width, height), (20, 20, 20))
        picture.paste((250,) * 3, (width // 4, height // 3, width // 2, height // 2))
        picture.save(folder / name)
    (folder / BAD).write_bytes(b"no picture")
    return folder


def score(pictures: Path, bundle: Path, *more: str, out: str = "answers.json") -> int:
    to = str(pictures / out)
    options = ["--out", to, "--workers", "1", "--part", "2", "--bundle", str(bundle)]
    return cli.main(["score", str(pictures), *options, *more])


def document_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="ascii"))
    return found


def test_boxes_are_read_again_as_truth(detection, pictures):
    assert score(pictures, detection) == 0
    document = document_of(pictures / "answers.json")
    assert [(each["id"], each["file_name"]) for each in document["images"]] == [
        *((1, "a.png"), (2, BAD), (3, "below/b.jpg"), (4, "c.png"))
    ]
    # Where the reason stands, and of no other picture.
    assert [bool(each.get("error")) for each in document["images"]] == [False, True, False, False]
    found = {each.path: each for each in read_boxes(pictures, files_of(pictures))}
    assert {path: found[path].size for path in (*SIZES, BAD)} == {**SIZES, BAD: None}
    assert found[BAD].boxes == []
    for path, expected in {
        "a.png": [("hole", (16, 32, 32, 48)), ("spot", (32, 32, 48, 40))],
        "below/b.jpg": [("hole", (160, 240, 320, 400)), ("spot", (320, 240, 480, 320))],
        "c.png": [("hole", (0, 30, 15, 45)), ("spot", (15, 30, 30, 37.5))],
    }.items():
        assert [name for name, _ in found[path].boxes] == [name for name, _ in expected]
        for (_, corners), (_, right) in zip(found[path].boxes, expected, strict=True):
            assert corners == pytest.approx(right, abs=0.02)
    # As many as a table of the same model counts.
    assert score(pictures, detection, out="answers.parquet") == 0
    rows = pq.read_table(pictures / "answers.parquet").to_pylist()
    assert [(row["n_hole"], row["n_spot"]) for row in rows] == [(1, 1), (None, None), *[(1, 1)] * 2]


def test_all_boxes_hold_those_that_do_not_count(detection, pictures):
    assert score(pictures, detection, "--all-boxes") == 0
    said = document_of(pictures / "answers.json")["annotations"]
    assert [each["id"] for each in said] == list(range(1, 10))
    first = [(each["score"], each["is_counted"]) for each in said if each["image_id"] == 1]
    assert first == [(0.9, True), (0.8, True), (0.2, False)]


def test_masks_are_read_again_as_truth(segmentation, pictures):
    assert score(pictures, segmentation) == 0
    listed = read_outlines(pictures, files_of(pictures))
    assert listed is not None
    predictor = Predictor.load(segmentation)
    for each in listed:
        if each.path == BAD:
            assert each.marks == []
            continue
        drawn = drawn_mask(pictures, each, lambda name: name, ["spot"])
        said = predictor.predict(pictures / each.path)
        assert drawn.any()
        assert np.array_equal(drawn, said.drawn(SIZES[each.path]))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pycocotools_reads_it_alone_and_takes_it_as_results(detection, segmentation, pictures):
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    for bundle, what in ((detection, "bbox"), (segmentation, "segm")):
        assert score(pictures, bundle, "--overwrite") == 0
        alone = coco.COCO(str(pictures / "answers.json"))
        results = alone.loadRes(document_of(pictures / "answers.json")["annotations"])
        measured = evaluation.COCOeval(alone, results, what)
        measured.evaluate()
        measured.accumulate()
        measured.summarize()
        # Against themselves all are found.
        assert measured.stats[0] == pytest.approx(1)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_run_lengths_are_those_of_pycocotools():
    masks = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    rng = np.random.default_rng(3)
    for shown in (rng.random((9, 7)) < 0.5, np.ones((3, 4), bool), np.zeros((3, 4), bool)):
        packed = masks.frPyObjects({"size": [*shown.shape], "counts": runs_of(shown)}, *shown.shape)
        assert np.array_equal(masks.decode(packed), shown)


def test_a_killed_call_goes_on_and_no_part_of_another_form_is_taken(
    detection, pictures, monkeypatch, capsys
):
    whole, asked = scoring.Scorer.row, []

    def dies_at_the_third(self, each):
        asked.append(each.name)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return whole(self, each)

    monkeypatch.setattr(scoring.Scorer, "row", dies_at_the_third)
    assert score(pictures, detection) == cli.EXIT_INTERRUPTED
    assert not (pictures / "answers.json").exists()
    assert score(pictures, detection) == 0
    assert "1 parts were there from before" in capsys.readouterr().out
    assert asked[3:] == ["below/b.jpg", "c.png"]
    before = (pictures / "answers.json").read_bytes()
    asked[:] = ["", ""]
    assert score(pictures, detection, "--overwrite", "--all-boxes") == cli.EXIT_INTERRUPTED
    assert (pictures / "answers.json").read_bytes() == before
    asked.clear()
    asked += [""] * 3
    assert score(pictures, detection, "--overwrite") == 0
    assert asked[3:] == ["a.png", BAD, "below/b.jpg", "c.png"]
    assert (pictures / "answers.json").read_bytes() == before


def test_what_has_no_place_is_refused_before_anything_is_asked(
    segmentation, detection, pictures, tmp_path, capsys
):
    golden = read_bundle(test_detection.GOLDEN / "bundle_schema_3.json", verify=False)
    classes = written(golden, b"never asked", tmp_path / "classes")
    for bundle, out, more, words in (
        (classes, "a.json", [], "(classification) has neither"),
        (segmentation, "a.json", ["--all-boxes"], "(segmentation) has no boxes"),
        (detection, "a.csv", ["--all-boxes"], "--all-boxes: is of answers.json"),
    ):
        before = sorted(pictures.iterdir())
        assert score(pictures, bundle, *more, out=out) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        assert words in said[0]
        assert sorted(pictures.iterdir()) == before
